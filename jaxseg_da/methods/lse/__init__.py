"""LSE: self-training on scale-invariant examples.

Subhani and Ali, Learning from Scale-Invariant Examples for Domain Adaptation in
Semantic Segmentation (ECCV 2020). One stage is one round:

1. before it, the model labels the target training images; `host_pass` selects
   the most confident ones per class, draws windows in them, and estimates an
   entropy threshold per class;
2. in each step the model *of the round's start* labels the selected images at
   normal scale; windows are enlarged together with these probabilities, and
   what is less certain than its class's threshold is ignored;
3. the student learns from source labels and from the enlarged windows, with a
   focal term for the rare classes.

The next round starts from the student, keeps its optimizer, and selects more.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da import models
from jaxseg_da.config import schema
from jaxseg_da.config.schema import Key, choice, whole
from jaxseg_da.losses import focal, segmentation, terms
from jaxseg_da.methods import supervised
from jaxseg_da.methods.lse import examples, host_pass
from jaxseg_da.models import base as models_base
from jaxseg_da.ops import normalize
from jaxseg_da.training import contract, optim

PHASE = 'lse'


class Recipe(NamedTuple):
  """Network and constants of a round; see `config.lse`."""

  network: models_base.Network
  aux_weight: float
  normalization: str
  window: tuple[int, int]
  enlarge: bool
  use_thresholds: bool
  focal: str
  gamma: float
  beta: float
  quantise: bool


def scale_invariant_examples(
  recipe: Recipe, context: contract.Context
) -> tuple[jax.Array, jax.Array]:
  """Enlarged windows of the target batch with the labels of the whole images.

  Returns:
    images float `[b, h, w, 3]`, normalised; labels i32 `[b, h, w]`, 255 where
    the prediction is not trusted. (h, w) is the image's size, or that of the
    window where nothing is enlarged.
  """
  target, extra = context.batch['target'], context.extra
  images = target['image']
  size = images.shape[1:3]
  outputs, _ = recipe.network.apply(extra['labeller'], images, False)
  logits = models.upsample(outputs['logits'], size)

  make = functools.partial(
    examples.make, thresholds=extra['thresholds'], settings=recipe
  )
  made = jax.vmap(make)(images, logits, target['corner'])
  images, labels = made.image, made.label
  if recipe.quantise:
    images = normalize.to_unit(images, recipe.normalization)
    images = jnp.floor(images * 255) / 255  # stored as 8 bits, cut off
    images = normalize.from_unit(images, recipe.normalization)
  return jax.lax.stop_gradient((images, labels))


def loss(
  variables, context: contract.Context, *, recipe: Recipe
) -> contract.Output:
  """Source cross-entropy, target cross-entropy, and beta times focal loss."""
  student, source = variables['segmenter'], context.batch['source']
  keys = context.keys.examples
  outputs, stats = recipe.network.apply(
    student, source['image'], True, keys('dropout/source')
  )
  losses = supervised.loss_terms(outputs, source['label'], recipe.aux_weight)

  images, labels = scale_invariant_examples(recipe, context)
  student = {**student, 'batch_stats': stats}
  outputs, stats = recipe.network.apply(
    student, images, True, keys('dropout/target')
  )
  logits = models.upsample(outputs['logits'], labels.shape[1:3])
  total, count = segmentation.cross_entropy(logits, labels)
  losses['target'] = terms.Term(total, count)
  if recipe.focal == 'pixel':
    focal_terms = focal.focal_loss(logits, labels, recipe.gamma)
    losses['focal'] = terms.Term(*focal_terms, recipe.beta)
  elif recipe.focal == 'batch':
    value = focal.focal_of_mean(total, count, recipe.gamma, context.axis_name)
    losses['focal'] = terms.Term(value, 1.0, recipe.beta)
  pixels = jnp.asarray(labels.size, total.dtype)
  return contract.Output(
    terms=losses,
    batch_stats={'segmenter': stats},
    metrics={'labelled': terms.Term(count, pixels)},
  )


def init_extra(variables, artifacts: contract.Artifacts, *, num_classes: int):
  """The labeller is the model of the round's start; it never moves."""
  thresholds = np.ones(num_classes, np.float32)
  if host_pass.THRESHOLDS in artifacts.files:
    with np.load(artifacts.files[host_pass.THRESHOLDS]) as found:
      thresholds = found['thresholds']
  return {
    'labeller': jax.tree.map(jnp.copy, variables['segmenter']),
    'thresholds': jnp.asarray(thresholds, jnp.float32),
  }


def adopt(previous, fresh):
  """Networks, and from an earlier round the optimizer, too (section 6).

  The learning-rate schedule starts anew in every round.
  """
  state = contract.adopt_networks(previous, fresh)
  if PHASE not in previous.opt_state:
    return state
  kept = optim.restart_schedules(previous.opt_state[PHASE])
  return state.replace(opt_state={**state.opt_state, PHASE: kept})


def settings() -> contract.Settings:
  """The constants of LSE; sources are files of the released code."""
  # Above 1, too: each class takes this part over `divisor`.
  portion = schema.POSITIVE
  return contract.Settings(
    {
      'portion_start': Key(
        0.10, portion, 'of the target images, in the first round', 'LSE.py'
      ),
      'portion_increment': Key(0.05, portion, 'per round', 'LSE.py'),
      'portion_stop': Key(0.40, portion, 'of the last round', 'LSE.py'),
      'divisor': Key(
        19, whole(1, 10**6), 'of the portion, per class; 19 for SYNTHIA as well'
      ),
      'skip_classes': Key(
        (), schema.each(whole(0, 18)), 'train ids; SYNTHIA: 9, 14, 16'
      ),
      'patches': Key(
        4, whole(1, 1000), 'windows per selected image', 'released code'
      ),
      'epochs': Key(2, whole(1, 1000), 'of a round, over all windows'),
      'window': Key(
        (256, 512), schema.size(1), '(H, W) in pixels, half of the image'
      ),
      'enlarge': Key(
        True, schema.FLAG, "windows to the image's size: the idea"
      ),
      'use_thresholds': Key(
        True, schema.FLAG, "ignore what is less certain than its class's"
      ),
      'focal': Key(
        'pixel',
        choice('pixel', 'batch', 'none'),
        'pixel for FCN-8s, batch for DeepLab',
      ),
      'gamma': Key(
        3.0,
        schema.WEIGHT,
        'focal exponent; 5 in the notebook for DeepLab on GTA5',
      ),
      'beta': Key(0.1, schema.WEIGHT, 'weight of the focal term'),
      'quantise': Key(
        True, schema.FLAG, 'cut patches to 8 bits, as the released PNG files'
      ),
      'visits': Key(
        'once',
        choice('once', 'released'),
        'every selected image once; released: one more, with repetition',
      ),
    }
  )


def make(config, stage) -> contract.Method:
  """The method, with the constants of `config.lse`.

  Raises:
    errors.UserError: the windows do not fit into the images, or there are
      more rounds than portions.
  """
  settings, network = config.lse, supervised.segmenter(config)
  target = supervised.target_domain(config)
  host_pass.check_window(settings.window, target)
  host_pass.check_rounds(config, stage.method)
  recipe = Recipe(
    network=network,
    aux_weight=config.model.aux_weight,
    normalization=config.data.normalization,
    **{name: settings[name] for name in Recipe._fields if name in settings},
  )
  return contract.Method(
    name=stage.method,
    domains={
      'source': supervised.source_domain(config),
      'target': target._replace(rows=host_pass.EXAMPLES),
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
    adopt=adopt,
    before_stage=host_pass.run,
    decides_steps=True,
  )
