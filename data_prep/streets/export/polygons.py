"""Label maps as polygons that rasterise to exactly the same pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Polygon(NamedTuple):
  """One polygon of a label.

  Attributes:
    value: the label.
    points: corners as [x, y]; the pixels on the outline belong to it.
  """

  value: int
  points: list[list[int]]


def from_label(label: np.ndarray) -> list[Polygon]:
  """Polygons that, painted in order, give a label map u8 `[H, W]`.

  Every run of equal pixels in a row is painted up to the right edge of the
  image; the next run, painted later, covers what is too much. So neighbouring
  rows share one rectangle where runs begin alike, wherever they end.
  """
  width = label.shape[1]
  begins = np.ones(label.shape, bool)
  begins[:, 1:] = label[:, 1:] != label[:, :-1]
  rows, starts = np.nonzero(begins)
  values = label[rows, starts]
  order = np.lexsort((rows, values, starts))
  rows, starts, values = rows[order], starts[order], values[order]
  new = np.ones(len(rows), bool)
  new[1:] = (
    (np.diff(starts) != 0) | (values[1:] != values[:-1]) | (np.diff(rows) != 1)
  )
  first = np.flatnonzero(new)
  last = np.append(first[1:], len(rows)) - 1
  boxes = zip(
    values[first], starts[first], rows[first], rows[last], strict=True
  )
  return [
    _rectangle(int(value), int(left), int(top), width - 1, int(bottom))
    for value, left, top, bottom in boxes
  ]


def _rectangle(
  value: int, left: int, top: int, right: int, bottom: int
) -> Polygon:
  points = [[left, top], [right, top], [right, bottom], [left, bottom]]
  return Polygon(value, points)
