"""Examples of the official downloads that cannot be used, with the reason.

The one table of them. A build leaves them out and says so; `--known_bad=keep`
takes them all the same, `--known_bad=FILE` replaces the table.
"""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from jaxseg_da import errors

TABLE: dict[str, dict[str, str]] = {
  'gta5': {
    '15188': 'image and label have different sizes',
    '17705': 'image and label have different sizes',
  },
  'cityscapes': {
    'troisdorf_000000_000073': 'the image of the first release is broken',
  },
}
# Frames are dropped by this rule where their ids are not known beforehand.
ONE_CLASS = {
  'gta5': 'the whole label is one class: a loading screen',
}


class Rules(NamedTuple):
  """What a build leaves out.

  Attributes:
    ids: image id -> reason.
    one_class: reason to drop labels of a single class; '' keeps them.
    forgiven: image id -> reason why a defect of it is accepted.
  """

  ids: dict[str, str]
  one_class: str
  forgiven: dict[str, str]


def rules(name: str, choice: str = 'drop') -> Rules:
  """The rules of a data set.

  Args:
    name: of the data set.
    choice: 'drop'; 'keep'; or a file of lines `ID REASON`, `#` for comments.

  Raises:
    errors.UserError: no such file, or a line without a reason.
  """
  table = TABLE.get(name, {})
  if choice == 'drop':
    return Rules(table, ONE_CLASS.get(name, ''), {})
  if choice == 'keep':
    return Rules({}, '', table)
  path = pathlib.Path(choice).expanduser()
  try:
    lines = path.read_text().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(
      f'--known_bad={choice}: expected drop, keep, or a file of lines '
      f'"ID REASON" ({error})'
    ) from error
  ids = {}
  for number, line in enumerate(lines, 1):
    words = line.split('#')[0].split(maxsplit=1)
    if len(words) == 1:
      raise errors.UserError(f'{path}:{number}: {words[0]!r} has no reason')
    if words:
      ids[words[0]] = words[1].strip()
  return Rules(ids, ONE_CLASS.get(name, ''), {})
