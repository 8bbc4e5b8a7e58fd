"""Evaluation records as text: what a run prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def table(
  rows: Iterable[tuple[str, Mapping[str, Any] | None]],
  control: Mapping[str, Any] | None = None,
) -> str:
  """Stages by mIoU over 19, 16 and 13 classes, with the gain over control.

  Args:
    rows: (name, evaluation record or None).
    control: record that gains are measured against; None leaves them out.
  """
  rows = list(rows)
  sizes = [r['num_classes'] for _, r in rows if r is not None]
  head = ['', f'mIoU-{max(sizes, default=19)}', 'mIoU-16', 'mIoU-13', 'pixels']
  lines = [head + (['vs control'] if control else [])]
  for name, record in rows:
    found = record or {}
    keys = ('miou', 'miou_16', 'miou_13', 'pixel_accuracy')
    cells = [name, *(_number(found.get(key)) for key in keys)]
    if control:
      gain = difference(found.get('miou'), control.get('miou'))
      cells.append('' if record == control else _number(gain, '+'))
    lines.append(cells)
  return _aligned(lines)


def class_table(
  record: Mapping[str, Any], control: Mapping[str, Any] | None = None
) -> str:
  """IoU by class, with the difference to `control` where it is given."""
  lines = [['class', 'IoU'] + (['control', 'difference'] if control else [])]
  other = control['iou'] if control else {}
  rows = {**record['iou'], 'mean': record['miou']}
  for name, value in rows.items():
    cells = [name, _number(value)]
    if control:
      base = control['miou'] if name == 'mean' else other.get(name)
      cells += [_number(base), _number(difference(value, base), '+')]
    lines.append(cells)
  return _aligned(lines)


def difference(value: float | None, base: float | None) -> float | None:
  """`value - base`; None where one of them is missing."""
  return None if value is None or base is None else value - base


def _number(value: float | None, sign: str = '') -> str:
  return '-' if value is None else f'{value:{sign}.2f}'


def _aligned(lines: list[list[str]]) -> str:
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.rjust(width) if i else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in lines
  )
