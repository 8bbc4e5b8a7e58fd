"""Pieces of a report that several of its sections are made of: HTML text."""

from __future__ import annotations

import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxseg_da.classes import labels as label_tables


def style() -> str:
  """The style sheet that all pages share; light or dark, as readers have it."""
  return pathlib.Path(__file__).with_name('page.css').read_text()


def number(value: float | None, sign: str = '', digits: int = 1) -> str:
  """A number with a real minus sign; a dash where there is none."""
  if value is None:
    return '–'
  return f'{value:{sign}.{digits}f}'.replace('-', '−')


def cell(text: str | int) -> str:
  """A cell of a column of numbers."""
  return f'<td class="n">{text}</td>'


def gain(value: float | None) -> str:
  """A cell that shows a difference by sign, arrow and colour."""
  if value is None:
    return cell('–')
  kind = 'up' if value >= 0.05 else 'down' if value <= -0.05 else 'same'
  arrow = {'up': '▲', 'down': '▼', 'same': ''}[kind]
  return f'<td class="n {kind}">{arrow} {number(value, "+")}</td>'


def bar(value: float | None) -> str:
  """A cell with a percentage, as a bar and as a number."""
  size = f'<i style="width:{value:.1f}%"></i>' if value is not None else ''
  return cell(
    f'<span class="bar">{size}</span><span class="value">{number(value)}</span>'
  )


def named(name: str, record: Mapping[str, Any]) -> str:
  """A class name after a chip in its colour.

  Args:
    name: of the class.
    record: an evaluation; its `colours` are those of its classes, without them
      they are those of Cityscapes. A class that has none gets no chip.
  """
  colour = None
  if 'colours' in record:
    colour = record['colours'].get(name)
  elif name in label_tables.NAMES:
    colour = label_tables.COLOURS[label_tables.NAMES.index(name)]
  if colour is None:
    return html.escape(name)
  red, green, blue = colour
  style = f'background:rgb({red},{green},{blue})'
  return f'<i class="chip" style="{style}"></i>{html.escape(name)}'


def row(name: str, cells: str, total: bool = False) -> str:
  """A row of a table; `name` and `cells` are HTML."""
  kind = ' class="total"' if total else ''
  return f'<tr{kind}><th scope="row">{name}</th>{cells}</tr>'


def table(head: Sequence[str], rows: Sequence[str], caption: str = '') -> str:
  """A table that scrolls by itself where the page is too narrow.

  Args:
    head: texts of the first row.
    rows: HTML, see `row`.
    caption: text below.
  """
  cells = ''.join(f'<th scope="col">{html.escape(h)}</th>' for h in head)
  note = f'<caption>{html.escape(caption)}</caption>' if caption else ''
  return (
    f'<div class="scroll"><table>{note}'
    f'<thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    '</div>'
  )
