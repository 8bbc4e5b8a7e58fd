from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.data import selection

NAN = np.nan
confidence_sums = jax.jit(selection.confidence_sums)


def _names(count):
  return [f'city_{i:03d}.png' for i in range(count)]


def _probabilities(*shape, num_classes=5):
  rng = np.random.default_rng(2)
  return rng.dirichlet(np.ones(num_classes), shape).astype(np.float32)


def test_confidence_by_hand():
  p = jnp.array([[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.75, 0.25, 0.0]]])
  sums, counts = selection.confidence_sums(p)
  np.testing.assert_allclose(sums, [1.25, 0, 0.8], rtol=1e-6)
  np.testing.assert_array_equal(counts, [2, 0, 1])
  assert (sums.dtype, counts.dtype) == (jnp.float32, jnp.int32)
  confidence = selection.class_confidence(sums, counts)
  assert confidence.dtype == np.float64
  np.testing.assert_allclose(confidence, [0.625, NAN, 0.8], rtol=1e-6)


def test_masked_equals_sliced():
  p = _probabilities(40, 70)
  confidence = selection.class_confidence(*confidence_sums(p))
  best, classes = p.max(-1), p.argmax(-1)
  expected = [np.mean(best[classes == c], dtype=np.float64) for c in range(5)]
  np.testing.assert_allclose(confidence, expected, rtol=5e-7)


def test_images_are_summed_on_their_own():
  batch = _probabilities(3, 4, 6)
  looped = [confidence_sums(p) for p in batch]
  for mapping in (
    jax.vmap(selection.confidence_sums),
    lambda x: jax.lax.map(selection.confidence_sums, x),
  ):
    sums, counts = jax.jit(mapping)(batch)
    np.testing.assert_allclose(sums, [s for s, _ in looped], rtol=1e-6)
    np.testing.assert_array_equal(counts, [n for _, n in looped])


def test_sums_keep_float64_and_widen_bfloat16():
  with jax.enable_x64(True):
    for dtype, wide in ((jnp.bfloat16, jnp.float32), (jnp.float64,) * 2):
      p = jax.ShapeDtypeStruct((2, 3, 4), dtype)
      sums, _ = jax.eval_shape(selection.confidence_sums, p)
      assert sums.dtype == wide


def test_confidence_gradient():
  # Each pixel's largest probability counts once.
  p = _probabilities(3, 4)
  gradient = jax.grad(lambda x: confidence_sums(x)[0].sum())(p)
  np.testing.assert_array_equal(gradient, p == p.max(-1, keepdims=True))


def test_selection_by_hand():
  confidences = np.array(
    [
      # 0     1    2 (never)
      [0.90, NAN, NAN],
      [0.95, 0.3, NAN],
      [0.20, 0.8, NAN],
      [0.95, 0.5, NAN],  # ties with 1 in class 0; the later name leads
    ]
  )
  # Portion 9.5 of 19 is one half: 2 of 4 images, 1 of 3, 0 of 0.
  found = selection.select(confidences, 9.5, _names(4))
  np.testing.assert_array_equal(found.indices, [3, 1, 2])
  assert found.threshold_images == (0, 3, None)
  np.testing.assert_array_equal(found.predicted, [4, 3, 0])
  np.testing.assert_array_equal(found.selected, [2, 1, 0])
  # Names decide ties, not the order of the images.
  found = selection.select(confidences, 9.5, ['d', 'c', 'b', 'a'])
  np.testing.assert_array_equal(found.indices, [1, 3, 2])


def test_an_image_appears_once():
  confidences = np.array([[0.9, 0.9], [0.8, 0.1], [0.1, 0.8], [0.2, 0.2]])
  found = selection.select(confidences, 9.5, _names(4))
  np.testing.assert_array_equal(found.indices, [0, 1, 2])
  np.testing.assert_array_equal(found.selected, [2, 2])


def test_skipped_classes_select_nothing():
  confidences = np.array([[0.9, 0.1], [0.8, 0.2]])
  found = selection.select(confidences, 9.5, _names(2), skip_classes=(0,))
  np.testing.assert_array_equal(found.indices, [1])
  assert found.threshold_images == (None, 0)
  np.testing.assert_array_equal(found.predicted, [2, 2])
  np.testing.assert_array_equal(found.selected, [0, 1])


def test_negative_is_not_predicted():
  confidences = np.random.default_rng(0).random((40, 6))
  confidences[confidences < 0.3] = NAN
  with_nan = selection.select(confidences, 3.0, _names(40))
  shown = np.where(np.isnan(confidences), -1, confidences)
  with_minus_one = selection.select(shown, 3.0, _names(40))
  jax.tree.map(np.testing.assert_array_equal, with_nan, with_minus_one)
  assert len(with_nan.indices) > 0


def test_nothing_selected_still_estimates():
  confidences = np.array([[0.1], [0.7], [0.4]])
  found = selection.select(confidences, 0.1, _names(3))
  assert found.indices.shape == (0,)
  assert found.threshold_images == (1,)


def test_a_class_takes_the_minimum_where_it_can():
  confidences = np.array([[0.1, NAN, 0.6, 0.3], [0.7, NAN, NAN, 0.4]])
  found = selection.select(confidences, 0.1, _names(2), (3,), minimum=1)
  np.testing.assert_array_equal(found.selected, [1, 0, 1, 0])
  np.testing.assert_array_equal(found.indices, [1, 0])
  # Class 2 has no image left to estimate a threshold on.
  assert found.threshold_images == (0, None, None, None)


@pytest.mark.parametrize('portion', [19.0, 40.0])
def test_everything_selected_leaves_no_threshold(portion):
  found = selection.select(np.array([[0.1], [0.7]]), portion, _names(2))
  np.testing.assert_array_equal(found.indices, [1, 0])
  assert found.threshold_images == (None,)
  np.testing.assert_array_equal(found.selected, [2])


def test_the_portion_is_divided_first():
  # In float64 10 * (1.9 / 19) is below 1, and 10 * 1.9 / 19 is not.
  confidences = np.linspace(0.1, 0.9, 10)[:, None]
  found = selection.select(confidences, 1.9, _names(10))
  np.testing.assert_array_equal(found.selected, [0])
  found = selection.select(confidences, 0.2, _names(10), divisor=2)
  np.testing.assert_array_equal(found.selected, [1])


def test_names_have_to_fit():
  with pytest.raises(ValueError, match='3 names for 2 images'):
    selection.select(np.ones((2, 1)), 0.1, _names(3))


def test_class_threshold():
  normalised = np.array([[0.25, 1.0, NAN], [0.5, 0.0, 0.75]], np.float32)
  classes = np.array([[0, 1, 2], [0, 1, 0]])
  threshold = lambda c: selection.class_threshold(normalised, classes, c)
  assert (threshold(0), threshold(1)) == (0.5, 0.5)
  assert np.isnan(threshold(2))
  assert threshold(3) == 1.0


def test_portions():
  expected = [0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]
  np.testing.assert_allclose(selection.portions(0.1, 0.05, 0.4), expected)
  # 0.1 + 0.1 + 0.1 is a little more than 0.3 in float64.
  assert len(selection.portions(0.1, 0.1, 0.3)) == 3
  assert selection.portions(0.1, 0.05, 0.14) == (0.1,)


@pytest.mark.parametrize('rounds', [(0.1, 0, 0.4), (0.5, 0.1, 0.4), (0, 1, 1)])
def test_portions_need_a_round_and_an_end(rounds):
  with pytest.raises(errors.UserError, match='make no rounds'):
    selection.portions(*rounds)
