"""MaxSquare: certain predictions on the target, by maximum squares.

Chen et al., Domain Adaptation for Semantic Segmentation with Maximum Squares
Loss (ICCV 2019). One step:

1. cross-entropy of the segmenter on source images;
2. the maximum squares loss of its target predictions, weighted by how often
   each image's classes are predicted or not; entropy and hard pseudo-labels
   are the paper's ablations;
3. with multi-level guidance, pixels that one of two classifiers is certain of
   are pseudo-labels of their mean prediction for the second classifier.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

from jaxseg_da import errors, models
from jaxseg_da.config import schema
from jaxseg_da.config.schema import Key, choice
from jaxseg_da.losses import maxsquare, segmentation, terms
from jaxseg_da.methods import adversarial, supervised, two_domains
from jaxseg_da.models import base as models_base
from jaxseg_da.training import contract

PLAIN = {
  'maxsquare': maxsquare.maxsquare,
  'entropy': maxsquare.mean_entropy,
}
WEIGHTED = {'iw': maxsquare.iw_maxsquare, 'iw_entropy': maxsquare.iw_entropy}
LOSSES = (*PLAIN, *WEIGHTED, 'hard')


class Recipe(NamedTuple):
  """Network and constants of a run; see `config.maxsquare`."""

  network: models_base.Network
  aux_weight: float
  loss: str
  weight: float
  ratio: float
  per: str
  multi: bool
  threshold: float


def target_terms(
  recipe: Recipe, logits: Mapping[str, jax.Array], axis_name: str
) -> tuple[dict[str, terms.Term], dict[str, terms.Term]]:
  """Losses of the target predictions, and what is logged of them.

  Args:
    recipe: see there.
    logits: `logits` float `[b, H, W, C]`; for guidance `aux_logits` as well.
    axis_name: mapped axis over which the batch is spread.
  """
  p = jax.nn.softmax(logits['logits'])
  metrics = {'target_classes': two_domains.effective_classes(p, axis_name)}
  if recipe.loss in WEIGHTED:
    loss = WEIGHTED[recipe.loss](p, recipe.ratio, recipe.per, axis_name)
  elif recipe.loss in PLAIN:
    loss = PLAIN[recipe.loss](p)
  else:
    loss, metrics['labelled'] = self_training(
      logits['logits'], [p], recipe.threshold
    )
  losses = {recipe.loss: terms.Term(*loss, recipe.weight)}
  if recipe.multi:
    aux = logits['aux_logits']
    loss, metrics['labelled_aux'] = self_training(
      aux, [p, jax.nn.softmax(aux)], recipe.threshold
    )
    weight = recipe.aux_weight * recipe.weight
    losses['guidance'] = terms.Term(*loss, weight)
  return losses, metrics


def self_training(
  logits: jax.Array, predictions: Sequence[jax.Array], threshold: float
):
  """Cross-entropy with confident pseudo-labels, and the share of those.

  Where no pixel is labelled the loss is 0 and has no gradient.
  """
  labels = maxsquare.confident_labels(predictions, threshold)
  total, count = segmentation.cross_entropy(logits, labels)
  return (total, count), terms.Term(count, float(labels.size))


def loss(
  variables, context: contract.Context, *, recipe: Recipe
) -> contract.Output:
  """Cross-entropy on the source, certainty on the target."""
  outputs = two_domains.segment(recipe.network, variables['segmenter'], context)
  size = context.batch['target']['image'].shape[1:3]
  logits = {
    level: models.upsample(outputs.target[level], size)
    for level in adversarial.LEVELS
    if level in outputs.target
  }
  losses, metrics = target_terms(recipe, logits, context.axis_name)
  labels = context.batch['source']['label']
  return contract.Output(
    terms={
      **supervised.loss_terms(outputs.source, labels, recipe.aux_weight),
      **losses,
    },
    batch_stats={'segmenter': outputs.batch_stats},
    metrics=metrics,
  )


def verdict(records) -> str | None:
  """Says where the whole target has become one class, the surest of all."""
  return two_domains.one_class(records, 'lower config.maxsquare.weight')


def settings() -> contract.Settings:
  """The constants of MaxSquare; sources are files of the released code."""
  return contract.Settings(
    {
      'loss': Key(
        'maxsquare',
        choice('maxsquare', 'iw', 'entropy', 'iw_entropy', 'hard'),
        'on target predictions; iw: image-wise weighted, hard: pseudo-labels',
      ),
      'weight': Key(
        0.1, schema.WEIGHT, 'lambda_target; 0.09 with guidance', 'released code'
      ),
      'ratio': Key(
        0.2,
        schema.PROBABILITY,
        'iw: 0 weighs all pixels alike, 1 all classes',
        'released code',
      ),
      'per': Key(
        'image',
        choice('image', 'batch'),
        'iw: whose pixels count; batch as in CCDA',
      ),
      'multi': Key(
        False,
        schema.FLAG,
        'pseudo-labels for the second classifier; times model.aux_weight',
      ),
      'threshold': Key(
        0.95, schema.PROBABILITY, 'of pseudo-labels: hard, multi'
      ),
    }
  )


def make(config, stage) -> contract.Method:
  """The method, with the constants of `config.maxsquare`.

  Raises:
    errors.UserError: guidance is asked for, but there is one classifier only.
  """
  settings, model = config.maxsquare, config.model
  if settings.multi and not (model.name == 'deeplabv2' and model.aux_head):
    raise errors.UserError(
      'config.maxsquare.multi is True, but the model has no second classifier; '
      'set config.model.name to deeplabv2 and config.model.aux_head to True'
    )
  network = supervised.segmenter(config)
  values = {name: settings[name] for name in Recipe._fields if name in settings}
  recipe = Recipe(network=network, aux_weight=model.aux_weight, **values)
  return contract.Method(
    name=stage.method,
    domains=two_domains.streams(config),
    networks={'segmenter': network},
    phases=(
      contract.Phase(
        'segmenter', ('segmenter',), functools.partial(loss, recipe=recipe)
      ),
    ),
    verdict=verdict,
  )
