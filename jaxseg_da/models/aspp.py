"""The DeepLab-V2 classifier: parallel dilated convolutions, summed.

Chen et al., arXiv 1606.00915, section 3.2 (ASPP-L). Published checkpoints hold
four branches, but several code bases return after summing two of them; their
numbers, and their weights, only hold with those two.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg_da.models import initializers, layers

DILATIONS = (6, 12, 18, 24)


class ASPP(nn.Module):
  """Sum of 3x3 convolutions with bias at dilations 6, 12, 18 and 24.

  Parameters `conv0` to `conv3` exist whatever `branches` is; those left out of
  the sum get a zero gradient.

  Attributes:
    num_classes: output channels.
    branches: how many are summed, 2 or 4.
    options: dtypes. The sum is in float32 at least.
  """

  num_classes: int
  branches: int
  options: layers.Options

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """`[B, h, w, C]` features to `[B, h, w, num_classes]` logits."""
    o = self.options
    logits_dtype = jnp.promote_types(o.dtype, jnp.float32)
    x = x.astype(o.dtype)
    total = jnp.zeros((), logits_dtype)
    for i, dilation in enumerate(DILATIONS):
      kernel, bias = _Branch(self.num_classes, o.param_dtype, name=f'conv{i}')(
        x.shape[-1]
      )
      if i < self.branches:
        y = layers.convolve(x, kernel.astype(o.dtype), dilation=dilation)
        total = total + y.astype(logits_dtype) + bias.astype(logits_dtype)
    return total


class _Branch(nn.Module):
  """The parameters of one branch."""

  features: int
  param_dtype: jnp.dtype

  @nn.compact
  def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
    kernel = self.param(
      'kernel',
      initializers.normal(0.01),
      (3, 3, channels, self.features),
      self.param_dtype,
    )
    bias = self.param(
      'bias',
      initializers.uniform(1 / math.sqrt(9 * channels)),
      (self.features,),
      self.param_dtype,
    )
    return kernel, bias
