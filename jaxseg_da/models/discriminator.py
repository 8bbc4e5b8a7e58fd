"""A fully convolutional discriminator of segmentation outputs.

Tsai et al., Learning to Adapt Structured Output Space for Semantic
Segmentation (CVPR 2018): five 4x4 convolutions of stride 2, one logit per 32 x
32 pixels, no normalisation. ADVENT (CVPR 2019) has the same.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg_da import errors
from jaxseg_da.models import base, initializers, layers

DEPTH = 5
SIZE, STRIDE, PADDING = 4, 2, 1  # n pixels become floor(n / 2)
MINIMUM = STRIDE**DEPTH  # pixels a side that leave one output
SLOPE = 0.2  # of the leaky ReLU below 0

_DEFAULT = layers.Options()


class Discriminator(nn.Module):
  """Convolutions `conv0` to `conv4`, with leaky ReLU between them.

  Attributes:
    width: channels of the first one; each further one doubles them, the last
      has one.
    options: dtypes.
  """

  width: int = 64
  options: layers.Options = _DEFAULT

  @nn.compact
  def __call__(self, maps: jax.Array, train: bool) -> dict[str, jax.Array]:
    """Logits of `maps` `[B, H, W, C]`: `[B, H // 32, W // 32, 1]`.

    They are in float32 at least.

    Raises:
      UserError: a side has less than 32 pixels, which leaves no output.
    """
    del train  # nothing differs
    height, width = maps.shape[1:3]
    if min(height, width) < MINIMUM:
      raise errors.UserError(
        f'the discriminator needs maps of at least {MINIMUM} x {MINIMUM} '
        f'pixels, not {height} x {width} (H x W); make data.source_size and '
        f'data.target_size, or their crops, larger'
      )
    x = maps
    for i in range(DEPTH):
      if i:
        x = nn.leaky_relu(x, SLOPE)
      features = self.width * 2**i if i < DEPTH - 1 else 1
      x = _Layer(features, self.options, name=f'conv{i}')(x)
    return {'logits': x}


class _Layer(nn.Module):
  """A 4x4 convolution of stride 2, padded by 1, with bias.

  Kernel and bias start as PyTorch's do, uniform in +-1 / sqrt(16 C_in). The
  sum with the bias is in float32 at least.
  """

  features: int
  options: layers.Options

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, H, W, C_in]` to `[B, H // 2, W // 2, features]`."""
    o = self.options
    shape = (SIZE, SIZE, x.shape[-1], self.features)
    uniform = initializers.uniform(1 / math.sqrt(math.prod(shape[:-1])))
    kernel = self.param('kernel', uniform, shape, o.param_dtype)
    bias = self.param('bias', uniform, shape[-1:], o.param_dtype)
    y = layers.convolve(
      x.astype(o.dtype), kernel.astype(o.dtype), STRIDE, padding=PADDING
    )
    dtype = jnp.promote_types(o.dtype, jnp.float32)
    return y.astype(dtype) + bias.astype(dtype)


def network(
  channels: int, width: int = 64, options: layers.Options = _DEFAULT
) -> base.Network:
  """A discriminator of maps with `channels` channels.

  The networks of a method are initialised with the same images: `init` takes
  batch and size from them, and the channels from here.

  Args:
    channels: C of the maps `[B, H, W, C]` that `apply` gets for images.
    width: channels of the first layer, 64 in the papers.
    options: dtypes.

  Returns:
    A network with the single output `logits` `[B, H // 32, W // 32, 1]`.
  """
  inner = base.from_linen(Discriminator(width, options))

  def init(key, images):
    shape = (*images.shape[:-1], channels)
    return inner.init(key, jax.ShapeDtypeStruct(shape, images.dtype))

  return dataclasses.replace(inner, init=init)
