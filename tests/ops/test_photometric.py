from __future__ import annotations

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.ops import blur, normalize, photometric

KEY = jax.random.key(5)
IMAGES = jax.random.uniform(KEY, (3, 4, 5, 3))


def _pixels(*rgb):
  return jnp.array(rgb, jnp.float32).reshape(1, 1, -1, 3)


def test_hsv_is_that_of_the_standard_library():
  rgb = np.array(list(itertools.product([0, 0.25, 0.5, 1], repeat=3)))
  expected = np.array([colorsys.rgb_to_hsv(*p) for p in rgb])
  expected[:, 0] *= 2 * np.pi
  hsv = photometric.rgb_to_hsv(jnp.asarray(rgb, jnp.float32))
  np.testing.assert_allclose(hsv, expected, atol=1e-6)
  np.testing.assert_allclose(photometric.hsv_to_rgb(hsv), rgb, atol=1e-6)


def test_hue_may_be_any_turn():
  hsv = photometric.rgb_to_hsv(IMAGES)
  for turns in (-1, 1):
    turned = hsv.at[..., 0].add(turns * 2 * np.pi)
    np.testing.assert_allclose(
      photometric.hsv_to_rgb(turned), IMAGES, atol=2e-6
    )


def test_epsilon_of_the_saturation():
  dark = _pixels((1e-6, 0, 0), (0, 0, 0))
  default = photometric.rgb_to_hsv(dark)[0, 0, :, 1]
  later = photometric.rgb_to_hsv(dark, 1e-6)[0, 0, :, 1]
  np.testing.assert_allclose(default, [1, 0], rtol=1e-6)
  np.testing.assert_allclose(later, [0.5, 0], rtol=1e-6)


def test_adjustments_by_hand():
  x = _pixels((0.2, 0.4, 0.9), (0.5, 0.5, 0.5))
  adjusted = photometric.adjust_brightness(x, 1.25)
  expected = _pixels((0.45, 0.65, 1), (0.75, 0.75, 0.75))
  np.testing.assert_allclose(adjusted, expected, atol=1e-6)
  adjusted = photometric.adjust_contrast(x, 1.5)
  expected = _pixels((0.3, 0.6, 1), (0.75, 0.75, 0.75))
  np.testing.assert_allclose(adjusted, expected, atol=1e-6)
  # Half the saturation: half the distance to the largest channel.
  adjusted = photometric.adjust_saturation(x, 0.5)
  expected = _pixels((0.55, 0.65, 0.9), (0.5, 0.5, 0.5))
  np.testing.assert_allclose(adjusted, expected, atol=1e-6)
  # A third of a turn: red becomes green; grey stays.
  adjusted = photometric.adjust_hue(x, 1 / 3)
  expected = _pixels((0.9, 0.2, 0.4), (0.5, 0.5, 0.5))
  np.testing.assert_allclose(adjusted, expected, atol=1e-6)


def test_saturation_is_clipped():
  x = _pixels((0.2, 0.4, 0.8))
  adjusted = photometric.adjust_saturation(x, 5.0)
  np.testing.assert_allclose(adjusted, _pixels((0, 4 / 15, 0.8)), atol=1e-6)


def test_jitter_is_the_adjustments_in_any_order_per_image():
  adjust = (
    photometric.adjust_brightness,
    photometric.adjust_contrast,
    photometric.adjust_saturation,
    photometric.adjust_hue,
  )
  orders = jnp.array(list(itertools.permutations(range(4))))
  images = jnp.tile(IMAGES[:1], (24, 1, 1, 1))
  # Strong enough that clipping makes every order another result.
  factors = photometric.Factors(1.4, 1.5, jnp.linspace(0.5, 1.8, 24), -0.2)
  jittered = jax.jit(photometric.color_jitter)(images, factors, orders)
  expected = []
  for i, order in enumerate(np.asarray(orders)):
    image = images[i : i + 1]
    for op in order:
      factor = jnp.broadcast_to(jnp.asarray(factors[op]), 24)[i]
      image = adjust[op](image, factor)
    expected.append(image[0])
  np.testing.assert_allclose(jittered, jnp.stack(expected), atol=3e-6)
  assert float(jnp.abs(jittered[0] - jittered[-1]).max()) > 0.05


def test_neutral_jitter_changes_nothing():
  factors = photometric.Factors(1, 1, 1, 0)
  same = photometric.color_jitter(IMAGES, factors, jnp.array([2, 0, 3, 1]))
  np.testing.assert_allclose(same, IMAGES, atol=2e-6)


def test_drawn_factors():
  keys = jax.random.split(KEY, 2000)
  factors, order = photometric.random_factors(keys, 0.25)
  for values, middle in zip(factors, (1, 1, 1, 0), strict=True):
    low, high = middle - 0.25, middle + 0.25
    assert low <= values.min() < low + 0.01
    assert high - 0.01 < values.max() <= high
    np.testing.assert_allclose(values.mean(), middle, atol=0.015)
  assert len(np.unique(order, axis=0)) == 24
  np.testing.assert_array_equal(np.sort(order, axis=1), [[0, 1, 2, 3]] * 2000)
  correlation = np.corrcoef(np.stack(factors)) - np.eye(4)
  assert np.abs(correlation).max() < 0.1


def test_draws_belong_to_their_image_and_not_to_the_precision():
  keys = jax.random.split(KEY, 3)
  jittered = photometric.random_color_jitter(keys, IMAGES, 0.25)
  alone = photometric.random_color_jitter(keys[1:2], IMAGES[1:2], 0.25)
  np.testing.assert_allclose(jittered[1:2], alone, atol=1e-6)
  with jax.enable_x64(True):
    double = photometric.random_color_jitter(
      keys, IMAGES.astype(jnp.float64), 0.25
    )
    assert double.dtype == jnp.float64
  np.testing.assert_allclose(double, jittered, atol=1e-5)


def test_gate():
  halve = lambda x: x / 2
  gated = jax.jit(lambda u: photometric.gate(u, 0.2, halve, IMAGES))
  np.testing.assert_array_equal(gated(jnp.float32(0.2)), IMAGES)
  np.testing.assert_array_equal(gated(jnp.float32(0.21)), IMAGES / 2)


def test_images_are_checked():
  with pytest.raises(ValueError, match='uint8'):
    photometric.adjust_hue(jnp.zeros((1, 2, 2, 3), jnp.uint8), 0.1)
  with pytest.raises(ValueError, match=r'\[B, H, W, 3\]'):
    photometric.adjust_contrast(IMAGES[0], 2)
  with pytest.raises(ValueError, match='order'):
    photometric.color_jitter(
      IMAGES, photometric.Factors(1, 1, 1, 0), jnp.zeros((2, 4), int)
    )


def test_kernel_sizes():
  sizes = {512: 51, 64: 7, 40: 3, 90: 9, 96: 9, 192: 19, 10: 1}
  assert {n: blur.kernel_size(n) for n in sizes} == sizes


def test_blur_is_a_padded_convolution():
  with jax.enable_x64(True):
    x = jax.random.uniform(KEY, (2, 6, 9, 2), jnp.float64)
    sigma = np.array([0.7, 2.5])
    taps = (5, 11)
    blurred = jax.jit(lambda x, s: blur.gaussian_blur(x, s, taps))(x, sigma)
    expected = np.asarray(x)
    for axis, count in ((1, 5), (2, 11)):
      at = np.arange(count) - count // 2
      kernels = np.exp(-(at**2) / (2 * sigma[:, None] ** 2))
      kernels /= kernels.sum(axis=1, keepdims=True)
      width = [(0, 0)] * 4
      width[axis] = (count // 2, count // 2)
      padded = np.pad(expected, width, mode='reflect')
      size = expected.shape[axis]
      expected = sum(
        kernels[:, t, None, None, None]
        * np.take(padded, np.arange(t, t + size), axis)
        for t in range(count)
      )
    np.testing.assert_allclose(blurred, expected, rtol=1e-12)


def test_blur_checks_its_arguments():
  with pytest.raises(ValueError, match='4 taps'):
    blur.gaussian_blur(IMAGES, 1.0, (4, 3))
  with pytest.raises(ValueError, match='11 taps do not fit 5'):
    blur.gaussian_blur(IMAGES, 1.0, (1, 11))
  with pytest.raises(ValueError, match='uint8'):
    blur.gaussian_blur(IMAGES.astype(jnp.uint8), 1.0)


def test_normalisations_by_hand():
  images = jnp.array([[0, 128, 255]], jnp.uint8)  # R, G, B
  caffe = normalize.normalize(images, 'caffe_bgr')
  expected = [[255 - 104.00698793, 128 - 116.66876762, -122.67891434]]
  np.testing.assert_allclose(caffe, expected, rtol=1e-6)
  unit = normalize.normalize(images, 'unit')
  np.testing.assert_allclose(unit, [[-1, 128 / 127.5 - 1, 1]], atol=1e-6)
  message = r"'imagenet'.*caffe_bgr, imagenet_rgb, unit"
  with pytest.raises(errors.UserError, match=message):
    normalize.normalize(images, 'imagenet')


@pytest.mark.parametrize('name', sorted(normalize.CONVENTIONS))
def test_unit_range_keeps_the_channel_order_of_the_network(name):
  images = jnp.array([[10, 128, 250]], jnp.uint8)
  with jax.enable_x64(True):
    normalised = normalize.normalize(images, name, jnp.float64)
    assert normalised.dtype == jnp.float64
    unit = normalize.to_unit(normalised, name)
    order = images[..., ::-1] if name == 'caffe_bgr' else images
    np.testing.assert_allclose(unit, np.asarray(order) / 255, rtol=1e-12)
    back = normalize.from_unit(unit, name)
    np.testing.assert_allclose(back, normalised, rtol=1e-12)
