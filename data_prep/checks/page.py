"""The page of a check: one file that needs nothing else to be looked at."""

from __future__ import annotations

import html
import os
import pathlib
import tempfile
from collections.abc import Iterable, Sequence

from data_prep import items, layouts
from data_prep.checks import findings as findings_lib
from data_prep.checks import sample, shares, sheet, verdicts, words
from jaxseg_da import errors
from jaxseg_da.classes import labels
from jaxseg_da.drawing import html_pieces

_FRAMES = 12  # on the contact sheet
_LISTED = 50  # broken files; more are counted

# On top of the style of reports: a class has two bars, a frame its pictures.
_STYLE = """
.verdict { padding: .9rem 1.1rem; border-radius: .5rem; margin: 1.25rem 0 0;
  background: var(--panel); border-left: .4rem solid var(--up);
  overflow-wrap: anywhere }
.verdict.bad { border-color: var(--down) }
.verdict b { display: block; font-size: .875rem; color: var(--up) }
.verdict.bad b { color: var(--down) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem;
  margin: 1rem 0 0; font-size: .9375rem }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
.usual i { background: var(--soft) }
.frame { border-top: 1px solid var(--rule); padding: .75rem 0 1rem }
.frame h3 { margin: 0 0 .5rem; font-size: .9375rem; font-weight: 600;
  overflow-wrap: anywhere }
.pictures { display: flex; flex-wrap: wrap; gap: .5rem }
.pictures figure { flex: 1 1 9rem; max-width: 24rem; margin: 0 }
.why { padding-left: 1.2rem; overflow-wrap: anywhere }
thead th { white-space: normal }
.bar { width: clamp(1.5rem, 8vw, 8rem); margin-right: .25rem }
"""


def check_target(path: pathlib.Path) -> None:
  """Raises `errors.UserError` where a page could never be written."""
  if path.is_dir():
    raise errors.UserError(f'--html={path} is a folder, expected a file')
  if not path.parent.is_dir():
    raise errors.UserError(f'--html={path}: there is no folder {path.parent}')


def write(
  path: pathlib.Path,
  layout: layouts.Layout,
  root: str,
  verdict: verdicts.Verdict,
  found: findings_lib.Findings | None,
) -> None:
  """Writes the page, which appears when it is complete.

  Args:
    path: of the page.
    layout: of the data set.
    root: the folder that was checked.
    verdict: about it.
    found: what was found; None where the search itself failed.

  Raises:
    errors.UserError: it cannot be written.
  """
  text = render(layout, root, verdict, found)
  try:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    fresh = pathlib.Path(name)
    try:
      with os.fdopen(handle, 'w', encoding='utf-8') as file:
        file.write(text)
      fresh.chmod(0o644)
      fresh.replace(path)
    except BaseException:
      fresh.unlink(missing_ok=True)
      raise
  except OSError as error:
    raise errors.UserError(
      f'--html={path} cannot be written: {error.strerror}'
    ) from error


def render(
  layout: layouts.Layout,
  root: str,
  verdict: verdicts.Verdict,
  found: findings_lib.Findings | None,
) -> str:
  """The page as text; see `write`."""
  title = html.escape(f'{words.title(layout)}: check of the raw data')
  kind, word = ('good', 'nothing wrong') if verdict.good else ('bad', 'wrong')
  body = [
    f'<header><h1>{title}</h1><p class="facts">{html.escape(root)}</p>'
    f'<p class="verdict {kind}"><b>{word}</b>{html.escape(verdict.text)}</p>'
    '</header>\n'
  ]
  if found:
    body += [_files(found), _classes(found), _frames(found), _defects(found)]
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{title}</title>\n<style>{html_pieces.style()}{_STYLE}</style>\n'
    f'</head>\n<body>\n<main>{"".join(body)}</main>\n</body>\n</html>\n'
  )


def _files(found: findings_lib.Findings) -> str:
  head, *rows = words.counts(found)
  table = _table(head, [_row(row[0], map(_cell, row[1:])) for row in rows])
  notes = ''.join(
    f'<dt>{html.escape(key)}</dt><dd>{html.escape(text)}</dd>'
    for key, text in words.notes(found)
  )
  return f'<section><h2>Files</h2>{table}<dl>{notes}</dl></section>\n'


def _classes(found: findings_lib.Findings) -> str:
  if not found.sample.labels:
    return ''
  name, _ = shares.reference(found.layout)
  rows = words.classes(found)
  longest = max(max(here, usual) for _, here, usual in rows) or 1
  cells = [
    _row(
      _chip(label) + html.escape(label),
      (_bar(here, longest), _bar(usual, longest, 'usual')),
    )
    for label, here, usual in rows
  ]
  table = _table(('class', 'here', name), cells, words.class_note(found))
  return f'<section><h2>Classes</h2>{table}</section>\n'


def _frames(found: findings_lib.Findings) -> str:
  shown = ''.join(
    _frame(found.layout, item)
    for item in sample.evenly(found.sample.frames, _FRAMES)
  )
  legend = ''.join(
    f'<li>{_chip(name)}{html.escape(name)}</li>' for name in labels.NAMES
  )
  if not found.sample.labels:
    legend = ''
  return (
    f'<section><h2>Frames</h2><ul class="legend">{legend}</ul>{shown}'
    '</section>\n'
  )


def _frame(layout: layouts.Layout, item: items.Item) -> str:
  name = html.escape(item.image_id)
  figures = ''.join(
    f'<figure><img src="{p.uri}" width="{p.width}" height="{p.height}" '
    f'alt="{name}: {html.escape(p.caption)}">'
    f'<figcaption>{html.escape(p.caption)}</figcaption></figure>'
    for p in sheet.pictures(layout, item)
  )
  figures = figures or '<p class="note">nothing of it can be read</p>'
  return (
    f'<div class="frame"><h3>{name}</h3><div class="pictures">{figures}</div>'
    '</div>'
  )


def _defects(found: findings_lib.Findings) -> str:
  wrong = [*found.broken.values(), *found.mismatches.values()]
  known = [f'{i}: {why}' for i, why in found.survey.known_bad.items()]
  return _listed('Broken files', wrong) + _listed('Left out', known)


def _listed(head: str, texts: Sequence[str]) -> str:
  if not texts:
    return ''
  shown = [*texts[:_LISTED]]
  if len(texts) > _LISTED:
    shown.append(f'... {words.number(len(texts))} in all')
  points = ''.join(f'<li>{html.escape(text)}</li>' for text in shown)
  return f'<section><h2>{head}</h2><ul class="why">{points}</ul></section>\n'


def _table(head: Sequence[str], rows: Iterable[str], note: str = '') -> str:
  cells = ''.join(f'<th scope="col">{html.escape(h)}</th>' for h in head)
  top = f'<thead><tr>{cells}</tr></thead>' if cells else ''
  caption = f'<caption>{html.escape(note)}</caption>' if note else ''
  return (
    f'<div class="scroll"><table>{caption}{top}<tbody>{"".join(rows)}</tbody>'
    '</table></div>'
  )


def _row(name: str, cells: Iterable[str]) -> str:
  return f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>'


def _cell(text: str) -> str:
  return f'<td class="n">{html.escape(text)}</td>'


def _bar(value: float, longest: float, kind: str = '') -> str:
  width = 100 * value / longest
  return (
    f'<td class="n"><span class="bar {kind}"><i style="width:{width:.1f}%">'
    f'</i></span><span class="value">{words.percent(value)}</span></td>'
  )


def _chip(name: str) -> str:
  red, green, blue = labels.COLOURS[labels.NAMES.index(name)]
  return f'<i class="chip" style="background:rgb({red},{green},{blue})"></i>'
