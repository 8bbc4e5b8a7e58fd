"""The pictures of a run: validation images beside what its stages predict."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxseg_da import methods
from jaxseg_da.classes import class_set
from jaxseg_da.drawing import visual
from jaxseg_da.evaluation import evaluate as evaluate_lib
from jaxseg_da.experiment import assembly, results
from jaxseg_da.experiment.run import Run

_HEIGHT = 192  # of an image in a picture, in pixels
_GAP = 12  # between rows; a third of it above a legend


class Row(NamedTuple):
  """What a picture shows side by side: predictions of the same classes.

  Attributes:
    classes: what labels and predictions are painted as.
    stages: names of those that predict.
  """

  classes: class_set.Classes
  stages: tuple[str, ...]


def write(run: Run) -> None:
  """Writes images/*.png: image, truth and predictions of each row's stages.

  Every process predicts, the first one writes.
  """
  config = run.config
  shown = rows(run)
  source = run.dataset(results.specs(config)[0])
  examples = [source[i] for i in _spread(len(source), config.report.images)]
  options = evaluate_lib.check(config.evaluate)
  predictions = {}
  for name in (name for row in shown for name in row.stages):
    predict = assembly.predictor(run.stage(name), run.restore(name))
    predictions[name] = [
      np.asarray(
        evaluate_lib.scores(
          predict,
          e['image'][None],
          e['label'].shape[:2],
          options,
          results.target_resize(config),
        )
      )[0]
      .argmax(-1)
      .astype(np.uint8)
      for e in examples
    ]
  if jax.process_index() != 0:
    return
  pictures = [
    picture(
      e['image'],
      e['label'],
      shown,
      {name: found[i] for name, found in predictions.items()},
    )
    for i, e in enumerate(examples)
  ]
  save(run.workdir / 'images', pictures)


def rows(run: Run) -> list[Row]:
  """What the pictures of a run show.

  With coarse-to-fine steps a row per step: the control's stage, where one has
  that step, and the main one. Otherwise one row: the source-only stage, where
  there is one, and the last main stage.
  """
  blocks = run.config.stages
  control, main = (
    [n for n in run.config.pipeline if blocks[n].role == role]
    for role in ('control', 'main')
  )
  classes = {n: run.stage(n).method.classes for n in (*control, *main)}
  steps = {s for n in main if (s := classes[n].step) is not None}
  if not steps:
    first = [n for n in main if blocks[n].method == methods.CONTROL][:1]
    stages = tuple(dict.fromkeys([*first, main[-1]]))
    return [Row(classes[main[-1]], stages)]
  result = []
  for step in sorted(steps):
    last = lambda group, t=step: [n for n in group if classes[n].step == t][-1:]
    stages = (*last(control), *last(main))
    result.append(Row(classes[stages[-1]], stages))
  return result


def picture(
  image: np.ndarray,
  label: np.ndarray,
  shown: Sequence[Row],
  predictions: Mapping[str, np.ndarray],
  height: int = _HEIGHT,
) -> np.ndarray:
  """One example: a panel per row, with a legend below where there are steps.

  Args:
    image: u8 `[H, W, 3]`.
    label: train ids u8 `[H, W]` or `[H, W, 1]`.
    shown: see `Row`.
    predictions: classes by stage, integers `[H, W]`.
    height: of each image in pixels.

  Returns:
    u8 `[H', W', 3]`; rows of fewer stages are filled up with white.
  """
  parts = []
  for classes, stages in shown:
    paint = lambda ids, c=classes: visual.colourise(ids, c.colours)
    when = '' if classes.step is None else f', step {classes.step}'
    panel = visual.panel(
      [
        ('image', image),
        (f'truth{when}', paint(classes.table[label])),
        *((name, paint(predictions[name])) for name in stages),
      ],
      height,
    )
    parts.append(panel)
    if classes.step is not None:
      legend = _legend(classes, panel.shape[1])
      parts += [_blank(_GAP // 3), legend, _blank(_GAP)]
  if len(parts) == 1:
    return parts[0]
  width = max(part.shape[1] for part in parts)
  return np.concatenate([_widened(part, width) for part in parts[:-1]])


def save(
  directory: str | os.PathLike, pictures: Sequence[np.ndarray]
) -> list[pathlib.Path]:
  """Writes `example_00.png` and so on; older ones are removed.

  Args:
    directory: created where missing.
    pictures: u8 `[H, W, 3]` each.

  Returns:
    The files.
  """
  folder = pathlib.Path(directory)
  folder.mkdir(parents=True, exist_ok=True)
  for old in folder.glob('example_*.png'):
    old.unlink()
  files = []
  for index, pixels in enumerate(pictures):
    files.append(folder / f'example_{index:02d}.png')
    files[-1].write_bytes(visual.encode_png(pixels))
  return files


def _legend(classes: class_set.Classes, width: int) -> np.ndarray:
  """Names on their colours, in as few lines of equal length as fit."""
  count = len(classes.names)
  field = max(116, 12 + 8 * max(map(len, classes.names)))
  lines = -(-count // max(1, width // field))
  return visual.legend(
    classes.names, classes.colours, -(-count // lines), field
  )


def _blank(height: int) -> np.ndarray:
  return np.full((height, 1, 3), 255, np.uint8)


def _widened(part: np.ndarray, width: int) -> np.ndarray:
  room = width - part.shape[1]
  return np.pad(part, ((0, 0), (0, room), (0, 0)), constant_values=255)


def _spread(total: int, count: int) -> list[int]:
  """`count` indices over `range(total)`, evenly."""
  count = min(total, count)
  return [i * total // count for i in range(count)]
