"""Class-balanced pseudo-labels: confidences, thresholds, selection.

Zou et al., CBST (ECCV 2018) and CRST (ICCV 2019). A round goes over the target
images twice. First `confidences` of every image, then `thresholds` of them
all; second `label_selection` of every image. A pixel on the threshold is
kept, so both passes have to see the same probabilities: confidence is the
maximum of what `label_selection` gets, not computed from logits another way.

What needs probabilities of all classes is jnp and runs where they are; the
rest is NumPy. LRENT's soft labels are never stored, 19 numbers per pixel would
be 40 MB per image: `soft_labels` makes them again from the thresholds and the
frozen network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da import errors
from jaxseg_da.classes import labels

# `cbst`: thresholds per class, as in the code of CRST; `mxnet`: the same in
# the code of CBST; `global`: one threshold for all (its plain self-training).
POLICIES = ('cbst', 'mxnet', 'global')


class Confidences(NamedTuple):
  """What one image or many say about the confidence of each class.

  Attributes:
    lists: per class, float32 `[n]`, the confidence of every fourth pixel that
      is predicted as it.
    counts: i64 `[K]`, all pixels predicted as each class.
  """

  lists: tuple[np.ndarray, ...]
  counts: np.ndarray


def confidences(
  predicted: np.ndarray,
  confidence: np.ndarray,
  num_classes: int,
  every: int = 4,
) -> Confidences:
  """The confidences of one image.

  With `every=4` they take one byte per pixel, 1.6 GB for the 2975 training
  images of Cityscapes at 512x1024. `merge` needs that twice for a moment.

  Args:
    predicted: int `[H, W]`, most probable class, 0 .. num_classes - 1.
    confidence: float32 `[H, W]`, its probability.
    num_classes: K.
    every: the first, then each so many-th pixel of a class is listed, row by
      row; a class with a single pixel is thus always listed.

  Raises:
    ValueError: a label is none of the classes.
  """
  predicted = predicted.ravel()
  counts = np.bincount(predicted, minlength=num_classes)
  if counts.size > num_classes:
    raise ValueError(
      f'label {predicted.max()} is none of {num_classes} classes'
    )
  by_class = confidence.ravel()[np.argsort(predicted, kind='stable')]
  groups = np.split(by_class, np.cumsum(counts)[:-1])
  # Copies, or each list would keep the whole image in memory.
  return Confidences(tuple(group[::every].copy() for group in groups), counts)


def merge(parts: Iterable[Confidences]) -> Confidences:
  """Joins the confidences of images, or of processes.

  Thresholds depend on the values in a list and not on their order, so it does
  not matter how images were spread over processes.

  Args:
    parts: at least one.
  """
  lists, counts = zip(*parts, strict=True)
  joined = (np.concatenate(column) for column in zip(*lists, strict=True))
  return Confidences(tuple(joined), np.sum(counts, axis=0))


def list_sizes(lists: Sequence[np.ndarray], policy: str = 'cbst') -> np.ndarray:
  """The sizes that portions are taken of, i64 `[K]`.

  The code of CBST starts each list with a superfluous zero: it adds one to
  the list of a class that occurs, and K + 1 to the one of all classes.

  Raises:
    UserError: `policy` is unknown.
  """
  if policy not in POLICIES:
    raise errors.unknown('threshold policy', policy, POLICIES)
  sizes = np.array([len(values) for values in lists], np.int64)
  if policy == 'cbst':
    return sizes
  if policy == 'mxnet':
    return sizes + (sizes > 0)
  return np.full_like(sizes, sizes.sum() + len(lists) + 1)


def thresholds(
  lists: Sequence[np.ndarray], portion: float, policy: str = 'cbst'
) -> np.ndarray:
  """The thresholds that keep the most confident `portion` of each class.

  Args:
    lists: per class, float32 `[n]`, see `Confidences`.
    portion: 0 .. 1.
    policy: one of `POLICIES`.

  Returns:
    float32 `[K]`: the k-th largest value of a class's n, k = floor(portion *
    n); 1 where k is 0, as for classes that are never predicted.

  Raises:
    UserError: `policy` is unknown.
  """
  sizes = list_sizes(lists, policy)
  ranks = [math.floor(portion * size) for size in sizes]
  if policy == 'global':
    value = _kth_largest(np.concatenate(lists), ranks[0])
    return np.full(len(lists), value, np.float32)
  pairs = zip(lists, ranks, strict=True)
  return np.array([_kth_largest(*pair) for pair in pairs], np.float32)


def _kth_largest(values: np.ndarray, k: int) -> float:
  """The value of rank k = 1, 2, ...; 1 where there is none."""
  place = len(values) - k
  if k < 1 or place < 0:
    return 1.0
  return np.partition(values, place)[place]


def portions(
  start: float, step: float, limit: float, rounds: int
) -> tuple[float, ...]:
  """The portion of each round: it grows by `step` up to `limit`.

  Added up round by round as in the published code: four rounds after 0.2 come
  to a hair below 0.4, which counts where list sizes are multiples of 5.
  """
  values = [start]
  while len(values) < rounds:
    values.append(min(values[-1] + step, limit))
  return tuple(values)


def label_selection(probs: jax.Array, thresholds: jax.Array) -> jax.Array:
  """Hard pseudo-labels: the class that exceeds its threshold most.

  This need not be the most probable class.

  Args:
    probs: float `[..., K]`.
    thresholds: float `[K]`, in (0, 1].

  Returns:
    u8 `[...]`, argmax of probs / thresholds, 255 where no ratio reaches 1.
  """
  # Comparing is exact. XLA divides by multiplying with rounded reciprocals,
  # also on CPU, and a pixel on its threshold may end up below 1.
  keep = jnp.any(probs >= thresholds, axis=-1)
  best = jnp.argmax(probs / thresholds, axis=-1).astype(jnp.uint8)
  return jnp.where(keep, best, jnp.uint8(labels.IGNORE))


def soft_labels(
  probs: jax.Array, thresholds: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array]:
  """Soft pseudo-labels of CRST's label entropy regulariser (LRENT).

  The labels y are (probs / thresholds) ** (1 / alpha) over their sum Z. A
  pixel is kept where that lowers the objective,
  sum(-y log p + alpha y log y) < sum(-y log thresholds); the difference of
  the sides is -alpha log Z, so where Z > 1.

  Args:
    probs: float `[..., K]`.
    thresholds: float `[K]`, in (0, 1].
    alpha: weight of the entropy; towards 0 labels become hard.

  Returns:
    labels: `[..., K]`, each pixel's sum is 1; keep: bool `[...]`. Labels of
    pixels that are not kept have to be set to 0 before training.
  """
  ratios = probs / thresholds
  # Relative to the largest, a small alpha neither over- nor underflows.
  scaled = (ratios / jnp.max(ratios, -1, keepdims=True)) ** (1 / alpha)
  keep = jnp.sum(ratios ** (1 / alpha), axis=-1) > 1
  return scaled / jnp.sum(scaled, axis=-1, keepdims=True), keep


def mine_ids(counts: np.ndarray, share: float = 1e-3) -> np.ndarray:
  """The classes with less than `share` of all pixels, rarest first; int `[n]`.

  Classes that are never predicted are among them.
  """
  order = np.argsort(counts, kind='stable')
  return order[counts[order] / np.sum(counts) < share]
