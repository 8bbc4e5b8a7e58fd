"""What LSE does before a round: select images, draw windows, set thresholds.

Sections 3.1 and 3.2 of the paper. The artefacts are small: which windows of
which images, and one threshold per class. Patches are made in the step.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da import checkpoint, errors, labels, models
from jaxseg_da.data import selection
from jaxseg_da.losses import entropy
from jaxseg_da.methods import base, predictions, supervised
from jaxseg_da.ops import patches

EXAMPLES, THRESHOLDS = 'examples', 'thresholds'


def run(context: base.StageContext) -> base.Artifacts:
  """Writes a round's examples and thresholds; decides its steps.

  Raises:
    errors.UserError: the stage has nothing to start from, or the windows do
      not fit into the images.
  """
  config, settings = context.config, context.config.lse
  if context.previous is None:
    raise errors.UserError(
      f'config.stages.{context.stage}.init_from is empty: LSE labels the '
      'target with the model of an earlier stage'
    )
  domain = supervised.target_domain(config)
  if not any(domain.size):
    raise errors.UserError(
      'config.data.target_size is (0, 0): LSE needs images of one size'
    )
  picked = _select(context, domain)
  thresholds = _thresholds(context, domain, picked)
  rows = _visits(context, picked.indices)
  corners = [
    patches.window_positions(
      config.seed,
      context.stage,
      int(index),
      domain.size,
      settings.window,
      settings.patches,
    )
    for index in rows
  ]
  folder = context.folder
  files = {
    EXAMPLES: folder / 'examples.npz',
    THRESHOLDS: folder / 'thresholds.npz',
  }
  if jax.process_index() == 0:
    examples = {
      'index': np.repeat(rows, settings.patches).astype(np.int32),
      'corner': np.concatenate(corners),
    }
    checkpoint.write_arrays(files[EXAMPLES], examples)
    checkpoint.write_arrays(files[THRESHOLDS], {'thresholds': thresholds})
    summary = _summary(context, domain, picked, thresholds)
    checkpoint.write_json(folder / 'selection.json', summary)
  count = len(rows) * settings.patches * settings.epochs
  return base.Artifacts(files, math.ceil(count / config.batch_size))


def portion(config: Any, stage: str) -> float:
  """The portion of a round: its place among the stages of this method.

  Raises:
    errors.UserError: the config has more rounds than portions.
  """
  settings = config.lse
  method = config.stages[stage].method
  rounds = [n for n in config.pipeline if config.stages[n].method == method]
  portions = selection.portions(
    settings.portion_start, settings.portion_increment, settings.portion_stop
  )
  index = rounds.index(stage)
  if index >= len(portions):
    raise errors.UserError(
      f'config.pipeline has {len(rounds)} rounds, but config.lse.portion_stop='
      f'{settings.portion_stop} ends after {len(portions)}'
    )
  return portions[index]


def _select(
  context: base.StageContext, domain: base.Domain
) -> selection.Selection:
  """The most confident images of each class (E3, E4)."""
  config = context.config

  def statistics(forward, images):
    probabilities = _probabilities(forward(images), domain.size)
    sums, counts = jax.lax.map(selection.confidence_sums, probabilities)
    return {'sums': sums, 'counts': counts}

  found = predictions.over_dataset(context, domain, statistics, 'confidence')
  confidences = selection.class_confidence(found['sums'], found['counts'])
  # Prepared data are in the order of their names, which break ties.
  names = [f'{index:08d}' for index in range(len(confidences))]
  choose = lambda minimum: selection.select(
    confidences,
    portion(config, context.stage),
    names,
    config.lse.skip_classes,
    config.lse.divisor,
    minimum,
  )
  picked = choose(0)
  if not len(picked.indices):
    context.say(
      f'warning: {context.stage} would select none of the {len(names)} images; '
      'each class takes its best one'
    )
    picked = choose(1)
  return picked


def _thresholds(
  context: base.StageContext,
  domain: base.Domain,
  picked: selection.Selection,
) -> np.ndarray:
  """Class thresholds f64 `[C]`, from the first images not selected (E5)."""
  num_classes = context.config.data.num_classes
  thresholds = np.ones(num_classes)
  wanted = [image for image in picked.threshold_images if image is not None]
  if not wanted or not context.config.lse.use_thresholds:
    return thresholds

  def uncertainty(forward, images):
    probabilities = _probabilities(forward(images), domain.size)[0]
    classes = jnp.argmax(probabilities, axis=-1)
    values = entropy.class_normalised(
      entropy.entropy(probabilities), classes, num_classes
    )
    return {'values': values[None], 'classes': classes[None].astype(jnp.uint8)}

  rows = sorted({*wanted})
  found = predictions.over_dataset(
    context, domain, uncertainty, 'thresholds', rows
  )
  for c, image in enumerate(picked.threshold_images):
    if image is not None:
      at = rows.index(image)
      values, classes = found['values'][at], found['classes'][at]
      thresholds[c] = selection.class_threshold(values, classes, c)
  return thresholds


def _probabilities(logits: jax.Array, size) -> jax.Array:
  """Class probabilities `[b, H, W, C]` at the size of the images."""
  return jax.nn.softmax(models.upsample(logits, size))


def _visits(context: base.StageContext, selected: np.ndarray) -> np.ndarray:
  """Which selected images are cut, and how often.

  'once' is what the paper means. The released loop makes one visit more: in the
  first round it begins with the first image twice, later its loader shuffles
  with repetition.
  """
  if context.config.lse.visits == 'once':
    return selected
  if portion(context.config, context.stage) == context.config.lse.portion_start:
    return np.concatenate([selected[:1], selected])
  words = (zlib.crc32(text.encode()) for text in (context.stage, 'visits'))
  seed = np.random.SeedSequence((context.config.seed, *words))
  rng = np.random.Generator(np.random.Philox(seed))
  return rng.choice(selected, len(selected) + 1)


def _summary(
  context: base.StageContext,
  domain: base.Domain,
  picked: selection.Selection,
  thresholds: np.ndarray,
) -> dict[str, Any]:
  """What people want to know of a round, for selection.json."""
  source = context.open_dataset(domain.spec)
  names = [
    source.read(int(i), ('image_id',))['image_id'] for i in picked.indices
  ]
  return {
    'portion': portion(context.config, context.stage),
    'images': names,
    'classes': {
      labels.NAMES[c]: {
        'predicted_in': int(picked.predicted[c]),
        'selected': int(picked.selected[c]),
        'threshold': None if np.isnan(h) else float(h),
      }
      for c, h in enumerate(thresholds)
    },
  }
