"""Alignment in output space: AdaptSegNet, AdvEnt, and MinEnt without a game.

Tsai et al., Learning to Adapt Structured Output Space for Semantic Segmentation
(CVPR 2018); Vu et al., ADVENT (CVPR 2019). One step:

1. cross-entropy of the segmenter on source images;
2. a discriminator per classifier tells the domains apart by what the segmenter
   puts out; the segmenter learns to make target outputs look like source ones
   (MinEnt: to make them certain);
3. the discriminators learn from the same outputs, with their gradient stopped.

All gradients are taken at the parameters from before the step.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg_da import errors, models
from jaxseg_da.config import schema
from jaxseg_da.config.schema import Key, choice, whole
from jaxseg_da.losses import adversarial, entropy, terms
from jaxseg_da.methods import supervised, two_domains
from jaxseg_da.models import base as models_base
from jaxseg_da.models import discriminator, layers
from jaxseg_da.training import contract

# Output of the segmenter -> its discriminator, and where its weight is.
LEVELS = {'logits': 'discriminator', 'aux_logits': 'discriminator_aux'}
_WEIGHTS = {'logits': 'weight', 'aux_logits': 'aux_weight'}
_CERTAIN = 0.999  # accuracy of a discriminator that leaves nothing to learn


class Recipe(NamedTuple):
  """Networks and constants of a run; see `config.adversarial`."""

  network: models_base.Network
  critics: Mapping[str, models_base.Network]
  aux_weight: float
  kind: str
  objective: str
  weights: Mapping[str, float]


def probabilities(
  outputs: two_domains.Outputs, context: contract.Context, level: str
) -> dict[str, jax.Array]:
  """Domain -> class probabilities `[b, H, W, C]` at the size of the images."""
  return {
    name: jax.nn.softmax(
      models.upsample(found[level], context.batch[name]['image'].shape[1:3])
    )
    for name, found in (('source', outputs.source), ('target', outputs.target))
  }


def judge(critic: models_base.Network, variables, maps: jax.Array) -> jax.Array:
  """A discriminator's logits `[b, h, w, 1]`."""
  outputs, _ = critic.apply(variables, maps, True)
  return outputs['logits']


def generate(variables, context: contract.Context, *, recipe: Recipe):
  """The segmenter's loss (AdaptSegNet equation 5, ADVENT equations 5 and 8)."""
  outputs = two_domains.segment(recipe.network, variables['segmenter'], context)
  labels = context.batch['source']['label']
  losses = supervised.loss_terms(outputs.source, labels, recipe.aux_weight)
  metrics, seen = {}, {}
  for level, weight in recipe.weights.items():
    suffix = '_aux' if level == 'aux_logits' else ''
    maps = probabilities(outputs, context, level)
    classes = two_domains.effective_classes(maps['target'], context.axis_name)
    metrics[f'target_classes{suffix}'] = classes
    if recipe.kind == 'minent':
      loss = entropy.entropy_loss(maps['target'])
      losses[f'entropy{suffix}'] = terms.Term(*loss, weight)
      continue
    if recipe.kind == 'advent':
      maps = jax.tree.map(entropy.weighted_self_information, maps)
    name = LEVELS[level]
    logits = judge(recipe.critics[name], variables[name], maps['target'])
    loss = adversarial.domain_loss(logits, adversarial.SOURCE, recipe.objective)
    losses[f'adversarial{suffix}'] = terms.Term(*loss, weight)
    seen[name] = maps
  return contract.Output(
    terms=losses,
    batch_stats={'segmenter': outputs.batch_stats},
    carry={'maps': seen},
    metrics=metrics,
  )


def discriminate(
  variables,
  context: contract.Context,
  *,
  critics: Mapping[str, models_base.Network],
  objective: str,
):
  """The discriminators' loss on the maps that `generate` carried.

  Each domain counts one half. Per domain and level, the share of right answers
  is logged.
  """
  losses, metrics = {}, {}
  for name, maps in context.carry['maps'].items():
    for domain, label in (
      ('source', adversarial.SOURCE),
      ('target', adversarial.TARGET),
    ):
      logits = judge(critics[name], variables[name], maps[domain])
      loss = adversarial.domain_loss(logits, label, objective)
      losses[f'{name}_{domain}'] = terms.Term(*loss, 0.5)
      right = adversarial.domain_accuracy(logits, label, objective)
      metrics[f'{name}_accuracy_{domain}'] = terms.Term(*right)
  return contract.Output(terms=losses, metrics=metrics)


def verdict(records) -> str | None:
  """Says where alignment has broken down, on the mean of the last records.

  Two ways are known: the segmenter calls the whole target one class, which a
  discriminator may accept; or the discriminator is always right, so that the
  segmenter hears the same whatever it does.
  """
  collapsed = two_domains.one_class(records, 'lower the adversarial weight')
  if collapsed:
    return collapsed
  accuracies = [
    two_domains.mean_of(records, f'discriminator_accuracy_{domain}')
    for domain in ('source', 'target')
  ]
  if all(a is not None and a > _CERTAIN for a in accuracies):
    return (
      'the discriminator is always right, alignment has stalled; lower its '
      'learning rate or raise the adversarial weight'
    )
  return None


def check(config) -> None:
  """Refuses what a discriminator cannot see.

  Raises:
    errors.UserError: images are smaller than a discriminator's field.
  """
  for domain in ('source', 'target'):
    crop, size = config.data[f'{domain}_crop'], config.data[f'{domain}_size']
    seen = crop if any(crop) else size
    if any(seen) and min(seen) < discriminator.MINIMUM:
      raise errors.UserError(
        f'config.data.{domain}_size: images of {seen} are too small for a '
        f'discriminator, which needs at least {discriminator.MINIMUM} pixels '
        'a side'
      )


def critics(config, levels) -> dict[str, models_base.Network]:
  """A discriminator of `num_classes` channels for each level."""
  dtype = jnp.dtype(config.model.compute_dtype)
  options = layers.Options(dtype, jnp.promote_types(dtype, jnp.float32))
  return {
    LEVELS[level]: discriminator.network(
      config.data.num_classes, config.adversarial.discriminator_width, options
    )
    for level in levels
  }


def levels_of(config) -> tuple[str, ...]:
  """The classifiers whose outputs are aligned."""
  aux = config.model.aux_head and config.adversarial.aux_weight > 0
  return ('logits', 'aux_logits') if aux else ('logits',)


def settings() -> contract.Settings:
  """The constants of AdaptSegNet and ADVENT, as released."""
  return contract.Settings(
    {
      'kind': Key(
        'adaptsegnet',
        choice('adaptsegnet', 'advent', 'minent'),
        'what is aligned: probabilities, self-information, or nothing: '
        'entropy is minimised directly',
      ),
      'objective': Key(
        'bce', choice(*adversarial.OBJECTIVES), 'of the discriminators'
      ),
      'weight': Key(
        1e-3,
        schema.WEIGHT,
        'of the main classifier',
        'lambda_adv2, LAMBDA_ADV_MAIN',
      ),
      'aux_weight': Key(
        2e-4,
        schema.WEIGHT,
        'of the second one; 0: it is not aligned',
        'lambda_adv1, LAMBDA_ADV_AUX',
      ),
      'discriminator_width': Key(
        64, whole(1, 4096), 'channels of its first layer'
      ),
    },
    optimizers={
      # Adam at 1e-4, poly: both papers.
      'discriminator': {
        'name': 'adam',
        'learning_rate': 1e-4,
        'b1': 0.9,
        'b2': 0.99,
      }
    },
  )


def make(config, stage) -> contract.Method:
  """The method, with the constants of `config.adversarial`."""
  settings, network = config.adversarial, supervised.segmenter(config)
  levels = levels_of(config)
  recipe = Recipe(
    network=network,
    critics={} if settings.kind == 'minent' else critics(config, levels),
    aux_weight=config.model.aux_weight,
    kind=settings.kind,
    objective=settings.objective,
    weights={level: settings[_WEIGHTS[level]] for level in levels},
  )
  phases = [
    contract.Phase(
      'segmenter', ('segmenter',), functools.partial(generate, recipe=recipe)
    )
  ]
  if recipe.critics:
    check(config)
    loss = functools.partial(
      discriminate, critics=recipe.critics, objective=settings.objective
    )
    phases.append(
      contract.Phase(
        'discriminator',
        tuple(recipe.critics),
        loss,
        optimizer='discriminator',
      )
    )
  return contract.Method(
    name=stage.method,
    domains=two_domains.streams(config),
    networks={'segmenter': network, **recipe.critics},
    phases=tuple(phases),
    verdict=verdict,
  )
