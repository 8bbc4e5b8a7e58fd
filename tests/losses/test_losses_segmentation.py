from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from jaxseg_da import errors
from jaxseg_da.classes import labels as labels_lib
from jaxseg_da.losses import segmentation, selftraining

IGNORE = labels_lib.IGNORE
KEY = jax.random.key(3)


def _batch(dtype=jnp.float32):
  logits = 3 * jax.random.normal(KEY, (2, 4, 5, 6), dtype)
  labels = jax.random.randint(KEY, (2, 4, 5), 0, 6).astype(jnp.uint8)
  return logits, labels.at[0, :2].set(IGNORE).at[1, 0, 0].set(200)


def test_cross_entropy_by_hand():
  # Softmax of (0, ln 3) is (1/4, 3/4).
  logits = jnp.log(jnp.array([[[[1.0, 3.0], [1.0, 3.0], [5.0, 1.0]]]]))
  labels = jnp.array([[[0, 1, IGNORE]]])
  total, count = segmentation.cross_entropy(logits, labels)
  np.testing.assert_allclose(total, np.log(4) + np.log(4 / 3), rtol=1e-6)
  assert count == 2
  weights = jnp.array([[[0.5, 2.0, 7.0]]])
  total, count = segmentation.cross_entropy(logits, labels, weights)
  expected = 0.5 * np.log(4) + 2 * np.log(4 / 3)
  np.testing.assert_allclose(total, expected, rtol=1e-6)
  assert count == 2


def test_masked_equals_sliced():
  logits, labels = _batch()
  valid = np.asarray(labels) < 6
  total, count = segmentation.cross_entropy(logits, labels)
  kept = logits[valid][None, None], labels[valid][None, None]
  sliced, number = segmentation.cross_entropy(*kept)
  assert valid.sum() == count == number < labels.size
  np.testing.assert_allclose(total, sliced, rtol=1e-6)


@pytest.mark.parametrize('label', [-1, 6, 255])
def test_labels_outside_the_classes_are_ignored(label):
  logits, labels = _batch()
  labels = jnp.full(labels.shape, label, jnp.int32)
  total, count = segmentation.cross_entropy(logits, labels)
  assert (total, count) == (0, 0)


def test_gradient():
  with jax.enable_x64(True):
    logits, labels = _batch(jnp.float64)
    weights = jax.random.uniform(KEY, labels.shape, jnp.float64)
    loss = lambda x: segmentation.cross_entropy(x, labels, weights)[0]
    assert loss(logits).dtype == jnp.float64
    test_util.check_grads(loss, (logits,), order=2, modes=['rev'])
    valid = np.asarray(labels) < 6
    gradient = np.asarray(jax.grad(loss)(logits))
    np.testing.assert_array_equal(gradient[~valid], 0)
    assert np.all(np.any(gradient[valid] != 0, axis=-1))


@pytest.mark.parametrize('value', [jnp.inf, -jnp.inf, jnp.nan])
def test_ignored_pixels_may_hold_anything(value):
  logits, labels = _batch()
  ignored = np.asarray(labels) >= 6
  poisoned = jnp.where(ignored[..., None], value, logits)
  loss = lambda x: segmentation.cross_entropy(x, labels)[0]
  expected, expected_gradient = jax.value_and_grad(loss)(logits)
  total, gradient = jax.value_and_grad(loss)(poisoned)
  assert total == expected
  np.testing.assert_array_equal(gradient, expected_gradient)


def test_impossible_classes_do_not_disturb_the_others():
  with jax.enable_x64(True):
    logits = jnp.array([[[[0.0, 0.0, -jnp.inf]]]])
    labels = jnp.array([[[0]]])
    loss = lambda x: segmentation.cross_entropy(x, labels)[0]
    total, gradient = jax.value_and_grad(loss)(logits)
  np.testing.assert_allclose(total, np.log(2), rtol=1e-12)
  np.testing.assert_allclose(gradient[0, 0, 0], [-0.5, 0.5, 0], rtol=1e-12)


def test_losses_of_bfloat16_logits_are_float32():
  logits, labels = _batch(jnp.bfloat16)
  total, count = segmentation.cross_entropy(logits, labels)
  assert total.dtype == count.dtype == jnp.float32


def test_bad_shapes_are_named():
  logits, labels = _batch()
  with pytest.raises(ValueError, match=r'\(2, 4, 5, 1\)'):
    segmentation.cross_entropy(logits, labels[..., None])
  with pytest.raises(ValueError, match='weights'):
    segmentation.cross_entropy(logits, labels, jnp.ones(4))
  with pytest.raises(ValueError, match='float32'):
    segmentation.cross_entropy(logits, labels.astype(jnp.float32))


def test_pseudo_labels():
  logits = jnp.log(jnp.array([[1.0, 6.0, 3.0], [2.0, 2.0, 1.0]]))
  labels, confidence = segmentation.pseudo_labels(logits)
  assert labels.dtype == jnp.uint8
  np.testing.assert_array_equal(labels, [1, 0])  # the first of equal ones
  np.testing.assert_allclose(confidence, [0.6, 0.4], rtol=1e-6)
  with pytest.raises(ValueError, match='256 classes'):
    segmentation.pseudo_labels(jnp.zeros((1, 256)))


def test_confidence_weights():
  confidence = jnp.array([[[0.9, 0.968]], [[0.99, 0.2]]])
  weight = lambda mode: selftraining.confidence_weight(confidence, 0.968, mode)
  np.testing.assert_array_equal(weight('threshold'), [[[0, 1]], [[1, 0]]])
  np.testing.assert_array_equal(
    weight('threshold_uniform'), np.full((2, 1, 2), 0.5)
  )
  np.testing.assert_array_equal(weight('none'), np.ones((2, 1, 2)))
  with pytest.raises(errors.UserError, match=r"'uniform'.*threshold_uniform"):
    weight('uniform')


def test_confident_fraction_is_that_of_the_global_batch():
  confidence = jax.random.uniform(KEY, (4, 3, 5))
  expected = selftraining.confidence_weight(confidence, 0.7)
  local = jax.vmap(
    lambda c: selftraining.confidence_weight(c, 0.7, axis_name='batch'),
    axis_name='batch',
  )(confidence.reshape(2, 2, 3, 5))
  assert 0 < expected[0, 0, 0] < 1
  np.testing.assert_allclose(local.reshape(4, 3, 5), expected, rtol=1e-6)


def test_mixed_loss_counts_all_pixels():
  logits, labels = _batch()
  weights = jnp.linspace(0, 1, labels.size).reshape(labels.shape)
  total, count = selftraining.mixed_loss(logits, labels, weights)
  expected, valid = segmentation.cross_entropy(logits, labels, weights)
  assert total == expected
  assert valid < count == labels.size


def test_no_gradient_reaches_weights_of_a_teacher():
  with jax.enable_x64(True):
    logits, labels = _batch(jnp.float64)

    def loss(x):
      _, confidence = segmentation.pseudo_labels(x)
      return selftraining.mixed_loss(logits, labels, confidence)[0]

    np.testing.assert_array_equal(jax.grad(loss)(logits), 0)
    weights = jnp.full(labels.shape, 0.25)
    loss = lambda x: selftraining.mixed_loss(x, labels, weights)[0]
    test_util.check_grads(loss, (logits,), order=1, modes=['rev'])


def test_mixed_targets():
  mask = jnp.array([[[True, False, False]]])
  labels, weights = selftraining.mix_targets(
    mask,
    jnp.array([[[3, 4, 5]]]),
    jnp.array([[[7, 8, 9]]], jnp.uint8),
    jnp.full((1, 1, 3), 0.25),
  )
  np.testing.assert_array_equal(labels, [[[3, 8, 9]]])
  np.testing.assert_array_equal(weights, [[[1, 0.25, 0.25]]])


def test_classmix_targets_are_those_of_the_mixed_softmax():
  logits, _ = _batch()
  partner = jnp.roll(logits, -1, axis=0)
  mask = jax.random.bernoulli(KEY, shape=logits.shape[:3])
  labels, confidence = selftraining.classmix_targets(mask, logits, partner)
  mixed = jnp.where(
    mask[..., None], jax.nn.softmax(logits), jax.nn.softmax(partner)
  )
  np.testing.assert_array_equal(labels, mixed.argmax(-1))
  np.testing.assert_allclose(confidence, mixed.max(-1), rtol=1e-6)
