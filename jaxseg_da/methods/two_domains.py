"""Both domains through one segmenter, and what it says of the target.

What the methods share that adapt in every step, on a source and a target batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg_da import errors
from jaxseg_da.losses import entropy, terms
from jaxseg_da.methods import supervised
from jaxseg_da.models import base as models_base
from jaxseg_da.training import contract

# A run is called collapsed where the last records of the log say so on average.
_FEWEST_CLASSES = 1.2  # effective number of classes in target predictions


class Outputs(NamedTuple):
  """What the segmenter says of both domains, and its new statistics."""

  source: Mapping[str, jax.Array]
  target: Mapping[str, jax.Array]
  batch_stats: contract.Tree


def streams(config) -> dict[str, contract.Domain]:
  """The labelled and the unlabelled stream of the pair."""
  return {
    'source': supervised.source_domain(config),
    'target': supervised.target_domain(config),
  }


def check_same_size(domains, why: str) -> None:
  """Refuses streams whose images differ in size.

  Args:
    domains: as `streams` gives them.
    why: who needs one size, and for what.

  Raises:
    errors.UserError: names both keys.
  """
  crops = any(any(domain.crop) for domain in domains.values())
  key = 'crop' if crops else 'size'
  seen = {
    name: tuple(domain.crop if any(domain.crop) else domain.size)
    for name, domain in domains.items()
  }
  if seen['source'] != seen['target']:
    raise errors.UserError(
      f'config.data.source_{key} and config.data.target_{key} make images of '
      f'{seen["source"]} and {seen["target"]}; {why} images of one size'
    )


def segment(
  network: models_base.Network, variables, context: contract.Context
) -> Outputs:
  """Both domains through the segmenter, each with its own batch statistics.

  Running statistics follow the source, then the target.
  """
  images = {name: context.batch[name]['image'] for name in ('source', 'target')}
  keys = context.keys.examples
  source, stats = network.apply(
    variables, images['source'], True, keys('dropout/source')
  )
  target, stats = network.apply(
    {**variables, 'batch_stats': stats},
    images['target'],
    True,
    keys('dropout/target'),
  )
  return Outputs(source, target, stats)


def effective_classes(maps: jax.Array, axis_name: str) -> terms.Term:
  """exp of the entropy of the mean prediction: 1 where all is one class.

  Args:
    maps: probabilities `[b, H, W, C]` of this device's images.
    axis_name: mapped axis over which the batch is spread.
  """
  means = jax.lax.pmean(jnp.mean(maps, axis=(0, 1, 2)), axis_name)
  return terms.Term(jnp.exp(entropy.entropy(means)), 1.0)


def mean_of(records: Iterable[Mapping[str, float]], key: str) -> float | None:
  """A number's mean over those records of the log that have it."""
  values = [record[key] for record in records if key in record]
  return sum(values) / len(values) if values else None


def one_class(records: Iterable[Mapping[str, float]], remedy: str):
  """Says where the whole target has become one class, or None.

  Args:
    records: of the log, with `target_classes` as `effective_classes` gives it.
    remedy: what to do about it.
  """
  classes = mean_of(records, 'target_classes')
  if classes is None or classes >= _FEWEST_CLASSES:
    return None
  return (
    f'the target is predicted as {classes:.2f} classes (effective number): the '
    f'segmenter has collapsed; {remedy}'
  )
