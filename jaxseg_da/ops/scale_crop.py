"""Random scale and crop of one example, on the device.

Zou et al., CBST (ECCV 2018) and CRST (ICCV 2019). An image is scaled by f, a
whole number of tenths, and a window of it taken; what lies beyond its lower and
right border is filled. Scaling and cutting are one gather of the window's
pixels, so shapes are static although f is random. Sample positions are worked
out in integers: the same on every machine, and f = 1 copies pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

TENTHS = (5, 15)  # f from 0.5 to 1.5


def scaled_size(size: Sequence[int], tenths: jax.Array) -> jax.Array:
  """Size of a scaled image, i32 `[2]`, halves rounded up.

  Args:
    size: (height, width).
    tenths: i32 scalar, ten times f.
  """
  return (jnp.asarray(size, jnp.int32) * tenths + 5) // 10


def random_tenths(key: jax.Array) -> jax.Array:
  """Ten times a random f, i32 scalar, uniform in `TENTHS`, ends included."""
  low, high = TENTHS
  return jax.random.randint(key, (), low, high + 1, jnp.int32)


def random_corner(
  key: jax.Array,
  size: Sequence[int],
  tenths: jax.Array,
  window: Sequence[int],
) -> jax.Array:
  """A uniform position of the window inside the scaled image.

  Args:
    key: of the draw.
    size: (height, width) of the image.
    tenths: ten times f.
    window: (height, width) of the window.

  Returns:
    i32 `[2]`, (top, left) in the scaled image; 0 where that is no larger than
    the window.
  """
  rest = _rest(size, tenths, window)
  return jax.random.randint(key, (2,), 0, rest + 1, jnp.int32)


def corner_around(
  pixel: jax.Array,
  size: Sequence[int],
  tenths: jax.Array,
  window: Sequence[int],
) -> jax.Array:
  """The window with a pixel in its middle, moved into the scaled image.

  Args:
    pixel: i32 `[2]`, (row, column) in the image before it is scaled.
    size: (height, width) of the image.
    tenths: ten times f.
    window: (height, width) of the window.

  Returns:
    i32 `[2]`, (top, left) in the scaled image.
  """
  centre = (2 * pixel + 1) * tenths // 20
  middle = jnp.asarray(window, jnp.int32) // 2
  return jnp.clip(centre - middle, 0, _rest(size, tenths, window))


def _rest(size, tenths, window) -> jax.Array:
  """How far a window can move; 0 where it is not smaller."""
  rest = scaled_size(size, tenths) - jnp.asarray(window, jnp.int32)
  return jnp.maximum(rest, 0)


def crop_image(
  image: jax.Array,
  tenths: jax.Array,
  corner: jax.Array,
  window: Sequence[int],
) -> jax.Array:
  """A window of the scaled image: bilinear, half-pixel centres, else 0.

  Two taps also when shrinking, as OpenCV's bilinear resize.

  Args:
    image: float `[H, W, C]`, normalised: 0 is the mean colour.
    tenths: ten times f.
    corner: i32 `[2]`, (top, left) in the scaled image.
    window: (height, width) of the window.

  Returns:
    `[h, w, C]` in the dtype of `image`.
  """
  inside = _inside(image.shape[:2], tenths, corner, window)
  # Output i samples (i + 1/2) / f - 1/2, here in units of 1 / (2 * tenths).
  for axis, length in enumerate(window):
    last = image.shape[axis] - 1
    places = 20 * (corner[axis] + jnp.arange(length)) + 10 - tenths
    places = jnp.clip(places, 0, 2 * tenths * last)
    low = places // (2 * tenths)
    part = (places % (2 * tenths)).astype(image.dtype) / (2 * tenths)
    part = jnp.expand_dims(part, [a for a in range(3) if a != axis])
    first = jnp.take(image, low, axis)
    second = jnp.take(image, jnp.minimum(low + 1, last), axis)
    image = first * (1 - part) + second * part
  return jnp.where(inside[..., None], image, 0)


def crop_labels(
  labels: jax.Array,
  tenths: jax.Array,
  corner: jax.Array,
  window: Sequence[int],
  fill: int,
) -> jax.Array:
  """The same window of a map of labels, by the nearest pixel centre.

  Args:
    labels: `[H, W, ...]`; soft labels have their classes last.
    tenths: ten times f.
    corner: i32 `[2]`, (top, left) in the scaled map.
    window: (height, width) of the window.
    fill: value beyond the border.

  Returns:
    `[h, w, ...]` in the dtype of `labels`.
  """
  inside = _inside(labels.shape[:2], tenths, corner, window)
  for axis, length in enumerate(window):
    last = labels.shape[axis] - 1
    places = (10 * (corner[axis] + jnp.arange(length)) + 5) // tenths
    labels = jnp.take(labels, jnp.minimum(places, last), axis)
  inside = inside.reshape(*inside.shape, *[1] * (labels.ndim - 2))
  return jnp.where(inside, labels, jnp.asarray(fill, labels.dtype))


def _inside(size, tenths, corner, window) -> jax.Array:
  """Which pixels of the window the scaled image has, bool `[h, w]`."""
  height, width = scaled_size(size, tenths) - corner
  rows, columns = (jnp.arange(length) for length in window)
  return (rows < height)[:, None] & (columns < width)


def random_pixel(
  key: jax.Array, labels: jax.Array, classes: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """A random pixel of a random class: first the class, then the pixel.

  Args:
    key: of the draw.
    labels: int `[H, W]`.
    classes: bool `[K]`, those to choose from, if the map shows them.

  Returns:
    (row, column), i32 `[2]`, and whether there is such a class.
  """
  index = jnp.arange(len(classes))
  shown = jnp.any(labels[..., None] == index, axis=(0, 1)) & classes
  key_class, key_pixel = jax.random.split(key)
  chosen = _random_true(key_class, shown)
  hits = labels == chosen
  # Rows first, by their numbers of pixels: no sum over the whole image.
  row_ends = jnp.cumsum(jnp.sum(hits, axis=1, dtype=jnp.int32))
  number = _below(key_pixel, row_ends[-1])
  row = jnp.searchsorted(row_ends, number, side='right')
  row = jnp.minimum(row, len(row_ends) - 1)
  ends = jnp.cumsum(hits[row], dtype=jnp.int32)
  number -= row_ends[row] - ends[-1]
  column = jnp.searchsorted(ends, number, side='right')
  column = jnp.minimum(column, len(ends) - 1)
  return jnp.stack([row, column]).astype(jnp.int32), jnp.any(shown)


def _random_true(key: jax.Array, mask: jax.Array) -> jax.Array:
  """The position of a random true element of a `[K]`."""
  ends = jnp.cumsum(mask, dtype=jnp.int32)
  return jnp.searchsorted(ends, _below(key, ends[-1]), side='right')


def _below(key: jax.Array, count: jax.Array) -> jax.Array:
  """A uniform number in 0 .. count - 1, and 0 where count is 0."""
  return jax.random.randint(key, (), 0, jnp.maximum(count, 1), jnp.int32)
