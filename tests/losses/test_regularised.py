from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from jaxseg_da.losses import regularised, segmentation

SOFT, UNIFORM = 'soft', 'uniform'


def _batch(dtype=jnp.float32):
  """Logits, soft labels with ignored pixels, image weights with a zero."""
  rng = np.random.default_rng(5)
  logits = 3 * rng.normal(size=(3, 2, 3, 4))
  odds = np.exp(2 * rng.normal(size=logits.shape))
  labels = odds / odds.sum(-1, keepdims=True)
  labels[0, 0] = labels[2, 1, 2] = 0
  weights = np.array([0.5, 0.0, 2.0])
  return tuple(jnp.asarray(x, dtype) for x in (logits, labels, weights))


def _loss(kind, labels, weights):
  """(total, count) as a function of the logits only, compiled once."""
  if kind == SOFT:
    return jax.jit(lambda x: regularised.soft_cross_entropy(x, labels))
  valid = regularised.labelled_pixels(labels)
  return jax.jit(lambda x: regularised.uniform_cross_entropy(x, valid, weights))


def _counted(kind, labels, weights):
  valid = np.any(np.asarray(labels) > 0, axis=-1)
  if kind == UNIFORM:
    valid = valid & (np.asarray(weights) != 0)[:, None, None]
  return valid


both = pytest.mark.parametrize('kind', [SOFT, UNIFORM])


def test_soft_cross_entropy_by_hand():
  # Softmax of (0, ln 3) is (1/4, 3/4).
  logits = jnp.log(jnp.array([[[[1.0, 3.0], [1.0, 3.0], [9.0, 1.0]]]]))
  labels = jnp.array([[[[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]]]])
  total, count = jax.jit(regularised.soft_cross_entropy)(logits, labels)
  expected = np.log(4) + 0.5 * np.log(4) + 0.5 * np.log(4 / 3)
  np.testing.assert_allclose(total, expected, rtol=1e-6)
  assert count == 2


def test_uniform_cross_entropy_by_hand():
  logits = jnp.log(jnp.array([[[[1.0, 3.0], [1.0, 1.0], [9.0, 1.0]]]] * 2))
  valid = jnp.array([[[True, True, False]], [[True, True, True]]])
  total, count = jax.jit(regularised.uniform_cross_entropy)(
    logits, valid, jnp.array([0.1, 0.0])
  )
  # -(ln 1/4 + ln 3/4) / 2, and ln 2 at equal probabilities, the minimum.
  expected = 0.1 * (0.5 * np.log(4) + 0.5 * np.log(4 / 3) + np.log(2))
  np.testing.assert_allclose(total, expected, rtol=1e-6)
  assert count == 2


def test_soft_labels_that_are_hard():
  logits, _, _ = _batch()
  labels = np.arange(18).reshape(3, 2, 3) % 5  # 4 is no class
  soft = np.eye(5, 4, dtype=np.float32)[labels]
  total, count = jax.jit(regularised.soft_cross_entropy)(logits, soft)
  expected, number = jax.jit(segmentation.cross_entropy)(logits, labels)
  np.testing.assert_allclose(total, expected, rtol=1e-6)
  assert count == number == 15


@both
def test_gradient(kind):
  with jax.enable_x64(True):
    logits, labels, weights = _batch(jnp.float64)
    loss = _loss(kind, labels, weights)
    total = lambda x: loss(x)[0]
    assert total(logits).dtype == jnp.float64
    test_util.check_grads(total, (logits,), order=1, modes=['rev'])
    # In closed form: how far probabilities are from what they should be.
    goal = labels if kind == SOFT else 0.25
    expected = jax.nn.softmax(logits) - goal
    if kind == UNIFORM:
      expected *= weights[:, None, None, None]
    counted = _counted(kind, labels, weights)
    expected = np.where(counted[..., None], expected, 0)
    np.testing.assert_allclose(jax.grad(total)(logits), expected, atol=1e-12)


@both
def test_masked_equals_sliced(kind):
  logits, labels, weights = _batch()
  total, count = _loss(kind, labels, weights)(logits)
  counted = _counted(kind, labels, weights)
  # One image per pixel: each keeps the weight of the image it is from.
  pixels = logits[counted][:, None, None], labels[counted][:, None, None]
  each = jnp.broadcast_to(weights[:, None, None], counted.shape)[counted]
  sliced, number = _loss(kind, pixels[1], each)(pixels[0])
  assert count == number == counted.sum() < counted.size
  np.testing.assert_allclose(total, sliced, rtol=1e-6)


@both
def test_images_add_up_however_they_are_spread(kind):
  logits, labels, weights = _batch()
  whole = _loss(kind, labels, weights)(logits)
  parts = [
    _loss(kind, labels[i], weights[i])(logits[i])
    for i in (slice(0, 1), slice(1, 3))
  ]
  np.testing.assert_allclose(whole, np.sum(parts, axis=0), rtol=1e-6)


@both
@pytest.mark.parametrize('value', [jnp.inf, -jnp.inf, jnp.nan])
def test_pixels_that_do_not_count_may_hold_anything(kind, value):
  logits, labels, weights = _batch()
  counted = _counted(kind, labels, weights)
  poisoned = jnp.where(counted[..., None], logits, value)
  loss = _loss(kind, labels, weights)
  total = jax.value_and_grad(lambda x: loss(x)[0])
  expected, gradient = total(logits), total(poisoned)
  jax.tree.map(np.testing.assert_array_equal, gradient, expected)
  assert np.all(np.isfinite(gradient[1]))


@both
def test_nothing_labelled(kind):
  logits, labels, weights = _batch()
  loss = _loss(kind, jnp.zeros_like(labels), weights)
  assert loss(logits) == (0, 0)
  np.testing.assert_array_equal(jax.grad(lambda x: loss(x)[0])(logits), 0)


def test_only_source_images():
  logits, labels, weights = _batch()
  assert _loss(UNIFORM, labels, 0 * weights)(logits) == (0, 0)


def test_impossible_classes_do_not_disturb_soft_labels():
  with jax.enable_x64(True):
    logits = jnp.array([[[[0.0, 0.0, -jnp.inf]]]])
    labels = jnp.array([[[[0.5, 0.5, 0.0]]]])
    total = lambda x: regularised.soft_cross_entropy(x, labels)[0]
    value, gradient = jax.jit(jax.value_and_grad(total))(logits)
  np.testing.assert_allclose(value, np.log(2), rtol=1e-12)
  np.testing.assert_allclose(gradient, np.zeros((1, 1, 1, 3)), atol=1e-12)


def test_no_gradient_reaches_labels_and_weights():
  logits, labels, weights = _batch()
  soft = lambda y: regularised.soft_cross_entropy(logits, y)[0]
  np.testing.assert_array_equal(jax.grad(soft)(labels), 0)
  valid = regularised.labelled_pixels(labels)
  uniform = lambda g: regularised.uniform_cross_entropy(logits, valid, g)[0]
  np.testing.assert_array_equal(jax.grad(uniform)(weights), 0)


@both
def test_losses_of_bfloat16_logits_are_float32(kind):
  logits, labels, weights = _batch(jnp.bfloat16)
  total, count = _loss(kind, labels, weights)(logits)
  assert total.dtype == count.dtype == jnp.float32


def test_bad_shapes_are_named():
  logits, labels, weights = _batch()
  with pytest.raises(ValueError, match=r'\(3, 2, 3\)'):
    regularised.soft_cross_entropy(logits, labels[..., 0])
  valid = regularised.labelled_pixels(labels)
  with pytest.raises(ValueError, match=r'\(2,\)'):
    regularised.uniform_cross_entropy(logits, valid, weights[:2])
  with pytest.raises(ValueError, match=r'\(3, 2, 3, 4\)'):
    regularised.uniform_cross_entropy(logits, labels, weights)
