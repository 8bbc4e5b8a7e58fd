"""Batches of a source and a target domain, and batches for evaluation.

The batch at step t is a pure function of (seed, stage, t): row r of it is row
t * B + r of an endless order per domain, reshuffled each epoch. So training
starts at any step without replaying, and process p of P reads rows
[t * B + p * B / P, ...), whatever P is.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from jaxseg_da import errors
from jaxseg_da.classes import labels
from jaxseg_da.data import sources, transforms

Batch = dict[str, Any]

# Threads hide the disk; decoding is limited by cores anyway.
THREADS = 4
_BATCHES_AHEAD = 3


class Rows(NamedTuple):
  """Which examples a stream takes, and what comes with them.

  Attributes:
    index: i32 `[N]`, positions in the data set; one may come several times.
    arrays: name -> `[N, ...]`, added to the batch.
  """

  index: np.ndarray
  arrays: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Domain:
  """How the examples of one domain become rows of a batch.

  Attributes:
    source: the data set.
    size: (height, width) to resize to; None keeps the stored size.
    resize: mode of the image, see `transforms.MODES`; labels use `nearest`.
    crop: (height, width) of a random window after resizing; None for none.
    labels: False replaces labels by 255 without reading them.
    rows: the examples to stream; None for all.
  """

  source: sources.DatasetSource
  size: transforms.Size | None = None
  resize: str = 'pil_bicubic'
  crop: transforms.Size | None = None
  labels: bool = True
  rows: Rows | None = None


class _Order:
  """Row g of one domain's endless order, for any g."""

  def __init__(self, domain: Domain, name: str, seed: int, stage: str | int):
    transforms.check_mode(domain.resize)
    spec = domain.source.spec
    count = len(domain.source)
    if domain.rows is not None:
      count = len(domain.rows.index)
    if not count:
      raise errors.UserError(f'{spec} has no examples to train on')
    if domain.labels and not domain.source.labelled:
      raise errors.UserError(f'{spec} has no labels to train on')
    self._domain = domain
    # Neighbouring seeds must not share epochs, so all goes through a hash.
    self._entropy = (seed, _word(str(stage)), _word(name))
    order_seed = np.random.SeedSequence(self._entropy).generate_state(1)[0]
    dataset = grain.MapDataset.range(count)
    self._order = dataset.shuffle(seed=int(order_seed)).repeat()

  def __call__(self, row: int) -> dict[str, np.ndarray]:
    domain = self._domain
    features = ('image', 'label') if domain.labels else ('image',)
    choice: Any = self._order[row]
    index, added = int(choice), {}
    if domain.rows is not None:
      added = {name: x[index] for name, x in domain.rows.arrays.items()}
      index = int(domain.rows.index[index])
    example = domain.source.read(index, features)
    image, label = example['image'], example.get('label')
    if domain.size is not None:
      image = transforms.resize(image, domain.size, domain.resize)
      if label is not None:
        label = transforms.nearest(label, domain.size)
    if domain.crop is not None:
      seed = np.random.SeedSequence((*self._entropy, row))
      rng = np.random.Generator(np.random.Philox(seed))
      size = (image.shape[0], image.shape[1])
      offsets = transforms.crop_offsets(rng, size, domain.crop)
      image = transforms.crop(image, offsets, domain.crop)
      if label is not None:
        label = transforms.crop(label, offsets, domain.crop)
    if label is None:
      label = np.full((*image.shape[:2], 1), labels.IGNORE, np.uint8)
    return {'image': image, 'label': label, **added}


def _word(text: str) -> int:
  return zlib.crc32(text.encode())


class Batches(Iterator[Batch]):
  """Batches that threads read ahead; close it, or use it in a `with`.

  Args:
    load: row number to row, a pytree of arrays; called from several threads.
    rows: the numbers to load, in order.
    batch_size: rows per batch; `len(rows)` is a multiple.
  """

  def __init__(
    self, load: Callable[[int], Batch], rows: range, batch_size: int
  ):
    self._length = len(rows) // batch_size
    options = grain.ReadOptions(
      num_threads=THREADS,
      prefetch_buffer_size=max(_BATCHES_AHEAD * batch_size, THREADS),
    )
    dataset = grain.MapDataset.range(rows.start, rows.stop).map(load)
    self._iterator = iter(
      dataset.to_iter_dataset(options).batch(batch_size, batch_fn=_stack)
    )

  def __len__(self) -> int:
    """Number of batches from the first to the last."""
    return self._length

  def __next__(self) -> Batch:
    return next(self._iterator)

  def close(self) -> None:
    """Stops the threads; the iterator is of no use afterwards."""
    self._iterator.close()

  def __enter__(self) -> Batches:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def _stack(rows: Sequence[Batch]) -> Batch:
  first = rows[0]
  return {
    name: _stack([row[name] for row in rows])
    if isinstance(first[name], dict)
    else _stack_arrays([row[name] for row in rows])
    for name in first
  }


def _stack_arrays(arrays: Sequence[np.ndarray]) -> np.ndarray:
  shapes = {np.shape(array) for array in arrays}
  if len(shapes) > 1:
    raise errors.UserError(
      f'images of one batch have different shapes {sorted(shapes)}: resize or '
      'crop them'
    )
  return np.stack(arrays)


def pair_batches(
  domains: Mapping[str, Domain],
  *,
  batch_size: int,
  seed: int,
  stage: str | int,
  num_steps: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """Training batches of steps start_step .. start_step + num_steps - 1.

  Args:
    domains: batch key -> domain; the keys are usually `source` and `target`.
      Labels of a domain with `labels=False` are 255 throughout, and what is
      stored is not read.
    batch_size: rows per domain and step, of all processes together.
    seed: seed of the run, at least 0.
    stage: name or number of the stage; another stage has another order.
    num_steps: number of batches.
    start_step: the first step.
    process_index: this process.
    process_count: number of processes; divides `batch_size`.

  Returns:
    An iterator of `{'source': {'image', 'label'}, 'target': {...}}`, image u8
    `[b, H, W, 3]` RGB, label u8 `[b, H, W, 1]`, b = batch_size / process_count.

  Raises:
    errors.UserError: unlabelled data where labels are wanted, an empty data
      set, an indivisible batch, a crop that does not fit. A corrupt record
      raises it on `next`.
  """
  if not domains:
    raise ValueError('pair_batches needs at least one domain')
  local = _local_batch(batch_size, process_count)
  rows = {
    name: _Order(domain, name, seed, stage) for name, domain in domains.items()
  }

  def load(number: int) -> Batch:
    step, row = divmod(number, local)
    index = step * batch_size + process_index * local + row
    return {name: domain(index) for name, domain in rows.items()}

  stop = start_step + num_steps
  return Batches(load, range(start_step * local, stop * local), local)


def eval_batches(
  source: sources.DatasetSource,
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  *,
  size: transforms.Size | None = None,
  resize: str = 'pil_bicubic',
) -> Batches:
  """Every example once, in batches of images of one size.

  All processes get the same number of batches of the same shapes. What is
  missing in a batch is filled with zeros, mask False.

  Args:
    source: the data set.
    batch_size: rows per batch, of all processes together.
    process_index: this process.
    process_count: number of processes; divides `batch_size`.
    size: (height, width) to resize the images to for the network; labels stay
      at their own size. None: images stay too.
    resize: resize mode of images, see `transforms.MODES`.

  Returns:
    An iterator of `{'image', 'label', 'mask', 'index'}`: image u8
    `[b, h, w, 3]` RGB, label u8 `[b, H, W, 1]`, mask bool `[b]`, index i32
    `[b]` (position in the data set, -1 for filling).
  """
  transforms.check_mode(resize)
  local = _local_batch(batch_size, process_count)
  groups: dict[transforms.Size, list[int]] = {}
  for index, shape in enumerate(source.sizes()):
    groups.setdefault(shape, []).append(index)
  batches = [
    (shape, indices[first : first + batch_size])
    for shape, indices in groups.items()
    for first in range(0, len(indices), batch_size)
  ]

  def load(number: int) -> Batch:
    batch, row = divmod(number, local)
    shape, indices = batches[batch]
    slot = process_index * local + row
    if slot >= len(indices):
      return {
        'image': np.zeros((*(size or shape), 3), np.uint8),
        'label': np.full((*shape, 1), labels.IGNORE, np.uint8),
        'mask': np.bool_(False),
        'index': np.int32(-1),
      }
    example = source.read(indices[slot], ('image', 'label'))
    image = example['image']
    if size is not None:
      image = transforms.resize(image, size, resize)
    return {
      'image': image,
      'label': example['label'],
      'mask': np.bool_(True),
      'index': np.int32(indices[slot]),
    }

  return Batches(load, range(len(batches) * local), local)


def image_batches(
  source: sources.DatasetSource,
  rows: Sequence[int],
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  *,
  size: transforms.Size | None = None,
  resize: str = 'pil_bicubic',
) -> Batches:
  """Images of the given rows, in order; labels are not even read.

  Args:
    source: the data set.
    rows: positions in it.
    batch_size: images per batch, of all processes together; the last batch is
      filled up with the last image.
    process_index: this process.
    process_count: number of processes; divides `batch_size`.
    size: (height, width) to resize to; None where all images share one.
    resize: resize mode, see `transforms.MODES`.

  Returns:
    An iterator of `{'image', 'position'}`: u8 `[b, h, w, 3]` RGB, and i32
    `[b]`, positions in `rows`, -1 for filling.
  """
  transforms.check_mode(resize)
  local = _local_batch(batch_size, process_count)

  def load(number: int) -> Batch:
    batch, slot = divmod(number, local)
    position = batch * batch_size + process_index * local + slot
    last = len(rows) - 1
    row = int(rows[min(position, last)])
    image = source.read(row, ('image',))['image']
    if size is not None:
      image = transforms.resize(image, size, resize)
    if position > last:
      position = -1
    return {'image': image, 'position': np.int32(position)}

  count = -(-len(rows) // batch_size)
  return Batches(load, range(count * local), local)


def _local_batch(batch_size: int, process_count: int) -> int:
  if batch_size < 1 or batch_size % process_count:
    raise errors.UserError(
      f'batch_size={batch_size} is not a positive multiple of the '
      f'{process_count} processes'
    )
  return batch_size // process_count
