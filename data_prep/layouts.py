"""What a raw data set looks like, and which of its files a build takes.

A data set describes itself by a `Layout`: where its files lie and how its
labels are read. What all data sets share happens here: lists, known-bad
frames, depth folders, and the search for what is missing, before any decoding.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep import codecs, items, known_bad, lists, official, raw
from jaxseg_da import errors
from jaxseg_da.data import depth as depth_lib
from jaxseg_da.data import transforms

Splits = dict[str, list[items.Item]]
# Features that a user may choose among; the others are always there.
OPTIONAL = ('depth', 'camera', 'image_right', 'image_prev', 'image_next')


@dataclasses.dataclass(frozen=True)
class Layout:
  """How the raw files of one data set are found and read.

  Attributes:
    name: of the data set.
    find: the raw files as split -> items in the order to store; raises
      `errors.UserError` where nothing is there.
    read_label: see `items.Recipe`.
    to_train_id: u8 `[256]`, raw id to train id.
    labelled: splits in which every example needs a label. Splits that are not
      named need all or none.
    depth_kind: kind of the depth that `find` gives; '' where it gives none.
    depth_key: pattern of depth files in a `--depth_dir`, its first group the
      image id; '' where the data set takes none.
    any_scale: see `items.Recipe`.
    read_camera: see `items.Recipe`.
    resize: mode of the papers that use the data set.
    union: splits whose union is `all`; see `DrivingBuilder`.
    expected: split -> official number of examples.
    official: what else is known of the official download.
  """

  name: str
  find: Callable[[raw.Raw], Splits]
  to_train_id: np.ndarray
  read_label: Callable[[bytes, str], np.ndarray] = codecs.decode_ids
  labelled: tuple[str, ...] = ()
  depth_kind: str = ''
  depth_key: str = ''
  any_scale: bool = False
  read_camera: Callable[[bytes, str], items.Camera] | None = None
  resize: str = 'pil_bicubic'
  union: tuple[str, ...] = ()
  expected: Mapping[str, int] = dataclasses.field(default_factory=dict)
  official: official.Official = dataclasses.field(
    default_factory=official.Official
  )


@dataclasses.dataclass(frozen=True)
class Options:
  """What a user may ask of the raw data.

  Attributes:
    size: (height, width) to store; None keeps the files' own sizes.
    resize: resize mode of images; '' for the layout's.
    encoding: one of `items.ENCODINGS`.
    limit: at most so many examples per split; None for all.
    lists: FILE or SPLIT=FILE each: the ids to take, one per line.
    known_bad: 'drop', 'keep' or a file; see `known_bad`.
    depth_dir: folder of depth files, with `depth_kind`.
    depth_kind: kind of the files in `depth_dir`.
    features: optional features to store; None for those that are there.
  """

  size: items.Size | None = None
  resize: str = ''
  encoding: str = 'keep'
  limit: int | None = None
  lists: tuple[str, ...] = ()
  known_bad: str = 'drop'
  depth_dir: str = ''
  depth_kind: str = ''
  features: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Selection:
  """What a build stores.

  Attributes:
    splits: split -> items in the order to store, none of them empty.
    recipe: how an item becomes an example.
    given: split -> its features that have real values; others hold a constant.
    dropped: image id -> why it was left out.
  """

  splits: Splits
  recipe: items.Recipe
  given: dict[str, list[str]]
  dropped: dict[str, str]


def check_options(layout: Layout, options: Options) -> None:
  """Raises `errors.UserError` for options that no raw data could make right."""
  if options.resize:
    transforms.check_mode(options.resize)
  if options.encoding not in items.ENCODINGS:
    raise errors.unknown('encoding', options.encoding, items.ENCODINGS)
  for name in options.features or ():
    if name not in OPTIONAL:
      raise errors.unknown('feature', name, OPTIONAL)
  if options.depth_kind:
    depth_lib.check_kind(options.depth_kind)
  if bool(options.depth_dir) != bool(options.depth_kind):
    raise errors.UserError(
      '--depth_dir and --depth_kind go together: files of depth look alike, '
      f'and only you know their kind ({", ".join(depth_lib.KINDS)})'
    )
  if options.depth_dir and not layout.depth_key:
    raise errors.UserError(f'{layout.name} takes no --depth_dir')


def request(layout: Layout, options: Options) -> dict[str, Any]:
  """What decides about the content of a build; goes into its metadata."""
  size = options.size
  return {
    'size': list(size) if size else None,
    'resize': (options.resize or layout.resize) if size else None,
    'encoding': options.encoding,
    'limit': options.limit,
    'lists': [lists.digest(text) for text in options.lists],
    'known_bad': options.known_bad,
    'depth_dir': options.depth_dir or None,
    'features': list(options.features)
    if options.features is not None
    else None,
  }


def select(layout: Layout, data: raw.Raw, options: Options) -> Selection:
  """Finds the files that a build takes, and what is missing of them.

  Raises:
    errors.UserError: nothing found, a list that names what is not there, or an
      example without a file that the others have.
  """
  splits = layout.find(data)
  depth_kind = layout.depth_kind
  if options.depth_dir:
    splits = _with_depth(layout, splits, options)
    depth_kind = options.depth_kind
  splits = lists.apply(splits, options.lists)
  rules = known_bad.rules(layout.name, options.known_bad)
  dropped = {
    item.image_id: rules.ids[item.image_id]
    for items_ in splits.values()
    for item in items_
    if item.image_id in rules.ids
  }
  splits = {
    name: [
      item._replace(forgive=rules.forgiven.get(item.image_id, ''))
      for item in items_
      if item.image_id not in dropped
    ][: options.limit]
    for name, items_ in splits.items()
  }
  splits = {name: items_ for name, items_ in splits.items() if items_}
  given = {
    name: _complete(name, items_, layout, options)
    for name, items_ in splits.items()
  }
  chosen = _chosen(given, options)
  given = {
    name: [f for f in found if f == 'label' or f in chosen]
    for name, found in given.items()
  }
  recipe = items.Recipe(
    features=schema_names(chosen),
    read_label=layout.read_label,
    to_train_id=layout.to_train_id,
    read_camera=layout.read_camera,
    size=options.size,
    resize=options.resize or layout.resize,
    encoding=options.encoding,
    depth_kind=depth_kind if 'depth' in chosen else '',
    drop_one_class=rules.one_class,
    any_scale=layout.any_scale,
  )
  return Selection(splits, recipe, given, dropped)


def schema_names(chosen: Sequence[str]) -> tuple[str, ...]:
  """Names in the schema of the optional features `chosen`."""
  camera = ('intrinsics', 'baseline')
  return tuple(
    part
    for name in OPTIONAL
    if name in chosen
    for part in (camera if name == 'camera' else (name,))
  )


def nothing_found(data: raw.Raw, what: str) -> errors.UserError:
  """An error for a folder that holds no such data.

  Args:
    data: the folder.
    what: the sentence's end: what was expected.
  """
  text = f'no {what}'
  if data.other_archives:
    text += (
      f'; {data.other_archives[0]} cannot be read in place: extract it there'
    )
  return errors.UserError(text)


def _with_depth(layout: Layout, splits: Splits, options: Options) -> Splits:
  """The items with the files of `--depth_dir` as their depth."""
  folder = pathlib.Path(options.depth_dir).expanduser()
  if not folder.is_dir():
    raise errors.UserError(f'--depth_dir={folder} is no folder')
  files = raw.Raw(folder).find(layout.depth_key)
  result = {
    name: [i._replace(depth=files.get(i.image_id)) for i in items_]
    for name, items_ in splits.items()
  }
  if not any(i.depth for items_ in result.values() for i in items_):
    raise errors.UserError(
      f'--depth_dir={folder} holds no depth for the images of {layout.name}: '
      f'expected names like {layout.depth_key}'
    )
  return result


def _complete(
  split: str, members: Sequence[items.Item], layout: Layout, options: Options
) -> list[str]:
  """Features that all members have; raises where some have, some have not."""
  given = []
  if _all_or_none(split, members, 'label', needed=split in layout.labelled):
    given.append('label')
  # What the user does without may be incomplete.
  for name in OPTIONAL if options.features is None else options.features:
    if _all_or_none(split, members, name, needed=False):
      given.append(name)
  return given


def _all_or_none(
  split: str, members: Sequence[items.Item], feature: str, *, needed: bool
) -> bool:
  view = feature in items.VIEWS
  present = [
    (feature in item.views) if view else getattr(item, feature) is not None
    for item in members
  ]
  if all(present):
    return True
  if not any(present) and not needed:
    return False
  first = members[present.index(False)]
  where = remedy = ''
  if feature != 'label':
    remedy = '; --features=none builds without it'
  elif first.label_name:
    where = f': expected {first.label_name}'
  raise errors.UserError(
    f'{first.image} has no {feature}{where} ({present.count(False)} of the '
    f'{len(members)} images of {split} have none){remedy}'
  )


def _chosen(given: Mapping[str, Sequence[str]], options: Options) -> list[str]:
  """The optional features to store."""
  found = {name for features in given.values() for name in features}
  wanted = found if options.features is None else options.features
  for name in wanted:
    if name not in found:
      raise errors.UserError(
        f'--features names {name!r}, but no files for it are there'
      )
  return [name for name in OPTIONAL if name in wanted]
