"""Lists of image ids: which frames a build takes, and into which split.

A line is an image id, or a path that ends in one, as in the lists that papers
publish; what follows the first space or tab, and after `#`, is not read.
"""

from __future__ import annotations

import hashlib
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep import items
from jaxseg_da import errors

Splits = dict[str, list[items.Item]]


def apply(splits: Splits, texts: Sequence[str]) -> Splits:
  """The splits after the user's lists.

  Args:
    splits: split -> items.
    texts: FILE keeps the named images in the splits in which they are;
      SPLIT=FILE makes a split of them, whatever split they come from, and then
      only splits so made are left. In that case their order is the file's.

  Raises:
    errors.UserError: a list cannot be read, is empty, names an image twice, or
      one that is not there.
  """
  by_id = {item.image_id: item for each in splits.values() for item in each}
  made: Splits = {}
  for text in texts:
    split, file = _parse(text)
    wanted = [_image_id(line, by_id) for line in _lines(file)]
    _check(file, wanted, by_id)
    if split:
      made[split] = [by_id[name] for name in wanted]
    else:
      chosen = {*wanted}
      splits = {
        name: [item for item in each if item.image_id in chosen]
        for name, each in splits.items()
      }
  return made or splits


def makes_splits(texts: Sequence[str]) -> bool:
  """Whether the lists replace the splits of the data set."""
  return any(_parse(text)[0] for text in texts)


def digest(text: str) -> str:
  """A list option with a digest of the file in place of its name."""
  split, file = _parse(text)
  code = hashlib.sha256('\n'.join(_lines(file)).encode()).hexdigest()[:12]
  return f'{split}={code}' if split else code


def _parse(text: str) -> tuple[str, str]:
  match = re.fullmatch(r'(?:(\w+)=)?(.+)', text)
  if match is None or match[1] == 'all':
    raise errors.UserError(
      f'--list={text}: expected FILE or SPLIT=FILE, with a split not called all'
    )
  return match[1] or '', match[2]


def _lines(file: str) -> list[str]:
  try:
    text = pathlib.Path(file).expanduser().read_text()
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(f'--list={file} cannot be read: {error}') from error
  lines = [line.split('#')[0].split() for line in text.splitlines()]
  return [words[0] for words in lines if words]


def _image_id(line: str, known: Mapping[str, Any]) -> str:
  """The image id that a line means; the line where none does."""
  path = pathlib.PurePosixPath(line)
  stem = path.name.split('.')[0].removesuffix('_leftImg8bit')
  names = (line, stem, f'{path.parent.name}/{stem}')
  return next((name for name in names if name in known), line)


def _check(file: str, wanted: Sequence[str], known: Mapping[str, Any]) -> None:
  if not wanted:
    raise errors.UserError(f'--list={file} names no image')
  missing = [name for name in wanted if name not in known]
  if missing:
    raise errors.UserError(
      f'--list={file} names {missing[0]!r}, which is not there '
      f'({len(missing)} of {len(wanted)} are missing)'
    )
  if len({*wanted}) < len(wanted):
    twice = next(name for name in wanted if wanted.count(name) > 1)
    raise errors.UserError(f'--list={file} names {twice!r} twice')
