from __future__ import annotations

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da.classes.labels import IGNORE
from jaxseg_da.data import transforms
from jaxseg_da.ops import scale_crop

SIZE, WINDOW = (20, 30), (14, 22)

_image = jax.jit(scale_crop.crop_image, static_argnums=3)
_labels = jax.jit(scale_crop.crop_labels, static_argnums=(3, 4))


def _pair():
  rng = np.random.default_rng(0)
  image = rng.normal(size=(*SIZE, 3)).astype(np.float32)
  return image, rng.integers(0, 19, SIZE, np.int32)


def _reference(array, tenths, corner, fill, scale):
  """Scales on the host, pads below and on the right, and cuts."""
  height, width = ((n * tenths + 5) // 10 for n in SIZE)
  scaled = scale(array, (height, width))
  rows, columns = max(WINDOW[0] - height, 0), max(WINDOW[1] - width, 0)
  pad = ((0, rows), (0, columns), *[(0, 0)] * (array.ndim - 2))
  padded = np.pad(scaled, pad, constant_values=fill)
  top, left = corner
  return padded[top : top + WINDOW[0], left : left + WINDOW[1]]


# Sizes are whole numbers at these scales, so OpenCV has no say in rounding.
@pytest.mark.parametrize(
  ('tenths', 'corner'),
  [(5, (0, 0)), (6, (0, 0)), (9, (4, 5)), (10, (3, 8)), (15, (16, 23))],
)
def test_windows_of_the_scaled_image(tenths, corner):
  image, label = _pair()
  found = _image(image, tenths, jnp.array(corner), WINDOW)
  linear = lambda x, size: cv2.resize(x, size[::-1])
  expected = _reference(image, tenths, corner, 0, linear)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, expected, atol=1e-5)
  found = _labels(label, tenths, jnp.array(corner), WINDOW, IGNORE)
  nearest = transforms.nearest
  expected = _reference(label, tenths, corner, IGNORE, nearest)
  np.testing.assert_array_equal(found, expected)
  if tenths == 10:  # Not even rounded.
    top, left = corner
    window = image[top : top + WINDOW[0], left : left + WINDOW[1]]
    found = _image(image, tenths, jnp.array(corner), WINDOW)
    np.testing.assert_array_equal(found, window)


def test_soft_labels_are_cut_like_hard_ones():
  _, label = _pair()
  soft = np.eye(19, dtype=np.float32)[label]
  corner = jnp.array((0, 0))
  found = np.asarray(_labels(soft, 6, corner, WINDOW, 0))
  hard = np.asarray(_labels(label, 6, corner, WINDOW, IGNORE))
  np.testing.assert_array_equal(found.sum(-1), hard != IGNORE)
  np.testing.assert_array_equal(
    found.argmax(-1)[hard != IGNORE], hard[:12, :18].ravel()
  )


def test_scales_and_corners_are_uniform():
  keys = jax.random.split(jax.random.key(0), 3000)
  tenths = np.asarray(jax.vmap(scale_crop.random_tenths)(keys))
  values, counts = np.unique(tenths, return_counts=True)
  np.testing.assert_array_equal(values, range(5, 16))
  assert counts.min() > 200
  draw = functools.partial(
    scale_crop.random_corner, size=SIZE, tenths=9, window=WINDOW
  )
  corners = np.asarray(jax.vmap(draw)(keys))
  # 18x27 after scaling: 5 rows and 6 columns to start from.
  for values, count in zip(corners.T, (5, 6), strict=True):
    found, counts = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(found, range(count))
    assert counts.min() > 400
  small = functools.partial(
    scale_crop.random_corner, size=SIZE, tenths=5, window=WINDOW
  )
  assert not np.any(jax.vmap(small)(keys[:20]))


def test_a_mining_window_shows_its_pixel():
  pixels = np.argwhere(np.ones(SIZE))
  around = jax.jit(
    jax.vmap(
      lambda p, t: scale_crop.corner_around(p, SIZE, t, WINDOW), (0, None)
    )
  )
  for tenths in range(5, 16):
    corners = np.asarray(around(pixels, tenths))
    inside = (2 * pixels + 1) * tenths // 20 - corners
    assert np.all(inside >= 0) and np.all(inside < WINDOW)
    scaled = np.asarray(scale_crop.scaled_size(SIZE, tenths))
    assert np.all(corners >= 0)
    assert np.all(corners <= np.maximum(scaled - WINDOW, 0))
  # In the middle where there is room: (25, 32) of 30x45 would start at 18.
  np.testing.assert_array_equal(around(np.array([[12, 15]]), 15), [[11, 12]])
  np.testing.assert_array_equal(around(np.array([[19, 15]]), 15), [[16, 12]])


@pytest.mark.parametrize(
  ('pixel', 'window', 'expected'),
  [
    ((10, 20), (4, 6), (8, 17)),
    ((0, 1), (4, 6), (0, 0)),
    ((19, 39), (4, 6), (16, 34)),
    ((10, 20), (5, 7), (8, 17)),
    ((19, 39), (5, 7), (15, 33)),
    ((3, 39), (20, 40), (0, 0)),
    ((3, 39), (1, 1), (3, 39)),
    ((19, 39), (30, 50), (0, 0)),
  ],
)
def test_mining_windows_of_an_unscaled_image(pixel, window, expected):
  found = scale_crop.corner_around(np.array(pixel), (20, 40), 10, window)
  np.testing.assert_array_equal(found, expected)


def test_classes_are_drawn_before_pixels():
  label = np.full((4, 5), 3)
  label[0, 1] = 7
  label[2, 3:] = label[3, 0] = 9
  label[1] = IGNORE
  classes = np.zeros(19, bool)
  classes[[5, 7, 9]] = True
  keys = jax.random.split(jax.random.key(1), 2000)
  pixels, found = jax.jit(
    jax.vmap(lambda k: scale_crop.random_pixel(k, label, classes))
  )(keys)
  assert np.all(found)
  places, counts = np.unique(np.asarray(pixels), axis=0, return_counts=True)
  np.testing.assert_array_equal(places, [[0, 1], [2, 3], [2, 4], [3, 0]])
  assert abs(counts[0] - 1000) < 100
  assert np.all(abs(counts[1:] - 333) < 80)


@pytest.mark.parametrize('shown', [IGNORE, 3])
def test_no_pixel_where_no_class_is_wanted(shown):
  label = np.full((4, 5), shown)
  classes = np.arange(19) == 4
  key = jax.random.key(0)
  pixel, found = scale_crop.random_pixel(key, label, classes)
  assert not found
  assert np.all((np.asarray(pixel) >= 0) & (np.asarray(pixel) < label.shape))
