"""What the logits of a network mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxseg_da.classes import labels


class Classes(NamedTuple):
  """What the logits of a stage mean; data sets always hold train ids.

  Attributes:
    names: of C classes.
    colours: u8 `[C, 3]`.
    table: u8 `[256]`, from train ids to classes; 255 does not count.
    train_ids: of each class, -1 where it covers several.
    subsets: class indices by size, `labels.SUBSETS` or nothing.
    step: of a hierarchy, from coarse to fine; None where there is none.
    kept: names of those that get no training labels any more.
  """

  names: tuple[str, ...]
  colours: np.ndarray
  table: np.ndarray
  train_ids: tuple[int, ...]
  subsets: Mapping[int, tuple[int, ...]]
  step: int | None = None
  kept: tuple[str, ...] = ()


_ALL = range(labels.NUM_CLASSES)
CITYSCAPES = Classes(
  labels.NAMES,
  labels.COLOURS,
  labels.lookup_table(((i, i) for i in _ALL), labels.IGNORE),
  tuple(_ALL),
  labels.SUBSETS,
)
