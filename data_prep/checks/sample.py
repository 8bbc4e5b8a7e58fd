"""Reads some frames of a data set as a build would, and notes what it sees."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_prep import codecs, depth_files, items, layouts, raw, workers
from data_prep.checks import sizes
from jaxseg_da import errors
from jaxseg_da.classes import labels

# No table has so many ids; the channels of colours go beyond.
_MOST_IDS = 64
# The PNG header: bits per channel, then kind of pixels, RGB with or without
# alpha among them.
_BITS, _KIND, _COLOURS = 24, 25, (2, 6)


@dataclasses.dataclass
class Sample:
  """What was seen in some frames.

  Attributes:
    frames: those that were read.
    labels: how many label files were looked into.
    counts: their pixels by raw id, i64 `[256]`.
    colours: paths of labels that are pictures in colours.
    shallow: paths of labels that were cut to 8 bits.
    one_class: ids of images whose label is one class only.
    mismatches: path of a view -> in which way its size does not fit.
    broken: path -> why it cannot be read.
  """

  frames: Sequence[items.Item]
  labels: int
  counts: np.ndarray
  colours: list[str]
  shallow: list[str]
  one_class: list[str]
  mismatches: dict[str, str]
  broken: dict[str, str]


class Contents(NamedTuple):
  """The decoded files of one frame.

  Attributes:
    parts: 'image', 'label' (raw ids), 'depth' or a view -> its array.
    mismatches: path of a view -> in which way its size does not fit.
    broken: path -> why it cannot be read.
  """

  parts: dict[str, np.ndarray]
  mismatches: dict[str, str]
  broken: dict[str, str]


class _Label(NamedTuple):
  """A label file: pixels by raw id, and what it looks like otherwise."""

  counts: np.ndarray
  colours: bool
  shallow: bool


def evenly(members: Sequence[Any], count: int) -> list[Any]:
  """At most `count` of the members, the first and the last among them.

  The last one matters: what was interrupted is broken there.
  """
  places = np.linspace(0, len(members) - 1, min(count, len(members)))
  return [members[place] for place in places.round().astype(int)]


def choose(splits: layouts.Splits, count: int) -> list[items.Item]:
  """About `count` items, from each split as many as from the others."""
  chosen: list[items.Item] = []
  waiting = sorted(splits.values(), key=len)
  for index, members in enumerate(waiting):
    share = (count - len(chosen)) // (len(waiting) - index)
    chosen += evenly(members, max(1, share))
  return chosen


def look(
  layout: layouts.Layout,
  frames: Sequence[items.Item],
  progress: workers.Progress,
) -> Sample:
  """Reads all files of `frames`."""
  sample = Sample(frames, 0, np.zeros(256, np.int64), [], [], [], {}, {})
  examine = functools.partial(_examine, layout)
  for item, (contents, label) in sizes.in_order(examine, frames, progress):
    sample.mismatches |= contents.mismatches
    sample.broken |= contents.broken
    if label is None:
      continue
    sample.labels += 1
    sample.counts += label.counts
    if label.colours:
      sample.colours.append(str(item.label))
    if label.shallow:
      sample.shallow.append(str(item.label))
    if np.count_nonzero(label.counts) == 1:
      sample.one_class.append(item.image_id)
  return sample


def read(layout: layouts.Layout, item: items.Item) -> Contents:
  """Decodes all files of a frame."""
  image = lambda data, where: codecs.decode_image(data, where)[1]
  depth = functools.partial(depth_files.read, kind=layout.depth_kind)
  readers: list[tuple[str, Any, Callable[..., Any] | None]] = [
    ('image', item.image, image),
    ('label', item.label, layout.read_label),
    ('depth', item.depth, depth),
    ('camera', item.camera, layout.read_camera),
    *((name, file, image) for name, file in item.views.items()),
  ]
  contents = Contents({}, {}, {})
  for part, file, reader in readers:
    if isinstance(file, raw.Entry) and reader:
      try:
        contents.parts[part] = reader(raw.read(file), str(file))
      except errors.UserError as error:
        contents.broken[str(file)] = str(error)
  contents.parts.pop('camera', None)
  _compare_views(item, contents)
  return contents


def _compare_views(item: items.Item, contents: Contents) -> None:
  image = contents.parts.get('image')
  for name, file in item.views.items():
    view = contents.parts.get(name)
    if image is not None and view is not None and view.shape != image.shape:
      contents.mismatches[str(file)] = sizes.mismatch(
        file, view.shape[:2], item, image.shape[:2]
      )


def _examine(
  layout: layouts.Layout, item: items.Item
) -> tuple[Contents, _Label | None]:
  """The messages about a frame, and its label; the pixels are let go."""
  contents = read(layout, item)
  ids = contents.parts.get('label')
  contents.parts.clear()
  if item.label is None:
    return contents, None
  try:
    label = _label(layout, raw.read(item.label), str(item.label), ids)
  except errors.UserError:  # Told by `read` already.
    return contents, None
  return contents, label


def _label(
  layout: layouts.Layout, data: bytes, where: str, ids: np.ndarray | None
) -> _Label:
  """Looks at a label file behind the back of its reader.

  Args:
    layout: of the data set.
    data: the file's bytes.
    where: its path, for messages.
    ids: what the reader found; None where it refused the file.

  Raises:
    errors.UserError: there is nothing to be seen in it.
  """
  deep = layout.official.label_bits > 8
  eight = data.startswith(b'\x89PNG') and data[_BITS] == 8
  if eight and data[_KIND] in _COLOURS:
    first = codecs.decode_deep(data, where)[..., 0]
    shallow = deep and int(first.max()) < _MOST_IDS
    return _Label(np.zeros(256, np.int64), not shallow, shallow)
  if ids is None:
    ids = codecs.decode_ids(data, where)
  counts = np.bincount(ids.ravel(), minlength=256)
  void = not counts[layout.to_train_id != labels.IGNORE].any()
  return _Label(counts, False, deep and eight and void)
