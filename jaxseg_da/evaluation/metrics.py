"""Integer truth for segmentation: confusion counts, IoU, class-set means.

Counting happens on the device in int32, per batch; the host sums batches and
processes in int64. Nothing is rounded until a percentage is formed. A class
that neither the labels nor the predictions contain has no IoU (NaN here, null
in JSON) and does not enter the mean; a class that only one of them contains
has IoU 0 and does.

IoU of class c = TP / (TP + FP + FN), from the confusion matrix of the whole
split (not a mean over images): Everingham et al., 2015; Cordts et al., 2016.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_INT32_MAX = 2**31 - 1


def confusion(
  labels: jax.Array,
  predictions: jax.Array,
  num_classes: int,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Counts pixels by true and predicted class; exact, jit-able.

  Args:
    labels: integers `[B, ...]`, train ids. 255, and any value that is not in
      `0..num_classes - 1`, does not count.
    predictions: integers of the same shape. A pixel predicted outside
      `0..num_classes - 1` does not count either.
    num_classes: C.
    mask: bool (or 0/1), shape equal to the leading axes of `labels`, `[B]` for
      one flag per image. Where it is false nothing counts.

  Returns:
    int32 `[C, C]`: rows are the truth, columns the prediction.

  Raises:
    ValueError: shapes disagree, an input is not of integer type, or the batch
      has more pixels than an int32 can count.
  """
  labels, predictions = jnp.asarray(labels), jnp.asarray(predictions)
  if labels.shape != predictions.shape:
    raise ValueError(
      f'labels {labels.shape} and predictions {predictions.shape} differ'
    )
  for name, value in (('labels', labels), ('predictions', predictions)):
    if not jnp.issubdtype(value.dtype, jnp.integer):
      raise ValueError(f'{name} must be integers, not {value.dtype}')
  if labels.size > _INT32_MAX:
    raise ValueError(f'{labels.size} pixels in one batch overflow an int32')
  truth, guess = labels.astype(jnp.int32), predictions.astype(jnp.int32)
  valid = (truth >= 0) & (truth < num_classes)
  valid &= (guess >= 0) & (guess < num_classes)
  if mask is not None:
    mask = jnp.asarray(mask)
    if mask.shape != labels.shape[: mask.ndim]:
      raise ValueError(
        f'mask {mask.shape} does not match the labels {labels.shape}'
      )
    trailing = (1,) * (labels.ndim - mask.ndim)
    valid &= mask.astype(bool).reshape(mask.shape + trailing)
  cells = num_classes * num_classes
  # Excluded pixels fall into one cell more, which is thrown away.
  index = jnp.where(valid, truth * num_classes + guess, cells)
  counts = jnp.bincount(index.ravel(), length=cells + 1)
  matrix = counts[:cells].reshape(num_classes, num_classes)
  return matrix.astype(jnp.int32)


def iou(confusion: np.ndarray) -> np.ndarray:
  """Intersection over union per class.

  Args:
    confusion: counts `[C, C]`, rows truth, columns prediction.

  Returns:
    float64 `[C]` in 0..1; NaN where a class is in neither labels nor
    predictions.
  """
  counts = np.asarray(confusion).astype(np.int64)
  hits = np.diagonal(counts)
  union = counts.sum(0) + counts.sum(1) - hits
  result = np.full(len(counts), np.nan)
  np.divide(hits, union, out=result, where=union > 0)
  return result


def mean_iou(
  confusion: np.ndarray, classes: Sequence[int] | None = None
) -> float | None:
  """Mean IoU in 0..1 over the classes that occur.

  Args:
    confusion: counts `[C, C]`.
    classes: indices to average over; all when None. The counts stay those of
      all C classes: a pixel predicted as a class outside the set is an error
      of its true class, as in the papers' 16- and 13-class numbers.

  Returns:
    A float, or None when none of the classes occurs.
  """
  values = iou(confusion)
  if classes is not None:
    values = values[list(classes)]
  values = values[~np.isnan(values)]
  return float(values.mean()) if values.size else None


def summary(
  confusion: np.ndarray,
  names: Sequence[str],
  subsets: Mapping[int, Sequence[int]] | None = None,
) -> dict[str, Any]:
  """The metric fields of an evaluation record, in percent, ready for JSON.

  Args:
    confusion: counts `[C, C]`.
    names: C class names.
    subsets: class indices by size, for example `labels.SUBSETS`; a size that
      is not there gives null.

  Returns:
    `miou` over all C classes, `miou_16`, `miou_13`, `iou` by class name, and
    `pixel_accuracy`; None stands for what cannot be computed.

  Raises:
    ValueError: the names do not match the matrix.
  """
  counts = np.asarray(confusion).astype(np.int64)
  if counts.shape != (len(names), len(names)):
    raise ValueError(f'{len(names)} class names for counts {counts.shape}')
  subsets = subsets or {}

  def percent(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else 100 * float(value)

  def subset(size: int) -> float | None:
    if size not in subsets:
      return None
    return percent(mean_iou(counts, subsets[size]))

  per_class = iou(counts)
  pixels = int(counts.sum())
  hits = int(np.trace(counts))
  return {
    'miou': percent(mean_iou(counts)),
    'miou_16': subset(16),
    'miou_13': subset(13),
    'iou': {n: percent(v) for n, v in zip(names, per_class, strict=True)},
    'pixel_accuracy': percent(hits / pixels) if pixels else None,
  }
