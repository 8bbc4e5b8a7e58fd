"""Base class of the TFDS builders: schema, metadata, splits.

TFDS' own base classes keep a split, or at least a shard, in one process and in
its memory, and start anew after every interruption. Here the shards are written
by `shards`; TFDS gets their lengths. Neither needs TensorFlow.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep import items, shards, workers
from jaxseg_da import errors
from jaxseg_da.classes import labels
from jaxseg_da.data import depth as depth_lib


@dataclasses.dataclass(frozen=True)
class Resources:
  """What a build may use.

  Attributes:
    workers: number of processes.
    progress: where to print a progress line; None for nowhere.
  """

  workers: int = dataclasses.field(default_factory=workers.cpu_count)
  progress: IO[str] | None = None


@dataclasses.dataclass(frozen=True)
class Split:
  """One split of a build.

  Attributes:
    members: what `make` turns into examples, in the order to store.
    given: features with real values; others hold a constant.
    twin: name of a split that repeats this one without labels; '' for none.
  """

  members: Sequence[Any]
  given: Sequence[str]
  twin: str = ''


@functools.cache
def features(names: tuple[str, ...] = ()) -> Any:
  """The common schema.

  Args:
    names: optional features: `depth` u16; `intrinsics` f32 (fx, fy, cx, cy in
      pixels of the stored image); `baseline` f32 metres; `image_right`,
      `image_prev`, `image_next` like `image`.
  """

  def image() -> Any:
    return tfds.features.Image(shape=(None, None, 3))

  def grey(dtype: Any) -> Any:
    # The type said aloud: TFDS' default cuts 16 bits to 8 without a word.
    return tfds.features.Image(
      shape=(None, None, 1), dtype=dtype, encoding_format='png'
    )

  optional = {
    'depth': lambda: grey(np.uint16),
    'intrinsics': lambda: tfds.features.Tensor(shape=(4,), dtype=np.float32),
    'baseline': lambda: tfds.features.Scalar(dtype=np.float32),
    **dict.fromkeys(items.VIEWS, image),
  }
  schema = {
    'image_id': tfds.features.Text(),
    'image': image(),
    'label': grey(np.uint8),
    'class_histogram': tfds.features.Tensor(
      shape=(labels.NUM_CLASSES,), dtype=np.int32
    ),
  }
  return tfds.features.FeaturesDict(
    schema | {name: optional[name]() for name in names}
  )


def serialize(example: items.Example, names: tuple[str, ...]) -> bytes:
  """The record of an example with the features of `features(names)`.

  Equal examples give equal bytes, which TFDS' own call does not promise.
  """
  schema = features(names)
  serializer = tfds.core.ExampleSerializer(schema.get_serialized_info())
  record = serializer.get_tf_example(schema.encode_example(example))
  return record.SerializeToString(deterministic=True)


class DrivingBuilder(
  tfds.core.dataset_builder.FileReaderBuilder, skip_registration=True
):
  """A builder of the common schema.

  Subclasses give `optional_features`, `plan`, `make`, `request` and the class
  attributes.
  """

  HOMEPAGE = ''
  DEPTH_KIND = ''

  def __init__(self, *, resources: Resources | None = None, **kwargs: Any):
    self.resources = resources or Resources()
    kwargs.setdefault('file_format', 'array_record')
    super().__init__(**kwargs)
    # Where finished shards of an interrupted build wait for the next one.
    self.unfinished = pathlib.Path(self.data_path).parent / '.unfinished'

  @property
  @abc.abstractmethod
  def optional_features(self) -> tuple[str, ...]:
    """Arguments of `features`."""

  @abc.abstractmethod
  def request(self) -> dict[str, Any]:
    """What decides about the content; kept in the metadata."""

  @abc.abstractmethod
  def plan(self, manual_dir: pathlib.Path) -> Mapping[str, Split]:
    """The splits; raises `errors.UserError` where the raw data is not right."""

  @abc.abstractmethod
  def make(self) -> shards.Make:
    """What turns a member of a split into an example; sent to the workers."""

  @property
  def depth_kind(self) -> str:
    """Kind of the stored depth; '' where there is none."""
    return self.DEPTH_KIND

  @property
  def union(self) -> tuple[str, ...]:
    """Splits whose union is `all`; empty where `all` makes no sense."""
    return ()

  @property
  def needs_manual_dir(self) -> bool:
    """Whether the builder reads raw data."""
    return self.MANUAL_DOWNLOAD_INSTRUCTIONS is not None

  def _info(self) -> tfds.core.DatasetInfo:
    kind = self.depth_kind
    metadata = {
      'labelled': {},
      'split_features': {},  # Split -> features with real values.
      'num_classes': labels.NUM_CLASSES,
      'image_size': None,  # Filled in where all images share one.
      'all': [],
      'depth_kind': kind or None,
      'depth_unit': depth_lib.UNITS[kind] if kind else None,
      'dropped': {},
    }
    return self.dataset_info_from_configs(
      features=features(self.optional_features),
      homepage=self.HOMEPAGE,
      supervised_keys=None,
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(metadata | self.request()),
    )

  def _download_and_prepare(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig | None = None,
  ) -> None:
    del download_config
    manual_dir = dl_manager.manual_dir if self.needs_manual_dir else ''
    plan = self.plan(pathlib.Path(manual_dir))
    if not plan:
      raise errors.UserError(f'{self.name}: nothing to build')
    jobs = self._jobs(plan)
    name = '/'.join(self.info.full_name.split('/')[:-1])
    done = shards.write_all(
      [job for each in jobs.values() for job in each],
      self.resources.workers,
      name,
      self.resources.progress,
    )
    self._record(plan, done)
    stored = iter(done)
    infos = []
    for split, each in jobs.items():
      written = [next(stored) for _ in each]
      infos.append(self._adopt(split, written, 0))
      if plan[split].twin:
        infos.append(self._adopt(plan[split].twin, written, 1))
    self.info.set_splits(tfds.core.SplitDict(infos))
    shutil.rmtree(self.unfinished)

  def _jobs(self, plan: Mapping[str, Split]) -> dict[str, list[shards.Job]]:
    """The shards of each split."""
    context = json.dumps([str(self.version), self.request()])
    optional = self.optional_features
    folder = self.unfinished

    def path(split: str, index: int) -> str:
      return str(folder / f'{split}-{index:05d}') if split else ''

    return {
      name: [
        shards.Job(
          path=path(name, index),
          members=members,
          make=self.make(),
          serialize=functools.partial(serialize, names=optional),
          context=context + repr(optional),
          twin=path(split.twin, index),
        )
        for index, members in enumerate(shards.split_evenly(split.members))
      ]
      for name, split in plan.items()
    }

  def _record(
    self, plan: Mapping[str, Split], done: Sequence[shards.Shard]
  ) -> None:
    """Fills in the metadata that only the build knows."""
    metadata = self.info.metadata
    metadata['all'] = [name for name in self.union if name in plan]
    for name, split in plan.items():
      metadata['split_features'][name] = list(split.given)
      metadata['labelled'][name] = 'label' in split.given
      if split.twin:
        hidden = [feature for feature in split.given if feature != 'label']
        metadata['split_features'][split.twin] = hidden
        metadata['labelled'][split.twin] = False
    for shard in done:
      metadata['dropped'] |= shard.dropped
    sizes = {tuple(size) for shard in done for size in shard.sizes}
    if len(sizes) == 1:
      metadata['image_size'] = list(*sizes)

  def _adopt(
    self, split: str, written: Sequence[shards.Shard], file: int
  ) -> tfds.core.SplitInfo:
    """Moves finished shards into the data set; those without examples go.

    Args:
      split: the name to give them.
      written: the shards.
      file: 0 for their files, 1 for their twins.
    """
    template = self._get_filename_template(split_name=split)
    kept = [shard for shard in written if shard.count]
    if not kept:
      raise errors.UserError(
        f'{self.name}: no example is left of {split}; '
        f'dropped: {dict(self.info.metadata["dropped"])}'
      )
    for index, shard in enumerate(kept):
      target = template.sharded_filepath(
        shard_index=index, num_shards=len(kept)
      )
      os.replace(shard.twin if file else shard.path, target)
    return tfds.core.SplitInfo(
      name=split,
      shard_lengths=[shard.count for shard in kept],
      num_bytes=sum(shard.bytes[file] for shard in kept),
      filename_template=template,
    )
