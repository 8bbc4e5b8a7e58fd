"""Supervised training: on the source (the control), or as the oracle.

The oracle trains on target labels, which no other method may read; the street
benchmark keeps them in a split of their own, `train_labelled`.
"""

from __future__ import annotations

import functools

from jaxseg_da.methods import supervised
from jaxseg_da.training import contract


def loss(variables, context: contract.Context, *, network, aux_weight: float):
  """Cross-entropy over valid source pixels of the global batch."""
  batch = context.batch['source']
  keys = context.keys.examples('dropout/source')
  outputs, stats = network.apply(
    variables['segmenter'], batch['image'], True, keys
  )
  return contract.Output(
    terms=supervised.loss_terms(outputs, batch['label'], aux_weight),
    batch_stats={'segmenter': stats},
  )


def oracle_domain(config) -> contract.Domain:
  """The target's labelled training images."""
  target = supervised.target_domain(config)
  name, _, split = target.spec.partition(':')
  if name.startswith('streets/'):
    split = 'train_labelled'
  return target._replace(spec=f'{name}:{split or "train"}', labelled=True)


def settings() -> contract.Settings:
  """It has no keys of its own."""
  return contract.Settings()


def make(config, stage) -> contract.Method:
  """`source_only` or, by the stage's method, `oracle`."""
  network = supervised.segmenter(config)
  oracle = stage.method == 'oracle'
  domain = (oracle_domain if oracle else supervised.source_domain)(config)
  return contract.Method(
    name=stage.method,
    domains={'source': domain},
    networks={'segmenter': network},
    phases=(
      contract.Phase(
        'segmenter',
        ('segmenter',),
        functools.partial(
          loss, network=network, aux_weight=config.model.aux_weight
        ),
      ),
    ),
    shared=True,
    baseline=not oracle,
  )
