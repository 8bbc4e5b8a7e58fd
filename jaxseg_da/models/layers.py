"""Convolutions shared by the networks, and where their options come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxseg_da.models import initializers, norm


class Options(NamedTuple):
  """What every layer of one network shares.

  Attributes:
    dtype: of convolutions and activations.
    param_dtype: of parameters and statistics.
    bn_axis: mapped axis that normalisation is synchronised over, or None.
    bn_group: neighbouring devices that share statistics; None for all.
  """

  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32
  bn_axis: str | None = None
  bn_group: int | None = None

  def batch_norm(self, name: str) -> norm.BatchNorm:
    """A normalisation layer with these options."""
    return norm.BatchNorm(
      self.bn_axis, self.bn_group, self.dtype, self.param_dtype, name=name
    )


class Conv(nn.Module):
  """A bias-free convolution with the same zero padding on every side.

  A 1x1 convolution is a matrix product over the last axis: the same numbers,
  and on CPU half the time of a convolution's gradient. Its stride is a slice.

  Attributes:
    features: output channels.
    size: kernel height and width.
    stride: of both axes.
    dilation: of both axes.
    padding: pixels on every side; None keeps the size at stride 1.
    init: initialiser of the kernel `[size, size, C_in, features]`.
    options: dtypes.
  """

  features: int
  size: int
  init: Callable
  stride: int = 1
  dilation: int = 1
  padding: int | None = None
  options: Options = Options()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Convolves `[B, H, W, C_in]`; output in `options.dtype`."""
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.init, shape, self.options.param_dtype)
    return convolve(
      x.astype(self.options.dtype),
      kernel.astype(self.options.dtype),
      self.stride,
      self.dilation,
      self.padding,
    )


class Classifier(nn.Module):
  """A 1x1 convolution with bias; its output is in float32 at least.

  Attributes:
    features: output channels.
    options: dtypes.
  """

  features: int
  options: Options

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, H, W, C_in]` to `[B, H, W, features]`."""
    o = self.options
    normal, zeros = initializers.normal(0.01), nn.initializers.zeros
    shape = (1, 1, x.shape[-1], self.features)
    kernel = self.param('kernel', normal, shape, o.param_dtype)
    bias = self.param('bias', zeros, shape[-1:], o.param_dtype)
    y = convolve(x.astype(o.dtype), kernel.astype(o.dtype))
    dtype = jnp.promote_types(o.dtype, jnp.float32)
    return y.astype(dtype) + bias.astype(dtype)


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  stride: int = 1,
  dilation: int = 1,
  padding: int | None = None,
) -> jax.Array:
  """Convolves `x` `[B, H, W, C]` with `kernel` `[k, k, C, O]`.

  `padding` zeros surround the image; by default as many as keep its size at
  stride 1. Output `[B, h, w, O]` in the dtype of the arguments.
  """
  size = kernel.shape[0]
  if size == 1 and not padding:
    return x[:, ::stride, ::stride] @ kernel[0, 0]
  if padding is None:
    padding = dilation * (size // 2)
  return lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=[(padding, padding)] * 2,
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
