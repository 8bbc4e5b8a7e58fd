"""The section of a report about coarse-to-fine steps."""

from __future__ import annotations

from collections.abc import Sequence

from jaxseg_da.drawing import html_pieces
from jaxseg_da.evaluation import tables

_NOTE = 'Target validation at the end of each step, in percent.'
_COMPARED = ' Each control has the classes of its step.'
_KEPT = (
  'IoU in percent. Kept: the step before had the class already; it gets no'
  ' training labels any more, but counts.'
)


def section(
  steps: Sequence[tables.Record] | None, controls: Sequence[tables.Record]
) -> str:
  """Steps by mIoU, and the classes of each.

  Args:
    steps: evaluations of the main stages, from coarse to fine; may be None.
    controls: what gains are measured against, see `tables.gain`.

  Returns:
    HTML; an empty string where there are no steps.
  """
  if not steps:
    return ''
  head = ['step', 'classes', 'mIoU', 'pixel acc.']
  head += ['vs control'] if controls else []
  note = _NOTE + (_COMPARED if controls else '')
  rows = []
  for record in steps:
    cells = html_pieces.cell(record['num_classes'])
    for key in ('miou', 'pixel_accuracy'):
      cells += html_pieces.cell(html_pieces.number(record[key]))
    if controls:
      cells += html_pieces.gain(tables.gain(record, controls))
    rows.append(html_pieces.row(f'step {record["step"]}', cells))
  classes = ''.join(map(_classes, steps))
  return (
    f'<section><h2>Steps</h2>{html_pieces.table(head, rows, note)}'
    f'<div class="steps">{classes}</div>'
    f'<p class="note">{_KEPT}</p></section>\n'
  )


def _classes(record: tables.Record) -> str:
  rows = []
  for name, value in record['iou'].items():
    label = html_pieces.named(name, record)
    label += ' <small>kept</small>' if name in record['kept'] else ''
    value = html_pieces.cell(html_pieces.number(value))
    rows.append(html_pieces.row(label, value))
  mean = html_pieces.cell(html_pieces.number(record['miou']))
  rows.append(html_pieces.row('mean', mean, total=True))
  return html_pieces.table([f'step {record["step"]}', 'IoU'], rows)
