"""A small segmentation network for street scenes on CPUs, made from scratch.

Residual 3x3 blocks at output stride 8 with dilations up to 8, so that every
output sees a 96x192 image whole, and one skip connection from stride 4, where
logits are computed. No global pooling branch: what it would learn about the
layout of one domain does not carry over to another.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import linen as nn

from jaxseg_da.models import initializers, layers
from jaxseg_da.ops import resize

DILATIONS = (1, 2, 4, 8)


class Unit(nn.Module):
  """Convolution without bias, normalisation, and ReLU if asked for."""

  features: int
  size: int
  options: layers.Options
  stride: int = 1
  dilation: int = 1
  relu: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """`[B, H, W, C]` to `[B, h, w, features]`."""
    x = layers.Conv(
      self.features,
      self.size,
      initializers.he,
      self.stride,
      self.dilation,
      options=self.options,
      name='conv',
    )(x)
    x = self.options.batch_norm('bn')(x, train)
    return nn.relu(x) if self.relu else x


class Block(nn.Module):
  """Two dilated 3x3 convolutions; residual."""

  dilation: int
  options: layers.Options

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Keeps the shape `[B, h, w, C]`."""
    o, d, width = self.options, self.dilation, x.shape[-1]
    y = Unit(width, 3, o, dilation=d, name='unit1')(x, train)
    y = Unit(width, 3, o, dilation=d, relu=False, name='unit2')(y, train)
    return nn.relu(x + y)


class Backbone(nn.Module):
  """Three strided convolutions, then `dilations` blocks at stride 8."""

  width: int
  dilations: Sequence[int]
  options: layers.Options

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Features at stride 4 and stride 8 of images `[B, H, W, 3]`."""
    o, width = self.options, self.width
    x = Unit(width // 4, 3, o, stride=2, name='stem1')(x, train)
    fine = Unit(width // 2, 3, o, stride=2, name='stem2')(x, train)
    x = Unit(width, 3, o, stride=2, name='stem3')(fine, train)
    for i, dilation in enumerate(self.dilations):
      x = Block(dilation, o, name=f'block{i}')(x, train)
    return fine, x


class Head(nn.Module):
  """Merges both strides and classifies at stride 4."""

  num_classes: int
  options: layers.Options

  @nn.compact
  def __call__(
    self, fine: jax.Array, coarse: jax.Array, train: bool
  ) -> jax.Array:
    """Logits `[B, H/4, W/4, C]` of features at strides 4 and 8."""
    o, width = self.options, fine.shape[-1]
    coarse = Unit(width, 1, o, relu=False, name='coarse')(coarse, train)
    fine = Unit(width, 1, o, relu=False, name='fine')(fine, train)
    coarse = resize.align_corners(coarse, fine.shape[1:3])
    x = Unit(width, 3, o, name='merge')(nn.relu(coarse + fine), train)
    return layers.Classifier(self.num_classes, o, name='logits')(x)


class Street(nn.Module):
  """Backbone `backbone`, head `classifier`; logits at output stride 4.

  Attributes:
    num_classes: channels of the logits.
    width: channels at stride 8, a multiple of 4; strides 2 and 4 have a
      quarter and half as many. 96 gives 0.75 million parameters.
    dilations: one block each.
    options: dtypes and normalisation axis.
  """

  num_classes: int
  width: int = 96
  dilations: Sequence[int] = DILATIONS
  options: layers.Options = layers.Options()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> dict[str, jax.Array]:
    """Logits and stride-8 features of normalised `images` `[B, H, W, 3]`."""
    fine, coarse = Backbone(
      self.width, self.dilations, self.options, name='backbone'
    )(images, train)
    logits = Head(self.num_classes, self.options, name='classifier')(
      fine, coarse, train
    )
    return {'logits': logits, 'features': coarse}
