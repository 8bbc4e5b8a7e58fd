"""Colour jitter in the semantics of kornia 0.4.1, which DACS used.

Brightness is additive, contrast a plain factor, saturation and hue act in HSV,
where hue is in radians, 0..2*pi. Channels are called RGB here; a network that
sees BGR is jittered in BGR, so its colour wheel is swapped (DACS's code).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
EPSILON = 1e-31
_TURN = 2 * math.pi


class Factors(NamedTuple):
  """Factors of a colour jitter, each a scalar or `[B]`.

  Attributes:
    brightness: `factor - 1` is added.
    contrast: multiplies the values.
    saturation: multiplies the saturation.
    hue: added to the hue, in turns.
  """

  brightness: jax.Array | float
  contrast: jax.Array | float
  saturation: jax.Array | float
  hue: jax.Array | float


def rgb_to_hsv(images: jax.Array, epsilon: float = EPSILON) -> jax.Array:
  """RGB to hue (radians), saturation, value.

  Args:
    images: float `[..., 3]`, RGB, 0..1.
    epsilon: added to the value in `(max - min) / (value + epsilon)`: 1e-31 in
      kornia 0.4.1, 1e-6 in 0.5.8.

  Returns:
    `[..., 3]`: hue in `[0, 2*pi)`, 0 for grey; saturation and value in 0..1.
  """
  return jnp.stack(_to_hsv(_planes(images), epsilon), axis=-1)


def hsv_to_rgb(images: jax.Array) -> jax.Array:
  """Hue (radians, any turn), saturation, value `[..., 3]` to RGB `[..., 3]`."""
  return jnp.stack(_to_rgb(_planes(images)), axis=-1)


def _planes(images):
  return images[..., 0], images[..., 1], images[..., 2]


def _to_hsv(planes, epsilon):
  red, green, blue = planes
  value = jnp.maximum(jnp.maximum(red, green), blue)
  spread = value - jnp.minimum(jnp.minimum(red, green), blue)
  chroma = jnp.where(spread == 0, 1, spread)
  sextant = jnp.where(
    red == value,
    green - blue,
    jnp.where(
      green == value,
      2 * chroma + (blue - red),
      4 * chroma + (red - green),
    ),
  )
  hue = _TURN * jnp.mod(sextant / chroma / 6, 1)
  return hue, spread / (value + epsilon), value


def _to_rgb(planes):
  hue, saturation, value = planes
  sextant = hue * (6 / _TURN)
  chroma = saturation * value

  def channel(start):
    phase = jnp.mod(sextant + start, 6)
    return value - chroma * jnp.clip(jnp.minimum(phase, 4 - phase), 0, 1)

  return channel(5), channel(3), channel(1)


def _column(factor, images):
  """A factor, scalar or `[B]`, as `[B, 1, 1]` in the images' dtype."""
  factor = jnp.asarray(factor, images.dtype)
  return jnp.broadcast_to(factor, images.shape[:1])[:, None, None]


def _affine(planes, scale, shift):
  return tuple(jnp.clip(plane * scale + shift, 0, 1) for plane in planes)


def _hsv(planes, scale, turns, epsilon):
  hue, saturation, value = _to_hsv(planes, epsilon)
  saturation = jnp.clip(saturation * scale, 0, 1)
  return _to_rgb((hue + _TURN * turns, saturation, value))


def _check(images):
  if images.ndim != 4 or images.shape[-1] != 3:
    raise ValueError(f'images have to be [B, H, W, 3], not {images.shape}')
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(f'images have to be float in 0..1, not {images.dtype}')


def adjust_brightness(images: jax.Array, factor) -> jax.Array:
  """`clip(x + factor - 1, 0, 1)`; `[B, H, W, 3]`, factor scalar or `[B]`."""
  _check(images)
  planes = _affine(_planes(images), 1, _column(factor, images) - 1)
  return jnp.stack(planes, axis=-1)


def adjust_contrast(images: jax.Array, factor) -> jax.Array:
  """`clip(x * factor, 0, 1)`; `[B, H, W, 3]`, factor scalar or `[B]`."""
  _check(images)
  planes = _affine(_planes(images), _column(factor, images), 0)
  return jnp.stack(planes, axis=-1)


def adjust_saturation(
  images: jax.Array, factor, epsilon: float = EPSILON
) -> jax.Array:
  """HSV saturation times `factor`, clipped to 0..1; `[B, H, W, 3]`."""
  _check(images)
  planes = _hsv(_planes(images), _column(factor, images), 0, epsilon)
  return jnp.stack(planes, axis=-1)


def adjust_hue(images: jax.Array, turns, epsilon: float = EPSILON) -> jax.Array:
  """HSV hue plus `turns` full turns; `[B, H, W, 3]`, scalar or `[B]`."""
  _check(images)
  planes = _hsv(_planes(images), 1, _column(turns, images), epsilon)
  return jnp.stack(planes, axis=-1)


def color_jitter(
  images: jax.Array,
  factors: Factors,
  order: jax.Array,
  epsilon: float = EPSILON,
) -> jax.Array:
  """The four adjustments, one after the other in a given order.

  The order may be traced and differ between images without a branch: in every
  order two HSV steps have up to two affine steps before, between and after
  them, and those that an order does not use are deselected.

  Args:
    images: float `[B, H, W, 3]`, 0..1.
    factors: of the adjustments, each a scalar or `[B]`.
    order: int `[4]` or `[B, 4]`, a permutation of `BRIGHTNESS, CONTRAST,
      SATURATION, HUE`: what comes first, second, ...
    epsilon: see `rgb_to_hsv`.

  Returns:
    `[B, H, W, 3]`, dtype of `images`.

  Raises:
    ValueError: shapes or dtypes are not as above.
  """
  _check(images)
  order = jnp.asarray(order)
  if order.shape not in ((4,), (len(images), 4)):
    raise ValueError(f'order has to be [4] or [B, 4], not {order.shape}')
  order = jnp.broadcast_to(order, (len(images), 4))
  place = jnp.argsort(order, axis=1)[..., None, None]  # of each adjustment
  brightness, contrast, saturation, turns = (
    _column(factor, images) for factor in factors
  )

  brighten_first = place[:, BRIGHTNESS] < place[:, CONTRAST]
  affine = [
    (
      jnp.where(now, place[:, BRIGHTNESS], place[:, CONTRAST]),
      jnp.where(now, 1, contrast),
      jnp.where(now, brightness - 1, 0),
    )
    for now in (brighten_first, ~brighten_first)
  ]
  saturate_first = place[:, SATURATION] < place[:, HUE]
  hsv = [
    (
      jnp.where(now, place[:, SATURATION], place[:, HUE]),
      jnp.where(now, saturation, 1),
      jnp.where(now, 0, turns),
    )
    for now in (saturate_first, ~saturate_first)
  ]

  planes = _planes(images)
  start = -1
  for step in hsv + [None]:
    stop = step[0] if step else 4
    for at, scale, shift in affine:
      changed = _affine(planes, scale, shift)
      here = (start < at) & (at < stop)
      planes = tuple(
        jnp.where(here, new, old)
        for new, old in zip(changed, planes, strict=True)
      )
    if step:
      _, scale, turn = step
      planes = _hsv(planes, scale, turn, epsilon)
    start = stop
  return jnp.stack(planes, axis=-1)


def random_factors(
  keys: jax.Array, strength: float
) -> tuple[Factors, jax.Array]:
  """Draws the factors and the order of a jitter per image.

  Brightness, contrast and saturation are uniform in `1 - strength` to
  `1 + strength`, hue in `-strength` to `strength` turns; the draws are float32
  whatever the precision of the run is.

  Args:
    keys: `[B]`, one per image.
    strength: 0.25 in DACS, 0.2 in DAFormer.

  Returns:
    factors, each `[B]`; order, int `[B, 4]`.
  """

  def draw(key):
    factors, order = jax.random.split(key)
    offsets = jax.random.uniform(
      factors, (4,), jnp.float32, -strength, strength
    )
    return offsets, jax.random.permutation(order, 4)

  offsets, order = jax.vmap(draw)(keys)
  one = offsets + 1
  return Factors(one[:, 0], one[:, 1], one[:, 2], offsets[:, 3]), order


def random_color_jitter(
  keys: jax.Array,
  images: jax.Array,
  strength: float,
  epsilon: float = EPSILON,
) -> jax.Array:
  """`color_jitter` with factors and orders drawn per image.

  Args:
    keys: `[B]`, one per image.
    images: float `[B, H, W, 3]`, 0..1.
    strength: see `random_factors`.
    epsilon: see `rgb_to_hsv`.

  Returns:
    `[B, H, W, 3]`, dtype of `images`.
  """
  factors, order = random_factors(keys, strength)
  return color_jitter(images, factors, order, epsilon)


def gate(
  draw: jax.Array | float,
  threshold: float,
  transform: Callable[[jax.Array], jax.Array],
  images: jax.Array,
) -> jax.Array:
  """`transform(images)` if `draw > threshold`, else `images` as they are.

  DACS draws one number in 0..1 per iteration and augmentation, for all images
  of the batch: jitter above 0.2, blur above 0.5.
  """
  return lax.cond(draw > threshold, transform, lambda same: same, images)
