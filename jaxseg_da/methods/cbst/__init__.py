"""CBST and CRST: class-balanced self-training, with confidence regularisers.

Zou et al., Unsupervised Domain Adaptation for Semantic Segmentation via
Class-Balanced Self-Training (ECCV 2018), Confidence Regularized Self-Training
(ICCV 2019). One stage is one round:

1. before it, `host_pass` predicts the target training images and sets one
   threshold per class, so that the same portion of each class exceeds it;
2. in each step the model *of the round's start* labels target images; pixels
   below their class's threshold are ignored;
3. the student learns from randomly scaled windows of source and target, in one
   mean over all labelled pixels; windows of target images lie around pixels of
   rare classes where there are such.

The next round starts from the student with a fresh optimizer, and trusts more
pixels. Labels are made anew in every step instead of being stored; a pixel
exactly on its threshold may fall to either side where a step's program rounds
differently from that of the pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da import errors, models
from jaxseg_da.classes import labels
from jaxseg_da.config import schema
from jaxseg_da.config.schema import Key, choice, real, whole
from jaxseg_da.data import pseudo_labels
from jaxseg_da.losses import regularised, segmentation, terms
from jaxseg_da.methods import supervised
from jaxseg_da.methods.cbst import host_pass
from jaxseg_da.models import base as models_base
from jaxseg_da.ops import scale_crop
from jaxseg_da.training import contract

PHASE = 'cbst'
REGULARISERS = ('none', 'mrkld', 'lrent')
# The released code multiplies MRKLD by alpha twice, the paper once.
EFFECTIVE: dict[str, Callable[[float], float]] = {
  'released': lambda alpha: alpha**2,
  'paper': lambda alpha: alpha,
}


class Recipe(NamedTuple):
  """Network and constants of a round; see `config.cbst`."""

  network: models_base.Network
  num_classes: int
  crop: tuple[int, int]
  scale: float
  flip: bool
  mining: float
  regulariser: str
  mrkld_alpha: float
  mrkld_effective: str
  lrent_alpha: float
  frozen_bn: bool


class Examples(NamedTuple):
  """Windows of one domain.

  Attributes:
    image: float `[b, h, w, 3]`, normalised.
    label: i32 `[b, h, w]`, 255 is ignored; or, soft, float `[b, h, w, C]`,
      all 0 is ignored.
  """

  image: jax.Array
  label: jax.Array


def source_examples(recipe: Recipe, context: contract.Context) -> Examples:
  """Random windows of the source images and labels."""
  source = context.batch['source']

  def example(image, label, key_scale, key_corner):
    tenths = scale_crop.random_tenths(key_scale)
    size = image.shape[:2]
    corner = scale_crop.random_corner(key_corner, size, tenths, recipe.crop)
    return Examples(
      scale_crop.crop_image(image, tenths, corner, recipe.crop),
      scale_crop.crop_labels(label, tenths, corner, recipe.crop, labels.IGNORE),
    )

  keys = context.keys.examples
  return jax.vmap(example)(
    source['image'],
    source['label'],
    keys('cbst/source_scale'),
    keys('cbst/source_corner'),
  )


def target_examples(recipe: Recipe, context: contract.Context) -> Examples:
  """Windows of the target images with the labels of the whole images.

  Image by image, as the host pass predicts them: so the programs are as alike
  as can be, and probabilities of only one image are held.
  """
  extra, size = context.extra, context.batch['target']['image'].shape[1:3]
  forward = lambda x: recipe.network.apply(extra['labeller'], x, False)[0]

  def example(inputs):
    image, key_scale, key_corner, key_mine, key_pixel = inputs
    p = host_pass.probabilities(
      forward, image[None], recipe.scale, recipe.flip
    )[0]
    thresholds = extra['thresholds'].astype(p.dtype)
    hard, label, fill = _labels(recipe, p, thresholds)
    tenths = scale_crop.random_tenths(key_scale)
    corner = scale_crop.random_corner(key_corner, size, tenths, recipe.crop)
    pixel, found = scale_crop.random_pixel(key_pixel, hard, extra['mine'])
    mined = scale_crop.corner_around(pixel, size, tenths, recipe.crop)
    mine = found & jax.random.bernoulli(key_mine, recipe.mining)
    corner = jnp.where(mine, mined, corner)
    return Examples(
      scale_crop.crop_image(image, tenths, corner, recipe.crop),
      scale_crop.crop_labels(label, tenths, corner, recipe.crop, fill),
    )

  names = ('scale', 'corner', 'mine', 'pixel')
  keys = (context.keys.examples(f'cbst/target_{name}') for name in names)
  images = context.batch['target']['image']
  return jax.lax.stop_gradient(jax.lax.map(example, (images, *keys)))


def _labels(recipe: Recipe, p: jax.Array, thresholds: jax.Array):
  """Pseudo-labels of an image with probabilities `[H, W, C]`.

  Returns:
    hard labels i32 `[H, W]`, what the loss gets, and its value for nothing.
  """
  if recipe.regulariser != 'lrent':
    hard = pseudo_labels.label_selection(p, thresholds).astype(jnp.int32)
    return hard, hard, labels.IGNORE
  soft, keep = pseudo_labels.soft_labels(p, thresholds, recipe.lrent_alpha)
  hard = jnp.where(keep, jnp.argmax(soft, axis=-1), labels.IGNORE)
  return hard, jnp.where(keep[..., None], soft, 0), 0


def loss(
  variables, context: contract.Context, *, recipe: Recipe
) -> contract.Output:
  """One mean over the labelled pixels of both domains, and the regulariser.

  Both domains go through the network as one batch, as in the released code.
  """
  source = source_examples(recipe, context)
  target = target_examples(recipe, context)
  keys = context.keys.examples
  outputs, stats = recipe.network.apply(
    variables['segmenter'],
    jnp.concatenate([source.image, target.image]),
    not recipe.frozen_bn,
    jnp.concatenate([keys('dropout/source'), keys('dropout/target')]),
  )
  logits = models.upsample(outputs['logits'], recipe.crop)
  logits = dict(zip(('source', 'target'), jnp.split(logits, 2), strict=True))
  parts = {'source': segmentation.cross_entropy(logits['source'], source.label)}
  if recipe.regulariser == 'lrent':
    valid = regularised.labelled_pixels(target.label)
    parts['target'] = regularised.soft_cross_entropy(
      logits['target'], target.label
    )
  else:
    valid = segmentation.valid_pixels(target.label, recipe.num_classes)
    parts['target'] = segmentation.cross_entropy(logits['target'], target.label)
  (total, count), (target_total, target_count) = parts.values()
  losses = {'labels': terms.Term(total + target_total, count + target_count)}
  if recipe.regulariser == 'mrkld':
    weight = EFFECTIVE[recipe.mrkld_effective](recipe.mrkld_alpha)
    uniform = regularised.uniform_cross_entropy(
      logits['target'], valid, jnp.ones(len(valid))
    )
    losses['uniform'] = terms.Term(*uniform, weight)
  pixels = jnp.asarray(valid.size, count.dtype)
  return contract.Output(
    terms=losses,
    batch_stats={} if recipe.frozen_bn else {'segmenter': stats},
    metrics={
      'labelled': terms.Term(target_count, pixels),
      **{f'loss/{name}': terms.Term(*part) for name, part in parts.items()},
    },
  )


def init_extra(variables, artifacts: contract.Artifacts, *, num_classes: int):
  """The labeller is the model of the round's start; it never moves.

  Without a host pass, as in a benchmark of the step, every pixel is labelled
  and every class mined.
  """
  thresholds = np.full(num_classes, 1 / num_classes)
  mine = np.ones(num_classes, bool)
  if host_pass.THRESHOLDS in artifacts.files:
    with np.load(artifacts.files[host_pass.THRESHOLDS]) as found:
      thresholds, mine = found['thresholds'], found['mine']
  return {
    'labeller': jax.tree.map(jnp.copy, variables['segmenter']),
    'thresholds': jnp.asarray(thresholds, jnp.float32),
    'mine': jnp.asarray(mine),
  }


def settings() -> contract.Settings:
  """The constants of CBST and CRST; sources are files of CRST's code."""
  return contract.Settings(
    {
      'target_portion': Key(
        (0.20, 0.05, 0.5),
        host_pass.PORTIONS,
        "of each class's pixels: first round, growth per round, limit",
        'crst_seg.py',
      ),
      'source_portion': Key(
        (0.03, 0.0025, 0.06),
        host_pass.PORTIONS,
        'of the source images, as target_portion',
        'crst_seg.py',
      ),
      'policy': Key(
        'cbst',
        choice('cbst', 'mxnet', 'global'),
        "threshold per class; mxnet: CBST's own code, whose lists have one "
        'zero too many; global: one threshold',
      ),
      'epochs': Key(
        2,
        whole(1, 1000),
        'passes over the target images per round: all of them, while the '
        'released list has 505 of 2975',
      ),
      'scale': Key(0.9, real(0.1, 10), 'of the labelled images', 'test_scale'),
      'flip': Key(
        True, schema.FLAG, 'labels average both mirrored views', 'test_flipping'
      ),
      'crop': Key(
        (0, 0),
        schema.size(16, optional=True),
        "window of images scaled by 0.5 to 1.5; (0, 0): the images' size",
      ),
      'mining': Key(0.8, schema.PROBABILITY, 'of a window around a rare class'),
      'mine_share': Key(
        1e-3, schema.PROBABILITY, 'of all pixels; a class with less is rare'
      ),
      'regulariser': Key(
        'none', choice(*REGULARISERS), 'none is CBST, the others are CRST'
      ),
      'mrkld_alpha': Key(0.1, schema.WEIGHT, 'of MRKLD', 'mrkld.sh'),
      'mrkld_effective': Key(
        'released',
        choice(*EFFECTIVE),
        'its weight: alpha squared (it is multiplied twice), or alpha',
      ),
      'lrent_alpha': Key(
        0.25,
        real(0, 1e3, above=True),
        'of LRENT; towards 0 labels become hard',
        'lrent.sh',
      ),
      'frozen_bn': Key(
        False, schema.FLAG, 'train the network in evaluation mode; CRST does'
      ),
    }
  )


def make(config, stage) -> contract.Method:
  """The method, with the constants of `config.cbst`.

  Raises:
    errors.UserError: the model has a second classifier.
  """
  if config.model.aux_head:
    raise errors.UserError(
      'config.model.aux_head is True, but CBST trains one classifier; set it '
      'to False'
    )
  settings, network = config.cbst, supervised.segmenter(config)
  values = {name: settings[name] for name in Recipe._fields if name in settings}
  if not any(settings.crop):
    values['crop'] = config.data.target_size
  recipe = Recipe(
    network=network, num_classes=config.data.num_classes, **values
  )
  # Windows are cut on the device, after images are scaled.
  source = supervised.source_domain(config)._replace(crop=(0, 0))
  return contract.Method(
    name=stage.method,
    domains={
      'source': source._replace(rows=host_pass.SOURCE),
      'target': host_pass.target_domain(config),
    },
    networks={'segmenter': network},
    phases=(
      contract.Phase(
        PHASE, ('segmenter',), functools.partial(loss, recipe=recipe)
      ),
    ),
    init_extra=functools.partial(
      init_extra, num_classes=config.data.num_classes
    ),
    before_stage=host_pass.run,
    decides_steps=True,
  )
