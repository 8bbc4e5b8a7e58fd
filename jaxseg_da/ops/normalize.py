"""The input conventions of pre-trained networks, by name.

`caffe_bgr`: channels reversed to BGR, range 0..255, minus the ImageNet means
of Caffe models, as the published DeepLab-V2 weights expect (Chen et al., arXiv
1606.00915). `imagenet_rgb`: RGB, 0..1, minus mean and divided by deviation of
ImageNet per channel, as torchvision's weights and CRST expect. `unit`: RGB,
scaled to -1..1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg_da import errors


class Convention(NamedTuple):
  """`(channels - mean) / scale` of values in 0..255.

  Attributes:
    reverse: whether the network sees BGR.
    mean: per channel, in the network's order.
    scale: divisor, one for all or one per channel.
  """

  reverse: bool
  mean: tuple[float, float, float]
  scale: float | tuple[float, float, float]


CONVENTIONS = {
  'caffe_bgr': Convention(True, (104.00698793, 116.66876762, 122.67891434), 1),
  'imagenet_rgb': Convention(
    False,
    (0.485 * 255, 0.456 * 255, 0.406 * 255),
    (0.229 * 255, 0.224 * 255, 0.225 * 255),
  ),
  'unit': Convention(False, (127.5, 127.5, 127.5), 127.5),
}


def _convention(name: str) -> Convention:
  if name not in CONVENTIONS:
    raise errors.unknown('input normalisation', name, CONVENTIONS)
  return CONVENTIONS[name]


def normalize(images: jax.Array, name: str, dtype=jnp.float32) -> jax.Array:
  """RGB images as a network wants them.

  Args:
    images: uint8 or float `[..., 3]`, RGB, 0..255.
    name: one of `CONVENTIONS`.
    dtype: of the result.

  Returns:
    `[..., 3]` in the network's channel order.

  Raises:
    UserError: `name` is unknown.
  """
  reverse, mean, scale = _convention(name)
  images = jnp.asarray(images).astype(dtype)
  images = images[..., ::-1] if reverse else images
  return (images - jnp.asarray(mean, dtype)) / jnp.asarray(scale, dtype)


def to_unit(images: jax.Array, name: str) -> jax.Array:
  """Normalised images to the range 0..1, in the network's channel order.

  Args:
    images: float `[..., 3]` from `normalize`.
    name: one of `CONVENTIONS`.

  Raises:
    UserError: `name` is unknown.
  """
  _, mean, scale = _convention(name)
  images = images * jnp.asarray(scale, images.dtype)
  return (images + jnp.asarray(mean, images.dtype)) / 255


def from_unit(images: jax.Array, name: str) -> jax.Array:
  """The inverse of `to_unit`.

  Args:
    images: float `[..., 3]`, 0..1, in the network's channel order.
    name: one of `CONVENTIONS`.

  Raises:
    UserError: `name` is unknown.
  """
  _, mean, scale = _convention(name)
  images = images * 255 - jnp.asarray(mean, images.dtype)
  return images / jnp.asarray(scale, images.dtype)
