"""One sentence about a data set: the first of the rules that has one to say.

The rules are in order of the harm: first what would silently ruin training,
last what a build survives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from data_prep import items
from data_prep.checks import findings as findings_lib
from data_prep.checks import shares, survey, words

# Percent. Nothing official ignores so many pixels of its labels, not even the
# coarse ones.
_MOST_IGNORED = 90
# Percent: a class that is so common cannot shrink to a twentieth, nor can one
# grow to so much that usually has a tenth of it.
_COMMON, _SHRUNK = 10, 1 / 20
_GROWN_TO, _GROWN = 15, 10
# Label files that tools generate beside, or instead of, the original ones.
_GENERATED = re.compile(r'(.*)_label(?!Ids)\w*Ids\.png')


class Verdict(NamedTuple):
  """A sentence, and whether all is well."""

  text: str
  good: bool


def judge(found: findings_lib.Findings) -> Verdict:
  """The verdict about findings."""
  for rule in _RULES:
    text = rule(found)
    if text:
      return Verdict(text, False)
  return Verdict(f'looks right: {_summary(found)}', True)


def _colours(found: findings_lib.Findings) -> str:
  files = found.sample.colours
  if not files:
    return ''
  deep = found.layout.official.label_bits > 8
  text = 'labels look like colours: ' + (
    'files for the eye in place of the ids'
    if deep
    else 'the palette was converted to RGB'
  )
  return f'{text} ({_of_labels(found, files)})'


def _shallow(found: findings_lib.Findings) -> str:
  files = found.sample.shallow
  if not files:
    return ''
  bits = found.layout.official.label_bits
  return (
    f'{words.title(found.layout)} labels look 8-bit: the {bits}-bit files were '
    'converted by a program that cannot read them; take the original ones '
    f'({_of_labels(found, files)})'
  )


def _of_labels(found: findings_lib.Findings, files: Sequence[str]) -> str:
  return (
    f'{words.number(len(files))} of {words.number(found.sample.labels)} '
    f'looked at, first {files[0]}'
  )


def _other_ids(found: findings_lib.Findings) -> str:
  """Labels in the ids of something else, such as `labelTrainIds` renamed."""
  if not found.sample.counts.any():
    return ''
  scheme = shares.better_scheme(found.layout, found.sample.counts)
  if not scheme:
    return ''
  return (
    f'labels look like {scheme}, not like the original ones of '
    f'{words.title(found.layout)}: take the original files, a build maps them'
  )


def _ignored(found: findings_lib.Findings) -> str:
  counts = found.sample.counts
  ignored = found.shares.ignored
  if not counts.any() or ignored < _MOST_IGNORED:
    return ''
  return (
    f'labels hold next to no class: {ignored:.1f} % of their pixels are '
    f'ignored, most of them of value {int(counts.argmax())}; were they '
    'converted?'
  )


def _swapped(found: findings_lib.Findings) -> str:
  """Class shares that no choice of frames explains."""
  if not found.sample.counts.any():
    return ''
  odd = [
    f'{here:.1f} % {name} where {usual:.1f} % is usual'
    for name, here, usual in words.classes(found)
    if (usual >= _COMMON and here < _SHRUNK * usual)
    or (here >= _GROWN_TO and here > _GROWN * usual)
  ]
  if not odd:
    return ''
  return f'labels have {" and ".join(odd[:2])}: their ids look swapped'


def _unreadable(found: findings_lib.Findings) -> str:
  texts = [*found.broken.values()]
  if not texts:
    return ''
  more = f' ({words.number(len(texts))} such files)' if len(texts) > 1 else ''
  return texts[0] + more


def _mismatch(found: findings_lib.Findings) -> str:
  texts = [*found.mismatches.values()]
  if not texts:
    return ''
  looked = words.number(found.sizes.frames)
  return f'{texts[0]} ({words.number(len(texts))} of {looked} looked at)'


def _no_labels(found: findings_lib.Findings) -> str:
  """Splits without a label, though they need some or tools made some."""
  for split, members in found.survey.splits.items():
    expected = members[0].label_name
    if survey.pairs(members) or not expected:
      continue
    count = f'{words.many(len(members), "image")} of {split}'
    made = _generated(found, members)
    if made:
      return (
        f'{count} without label but with files like {made}, made by a tool: a '
        f'build takes the original ones, expected {expected}'
      )
    if split in found.layout.labelled:
      text = f'only images: {count}, no label; expected {expected}'
      return text + _packed(found)
  return ''


def _generated(
  found: findings_lib.Findings, members: Sequence[items.Item]
) -> str:
  """A generated label of one of the items; '' where there is none."""
  stems = {item.label_name.rpartition('_')[0] for item in members}
  depth = members[0].label_name.count('/') + 1
  for path in found.survey.unused:
    match = _GENERATED.fullmatch(path)
    if match and '/'.join(match[1].split('/')[-depth:]) in stems:
      return path
  return ''


def _gaps(found: findings_lib.Findings) -> str:
  """'24 941 of 24 966 pairs; first missing id 2154'."""
  seen, foreign = found.survey, {*found.survey.foreign}
  if not (seen.missing and found.official):
    return ''
  members = [
    item
    for each in seen.splits.values()
    for item in each
    if item.image_id not in foreign
  ]
  pairs = survey.pairs(members)
  halves = [
    words.many(count, what)
    for count, what in (
      (len(members) - pairs, 'image'),
      (len(seen.orphans), 'label'),
    )
    if count
  ]
  total = len(found.layout.official.ids)
  return (
    f'{words.number(pairs)} of {words.number(total)} pairs; first missing id '
    f'{seen.missing[0]}'
    + (f' ({" and ".join(halves)} alone)' if halves else '')
    + _packed(found)
  )


def _packed(found: findings_lib.Findings) -> str:
  """The end of a sentence about missing files, if an archive may hold them."""
  files = found.survey.archives
  if not files:
    return ''
  return f'; {files[0]} cannot be read in place: extract it there'


def _orphans(found: findings_lib.Findings) -> str:
  files = found.survey.orphans
  if not files:
    return ''
  return f'{words.many(len(files), "label")} without image, first {files[0]}'


def _refused(found: findings_lib.Findings) -> str:
  return found.survey.refusal


def _incomplete(found: findings_lib.Findings) -> str:
  """'2 900 of 2 975 images in train'; numbered images have `_gaps`."""
  if not found.official or found.layout.official.ids:
    return ''
  short = ', '.join(
    f'{words.number(len(members))} of {words.number(expected)} images in '
    f'{split}'
    for split, members in found.survey.splits.items()
    if len(members) < (expected := found.layout.expected.get(split, 0))
  )
  return short and short + _packed(found)


def _foreign(found: findings_lib.Findings) -> str:
  ids, official = found.survey.foreign, found.layout.official.ids
  if not (ids and found.official):
    return ''
  return (
    f'{words.many(len(ids), "image")} that {words.title(found.layout)} does '
    f'not have, first {ids[0]}: its ids are {official[0]} to {official[-1]}'
  )


def _resized(found: findings_lib.Findings) -> str:
  usual, images = found.layout.official.sizes, found.sizes.images
  fitting = sum(images[size] for size in usual)
  if not (usual and found.official) or 2 * fitting >= images.total():
    return ''
  (size, _), *_ = images.most_common(1)
  expected = ' or '.join(map(items.shape_text, usual))
  return f'images are {items.shape_text(size)}, not {expected}: a resized copy'


def _summary(found: findings_lib.Findings) -> str:
  """'2 975 pairs in train, 1 525 images in test (unlabelled)'."""
  splits = found.survey.splits
  parts = []
  for split, members in splits.items():
    labelled = survey.pairs(members)
    text = words.many(len(members), 'pair' if labelled else 'image')
    if len(splits) > 1:
      text += f' in {split}'
    if not labelled:
      wanted = split.startswith('train') and members[0].label_name
      why = ', as a target may be' if wanted else ''
      text += f' (unlabelled{why})'
    parts.append(text)
  return ', '.join(parts)


_RULES = (
  _colours,
  _shallow,
  _other_ids,
  _ignored,
  _swapped,
  _unreadable,
  _mismatch,
  _no_labels,
  _gaps,
  _orphans,
  _refused,
  _incomplete,
  _foreign,
  _resized,
)
