from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da.classes import labels as label_tables
from jaxseg_da.evaluation import metrics


def reference(labels, predictions, num_classes):
  counts = np.zeros((num_classes, num_classes), np.int64)
  for truth, guess in zip(labels.ravel(), predictions.ravel(), strict=True):
    if truth < num_classes:
      counts[truth, guess] += 1
  return counts


def test_confusion_by_hand():
  labels = np.array([[[0, 0, 1], [2, 255, 1]]], np.uint8)
  predictions = np.array([[[0, 1, 1], [0, 2, 1]]], np.int32)
  counts = metrics.confusion(labels, predictions, 3)
  assert counts.dtype == jnp.int32
  np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 2, 0], [1, 0, 0]])


def test_confusion_matches_a_loop_under_jit():
  rng = np.random.default_rng(0)
  labels = rng.choice([*range(19), 19, 200, 255], (3, 16, 24)).astype(np.uint8)
  predictions = rng.integers(0, 19, labels.shape).astype(np.uint8)
  count = jax.jit(metrics.confusion, static_argnums=2)
  np.testing.assert_array_equal(
    count(labels, predictions, 19), reference(labels, predictions, 19)
  )


@pytest.mark.parametrize('dtype', [bool, np.uint8])
def test_masked_images_equal_sliced_images(dtype):
  rng = np.random.default_rng(1)
  labels = rng.integers(0, 5, (4, 8, 8)).astype(np.uint8)
  predictions = rng.integers(0, 5, labels.shape)
  keep = np.array([True, False, True, False])
  np.testing.assert_array_equal(
    metrics.confusion(labels, predictions, 5, keep.astype(dtype)),
    reference(labels[keep], predictions[keep], 5),
  )


def test_masked_pixels_equal_sliced_pixels():
  rng = np.random.default_rng(2)
  labels = rng.integers(0, 5, (2, 8, 8))
  predictions = rng.integers(0, 5, labels.shape)
  keep = rng.random(labels.shape) < 0.5
  np.testing.assert_array_equal(
    metrics.confusion(labels, predictions, 5, keep),
    reference(labels[keep], predictions[keep], 5),
  )


def test_predictions_outside_the_classes_do_not_leak_into_other_cells():
  labels = np.array([0, 1, 1])
  predictions = np.array([3, -1, 1])
  np.testing.assert_array_equal(
    metrics.confusion(labels, predictions, 2), [[0, 0], [0, 1]]
  )


def test_counts_are_exact_above_float32():
  pixels = 2**24 + 3
  zeros = np.zeros(pixels, np.uint8)
  assert int(metrics.confusion(zeros, zeros, 2)[0, 0]) == pixels


def test_confusion_rejects_wrong_inputs():
  ints = np.zeros((2, 3), np.int32)
  with pytest.raises(ValueError, match=r'\(2, 3\).*\(2, 3, 1\)'):
    metrics.confusion(ints, ints[..., None], 3)
  with pytest.raises(ValueError, match='predictions must be integers'):
    metrics.confusion(ints, ints.astype(np.float32), 3)
  with pytest.raises(ValueError, match='mask'):
    metrics.confusion(ints, ints, 3, np.ones(3, bool))


def test_iou_by_hand():
  counts = np.array([[3, 1, 0, 0], [1, 2, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]])
  # 3 / (3 + 1 + 3), 2 / (2 + 1 + 1), never hit, never seen.
  values = metrics.iou(counts)
  np.testing.assert_allclose(values[:3], [3 / 7, 2 / 4, 0.0], rtol=1e-15)
  assert np.isnan(values[3])
  assert metrics.mean_iou(counts) == pytest.approx((3 / 7 + 0.5) / 3)
  assert metrics.mean_iou(counts, (1, 3)) == pytest.approx(0.5)
  assert metrics.mean_iou(counts, (3,)) is None


def test_class_that_is_only_predicted_has_iou_zero():
  np.testing.assert_array_equal(metrics.iou([[4, 1], [0, 0]]), [0.8, 0.0])


def test_summary_in_percent_with_class_sets():
  # Each class c of 10 pixels: c hits, the rest taken for road; train absent.
  counts = np.zeros((19, 19), np.int64)
  for c in range(19):
    counts[c, c] += c if c else 10
    counts[c, 0] += 10 - c if 0 < c < 10 else 0
  counts[16] = 0
  result = metrics.summary(counts, label_tables.NAMES, label_tables.SUBSETS)
  road = 10 / (10 + 45)
  expected = [road, *(c / 10 for c in range(1, 10)), *[1.0] * 9]
  assert result['iou']['train'] is None
  assert result['iou']['wall'] == pytest.approx(30.0)
  present = [v for i, v in enumerate(expected) if i != 16]
  assert result['miou'] == pytest.approx(100 * sum(present) / 18)
  for size in (16, 13):
    ids = label_tables.SUBSETS[size]
    mean = sum(expected[i] for i in ids) / size
    assert result[f'miou_{size}'] == pytest.approx(100 * mean)
  hits = 10 + sum(range(1, 19)) - 16
  assert result['pixel_accuracy'] == pytest.approx(100 * hits / counts.sum())
  json.dumps(result, allow_nan=False)


def test_summary_of_nothing_is_null():
  result = metrics.summary(np.zeros((2, 2), int), ('a', 'b'))
  assert result == {
    'miou': None,
    'miou_16': None,
    'miou_13': None,
    'iou': {'a': None, 'b': None},
    'pixel_accuracy': None,
  }
  with pytest.raises(ValueError, match='3 class names'):
    metrics.summary(np.zeros((2, 2), int), ('a', 'b', 'c'))
