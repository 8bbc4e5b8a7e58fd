from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.classes.labels import IGNORE
from jaxseg_da.data import pseudo_labels

CLASSES = 5


def _probs(seed: int, shape=(6, 10), absent: int | None = None) -> np.ndarray:
  """Random float32 probabilities; class `absent` is never predicted."""
  logits = 2 * np.random.default_rng(seed).normal(size=(*shape, CLASSES))
  if absent is not None:
    logits[..., absent] = logits.min()
  odds = np.exp(logits)
  return (odds / odds.sum(-1, keepdims=True)).astype(np.float32)


def _of(probs, every=4):
  return pseudo_labels.confidences(
    probs.argmax(-1), probs.max(-1), CLASSES, every
  )


def _lists(*rows):
  return [np.array(row, np.float32) for row in rows]


def test_every_so_many_th_pixel_of_each_class():
  predicted = np.array([[1, 0, 1, 1], [1, 1, 0, 3]], np.uint8)
  confidence = np.arange(8, dtype=np.float32).reshape(2, 4) / 8
  lists, counts = pseudo_labels.confidences(predicted, confidence, 4, every=2)
  np.testing.assert_array_equal(counts, [2, 5, 0, 1])
  # Class 1 has pixels 0, 2, 3, 4 and 5, of which 0, 3 and 5 are taken.
  expected = _lists([1 / 8], [0, 3 / 8, 5 / 8], [], [7 / 8])
  for ours, theirs in zip(lists, expected, strict=True):
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs)


def test_lists_do_not_hold_the_image():
  lists, _ = _of(_probs(0))
  assert all(values.base is None for values in lists)


def test_an_image_of_a_single_class():
  predicted = np.full((3, 3), 2)
  confidence = np.linspace(0.5, 0.9, 9, dtype=np.float32).reshape(3, 3)
  lists, counts = pseudo_labels.confidences(predicted, confidence, CLASSES)
  np.testing.assert_array_equal(counts, [0, 0, 9, 0, 0])
  np.testing.assert_array_equal(lists[2], confidence.ravel()[[0, 4, 8]])
  assert [len(values) for values in lists] == [0, 0, 3, 0, 0]
  thresholds = pseudo_labels.thresholds(lists, 0.4)
  np.testing.assert_array_equal(thresholds, np.float32([1, 1, 0.9, 1, 1]))


def test_labels_that_are_no_prediction():
  with pytest.raises(ValueError, match='255 is none of 5'):
    pseudo_labels.confidences(
      np.array([[0, IGNORE]]), np.ones((1, 2), np.float32), CLASSES
    )


def test_thresholds_do_not_depend_on_who_saw_which_image():
  parts = [_of(_probs(seed)) for seed in range(4)]
  whole = pseudo_labels.merge(parts)
  spread = pseudo_labels.merge(
    [pseudo_labels.merge(parts[1::2]), pseudo_labels.merge(parts[::2])]
  )
  np.testing.assert_array_equal(whole.counts, spread.counts)
  assert whole.counts.sum() == 4 * 60
  for policy in pseudo_labels.POLICIES:
    np.testing.assert_array_equal(
      pseudo_labels.thresholds(whole.lists, 0.3, policy),
      pseudo_labels.thresholds(spread.lists, 0.3, policy),
    )


@pytest.mark.parametrize(
  ('policy', 'expected'),
  [
    # floor(0.5 * n): ranks 2, 1, 0, 0 of n = 4, 3, 1, 0.
    ('cbst', [0.7, 0.8, 1, 1]),
    # Lists of 5, 4, 2 and 0: ranks 2, 2, 1, 0.
    ('mxnet', [0.7, 0.3, 0.6, 1]),
    # One list of 8 + 4 + 1: rank 6.
    ('global', [0.4] * 4),
  ],
)
def test_thresholds_by_hand(policy, expected):
  lists = _lists([0.4, 0.9, 0.7, 0.5], [0.3, 0.2, 0.8], [0.6], [])
  thresholds = pseudo_labels.thresholds(lists, 0.5, policy)
  assert thresholds.dtype == np.float32
  np.testing.assert_array_equal(thresholds, np.float32(expected))


def test_portions_at_their_ends():
  lists = _lists([0.4, 0.9], [0.3], [])
  for policy in pseudo_labels.POLICIES:
    none = pseudo_labels.thresholds(lists, 0.0, policy)
    np.testing.assert_array_equal(none, 1)
  everything = pseudo_labels.thresholds(lists, 1.0)
  np.testing.assert_array_equal(everything, np.float32([0.4, 0.3, 1]))
  # All of the superfluous zeros, too, and a threshold of zero means 1.
  for policy in ('mxnet', 'global'):
    zero = pseudo_labels.thresholds(lists, 1.0, policy)
    np.testing.assert_array_equal(zero, 1)


def test_unknown_policies_are_named():
  with pytest.raises(errors.UserError, match=r"'cbts'.*Did you mean 'cbst'"):
    pseudo_labels.thresholds(_lists([0.5]), 0.5, 'cbts')


def test_selection_by_hand():
  thresholds = np.float32([0.5, 0.25, 1])
  probs = np.float32(
    [
      [0.6, 0.4, 0.0],  # 1.2 and 1.6: not the most probable class
      [0.5, 0.2, 0.3],  # on the threshold
      [0.4, 0.2, 0.4],  # 0.8 each and 0.4
      [0.0, 0.0, 1.0],  # certain of a class that is never predicted
      [0.01, 0.0, 0.99],
    ]
  )
  labels = jax.jit(pseudo_labels.label_selection)(probs, thresholds)
  assert labels.dtype == jnp.uint8
  np.testing.assert_array_equal(labels, [1, 0, IGNORE, 2, IGNORE])


def test_ties_at_the_threshold_are_all_kept():
  probs = _probs(1, absent=3)
  probs[0] = probs[0, 0]  # a row of ten pixels that are alike
  index = probs[0, 0].argmax()
  lists, _ = _of(probs, every=1)
  above = np.sum(lists[index] > probs[0, 0, index])
  portion = (above + 1.5) / len(lists[index])  # one of the ten
  thresholds = pseudo_labels.thresholds(lists, portion)
  assert thresholds[index] == probs[0, 0, index]
  labels = np.asarray(pseudo_labels.label_selection(probs, thresholds))
  assert np.all(labels[0] == labels[0, 0]) and labels[0, 0] != IGNORE
  assert not np.any(labels == 3)


def test_thresholds_known_to_the_compiler():
  thresholds = np.random.default_rng(0).uniform(0.1, 1, 200).astype(np.float32)
  select = jax.jit(lambda p: pseudo_labels.label_selection(p, thresholds))
  np.testing.assert_array_equal(select(np.diag(thresholds)), np.arange(200))


def test_the_portion_of_each_class_is_kept():
  probs = np.concatenate([_probs(seed) for seed in range(5)])
  lists, counts = _of(probs, every=1)
  thresholds = pseudo_labels.thresholds(lists, 0.4)
  labels = np.asarray(pseudo_labels.label_selection(probs, thresholds))
  for index, count in enumerate(counts):
    kept = np.sum((labels != IGNORE) & (probs.argmax(-1) == index))
    assert kept >= np.floor(0.4 * count) >= 5


def _soft(probs, thresholds, alpha):
  make = jax.jit(pseudo_labels.soft_labels)
  return jax.tree.map(np.asarray, make(probs, thresholds, alpha))


def test_soft_labels_by_hand():
  probs, thresholds = np.float32([[0.6, 0.4]]), np.float32([0.5, 0.25])
  labels, keep = _soft(probs, thresholds, 0.5)
  # Squares of 1.2 and 1.6 are 1.44 and 2.56.
  np.testing.assert_allclose(labels, [[0.36, 0.64]], rtol=1e-6)
  np.testing.assert_array_equal(keep, [True])


def test_soft_labels_are_kept_where_they_lower_the_objective():
  with jax.enable_x64(True):
    probs = _probs(2, (40, 50)).astype(np.float64)
    thresholds, alpha = np.linspace(0.4, 1, CLASSES), 0.25
    labels, keep = _soft(probs, thresholds, alpha)
    assert labels.dtype == np.float64
    np.testing.assert_allclose(labels.sum(-1), 1, rtol=1e-12)
    left = np.sum(-labels * np.log(probs), -1)
    left += alpha * np.sum(labels * np.log(labels), -1)
    right = -np.sum(labels * np.log(thresholds), -1)
    np.testing.assert_array_equal(keep, left < right)
    assert 0.1 < keep.mean() < 0.9
    # Whatever hard selection keeps is kept here as well.
    hard = np.asarray(pseudo_labels.label_selection(probs, thresholds))
    assert np.all(keep[hard != IGNORE])
    np.testing.assert_array_equal(
      labels.argmax(-1)[hard != IGNORE], hard[hard != IGNORE]
    )


def test_soft_labels_of_a_small_alpha_are_hard():
  probs = _probs(3)
  probs[0, 0] = [1, 0, 0, 0, 0]
  thresholds = np.full(CLASSES, 0.3, np.float32)
  labels, keep = _soft(probs, thresholds, 1e-5)
  hard = np.asarray(pseudo_labels.label_selection(probs, thresholds))
  np.testing.assert_array_equal(keep, hard != IGNORE)
  expected = np.eye(CLASSES)[probs.argmax(-1)]
  np.testing.assert_allclose(labels, expected, atol=1e-3)


def test_rare_classes():
  counts = np.array([500_000, 0, 499_000, 499, 501])
  np.testing.assert_array_equal(pseudo_labels.mine_ids(counts), [1, 3, 4])
  np.testing.assert_array_equal(pseudo_labels.mine_ids(counts, 5e-4), [1, 3])
  limit = np.array([998_999, 1000, 1])
  np.testing.assert_array_equal(pseudo_labels.mine_ids(limit), [2])
  even = np.array([10, 10, 10])
  assert pseudo_labels.mine_ids(even).size == 0


def test_portions_grow_to_their_limit():
  np.testing.assert_allclose(
    pseudo_labels.portions(0.3, 0.15, 0.5, 4), [0.3, 0.45, 0.5, 0.5]
  )
  assert pseudo_labels.portions(0.2, 0.05, 0.5, 1) == (0.2,)
