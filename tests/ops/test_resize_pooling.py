from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from jaxseg_da import models
from jaxseg_da.ops import pooling, resize


def _column(values):
  return jnp.asarray(values, jnp.float32).reshape(1, -1, 1, 1)


def _values(y):
  return np.asarray(y).reshape(-1)


@pytest.mark.parametrize(
  ('values', 'size', 'expected'),
  [
    ([0, 3], 4, [0, 1, 2, 3]),
    ([0, 1, 2, 3, 4], 3, [0, 2, 4]),
    ([0, 10, 20], 4, [0, 20 / 3, 40 / 3, 20]),
    ([7], 3, [7, 7, 7]),
    ([4, 5, 6], 1, [4]),
    ([1, 2], 2, [1, 2]),
  ],
)
def test_align_corners_by_hand(values, size, expected):
  y = resize.align_corners(_column(values), (size, 1))
  np.testing.assert_allclose(_values(y), expected, rtol=1e-6)


@pytest.mark.parametrize(
  ('values', 'size', 'expected'),
  [
    ([0, 4], 4, [0, 1, 3, 4]),
    ([0, 1, 2, 3], 2, [0.5, 2.5]),
    # Two taps, no antialiasing: 8 -> 2 reads positions 1.5 and 5.5.
    ([0, 0, 8, 0, 0, 0, 8, 0], 2, [4, 4]),
    ([7], 3, [7, 7, 7]),
  ],
)
def test_half_pixel_by_hand(values, size, expected):
  y = resize.half_pixel(_column(values), (size, 1))
  np.testing.assert_allclose(_values(y), expected, rtol=1e-6)


@pytest.mark.parametrize('size', [(1, 1), (2, 9), (7, 3), (12, 5)])
def test_both_axes_are_resized_independently(size):
  x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
  y = resize.align_corners(jnp.asarray(x), size)
  expected = np.empty((2, *size, 3))
  rows = np.linspace(0, 4, size[0]) if size[0] > 1 else [0.0]
  columns = np.linspace(0, 3, size[1]) if size[1] > 1 else [0.0]
  for (i, r), (j, c) in itertools.product(enumerate(rows), enumerate(columns)):
    r0, c0 = min(int(r), 3), min(int(c), 2)
    a, b = r - r0, c - c0
    expected[:, i, j] = (
      (1 - a) * (1 - b) * x[:, r0, c0]
      + (1 - a) * b * x[:, r0, c0 + 1]
      + a * (1 - b) * x[:, r0 + 1, c0]
      + a * b * x[:, r0 + 1, c0 + 1]
    )
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('function', [resize.align_corners, resize.half_pixel])
def test_resize_gradient_and_dtype(function):
  with jax.enable_x64(True):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 3, 4, 2)))
    up = lambda x: function(x, (5, 3))
    assert up(x).dtype == jnp.float64
    test_util.check_grads(up, (x,), 2, ('fwd', 'rev'))
    # Constants stay: the weights of every output add up to 1 exactly enough.
    np.testing.assert_allclose(up(jnp.ones_like(x)), 1, rtol=1e-15)
  assert up(jnp.ones((1, 2, 2, 1), jnp.bfloat16)).dtype == jnp.bfloat16


def test_resize_rejects_bad_arguments():
  with pytest.raises(ValueError, match='floats'):
    resize.align_corners(jnp.zeros((1, 2, 2, 1), jnp.uint8), (4, 4))
  with pytest.raises(ValueError, match='B, H, W, C'):
    resize.half_pixel(jnp.zeros((2, 2, 1)), (4, 4))
  with pytest.raises(ValueError, match='at least'):
    resize.align_corners(jnp.zeros((1, 2, 2, 1)), (0, 4))


def test_upsample_is_float32_at_least():
  low = jnp.asarray([0, 1], jnp.bfloat16).reshape(1, 2, 1, 1)
  y = models.upsample(low, (513, 1))
  assert y.dtype == jnp.float32
  # Steps of 1/512 that bfloat16 could not hold.
  np.testing.assert_allclose(_values(y), np.arange(513) / 512, atol=1e-7)


@pytest.mark.parametrize(
  ('size', 'expected'),
  [(1, 1), (2, 2), (3, 2), (33, 17), (256, 129), (360, 181), (640, 321)],
)
def test_pool_sizes(size, expected):
  y = jax.eval_shape(pooling.max_pool_ceil, jnp.zeros((1, size, 4, 1)))
  assert y.shape == (1, expected, 3, 1)


def test_pool_by_hand():
  # Windows of [-3, -1, -2, -5] begin at -1, 1 and 3: padding never wins.
  x = _column([-3, -1, -2, -5])
  np.testing.assert_array_equal(_values(pooling.max_pool_ceil(x)), [-1, -1, -5])
  plane = jnp.arange(25.0).reshape(1, 5, 5, 1)
  np.testing.assert_array_equal(
    pooling.max_pool_ceil(plane)[0, ..., 0],
    [[6, 8, 9], [16, 18, 19], [21, 23, 24]],
  )


@pytest.mark.parametrize('size', [4, 5])
def test_pool_gradient(size):
  with jax.enable_x64(True):
    values = np.random.default_rng(2).permutation(size * 6)
    x = jnp.asarray(values.reshape(1, size, 3, 2), jnp.float64)
    loss = lambda x: jnp.sum(jnp.sin(pooling.max_pool_ceil(x)))
    test_util.check_grads(loss, (x,), 1, ('rev',))


def test_pool_rejects_integers():
  with pytest.raises(ValueError, match='floats'):
    pooling.max_pool_ceil(jnp.zeros((1, 4, 4, 1), jnp.int32))
