"""What CBST does before a round: thresholds, rare classes, source images.

The confidence of every fourth pixel is listed by class, one byte per pixel of
the data set: 1.6 GB of files for 2975 images of 512x1024, removed afterwards.
In memory are the lists of `PART` images, later those of one class, about three
times over; with the policy `global` those of all classes.
"""

from __future__ import annotations

import math
import pathlib
import shutil
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da import errors, models
from jaxseg_da.classes import labels
from jaxseg_da.config import schema
from jaxseg_da.data import pseudo_labels
from jaxseg_da.methods import predictions, supervised
from jaxseg_da.ops import resize
from jaxseg_da.training import checkpoint, contract, parallel, progress

SOURCE, THRESHOLDS = 'source', 'thresholds'
PART = 128  # Images per file.
PORTIONS = schema.Rule(
  '(first, growth, limit) with 0 < first <= limit <= 1 and growth from 0 to 1',
  lambda v: len(v) == 3 and 0 < v[0] <= v[2] <= 1 and 0 <= v[1] <= 1,
  ((0.0, 0.1, 0.5), (0.5, -0.1, 0.5), (0.6, 0.1, 0.5), (0.1, 0.1)),
)


def probabilities(
  forward: Callable, images: jax.Array, scale: float, flip: bool
) -> jax.Array:
  """Class probabilities at the size of the images.

  Args:
    forward: normalised images to outputs with `logits` `[b, h, w, C]`.
    images: float `[b, H, W, 3]`, normalised.
    scale: factor of the network's input.
    flip: average with the prediction of the mirrored images.

  Returns:
    `[b, H, W, C]`, float32 or better.
  """
  size = images.shape[1:3]
  images = resize.half_pixel(images, [round(scale * n) for n in size])

  def predict(x):
    return jax.nn.softmax(models.upsample(forward(x)['logits'], size))

  result = predict(images)
  if flip:
    result = (result + predict(images[:, :, ::-1])[:, :, ::-1]) / 2
  return result


def target_domain(config) -> contract.Domain:
  """Whole target images."""
  return supervised.target_domain(config)._replace(crop=(0, 0))


def run(context: contract.StageContext) -> contract.Artifacts:
  """Writes a round's thresholds and source images; decides its steps.

  Raises:
    errors.UserError: the stage has nothing to start from, or images have no
      common size.
  """
  config, folder = context.config, context.folder
  if context.previous is None:
    raise errors.UserError(
      f'config.stages.{context.stage}.init_from is empty: CBST labels the '
      'target with the model of an earlier stage'
    )
  domain = target_domain(config)
  if not any(domain.size):
    raise errors.UserError(
      'config.data.target_size is (0, 0): CBST needs images of one size'
    )
  files = {
    SOURCE: folder / 'source.npz',
    THRESHOLDS: folder / 'thresholds.npz',
  }
  if not parallel.agreed(files[THRESHOLDS].exists()):
    parts = _collect(context, domain)
    thresholds, counts = _thresholds(context, parts)
    if jax.process_index() == 0:
      rows = _source_rows(context)
      mine = np.zeros(len(counts), bool)
      mine[pseudo_labels.mine_ids(counts, config.cbst.mine_share)] = True
      summary = _summary(context, thresholds, counts, mine, len(rows))
      checkpoint.write_json(folder / 'selection.json', summary)
      checkpoint.write_arrays(files[SOURCE], {'index': rows})
      # The last one: it says that the pass is done.
      found = {'thresholds': thresholds, 'mine': mine}
      checkpoint.write_arrays(files[THRESHOLDS], found)
    parallel.barrier(f'{context.stage} thresholds')
    if jax.process_index() == 0:
      shutil.rmtree(folder / 'confidence', ignore_errors=True)
  images = len(context.open_dataset(domain.spec)) * config.cbst.epochs
  return contract.Artifacts(files, math.ceil(images / config.batch_size))


def portion(config: Any, stage: str, domain: str) -> float:
  """A round's portion of target pixels or source images, by its place.

  Args:
    config: resolved.
    stage: one of the stages of this method.
    domain: 'target' or 'source'.
  """
  settings = config.cbst
  method = config.stages[stage].method
  rounds = [n for n in config.pipeline if config.stages[n].method == method]
  start, step, limit = settings[f'{domain}_portion']
  portions = pseudo_labels.portions(start, step, limit, len(rounds))
  return portions[rounds.index(stage)]


def _collect(
  context: contract.StageContext, domain: contract.Domain
) -> list[pathlib.Path]:
  """The confidences of all images, in one file per part and process.

  Which images a process predicts depends on the numbers of processes and
  devices, so these name the folder; other numbers start anew.
  """
  settings = context.config.cbst
  num_classes = context.config.data.num_classes

  def statistics(forward, images):
    p = probabilities(forward, images, settings.scale, settings.flip)
    classes = jnp.argmax(p, axis=-1).astype(jnp.uint8)
    return {'classes': classes, 'confidence': jnp.max(p, axis=-1)}

  source = context.open_dataset(domain.spec)
  layout = f'{jax.process_count()}x{jax.local_device_count()}'
  folder = context.folder / 'confidence' / layout
  assert context.predictor is not None, 'the stage starts from nothing'
  predict = context.predictor(statistics)
  count = len(source)
  bar = progress.Progress(
    f'{context.stage}: confidence', 0, count, enabled=jax.process_index() == 0
  )
  for start in range(0, count, PART):
    rows = range(start, min(start + PART, count))
    file = folder / f'{start:06d}_{jax.process_index()}.npz'
    if not file.exists():
      found = pseudo_labels.merge(
        [
          pseudo_labels.confidences(image, confidence, num_classes)
          for outputs in predictions.own(predict, source, domain, rows)
          for image, confidence, position in zip(
            outputs['classes'],
            outputs['confidence'],
            outputs['position'],
            strict=True,
          )
          if position >= 0  # The others only fill the last batch.
        ]
        or [_nothing(num_classes)]
      )
      arrays = {str(c): values for c, values in enumerate(found.lists)}
      checkpoint.write_arrays(file, {**arrays, 'counts': found.counts})
    bar.update(rows.stop)
  bar.close()
  parallel.barrier(f'{context.stage} confidence')
  return sorted(folder.glob('*.npz'))


def _nothing(num_classes: int) -> pseudo_labels.Confidences:
  """What a process says that had no image in a part."""
  lists = (np.zeros(0, np.float32),) * num_classes
  return pseudo_labels.Confidences(lists, np.zeros(num_classes, np.int64))


def _thresholds(
  context: contract.StageContext, parts: list[pathlib.Path]
) -> tuple[np.ndarray, np.ndarray]:
  """Thresholds f32 `[C]`, and pixels predicted as each class i64 `[C]`."""
  config = context.config

  def joined(name: str) -> np.ndarray:
    arrays = []
    for file in parts:
      with np.load(file) as found:  # Reads this array alone.
        arrays.append(found[name])
    return np.concatenate(arrays)

  choose = lambda lists: pseudo_labels.thresholds(
    lists, portion(config, context.stage, 'target'), config.cbst.policy
  )
  classes = [str(c) for c in range(config.data.num_classes)]
  if config.cbst.policy == 'global':
    thresholds = choose([joined(c) for c in classes])
  else:
    thresholds = np.concatenate([choose([joined(c)]) for c in classes])
  counts = joined('counts').reshape(-1, len(classes)).sum(axis=0)
  return thresholds, counts


def _source_rows(context: contract.StageContext) -> np.ndarray:
  """Source images of the round, i32, drawn anew in each; at least one."""
  config = context.config
  count = len(context.open_dataset(config.data.source))
  chosen = int(portion(config, context.stage, 'source') * count)
  words = (zlib.crc32(text.encode()) for text in (context.stage, SOURCE))
  seed = np.random.SeedSequence((config.seed, *words))
  rng = np.random.Generator(np.random.Philox(seed))
  rows = rng.choice(count, max(chosen, 1), replace=False)
  return np.sort(rows).astype(np.int32)


def _summary(
  context: contract.StageContext,
  thresholds: np.ndarray,
  counts: np.ndarray,
  mine: np.ndarray,
  source_images: int,
) -> dict[str, Any]:
  """What people want to know of a round, for selection.json."""
  return {
    'portion': portion(context.config, context.stage, 'target'),
    'source_images': source_images,
    'classes': {
      labels.NAMES[c]: {
        'share': float(counts[c] / counts.sum()),
        'threshold': float(thresholds[c]),
        'mined': bool(mine[c]),
      }
      for c in range(len(counts))
    },
  }
