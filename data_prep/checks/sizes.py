"""Sizes of images and labels, from the headers of their files."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

from data_prep import codecs, items, layouts, raw, workers
from jaxseg_da import errors

# Where the headers of images are; more is read only if that does not do.
_HEAD = 1 << 14


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of some frames.

  Attributes:
    frames: how many were looked at.
    images: (height, width) -> how many images have it.
    scaled: how many labels have another scale than their image, and may.
    mismatches: path of a label -> in which way its size does not fit.
    broken: path -> why it has no size.
  """

  frames: int
  images: collections.Counter[items.Size]
  scaled: int
  mismatches: dict[str, str]
  broken: dict[str, str]


def measure(
  layout: layouts.Layout,
  frames: Sequence[items.Item],
  progress: workers.Progress,
) -> Sizes:
  """Sizes of the images of `frames`, and whether their labels fit."""
  images: collections.Counter[items.Size] = collections.Counter()
  scaled, mismatches, broken = 0, {}, {}
  measure_one = functools.partial(_measure_one, layout)
  for item, found in in_order(measure_one, frames, progress):
    broken |= found.broken
    if found.image is None:
      continue
    images[found.image] += 1
    if found.label is None or found.label == found.image:
      continue
    if layout.any_scale and items.same_shape(found.label, found.image):
      scaled += 1
    else:
      mismatches[str(item.label)] = mismatch(
        item.label, found.label, item, found.image
      )
  return Sizes(len(frames), images, scaled, mismatches, broken)


class _Measured(NamedTuple):
  """Sizes of an image and its label; None for what is broken or not there."""

  image: items.Size | None
  label: items.Size | None
  broken: dict[str, str]


def _measure_one(layout: layouts.Layout, item: items.Item) -> _Measured:
  broken: dict[str, str] = {}

  def size(
    entry: raw.Entry | None, size_of: Callable[[bytes, str], items.Size]
  ) -> items.Size | None:
    if entry is None:
      return None
    try:
      return _size(entry, size_of)
    except errors.UserError as error:
      broken[str(entry)] = str(error)
      return None

  image = size(item.image, codecs.image_size)
  label = size(item.label, layout.official.label_size)
  return _Measured(image, label, broken)


def _size(
  entry: raw.Entry, size_of: Callable[[bytes, str], items.Size]
) -> items.Size:
  head = raw.read(entry, _HEAD)
  try:
    return size_of(head, str(entry))
  except errors.UserError:
    if entry.size <= _HEAD:
      raise
  return size_of(raw.read(entry), str(entry))


def mismatch(
  file: raw.Entry | None, size: items.Size, item: items.Item, image: items.Size
) -> str:
  """A sentence about a file whose size is not that of its image."""
  return (
    f'{file} is {items.shape_text(size)} but its image {item.image} is '
    f'{items.shape_text(image)}'
  )


def in_order(
  function: Callable[[items.Item], Any],
  frames: Sequence[items.Item],
  progress: workers.Progress,
) -> Iterator[tuple[items.Item, Any]]:
  """Each frame with what the function returns for it.

  Threads are enough: decoding does not hold Python's lock.
  """
  pool = futures.ThreadPoolExecutor(workers.cpu_count())
  try:
    results = pool.map(function, frames)
    for item, result in zip(frames, results, strict=True):
      progress.update()
      yield item, result
  finally:
    pool.shutdown(cancel_futures=True)
