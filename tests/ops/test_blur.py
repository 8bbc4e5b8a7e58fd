from __future__ import annotations

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da.ops import blur


def noise(height: int, width: int, dtype=np.float64) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (height, width, 3)).astype(dtype)


def blurred(image, sigma, largest=None) -> np.ndarray:
  """One image, with the taps of the largest sigma."""
  taps = [blur.opencv_taps(largest or sigma, n) for n in image.shape[:2]]
  return np.asarray(blur.gaussian_blur(image[None], sigma, tuple(taps))[0])


@pytest.mark.parametrize(
  ('sigma', 'taps'), [(0.0, 1), (0.3, 3), (1.0, 7), (3.344, 21), (5.0, 31)]
)
def test_taps_are_those_of_opencv(sigma, taps):
  assert blur.opencv_taps(sigma, 64) == taps
  if not sigma:
    return
  image = noise(40, 48, np.uint8)
  automatic = cv2.GaussianBlur(image, (0, 0), sigma)
  same = lambda n: (cv2.GaussianBlur(image, (n, n), sigma) == automatic).all()
  # Two taps more or less may vanish in the rounding, not both.
  assert same(taps) and not (same(taps - 2) and same(taps + 2))


@pytest.mark.parametrize('sigma', (0.3, 1.0, 2.5, 5.0))
@pytest.mark.parametrize(
  ('largest', 'shape'), [(None, (32, 40)), (5.0, (16, 48)), (5.0, (8, 12))]
)
def test_blur_is_that_of_opencv(sigma, largest, shape):
  """Also of images that are smaller than the 31 taps of sigma 5."""
  taps = [blur.opencv_taps(largest or sigma, n) for n in shape]
  assert all(n % 2 and n // 2 < size for n, size in zip(taps, shape, strict=1))
  with jax.enable_x64(True):
    image = noise(*shape)
    expected = cv2.GaussianBlur(image, tuple(taps[::-1]), sigma)
    found = blurred(image, sigma, largest)
    np.testing.assert_allclose(found, expected, atol=1e-9)
  single = blurred(image.astype(np.float32), sigma, largest)
  np.testing.assert_allclose(single, expected, atol=2e-4)


def test_an_impulse_by_hand():
  sigma = (2 * np.log(2)) ** -0.5  # the neighbour weighs half
  for at, expected in ((2, [0, 2, 4, 2, 0]), (1, [4, 4, 2, 0, 0])):
    row = np.zeros((1, 1, 5, 1), np.float32)
    row[..., at, :] = 8
    found = blur.gaussian_blur(row, sigma, (1, 3))
    np.testing.assert_allclose(found[0, 0, :, 0], expected, atol=1e-6)


@pytest.mark.parametrize('dtype', (np.float32, np.float64))
def test_sigma_zero_gives_the_image_back(dtype):
  with jax.enable_x64(dtype is np.float64):
    images = np.stack([noise(17, 21, dtype) + dtype(1 / 3)] * 4)
    sigma = jnp.array([0.0, 1e-30, 0.009, 2.0], dtype)
    compiled = jax.jit(lambda x, s: blur.gaussian_blur(x, s, (13, 13)))
    found = compiled(images, sigma)
    assert found.dtype == dtype and np.isfinite(found).all()
    np.testing.assert_array_equal(found[:3], images[:3])
    assert abs(found[3] - images[3]).max() > 1


def test_kernels_as_long_as_the_largest_change_little():
  """OpenCV sizes each kernel for its own sigma: less than a grey level."""
  with jax.enable_x64(True):
    image = noise(64, 64)
    for sigma in (0.5, 1.0, 2.0, 4.0):
      apart = blurred(image, sigma, largest=5.0) - blurred(image, sigma)
      assert abs(apart).max() < 0.2
