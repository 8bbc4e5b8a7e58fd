"""A class tree as a picture: steps from left to right, children by parents."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from jaxseg_da.classes import hierarchy as hierarchy_lib
from jaxseg_da.drawing import visual

_FONT, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45
_PAPER, _INK, _SOFT = (255, 255, 255), (32, 32, 32), (110, 116, 124)
_MARGIN, _HEAD = 20, 58  # around the tree, and the headings above it
_PITCH, _FIELD = (
  32,
  24,
)  # from class to class of the last step; a field's height
_LEAST = 136  # width of a field that holds short names
_GAP = 112  # between steps: room for the note
_BAR = 6  # the full colour of a class that is kept
_NOTE = 'kept: no labels'


def draw(hierarchy: hierarchy_lib.Hierarchy) -> np.ndarray:
  """Draws the classes of every step and what becomes of them.

  A class is a field in its colour. One that was definitive before, so that its
  step has no training labels for it, is a pale field with an edge in its
  colour, at the end of a thin straight line.

  Args:
    hierarchy: the tree, checked.

  Returns:
    u8 `[H, W, 3]`, four steps about 950 wide.
  """
  rows = _rows(hierarchy)
  names = [c.name for step in hierarchy.steps for c in step]
  width = max(_LEAST, *(_extent(name)[0] + 2 * _BAR + 12 for name in names))
  count, pitch = len(hierarchy.steps), width + _GAP
  page = np.full(
    (
      _HEAD + _PITCH * len(hierarchy.steps[-1]) + _MARGIN,
      2 * _MARGIN + count * width + (count - 1) * _GAP,
      3,
    ),
    _PAPER,
    np.uint8,
  )
  for t in range(count):
    left = _MARGIN + t * pitch
    _heading(page, left, width, t, hierarchy.num_classes(t))
    ignored = hierarchy.ignored(t)
    for i, c in enumerate(hierarchy.steps[t]):
      if t:
        parent = hierarchy.parents(t)[i]
        start = (left - _GAP, _middle(rows[t - 1][parent]))
        end = (left, _middle(rows[t][i]))
        if i in ignored:
          _kept_line(page, start, end)
        else:
          colour = hierarchy.steps[t - 1][parent].colour
          _curve(page, start, end, colour)
      corner = (left, _middle(rows[t][i]) - _FIELD // 2)
      _field(page, corner, width, c, pale=i in ignored)
  return page


def _rows(hierarchy: hierarchy_lib.Hierarchy) -> list[list[float]]:
  """The row of each class by step; a parent is amid its children.

  The last step's classes come in the order of their ancestors, so that lines
  never cross.
  """
  last = len(hierarchy.steps) - 1
  paths = []
  for i in range(hierarchy.num_classes(last)):
    path = [i]
    for t in range(last, 0, -1):
      path.insert(0, hierarchy.parents(t)[path[0]])
    paths.append(path)
  paths.sort()
  members = [
    [[r for r, path in enumerate(paths) if path[t] == i] for i in range(len(s))]
    for t, s in enumerate(hierarchy.steps)
  ]
  return [[(m[0] + m[-1]) / 2 for m in step] for step in members]


def _middle(row: float) -> int:
  return round(_HEAD + (row + 0.5) * _PITCH)


def _extent(text: str, size: float = _SIZE) -> tuple[int, int]:
  (width, height), _ = cv2.getTextSize(text, _FONT, size, 1)
  return width, height


def _text(page, text: str, at: tuple[int, int], colour, size=_SIZE) -> None:
  cv2.putText(page, text, at, _FONT, size, colour, 1, cv2.LINE_AA)


def _heading(page, left: int, width: int, step: int, classes: int) -> None:
  text = f'step {step}: {classes} class{"es" if classes != 1 else ""}'
  _text(page, text, (left + 2, _HEAD - 26), _INK, 0.55)
  page[_HEAD - 16, left : left + width] = _SOFT


def _field(page, corner, width: int, c, pale: bool) -> None:
  left, top = corner
  field = page[top : top + _FIELD, left : left + width]
  field[:] = fill = _tint(c.colour, 0.25) if pale else c.colour
  field[:, :_BAR] = c.colour
  at = (left + _BAR + 6, top + _FIELD // 2 + 5)
  _text(page, c.name, at, visual.contrast(fill))


def _kept_line(page, start, end) -> None:
  cv2.line(page, start, end, _SOFT, 1)
  width, _ = _extent(_NOTE, 0.38)
  at = ((start[0] + end[0] - width) // 2, start[1] - 4)
  _text(page, _NOTE, at, _SOFT, 0.38)


def _curve(page, start, end, colour: Sequence[int]) -> None:
  """A line that leaves and arrives level."""
  s = np.linspace(0, 1, 33)
  x = start[0] + s * (end[0] - start[0])
  y = start[1] + (3 - 2 * s) * s * s * (end[1] - start[1])
  # Fixed-point coordinates, 1/16 pixel.
  points = np.rint(16 * np.stack([x, y], axis=-1)).astype(np.int32)
  ink = _tint(colour, 0.7)
  cv2.polylines(page, [points], False, ink, 2, cv2.LINE_AA, shift=4)


def _tint(colour: Sequence[int], share: float) -> tuple[int, ...]:
  """A colour with white mixed in."""
  return tuple(round(share * v + (1 - share) * 255) for v in colour)
