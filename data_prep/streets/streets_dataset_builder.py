"""TFDS builder `streets`: the embedded benchmark, rendered, not downloaded."""

from __future__ import annotations

import pathlib
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data_prep import builders, common, streets, workers
from data_prep.streets import examples
from jaxseg_da import errors

SOURCE = 'gta'
# A target per preset: `city` is `default` of the benchmark.
TARGETS = (
  'city',
  'city_easy',
  'city_hard',
  'city_extreme',
  'city_appearance',
  'city_content',
)
DOMAINS = (SOURCE, *TARGETS)
DEFAULT_SIZE = (96, 192)
COUNTS = {'train': 600, 'validation': 100}


class StreetsConfig(tfds.core.BuilderConfig):
  """One domain at one size.

  Attributes:
    domain: one of `DOMAINS`.
    size: (height, width).
    views: whether the right, previous and next frames are stored.
  """

  def __init__(
    self,
    *,
    domain: str,
    size: tuple[int, int] = DEFAULT_SIZE,
    views: bool = False,
    **kwargs: Any,
  ):
    super().__init__(**kwargs)
    self.domain = domain
    self.size = size
    self.views = views


_CONFIGS = {
  name: StreetsConfig(name=name, domain=name, description=f'Domain {name}.')
  for name in DOMAINS
}


def parse_config(
  name: str, size: tuple[int, int] | None = None
) -> StreetsConfig:
  """The config of a name DOMAIN[-HxW][-views].

  Args:
    name: such as 'city', 'gta-128x256' or 'city-128x256-views'.
    size: (height, width) from elsewhere, instead of one in the name.

  Raises:
    errors.UserError: unknown domain, unknown suffix, or two sizes.
  """
  domain, *suffixes = name.split('-')
  if domain not in DOMAINS:
    raise errors.unknown('domain of streets', domain, DOMAINS)
  views = suffixes[-1:] == ['views']
  sizes = suffixes[:-1] if views else suffixes
  if len(sizes) > 1 or (sizes and size and common.parse_size(*sizes) != size):
    raise errors.UserError(
      f'bad config {name!r} of streets: expected DOMAIN[-HxW][-views], with '
      'one size'
    )
  size = common.parse_size(sizes[0]) if sizes else size or DEFAULT_SIZE
  parts = [domain, *sizes, *(['views'] if views else [])]
  if not sizes and size != DEFAULT_SIZE:
    parts.insert(1, common.shape_text(size))
  name = '-'.join(parts)
  if name in _CONFIGS:
    return _CONFIGS[name]
  return StreetsConfig(
    name=name,
    domain=domain,
    size=size,
    views=views,
    description=f'Domain {domain}, {common.shape_text(size)} pixels.',
  )


class Builder(builders.DrivingBuilder):
  """Street scenes with 19 classes, depth, and optionally stereo and motion.

  The labels of a target's `train` are not written at all; `train_labelled`
  holds the same images with labels, for the oracle.
  """

  VERSION = tfds.core.Version(streets.VERSION)
  RELEASE_NOTES = {'1.0.0': 'First version.'}  # noqa: RUF012 (TFDS' contract)
  BUILDER_CONFIGS = list(_CONFIGS.values())  # noqa: RUF012 (TFDS' contract)

  def schema(self) -> Any:
    """See base class."""
    return builders.features(depth=True, views=self.builder_config.views)

  @property
  def storage_size(self) -> tuple[int, int]:
    """See base class."""
    return self.builder_config.size

  def plan(
    self, manual_dir: pathlib.Path | None
  ) -> Mapping[str, builders.Split]:
    """See base class."""
    del manual_dir
    size = self.storage_size

    def split(name: str, *, labelled: bool, stream: Any) -> builders.Split:
      return builders.Split(
        count=len(self._indices(name)),
        labelled=labelled,
        examples=lambda: ((example, size) for example in stream()),
      )

    train = lambda: self._render('train')
    splits = {}
    if self.builder_config.domain == SOURCE:
      splits['train'] = split('train', labelled=True, stream=train)
    else:
      spool = _Spool()
      hidden = lambda: _hide(spool.keep(train()), size)
      splits['train'] = split('train', labelled=False, stream=hidden)
      splits['train_labelled'] = split(
        'train', labelled=True, stream=spool.read
      )
    splits['validation'] = split(
      'validation', labelled=True, stream=lambda: self._render('validation')
    )
    return splits

  def _indices(self, split: str) -> Sequence[int]:
    return self.limited(range(COUNTS[split]))

  def _render(self, split: str) -> Iterator[common.Example]:
    config = self.builder_config
    jobs = [
      examples.Job(config.domain, split, index, config.size, config.views)
      for index in self._indices(split)
    ]
    return workers.ordered_map(examples.render, jobs, self.options.workers)


def _hide(
  stream: Iterator[common.Example], size: tuple[int, int]
) -> Iterator[common.Example]:
  """The examples without a trace of their labels."""
  hidden = common.label_features(None, size)
  for example in stream:
    yield example | hidden


class _Spool:
  """Keeps rendered examples on disk for the split that repeats them."""

  def __init__(self):
    self._file = tempfile.TemporaryFile()  # noqa: SIM115 (`read` closes it)
    self._count = 0

  def keep(self, stream: Iterator[common.Example]) -> Iterator[common.Example]:
    """Yields the examples of `stream` and keeps them."""
    for example in stream:
      pickle.dump(example, self._file)
      self._count += 1
      yield example

  def read(self) -> Iterator[common.Example]:
    """Yields what `keep` kept, once, and lets it go."""
    with self._file:
      self._file.seek(0)
      for _ in range(self._count):
        yield pickle.load(self._file)
