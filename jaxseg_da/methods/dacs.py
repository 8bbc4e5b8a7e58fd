"""DACS: cross-domain class mixing with a mean teacher.

Tranheden et al., DACS: Domain Adaptation via Cross-domain Mixed Sampling
(WACV 2021). One step:

1. supervised cross-entropy of the student on source images;
2. the teacher labels target images; q is the share of confident pixels;
3. half of the source image's classes are pasted onto the target image, with
   their labels; the target's part carries pseudo-labels, weighted by q;
4. the mixed image is jittered and blurred, and the student trained on it;
5. the teacher's parameters follow the student's.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg_da import models
from jaxseg_da.config import schema
from jaxseg_da.config.schema import Key, choice
from jaxseg_da.losses import segmentation, selftraining, terms
from jaxseg_da.methods import supervised, two_domains
from jaxseg_da.models import base as models_base
from jaxseg_da.ops import blur, ema, mixing, normalize, photometric
from jaxseg_da.training import contract


class Recipe(NamedTuple):
  """Network and constants of a run; see `config.dacs`."""

  network: models_base.Network
  num_classes: int
  aux_weight: float
  normalization: str
  threshold: float
  weight_mode: str
  mixed_weight: float
  ema_decay: float
  mix_ignore: bool
  jitter: float
  jitter_probability: float
  blur_probability: float
  blur_sigma: tuple[float, float]
  teacher_train_mode: bool


def pseudo_label(recipe: Recipe, context: contract.Context):
  """The teacher's labels on the target batch (section 3.2).

  Returns:
    labels `[b, H, W]`, weights `[b, H, W]`, the teacher's new statistics.
  """
  images = context.batch['target']['image']
  outputs, stats = recipe.network.apply(
    context.extra['teacher'],
    images,
    recipe.teacher_train_mode,
    context.keys.examples('dropout/teacher'),
  )
  logits = models.upsample(outputs['logits'], images.shape[1:3])
  labels, confidence = segmentation.pseudo_labels(jax.lax.stop_gradient(logits))
  weights = selftraining.confidence_weight(
    confidence, recipe.threshold, recipe.weight_mode, context.axis_name
  )
  return labels, weights, jax.lax.stop_gradient(stats)


def source_mask(recipe: Recipe, context: contract.Context) -> jax.Array:
  """Pixels of half of each source image's classes, bool `[b, H, W]`."""
  labels = context.batch['source']['label']
  choose = functools.partial(
    mixing.choose_classes,
    num_classes=recipe.num_classes,
    include_ignore=recipe.mix_ignore,
  )
  chosen = jax.vmap(choose)(context.keys.examples('dacs/classes'), labels)
  return jax.vmap(mixing.mask)(labels, chosen)


def strong_augmentation(recipe: Recipe, images: jax.Array, keys) -> jax.Array:
  """Colour jitter, then blur; whether, is drawn once for the whole batch."""

  def jitter(x):
    x = normalize.to_unit(x, recipe.normalization)
    x = photometric.random_color_jitter(
      keys.examples('dacs/jitter'), x, recipe.jitter
    )
    return normalize.from_unit(x, recipe.normalization)

  def smooth(x):
    low, high = recipe.blur_sigma
    draw = functools.partial(
      jax.random.uniform, dtype=x.dtype, minval=low, maxval=high
    )
    return blur.gaussian_blur(x, jax.vmap(draw)(keys.examples('dacs/sigma')))

  gates = (
    ('dacs/jitter', recipe.jitter_probability, jitter),
    ('dacs/blur', recipe.blur_probability, smooth),
  )
  for name, probability, transform in gates:
    draw = jax.random.uniform(keys.iteration(name))
    images = photometric.gate(draw, 1.0 - probability, transform, images)
  return images


def mixed_batch(recipe: Recipe, context: contract.Context):
  """Images, labels and weights of the mixed batch, and the teacher's stats."""
  source, target = context.batch['source'], context.batch['target']
  pseudo, weights, stats = pseudo_label(recipe, context)
  mask = source_mask(recipe, context)
  images = mixing.mix(mask, source['image'], target['image'])
  labels, weights = selftraining.mix_targets(
    mask, source['label'], pseudo, weights
  )
  images = strong_augmentation(recipe, images, context.keys)
  return jax.lax.stop_gradient((images, labels, weights)), stats


def loss(
  variables, context: contract.Context, *, recipe: Recipe
) -> contract.Output:
  """Supervised plus mixed cross-entropy (equation 1 of the paper).

  Statistics of the student's BatchNorm follow both passes, in order.
  """
  student, source = variables['segmenter'], context.batch['source']
  keys = context.keys.examples
  outputs, stats = recipe.network.apply(
    student, source['image'], True, keys('dropout/source')
  )
  losses = supervised.loss_terms(outputs, source['label'], recipe.aux_weight)

  (images, labels, weights), teacher_stats = mixed_batch(recipe, context)
  student = {**student, 'batch_stats': stats}
  outputs, stats = recipe.network.apply(
    student, images, True, keys('dropout/mixed')
  )
  logits = models.upsample(outputs['logits'], labels.shape[1:3])
  total, count = selftraining.mixed_loss(logits, labels, weights)
  losses['mixed'] = terms.Term(total, count, recipe.mixed_weight)
  pixels = jnp.asarray(weights.size, weights.dtype)
  return contract.Output(
    terms=losses,
    batch_stats={'segmenter': stats},
    averaged={'teacher_stats': teacher_stats},
    metrics={'mixed_weight': terms.Term(jnp.sum(weights), pixels)},
  )


def init_extra(variables, artifacts: contract.Artifacts):
  """The teacher starts as a copy of the student."""
  del artifacts
  return {'teacher': jax.tree.map(jnp.copy, variables['segmenter'])}


def post_update(extra, variables, carry, step, *, ema_decay: float):
  """The teacher's parameters follow the student's; statistics are its own."""
  params = ema.update(
    extra['teacher']['params'],
    variables['segmenter']['params'],
    ema.decay(step, ema_decay),
  )
  stats = carry['averaged']['teacher_stats']
  return {'teacher': {'params': params, 'batch_stats': stats}}


def settings() -> contract.Settings:
  """The constants of DACS; sources are files of the released code."""
  return contract.Settings(
    {
      'threshold': Key(
        0.968,
        schema.PROBABILITY,
        'confidence of the teacher above which a pixel counts',
        'trainUDA.py',
      ),
      'weight_mode': Key(
        'threshold_uniform',
        choice(*selftraining.WEIGHT_MODES),
        'weight of pseudo-labels: share of confident pixels, mask, or 1',
        'released code',
      ),
      'mixed_weight': Key(
        1.0, schema.WEIGHT, 'lambda of the mixed loss', 'equation 1'
      ),
      'ema_decay': Key(
        0.99, schema.EMA_DECAY, 'of the teacher, per step', 'trainUDA.py'
      ),
      'mix_ignore': Key(
        True,
        schema.FLAG,
        '255 counts as a class when classes are drawn',
        'released code',
      ),
      'jitter': Key(
        0.25, schema.PROBABILITY, 'colour jitter strength', 'released code'
      ),
      'jitter_probability': Key(
        0.8, schema.PROBABILITY, 'once per iteration', 'released code'
      ),
      'blur_probability': Key(
        0.5, schema.PROBABILITY, 'once per iteration', 'released code'
      ),
      'blur_sigma': Key(
        (0.15, 1.15),
        schema.interval(0, 100),
        'pixels, drawn uniformly',
        'released code',
      ),
      'teacher_train_mode': Key(
        True,
        schema.FLAG,
        'teacher normalises by batch statistics',
        'released code',
      ),
    }
  )


def make(config, stage) -> contract.Method:
  """The method, with the constants of `config.dacs`."""
  domains = two_domains.streams(config)
  two_domains.check_same_size(domains, 'DACS mixes')
  network = supervised.segmenter(config)
  recipe = Recipe(
    network=network,
    num_classes=config.data.num_classes,
    aux_weight=config.model.aux_weight,
    normalization=config.data.normalization,
    **{
      name: config.dacs[name] for name in Recipe._fields if name in config.dacs
    },
  )
  return contract.Method(
    name=stage.method,
    domains=domains,
    networks={'segmenter': network},
    phases=(
      contract.Phase(
        'segmenter', ('segmenter',), functools.partial(loss, recipe=recipe)
      ),
    ),
    init_extra=init_extra,
    post_update=functools.partial(post_update, ema_decay=config.dacs.ema_decay),
  )
