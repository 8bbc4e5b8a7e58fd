"""Base class of the TFDS builders: schema, metadata and shards.

Why `ShardBasedBuilder`: TFDS' generator-based builders keep a split in memory
up to 1 GB and then spill it to files that only TensorFlow opens. Here examples
go straight into ArrayRecord shards, in the order in which they come, and no
TensorFlow is needed.

TFDS writes into `incomplete.*` beside the target and renames it at the end, so
a killed build is never taken for a whole one.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep import common, workers
from jaxseg_da import errors, labels

# The TFDS writer keeps one shard in memory: 128 full-size frames are 300 MB.
_SHARD_EXAMPLES = 128


@dataclasses.dataclass(frozen=True)
class Options:
  """What a user may ask of a build.

  Attributes:
    size: (height, width) to store; None keeps the files' own sizes and bytes.
    limit: at most so many examples per split; None for all.
    workers: number of processes.
    progress: where to print a progress line; None for nowhere.
  """

  size: tuple[int, int] | None = None
  limit: int | None = None
  workers: int = dataclasses.field(default_factory=workers.cpu_count)
  progress: IO[str] | None = None


@dataclasses.dataclass(frozen=True)
class Split:
  """One split of a build.

  Attributes:
    count: number of examples.
    labelled: whether its labels are real; otherwise they are 255 throughout.
    examples: yields (example, (height, width)) in the order to store.
  """

  count: int
  labelled: bool
  examples: Callable[[], Iterator[tuple[common.Example, tuple[int, int]]]]


def features(*, depth: bool = False, views: bool = False) -> Any:
  """The common schema.

  Args:
    depth: adds `depth` u16, `intrinsics` (fx, fy, cx, cy in pixels) and
      `baseline` (metres).
    views: adds `image_right`, `image_prev` and `image_next`.
  """

  def image() -> Any:
    return tfds.features.Image(shape=(None, None, 3))

  def grey(dtype: Any) -> Any:
    return tfds.features.Image(
      shape=(None, None, 1), dtype=dtype, encoding_format='png'
    )

  schema = {
    'image_id': tfds.features.Text(),
    'image': image(),
    'label': grey(np.uint8),
    'class_histogram': tfds.features.Tensor(
      shape=(labels.NUM_CLASSES,), dtype=np.int32
    ),
  }
  if depth:
    schema |= {
      # Said aloud, because TFDS' default cuts 16 bits to 8 without a word.
      'depth': grey(np.uint16),
      'intrinsics': tfds.features.Tensor(shape=(4,), dtype=np.float32),
      'baseline': tfds.features.Scalar(dtype=np.float32),
    }
  if views:
    names = ('image_right', 'image_prev', 'image_next')
    schema |= {name: image() for name in names}
  return tfds.features.FeaturesDict(schema)


class DrivingBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
  """A builder of the common schema.

  Subclasses give `schema`, `plan` and the class attributes; `request` where a
  user's options mean something else than here.
  """

  HOMEPAGE = ''
  RESIZE = 'pil_bicubic'
  # Splits whose union is the split `all`; empty where `all` makes no sense.
  ALL: tuple[str, ...] = ()

  def __init__(self, *, options: Options | None = None, **kwargs: Any):
    self.options = options or Options()
    self._image_sizes: set[tuple[int, int]] = set()
    kwargs.setdefault('file_format', 'array_record')
    super().__init__(**kwargs)

  @abc.abstractmethod
  def schema(self) -> Any:
    """The features, from `features`."""

  @abc.abstractmethod
  def plan(self, manual_dir: pathlib.Path | None) -> Mapping[str, Split]:
    """The splits; raises `errors.UserError` where the raw data is not right.

    Args:
      manual_dir: the raw data; None for builders that need none.
    """

  @property
  def storage_size(self) -> tuple[int, int] | None:
    """(height, width) that is stored; None for the files' own sizes."""
    return self.options.size

  def request(self) -> dict[str, Any]:
    """What decides about the content; kept in the metadata."""
    size = self.storage_size
    return {
      'size': list(size) if size else None,
      'resize': self.RESIZE if size and self.needs_manual_dir else None,
      'limit': self.options.limit,
    }

  @property
  def needs_manual_dir(self) -> bool:
    """Whether the builder reads raw data."""
    return self.MANUAL_DOWNLOAD_INSTRUCTIONS is not None

  def limited(self, items: Sequence[Any]) -> Sequence[Any]:
    """`items` cut to the limit per split."""
    return items[: self.options.limit]

  def _info(self) -> tfds.core.DatasetInfo:
    schema = self.schema()
    depth = 'depth' in schema
    metadata = {
      'labelled': {},
      'num_classes': labels.NUM_CLASSES,
      'image_size': None,  # Filled in where all images share one.
      'all': list(self.ALL),
      'depth_kind': 'metric' if depth else None,
      'depth_unit': 'cm' if depth else None,
    }
    return self.dataset_info_from_configs(
      features=schema,
      homepage=self.HOMEPAGE,
      supervised_keys=None,
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(metadata | self.request()),
    )

  def _shard_iterators_per_split(
    self, dl_manager: tfds.download.DownloadManager
  ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[int, Any]]]]]:
    manual_dir = None
    if self.needs_manual_dir:
      manual_dir = pathlib.Path(dl_manager.manual_dir)
    splits = {k: s for k, s in self.plan(manual_dir).items() if s.count}
    if not splits:
      raise errors.UserError(f'{self.name}: nothing to build')
    total = sum(split.count for split in splits.values())
    progress = None
    if self.options.progress:
      name = '/'.join(self.info.full_name.split('/')[:-1])
      progress = workers.Progress(name, total, self.options.progress)
    shards = {}
    for name, split in splits.items():
      self.info.metadata['labelled'][name] = split.labelled
      shards[name] = _shards(self._stream(split, progress), split.count)
    return shards

  def _stream(
    self, split: Split, progress: workers.Progress | None
  ) -> Iterator[tuple[int, common.Example]]:
    for key, (example, size) in enumerate(split.examples()):
      self._image_sizes.add(size)
      yield key, example
      if progress:
        progress.update()

  def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
    super()._download_and_prepare(*args, **kwargs)
    if len(self._image_sizes) == 1:
      self.info.metadata['image_size'] = list(*self._image_sizes)


def _shards(
  stream: Iterator[Any], count: int
) -> list[Callable[[], Iterator[Any]]]:
  """Readers of consecutive parts of one stream, called in this order."""
  num_shards = -(-count // _SHARD_EXAMPLES)
  ends = [count * i // num_shards for i in range(num_shards + 1)]
  parts: list[Callable[[], Iterator[Any]]] = [
    functools.partial(itertools.islice, stream, stop - start)
    for start, stop in itertools.pairwise(ends)
  ]
  parts[-1] = lambda: stream  # To its end, so that its processes stop.
  return parts


def pair_split(
  builder: DrivingBuilder,
  pairs: Sequence[common.Pair],
  to_train_id: np.ndarray,
  *,
  labelled: bool,
) -> Split:
  """A split of image and label files.

  Args:
    builder: gives limit and number of processes.
    pairs: the files, in the order to store.
    to_train_id: u8 `[256]`, raw id to train id.
    labelled: whether the labels of the split count.
  """
  pairs = builder.limited(pairs)
  read = functools.partial(common.pair_example, to_train_id=to_train_id)
  return Split(
    count=len(pairs),
    labelled=labelled,
    examples=lambda: workers.ordered_map(read, pairs, builder.options.workers),
  )
