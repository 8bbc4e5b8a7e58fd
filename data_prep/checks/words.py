"""Findings in words, for the terminal and for the page."""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Sequence

from data_prep import items, known_bad, layouts
from data_prep.checks import findings as findings_lib
from data_prep.checks import shares, survey
from jaxseg_da.classes import labels

# A class share or another number that is not there.
NONE = '–'

_FEW_RANGES = 5
_FEW_SIZES = 4
_FEW_PATHS = 2
_FEW_KINDS = 6


def title(layout: layouts.Layout) -> str:
  """Name of a data set for people."""
  return layout.official.title or layout.name


def number(value: int | None) -> str:
  """'24 941' of 24941; a dash of None."""
  return NONE if value is None else f'{value:,}'.replace(',', ' ')


def many(count: int, what: str) -> str:
  """'1 label', '25 labels'."""
  return f'{number(count)} {what}{"" if count == 1 else "s"}'


def percent(value: float) -> str:
  """A class share; a dash of 0."""
  return f'{value:.2f}' if value else NONE


def some(texts: Sequence[str], few: int) -> str:
  """The first of some texts, and how many there are if that is not all."""
  shown = ', '.join(texts[:few])
  return shown if len(texts) <= few else f'{shown}, ... ({len(texts)} in all)'


def counts(found: findings_lib.Findings) -> list[list[str]]:
  """Rows of a table: split, images, labels, official number of images."""
  expected = found.layout.expected
  return [['split', 'images', 'labels', 'official']] + [
    [
      name,
      number(len(members)),
      number(survey.pairs(members)),
      number(expected.get(name)),
    ]
    for name, members in found.survey.splits.items()
  ]


def classes(found: findings_lib.Findings) -> list[tuple[str, float, float]]:
  """Name, share in the sample, share to compare with: percent per class."""
  _, usual = shares.reference(found.layout)
  percent = found.shares.percent
  return [*zip(labels.NAMES, percent.tolist(), usual.tolist(), strict=True)]


def class_note(found: findings_lib.Findings) -> str:
  """What the class shares are of."""
  return (
    'Percent of the pixels of the 19 classes in '
    f'{many(found.sample.labels, "label")}; {found.shares.ignored:.1f} % of '
    'all pixels are ignored.'
  )


def notes(found: findings_lib.Findings) -> list[tuple[str, str]]:
  """What there is to say besides counts and classes: keyword and text."""
  seen, measured = found.survey, found.sizes
  sizes = [
    f'{items.shape_text(size)} ({number(count)})'
    for size, count in measured.images.most_common()
  ]
  if found.sizes.scaled:
    sizes.append(f'{many(measured.scaled, "label")} of another scale')
  several = (
    ('sizes', some(sizes, _FEW_SIZES)),
    ('not there', some(_absent(found), 4)),
    ('missing ids', _missing(found)),
    ('foreign ids', some(seen.foreign, _FEW_RANGES)),
    ('labels without image', some(seen.orphans, _FEW_PATHS)),
    ('size mismatch', some([*found.mismatches.values()], 1)),
    ('unreadable', some([*found.broken.values()], 1)),
    ('known bad', '; '.join(_known_bad(seen.known_bad))),
    ('one class only', _one_class(found)),
    ('unread archives', some(seen.archives, _FEW_PATHS)),
    ('other files', some(_kinds(seen.unused), _FEW_KINDS)),
  )
  return [(key, text) for key, text in several if text]


def _missing(found: findings_lib.Findings) -> str:
  missing = found.survey.missing
  if not (missing and found.official):
    return ''
  ranges = some([*survey.ranges(missing)], _FEW_RANGES)
  return f'{number(len(missing))}: {ranges}'


def _absent(found: findings_lib.Findings) -> list[str]:
  """Official splits without images; numbered images need no splits."""
  if found.layout.official.ids:
    return []
  return [s for s in found.layout.expected if s not in found.survey.splits]


def _kinds(paths: Sequence[str]) -> list[str]:
  """Kinds of files, rare ones first: what is strange is rare."""
  kinds = collections.Counter(
    re.sub(r'.*\d\d', '*', path.rpartition('/')[2]) for path in paths
  )
  return [
    kind if count == 1 else f'{kind} ({number(count)})'
    for kind, count in reversed(kinds.most_common())
  ]


def _known_bad(reasons: dict[str, str]) -> list[str]:
  ids = sorted(reasons, key=reasons.__getitem__)
  groups = itertools.groupby(ids, reasons.__getitem__)
  return [f'{", ".join(group)} ({reason})' for reason, group in groups]


def _one_class(found: findings_lib.Findings) -> str:
  """Frames that a build drops for having one class only."""
  reason = known_bad.ONE_CLASS.get(found.layout.name)
  ids = found.sample.one_class
  return f'{some(ids, _FEW_RANGES)} ({reason})' if reason and ids else ''


def report(found: findings_lib.Findings) -> list[str]:
  """Lines for the terminal, without the verdict."""
  lines = [f'{title(found.layout)} in {found.root}', '']
  lines += _aligned(counts(found))
  lines += ['']
  said = notes(found)
  width = max((len(key) for key, _ in said), default=0)
  lines += [f'{key:<{width}}  {text}' for key, text in said]
  if not found.sample.labels:
    return lines
  name, _ = shares.reference(found.layout)
  rows = [
    [label, percent(here), percent(usual)]
    for label, here, usual in classes(found)
  ]
  lines += ['', class_note(found)]
  return lines + _aligned([['class', 'here', name], *rows])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  """Rows of a table as lines, the first column to the left."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(
      cell.rjust(width) if index else cell.ljust(width)
      for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  ]
