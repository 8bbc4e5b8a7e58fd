"""The section of a report about coarse-to-fine steps."""

from __future__ import annotations

from collections.abc import Sequence

from jaxseg_da import report_html, tables

_NOTE = (
  'Target validation at the end of each step, in percent; the control is the'
  ' one with the same classes.'
)
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
  rows = []
  for record in steps:
    cells = report_html.cell(record['num_classes'])
    for key in ('miou', 'pixel_accuracy'):
      cells += report_html.cell(report_html.number(record[key]))
    if controls:
      cells += report_html.gain(tables.gain(record, controls))
    rows.append(report_html.row(f'step {record["step"]}', cells))
  classes = ''.join(
    _classes(record, kept)
    for record, kept in zip(steps, _kept(steps), strict=True)
  )
  return (
    f'<section><h2>Steps</h2>{report_html.table(head, rows, _NOTE)}'
    f'<div class="steps">{classes}</div>'
    f'<p class="note">{_KEPT}</p></section>\n'
  )


def _kept(steps: Sequence[tables.Record]) -> list[set[str]]:
  """Of each step the classes that the one before had, too.

  A child may be called like the parent it was split from, so that the colour
  must be the same as well.
  """
  colours = [record['colours'] for record in steps]
  return [
    {name for name, colour in now.items() if before.get(name) == colour}
    for before, now in zip([{}, *colours[:-1]], colours, strict=True)
  ]


def _classes(record: tables.Record, kept: set[str]) -> str:
  rows = []
  for name, value in record['iou'].items():
    label = report_html.named(name, record)
    label += ' <small>kept</small>' if name in kept else ''
    value = report_html.cell(report_html.number(value))
    rows.append(report_html.row(label, value))
  mean = report_html.cell(report_html.number(record['miou']))
  rows.append(report_html.row('mean', mean, total=True))
  return report_html.table([f'step {record["step"]}', 'IoU'], rows)
