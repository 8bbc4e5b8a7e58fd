"""What LSE does before a round: select images, draw windows, set thresholds.

Sections 3.1 and 3.2 of the paper. The artefacts are small: which windows of
which images, and one threshold per class. Patches are made in the step.
"""

from __future__ import annotations

import functools
import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da import errors, models
from jaxseg_da.classes import labels
from jaxseg_da.data import selection, transforms
from jaxseg_da.drawing import visual
from jaxseg_da.losses import entropy
from jaxseg_da.methods import predictions, supervised
from jaxseg_da.methods.lse import examples
from jaxseg_da.ops import patches
from jaxseg_da.training import checkpoint, contract

EXAMPLES, THRESHOLDS = 'examples', 'thresholds'
_PICTURES = 3  # examples that people see


def run(context: contract.StageContext) -> contract.Artifacts:
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
    chosen = {
      'index': np.repeat(rows, settings.patches).astype(np.int32),
      'corner': np.concatenate(corners),
    }
    checkpoint.write_arrays(files[EXAMPLES], chosen)
    checkpoint.write_arrays(files[THRESHOLDS], {'thresholds': thresholds})
    summary = _summary(context, domain, picked, thresholds)
    checkpoint.write_json(folder / 'selection.json', summary)
    page = _picture(context, domain, rows, corners, thresholds)
    checkpoint.write_bytes(folder / 'examples.png', page)
  count = len(rows) * settings.patches * settings.epochs
  return contract.Artifacts(files, math.ceil(count / config.batch_size))


def check_window(window, domain: contract.Domain) -> None:
  """Refuses windows that are larger than the images.

  Raises:
    errors.UserError: names the key.
  """
  fits = all(w <= n for w, n in zip(window, domain.size, strict=True))
  if any(domain.size) and not fits:
    raise errors.UserError(
      f'config.lse.window={tuple(window)} does not fit into target images of '
      f'{tuple(domain.size)}'
    )


def check_rounds(config: Any, method: str) -> None:
  """Refuses more rounds than there are portions, before any of them runs.

  Raises:
    errors.UserError: names the keys.
  """
  for stage in config.pipeline:
    if config.stages[stage].method == method:
      portion(config, stage)


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
  context: contract.StageContext, domain: contract.Domain
) -> selection.Selection:
  """The most confident images of each class (E3, E4)."""
  config = context.config

  def statistics(forward, images):
    probabilities = _probabilities(forward(images)['logits'], domain.size)
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
  context: contract.StageContext,
  domain: contract.Domain,
  picked: selection.Selection,
) -> np.ndarray:
  """Class thresholds f64 `[C]`, from the first images not selected (E5)."""
  num_classes = context.config.data.num_classes
  thresholds = np.ones(num_classes)
  wanted = [image for image in picked.threshold_images if image is not None]
  if not wanted or not context.config.lse.use_thresholds:
    return thresholds

  def uncertainty(forward, images):
    probabilities = _probabilities(forward(images)['logits'], domain.size)[0]
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


def _visits(context: contract.StageContext, selected: np.ndarray) -> np.ndarray:
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
  context: contract.StageContext,
  domain: contract.Domain,
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


def _picture(
  context: contract.StageContext,
  domain: contract.Domain,
  rows: np.ndarray,
  corners: list[np.ndarray],
  thresholds: np.ndarray,
) -> bytes:
  """PNG of some examples: image with its window, patch, labels, mask."""
  assert context.predictor is not None
  source, settings = context.open_dataset(domain.spec), context.config.lse
  pages = []
  for at in range(0, len(rows), -(-len(rows) // _PICTURES)):
    top, left = map(int, corners[at][0])
    image = source.read(int(rows[at]), ('image',))['image']
    image = transforms.resize(image, domain.size, domain.resize)

    def patch(forward, images, corner=(top, left)):
      logits = models.upsample(forward(images)['logits'], domain.size)
      make = functools.partial(
        examples.make,
        corner=jnp.asarray(corner),
        thresholds=jnp.asarray(thresholds, jnp.float32),
        settings=settings,
      )
      return jax.vmap(make)(images, logits)

    made = jax.device_get(context.predictor(patch)(image[None]))
    height, width = settings.window
    cut = image[top : top + height, left : left + width]
    framed = np.copy(image)
    bottom, right = top + height - 1, left + width - 1
    framed[top : bottom + 1, [left, right]] = 255
    framed[[top, bottom], left : right + 1] = 255
    mask = np.where(made.keep[0] > 0, 255, 0).astype(np.uint8)
    pages.append(
      visual.panel(
        (
          ('image and window', framed),
          ('patch', transforms.resize(cut, mask.shape, 'pil_bilinear')),
          ('transferred labels', visual.colourise(made.label[0])),
          ('mask', np.repeat(mask[..., None], 3, axis=-1)),
        ),
        192,
      )
    )
  return visual.encode_png(np.concatenate(pages))
