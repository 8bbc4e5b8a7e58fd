from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from jaxseg_da.losses import entropy

NAN = np.nan
class_normalised = jax.jit(entropy.class_normalised, static_argnums=2)


def _image(shape=(6, 9), num_classes=4):
  """Entropies and classes; class 2 is never predicted."""
  rng = np.random.default_rng(5)
  values = rng.random(shape, np.float32)
  return values, rng.choice([0, 1, 3], shape), num_classes


def test_entropy_by_hand():
  p = jnp.array([[0.25, 0.25, 0.25, 0.25], [0, 1, 0, 0], [0.5, 0, 0, 0.5]])
  expected = [np.log(4), 0, np.log(2)]
  np.testing.assert_allclose(entropy.entropy(p), expected, atol=1e-6)
  # -(0.5 log 1.5 + 0.5 log 1.5): eps is inside of the logarithm only.
  half = jnp.array([0.5, 0.5])
  np.testing.assert_allclose(
    entropy.entropy(half, eps=1.0), -np.log(1.5), rtol=1e-6
  )


def test_entropy_gradient():
  with jax.enable_x64(True):
    p = np.random.default_rng(0).uniform(0.1, 1, (3, 2, 5))
    test_util.check_grads(
      jax.jit(entropy.entropy), (p,), order=1, modes=['rev']
    )
    # Impossible classes have a finite gradient.
    gradient = jax.grad(entropy.entropy)(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(gradient, [-np.log(1e-12), -1], rtol=1e-9)


def test_entropy_of_bfloat16_is_float32():
  p = jnp.array([[0.5, 0.5, 0.0]], jnp.bfloat16)
  values = entropy.entropy(p)
  assert values.dtype == jnp.float32
  np.testing.assert_allclose(values, [np.log(2)], rtol=1e-6)


def test_weighted_self_information_by_hand():
  p = jnp.array([[0.5, 0.25, 0.25, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 0, 1]])
  expected = [[0.25, 0.25, 0.25, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 0, 0]]
  information = entropy.weighted_self_information(p)
  np.testing.assert_allclose(information, expected, atol=1e-7)
  total, count = entropy.entropy_loss(p[None])
  np.testing.assert_allclose(total, 0.75 + 1 + 0, rtol=1e-6)
  assert count == 3


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float64])
def test_weighted_self_information_at_certainty(dtype):
  with jax.enable_x64(True):
    total = lambda p: jnp.sum(entropy.weighted_self_information(p))
    p = jnp.array([0, 1e-30, 1e-12, 1], dtype)
    value, gradient = jax.jit(jax.value_and_grad(total))(p)
    assert value.dtype == gradient.dtype == dtype
    # -(log2(p + e) + p / (p + e) / ln 2) / log2(4), e = 1e-30
    e, q = 1e-30, np.asarray(p, np.float64)
    slope = -(np.log2(q + e) + q / (q + e) / np.log(2)) / 2
    np.testing.assert_allclose(gradient, slope, rtol=1e-6)
    np.testing.assert_allclose(gradient[0], 99.66 / 2, rtol=1e-4)
    # Through a saturated softmax: nothing moves, and nothing is NaN.
    logits = jnp.array([[200.0, 0, -200, -1e30]], dtype)
    loss = lambda x: entropy.entropy_loss(jax.nn.softmax(x))[0]
    np.testing.assert_allclose(jax.grad(loss)(logits), 0, atol=1e-30)


def test_entropy_loss_gradient():
  with jax.enable_x64(True):
    logits = np.random.default_rng(0).normal(0, 3, (2, 3, 2, 5))
    loss = lambda x: entropy.entropy_loss(jax.nn.softmax(x))[0]
    test_util.check_grads(jax.jit(loss), (logits,), order=1, modes=['rev'])


def test_entropy_loss_adds_up_over_parts():
  p = np.random.default_rng(0).dirichlet(np.ones(7), (4, 3, 2))
  p = jnp.asarray(p, jnp.float32)
  total, count = entropy.entropy_loss(p)
  parts = [entropy.entropy_loss(x) for x in (p[:1], p[1:])]
  np.testing.assert_allclose(total, sum(t for t, _ in parts), rtol=1e-6)
  assert count == sum(n for _, n in parts) == 24
  # The sum over classes is the entropy in units of that of equal ones.
  expected = entropy.entropy(p) / np.log(7)
  information = entropy.weighted_self_information(p)
  np.testing.assert_allclose(information.sum(-1), expected, rtol=1e-5)
  assert entropy.entropy_loss(p.astype(jnp.bfloat16))[0].dtype == jnp.float32


def test_class_normalised_by_hand():
  values = jnp.array([[1.0, 3.0, 2.0], [5.0, 9.0, 0.5]])
  classes = jnp.array([[0, 0, 0], [2, 2, 3]], jnp.uint8)
  expected = [[0, 1, 0.5], [0, 1, NAN]]
  normalised = class_normalised(values, classes, 5)
  np.testing.assert_array_equal(normalised, expected)


@pytest.mark.parametrize(
  ('values', 'expected'),
  [([2.0, 4.0, 6.0], [0, 0.5, 1]), ([2.0, 2.0, 2.0], [NAN] * 3)],
)
def test_single_class(values, expected):
  classes = jnp.full((1, 3), 7)
  normalised = class_normalised(jnp.array([values]), classes, 19)
  np.testing.assert_array_equal(normalised, [expected])


def test_equal_predictions_have_no_range():
  # Also where a vectorised logarithm treats the last pixels on their own.
  p = np.random.default_rng(0).dirichlet(np.ones(19)).astype(np.float32)
  values = jax.jit(entropy.entropy)(jnp.broadcast_to(p, (7, 13, 19)))
  normalised = class_normalised(values, jnp.zeros((7, 13), int), 19)
  assert np.isnan(normalised).all()


def test_masked_equals_sliced():
  values, classes, num_classes = _image()
  normalised = np.asarray(class_normalised(values, classes, num_classes))
  for c in (0, 1, 3):
    own = values[classes == c]
    expected = (own - own.min()) / (own.max() - own.min())
    found = normalised[classes == c]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (found.min(), found.max()) == (0, 1)


def test_images_are_normalised_on_their_own():
  values, classes, num_classes = _image()
  images = np.stack([values, 10 * values[::-1]])
  classes = np.stack([classes, np.full_like(classes, 2)])
  one = lambda x, y: class_normalised(x, y, num_classes)
  mapped = jax.jit(jax.vmap(one))(images, classes)
  looped = [one(*pair) for pair in zip(images, classes, strict=True)]
  np.testing.assert_array_equal(mapped, np.stack(looped))


def test_class_normalised_gradient():
  with jax.enable_x64(True):
    values, classes, num_classes = _image()
    function = lambda x: class_normalised(x, classes, num_classes)
    values = values.astype(np.float64)
    test_util.check_grads(function, (values,), order=1, modes=['rev'])


def test_keep_mask():
  normalised = jnp.array([[0.2, 0.5, 0.7, NAN], [0.9, 0.1, 1.0, 1.0]])
  classes = jnp.array([[0, 0, 0, 0], [1, 1, 2, 2]])
  thresholds = jnp.array([0.5, NAN, 1.0])
  kept = entropy.keep_mask(normalised, classes, thresholds)
  assert kept.dtype == bool
  # The threshold itself is dropped; NaN on either side keeps.
  expected = [[True, False, False, True], [True, True, False, False]]
  np.testing.assert_array_equal(kept, expected)
