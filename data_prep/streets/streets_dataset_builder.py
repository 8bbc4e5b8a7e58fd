"""TFDS builder `streets`: the embedded benchmark, rendered, not downloaded."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds

from data_prep import builders, items, shards, streets
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
  if len(sizes) > 1 or (sizes and size and items.parse_size(*sizes) != size):
    raise errors.UserError(
      f'bad config {name!r} of streets: expected DOMAIN[-HxW][-views], with '
      'one size'
    )
  size = items.parse_size(sizes[0]) if sizes else size or DEFAULT_SIZE
  parts = [domain, *sizes, *(['views'] if views else [])]
  if not sizes and size != DEFAULT_SIZE:
    parts.insert(1, items.shape_text(size))
  name = '-'.join(parts)
  if name in _CONFIGS:
    return _CONFIGS[name]
  return StreetsConfig(
    name=name,
    domain=domain,
    size=size,
    views=views,
    description=f'Domain {domain}, {items.shape_text(size)} pixels.',
  )


class Builder(builders.DrivingBuilder):
  """Street scenes with 19 classes, depth, and optionally stereo and motion.

  The labels of a target's `train` are not written at all; `train_labelled`
  holds the same images with labels, for the oracle.
  """

  VERSION = tfds.core.Version(streets.VERSION)
  RELEASE_NOTES = {'1.0.0': 'First version.'}  # noqa: RUF012 (TFDS' contract)
  BUILDER_CONFIGS = list(_CONFIGS.values())  # noqa: RUF012 (TFDS' contract)

  DEPTH_KIND = 'metric'

  def __init__(self, *, limit: int | None = None, **kwargs: Any):
    self._limit = limit
    super().__init__(**kwargs)

  @property
  def optional_features(self) -> tuple[str, ...]:
    """See base class."""
    views = items.VIEWS if self.builder_config.views else ()
    return ('depth', 'intrinsics', 'baseline', *views)

  def request(self) -> dict[str, Any]:
    """See base class."""
    size = list(self.builder_config.size)
    return {'size': size, 'resize': None, 'limit': self._limit}

  def plan(self, manual_dir: pathlib.Path) -> Mapping[str, builders.Split]:
    """See base class."""
    del manual_dir
    source = self.builder_config.domain == SOURCE
    return {
      'train' if source else 'train_labelled': self._split(
        'train', twin='' if source else 'train'
      ),
      'validation': self._split('validation'),
    }

  def make(self) -> shards.Make:
    """See base class."""
    return examples.render

  def _split(self, name: str, twin: str = '') -> builders.Split:
    config = self.builder_config
    jobs = [
      examples.Job(config.domain, name, index, config.size, config.views)
      for index in range(COUNTS[name])[: self._limit]
    ]
    return builders.Split(jobs, ('label', *self.optional_features), twin)
