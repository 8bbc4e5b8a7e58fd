"""What lies in a folder of raw data, by names only."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Iterator

from data_prep import items, known_bad, layouts, raw
from jaxseg_da import errors


@dataclasses.dataclass(frozen=True)
class Survey:
  """The files of a data set, and those that do not fit.

  Attributes:
    splits: split -> items, none of them empty.
    missing: official numbers of which the image or the label is not there, but
      for those that are known to be bad.
    foreign: image ids that are no official number.
    orphans: paths of labels without image.
    unused: paths of files that no build reads.
    archives: paths of archives that cannot be read.
    known_bad: image id -> why a build leaves it out.
    refusal: why a build would refuse the files; '' if it would not.
  """

  splits: layouts.Splits
  missing: list[int]
  foreign: list[str]
  orphans: list[str]
  unused: list[str]
  archives: list[str]
  known_bad: dict[str, str]
  refusal: str

  def usable(self) -> layouts.Splits:
    """The splits without what is known to be bad."""
    return {
      name: [item for item in members if item.image_id not in self.known_bad]
      for name, members in self.splits.items()
    }


def survey(layout: layouts.Layout, root: str | os.PathLike[str]) -> Survey:
  """Searches a folder.

  Raises:
    errors.UserError: it cannot be read, holds no images of this data set, or
      two files for one thing.
  """
  data = raw.Raw(root)
  found = layout.find(data)
  splits = {name: members for name, members in found.items() if members}
  members = [item for each in splits.values() for item in each]
  images = {item.image_id for item in members}
  orphans = _orphans(layout, data, images)
  known = {file.path for item in members for file in item.files()} | {*orphans}
  bad = known_bad.rules(layout.name).ids
  numbers = layout.official.ids
  settled = {int(i.image_id) for i in members if numbers and i.label}
  settled |= {int(name) for name in bad if numbers}
  return Survey(
    splits=splits,
    missing=[number for number in numbers if number not in settled],
    foreign=[i for i in sorted(images) if numbers and int(i) not in numbers],
    orphans=[_printable(path) for path in orphans],
    unused=[_printable(p) for p in data if p not in known],
    archives=[_printable(path) for path in data.other_archives],
    known_bad={name: bad[name] for name in sorted(images & {*bad})},
    refusal=_refusal(layout, data, splits),
  )


def _orphans(
  layout: layouts.Layout, data: raw.Raw, images: set[str]
) -> list[str]:
  """Paths of labels whose image is not there."""
  if not layout.official.label_key:
    return []
  pattern = re.compile(f'(?:.*/)?{layout.official.label_key}')
  matches = map(pattern.fullmatch, data)
  return sorted({m.string for m in matches if m and m[1] not in images})


def _refusal(
  layout: layouts.Layout, data: raw.Raw, splits: layouts.Splits
) -> str:
  same = dataclasses.replace(layout, find=lambda _: splits)
  try:
    layouts.select(same, data, layouts.Options())
  except errors.UserError as error:
    return str(error)
  return ''


def _printable(path: str) -> str:
  """A path of any bytes as text that can be printed."""
  return os.fsencode(path).decode(errors='replace')


def ranges(numbers: list[int]) -> Iterator[str]:
  """Ascending numbers as '7' and '2154-2158'."""
  # Within a run, a number and its position differ by the same amount.
  runs = itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
  for _, run in runs:
    first, *_, last = [number for _, number in run] * 2
    yield f'{first}-{last}' if first < last else f'{first}'


def pairs(members: list[items.Item]) -> int:
  """How many of the items have a label."""
  return sum(item.label is not None for item in members)
