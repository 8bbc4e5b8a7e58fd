"""AdaBN: BatchNorm statistics of the target, nothing else.

Li et al., Revisiting Batch Normalization For Practical Domain Adaptation
(2016). The cheapest baseline: no parameter moves, so whatever it gains is owed
to normalisation alone.
"""

from __future__ import annotations

import functools

import jax

from jaxseg_da import errors
from jaxseg_da.methods import supervised
from jaxseg_da.training import contract

MOMENTUM = 0.1  # of the running statistics, see models.norm


def cumulative(old, new, step):
  """The mean over all batches so far, from one exponential update.

  Args:
    old: running statistics before the batch.
    new: after it, `old + MOMENTUM * (batch - old)`.
    step: i32 scalar, batches seen before this one.
  """
  factor = 1.0 / (MOMENTUM * (step + 1.0))
  return jax.tree.map(lambda a, b: a + (b - a) * factor, old, new)


def loss(variables, context: contract.Context, *, network):
  """A forward pass over target images; it has no loss term."""
  old = variables['segmenter']
  keys = context.keys.examples('dropout/target')
  _, stats = network.apply(old, context.batch['target']['image'], True, keys)
  stats = cumulative(old['batch_stats'], stats, context.step)
  return contract.Output(terms={}, batch_stats={'segmenter': stats})


def settings() -> contract.Settings:
  """It has no keys of its own."""
  return contract.Settings()


def make(config, stage) -> contract.Method:
  """The method; `stage.steps` is the number of batches averaged.

  Raises:
    UserError: DeepLab-V3, whose pooled BatchNorm keeps more than exponential
      averages, which are what `cumulative` undoes.
  """
  if config.model.name == 'deeplabv3':
    raise errors.UserError(
      'method adabn does not know the pooled BatchNorm of deeplabv3; set '
      'config.model.name to deeplabv2 or street'
    )
  network = supervised.segmenter(config)
  return contract.Method(
    name=stage.method,
    domains={'target': supervised.target_domain(config)},
    networks={'segmenter': network},
    phases=(
      contract.Phase(
        'statistics', (), functools.partial(loss, network=network)
      ),
    ),
    shared=True,
  )
