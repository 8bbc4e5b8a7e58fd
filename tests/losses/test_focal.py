from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from jaxseg_da.classes import labels as labels_lib
from jaxseg_da.losses import focal, segmentation

IGNORE = labels_lib.IGNORE
focal_loss = jax.jit(focal.focal_loss)


def _batch(dtype=jnp.float32, images=2):
  rng = np.random.default_rng(3)
  logits = 3 * rng.normal(size=(images, 3, 4, 5))
  labels = rng.integers(0, 5, (images, 3, 4))
  labels[0, :2], labels[1, 0, 0] = IGNORE, 200
  return jnp.asarray(logits, dtype), labels


@jax.jit
def _focal_total(x, labels, gamma):
  return focal_loss(x, labels, gamma)[0]


@jax.jit
def _focal_mean(x, labels, gamma):
  return focal.focal_of_mean(*segmentation.cross_entropy(x, labels), gamma)


VARIANTS = (_focal_total, _focal_mean)


def test_by_hand():
  # Softmax of (0, ln 3) is (1/4, 3/4).
  logits = jnp.log(jnp.array([[[[1.0, 3.0], [1.0, 3.0], [5.0, 1.0]]]]))
  labels = jnp.array([[[0, 1, IGNORE]]])
  total, count = focal_loss(logits, labels, 3)
  expected = 0.75**3 * np.log(4) + 0.25**3 * np.log(4 / 3)
  np.testing.assert_allclose(total, expected, rtol=1e-6)
  assert count == 2
  # The mean loss is that of a pixel with p = sqrt(1/4 * 3/4).
  p = np.sqrt(3) / 4
  np.testing.assert_allclose(
    _focal_mean(logits, labels, 2), (1 - p) ** 2 * -np.log(p), rtol=1e-6
  )


def test_gamma_zero_is_cross_entropy():
  logits, labels = _batch()
  total, count = segmentation.cross_entropy(logits, labels)
  np.testing.assert_allclose(
    focal_loss(logits, labels, 0), (total, count), rtol=1e-6
  )
  mean = _focal_mean(logits, labels, 0)
  np.testing.assert_allclose(mean, total / count, rtol=1e-6)


def test_single_class():
  logits = jnp.zeros((1, 2, 3, 4)).at[..., 1].set(2.0)
  labels = jnp.ones((1, 2, 3), jnp.uint8)
  loss = np.log(3 + np.exp(2)) - 2
  expected = (1 - np.exp(-loss)) ** 3 * loss
  total, count = focal_loss(logits, labels, 3)
  np.testing.assert_allclose((total, count), (6 * expected, 6), rtol=1e-5)
  # All pixels have the same loss, so that the mean is each of them.
  np.testing.assert_allclose(
    _focal_mean(logits, labels, 3), expected, rtol=1e-5
  )


@pytest.mark.parametrize('function', VARIANTS)
def test_masked_equals_sliced(function):
  logits, labels = _batch()
  valid = labels < 5
  kept = logits[valid][None, None], labels[valid][None, None]
  np.testing.assert_allclose(
    function(logits, labels, 3), function(*kept, 3), rtol=1e-6
  )
  _, count = focal_loss(logits, labels, 3)
  assert valid.sum() == count < labels.size


@pytest.mark.parametrize('function', VARIANTS)
def test_all_ignored(function):
  logits, labels = _batch()
  labels = np.full_like(labels, IGNORE)
  total, gradient = jax.value_and_grad(function)(logits, labels, 3)
  assert total == 0
  np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize('gamma', [0.5, 2.0, 3.0])
@pytest.mark.parametrize('function', VARIANTS)
def test_gradient(function, gamma):
  with jax.enable_x64(True):
    logits, labels = _batch(jnp.float64)
    loss = lambda x: function(x, labels, gamma)
    assert loss(logits).dtype == jnp.float64
    test_util.check_grads(loss, (logits,), order=1, modes=['rev'])
    gradient = np.asarray(jax.grad(loss)(logits))
    np.testing.assert_array_equal(gradient[labels >= 5], 0)


def test_gradient_flows_through_the_factor():
  with jax.enable_x64(True):
    loss = jnp.array([1e-6, 0.1, 1.0, 7.0])
    p = np.exp(-loss)
    expected = (1 - p) ** 3 + 3 * (1 - p) ** 2 * p * loss
    slope = jax.grad(lambda x: jnp.sum(focal.modulated(x, 3)))(loss)
    np.testing.assert_allclose(slope, expected, rtol=1e-9)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 3.0])
def test_certain_pixels_are_safe(gamma):
  # exp(-200) is 0 in float32, so the loss is exactly 0.
  logits = jnp.array([[[[200.0, 0.0]]]])
  labels = jnp.array([[[0]]])
  for function in VARIANTS:
    total, gradient = jax.value_and_grad(function)(logits, labels, gamma)
    assert total == 0
    np.testing.assert_array_equal(gradient, 0)


def test_ignored_pixels_may_hold_anything():
  logits, labels = _batch()
  poisoned = jnp.where((labels >= 5)[..., None], jnp.nan, logits)
  for function in VARIANTS:
    gradient = jax.grad(function)
    np.testing.assert_array_equal(
      gradient(poisoned, labels, 3), gradient(logits, labels, 3)
    )


def test_bfloat16_logits_give_float32():
  logits, labels = _batch(jnp.bfloat16)
  for function in VARIANTS:
    total = jax.eval_shape(function, logits, labels, 3)
    assert total.dtype == jnp.float32


def test_the_mean_is_that_of_the_global_batch():
  """Devices with unequal shares of valid pixels differentiate as one does."""
  devices = 4
  with jax.enable_x64(True):
    logits, labels = _batch(jnp.float64, images=devices)
    labels[2] = IGNORE

    def share(x, y):
      value = focal.focal_of_mean(*segmentation.cross_entropy(x, y), 3, 'batch')
      return value / devices  # what the step makes of a term of count 1

    split = lambda x: x.reshape(devices, -1, *x.shape[1:])
    run = functools.partial(
      jax.pmap, axis_name='batch', devices=jax.devices()[:devices]
    )
    shares, gradient = run(jax.value_and_grad(share))(
      split(logits), split(labels)
    )
    expected = jax.value_and_grad(_focal_mean)(logits, labels, 3)
    np.testing.assert_allclose(shares.sum(), expected[0], rtol=1e-12)
    np.testing.assert_allclose(
      gradient.reshape(logits.shape), expected[1], rtol=1e-9, atol=1e-15
    )
