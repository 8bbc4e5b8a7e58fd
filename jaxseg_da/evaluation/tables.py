"""Evaluation records as text: what a run prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Record = Mapping[str, Any]


def table(
  rows: Iterable[tuple[str, Record | None]], controls: Iterable[Record] = ()
) -> str:
  """Stages by mIoU over all, 16 and 13 classes, with the gain over control.

  Args:
    rows: (name, evaluation record or None).
    controls: records that gains are measured against, see `gain`; none leaves
      them out.
  """
  rows, controls = list(rows), list(controls)
  sizes = {r['num_classes'] for _, r in rows if r is not None}
  several = len(sizes) > 1
  head = ['', *(['classes'] if several else [])]
  head += ['mIoU' if several else f'mIoU-{max(sizes, default=19)}']
  head += [
    'mIoU-16',
    'mIoU-13',
    'pixels',
    *(['vs control'] if controls else []),
  ]
  lines = [head]
  for name, record in rows:
    found = record or {}
    keys = ('miou', 'miou_16', 'miou_13', 'pixel_accuracy')
    cells = [name, *([str(found.get('num_classes', '-'))] if several else [])]
    cells += [_number(found.get(key)) for key in keys]
    if controls:
      is_control = any(record is control for control in controls)
      cells.append('' if is_control else _number(gain(record, controls), '+'))
    lines.append(cells)
  return _aligned(lines)


def gain(record: Record | None, controls: Iterable[Record]) -> float | None:
  """mIoU over the control's, in points.

  Args:
    record: an evaluation.
    controls: only one with the same classes is comparable; of several, the
      last.

  Returns:
    None where there is no such control, where it is the record itself, or
    where one of them has no mIoU.
  """
  if record is None:
    return None
  same = [c for c in controls if [*c['iou']] == [*record['iou']]]
  if not same or same[-1] is record:
    return None
  return difference(record['miou'], same[-1]['miou'])


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
