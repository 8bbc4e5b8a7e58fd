"""Class shares: those of a sample, those that are known, and what they tell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_prep import layouts
from jaxseg_da.classes import labels

CITYSCAPES = 'Cityscapes train'
# Percent of the pixels of the 19 classes, computed from class statistics that
# others published; 0 where a data set does not have the class.
REFERENCE = {
  CITYSCAPES: (
    36.9, 6.1, 22.8, 0.66, 0.88, 1.23, 0.21, 0.55, 15.9, 1.16, 4.0, 1.22, 0.14,
    7.0, 0.27, 0.24, 0.23, 0.10, 0.41,
  ),
  'SYNTHIA': (
    18.6, 20.3, 30.3, 0.27, 0.28, 1.08, 0.04, 0.11, 10.7, 0, 7.2, 4.42, 0.49,
    4.3, 0, 1.46, 0, 0.21, 0.22,
  ),
}  # fmt: skip

_TRAIN_IDS = labels.lookup_table(
  ((i, i) for i in range(labels.NUM_CLASSES)), labels.IGNORE
)
# What label files may hold: its table, and the values that it knows.
_SCHEMES = {
  'train ids': (_TRAIN_IDS, {*range(labels.NUM_CLASSES), labels.IGNORE}),
  'ids of Cityscapes': (
    labels.GTA5_ID_TO_TRAIN_ID,
    {row.id for row in labels.GTA5},
  ),
  'ids of SYNTHIA': (
    labels.SYNTHIA_ID_TO_TRAIN_ID,
    {row.id for row in labels.SYNTHIA},
  ),
  'ids of IDD': (labels.IDD_ID_TO_TRAIN_ID, {row.id for row in labels.IDD}),
}
# Another reading of the labels has to fit so well, and so much better than the
# own one if that is possible, to be believed.
_FITS, _BETTER = 0.5, 0.2


class Shares(NamedTuple):
  """How the pixels of labels spread over the classes.

  Attributes:
    percent: f64 `[19]`, of the pixels that are not ignored; sums to 100.
    ignored: percent of all pixels.
  """

  percent: np.ndarray
  ignored: float


def reference(layout: layouts.Layout) -> tuple[str, np.ndarray]:
  """Name and percentages f64 `[19]` of the row to compare with."""
  own = layout.official.reference
  name = own or f'{CITYSCAPES}, for orientation'
  return name, np.array(REFERENCE[own or CITYSCAPES])


def shares(counts: np.ndarray, table: np.ndarray) -> Shares:
  """Shares of pixel counts i64 `[256]` by raw id under a table of train ids.

  Zeros where there is no pixel to share.
  """
  classes = np.zeros(256, np.int64)
  np.add.at(classes, table, counts)
  kept = classes[: labels.NUM_CLASSES]
  total = int(counts.sum())
  percent = 100 * kept / max(int(kept.sum()), 1)
  return Shares(percent, 100 * (total - int(kept.sum())) / max(total, 1))


def better_scheme(layout: layouts.Layout, counts: np.ndarray) -> str:
  """Whose ids the labels seem to hold instead of those of the data set.

  Args:
    layout: of the data set.
    counts: pixels by raw id, i64 `[256]`.

  Returns:
    A name of ids that cover all values and make the class shares far more
    plausible than the ids of the data set do; '' if there is none.
  """
  _, usual = reference(layout)
  values = {*np.flatnonzero(counts).tolist()}
  own, fits = _distance(shares(counts, layout.to_train_id), usual), {}
  for name, (table, known) in _SCHEMES.items():
    if values <= known:
      fits[_distance(shares(counts, table), usual)] = name
    elif np.array_equal(table, layout.to_train_id):
      own = np.inf
  best = min(fits, default=np.inf)
  return fits[best] if best < min(_FITS, own - _BETTER) else ''


def _distance(found: Shares, usual: np.ndarray) -> float:
  """How far shares are from the usual ones: 0 the same, 1 nothing in common.

  Total variation, with the ignored pixels as a class that should be empty.
  """
  kept = 1 - found.ignored / 100
  differences = np.abs(kept * found.percent - usual).sum() / 100
  return float(differences + 1 - kept) / 2
