"""Labels for one's own images: a file, a folder or a glob to PNG files.

Predictions have the size of the image they belong to, whatever the network
saw. Folders are searched with their subfolders, which the output repeats.
"""

from __future__ import annotations

import glob
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import jax.numpy as jnp
import numpy as np

from jaxseg_da import errors
from jaxseg_da.classes import class_set
from jaxseg_da.classes import labels as label_tables
from jaxseg_da.drawing import visual
from jaxseg_da.evaluation import evaluate
from jaxseg_da.training import progress as progress_lib

FORMATS = ('color', 'overlay', 'train_ids', 'label_ids')
SUFFIXES = ('.jpg', '.jpeg', '.png')


class Source(NamedTuple):
  """An image to predict and the name that its results get.

  Attributes:
    path: the image file.
    stem: path below the output folder, without suffix.
  """

  path: pathlib.Path
  stem: pathlib.PurePath


class Summary(NamedTuple):
  """What a prediction run did.

  Attributes:
    images: number of images predicted.
    files: files written, in order.
    skipped: files that are no readable images.
  """

  images: int
  files: list[pathlib.Path]
  skipped: list[pathlib.Path]


def run(
  predictor: evaluate.Predictor,
  inputs: str,
  output_dir: str,
  formats: str | Sequence[str] = 'color',
  size: evaluate.Size | None = None,
  *,
  resize: str = 'pil_bicubic',
  options: Any = evaluate.WHOLE,
  classes: class_set.Classes = class_set.CITYSCAPES,
  alpha: float = 0.5,
  progress: bool = True,
) -> Summary:
  """Predicts images and writes PNG files.

  Args:
    predictor: u8 `[1, H, W, 3]` -> logits `[1, h, w, C]`.
    inputs: an image file, a folder, or a glob pattern.
    output_dir: created where missing.
    formats: of `FORMATS`, a list or separated by commas, or 'all'. 'color'
      and 'overlay' are RGB; 'train_ids' has Cityscapes train ids, 'label_ids'
      the raw ids.
    size: (height, width) of the network's input; None or (0, 0): native.
    resize: mode of `data.transforms` that makes that size.
    options: windows, scales and flip as in `evaluate.Options`; its size is
      not used.
    classes: what the logits mean.
    alpha: opacity of the overlay.
    progress: show a progress line on stderr.

  Returns:
    What was written and what was skipped; an unreadable image is named on
    stderr and does not stop the run.

  Raises:
    UserError: unknown format, or ids of classes that have none; no image found,
      none of them readable, or two images would write the same file.
  """
  wanted = parse_formats(formats)
  for name in wanted:
    check_ids(name, classes)
  sources = find(inputs)
  settings = evaluate.check(options)
  settings = settings._replace(size=size or (0, 0))
  output = pathlib.Path(output_dir).expanduser()
  try:
    output.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UserError(
      f'cannot create the output folder {output}: {error.strerror}'
    ) from error
  line = progress_lib.Progress('predict', 0, len(sources), enabled=progress)
  files, skipped = [], []
  for done, source in enumerate(sources, 1):
    image = read(source.path)
    if image is None:
      line.close()
      skipped.append(source.path)
      _say(f'warning: {source.path} is no readable image; skipped')
      continue
    ids = labels_of(predictor, image, settings, resize)
    for name, picture in _pictures(image, ids, wanted, classes, alpha):
      path = output / source.stem.with_name(f'{source.stem.name}_{name}.png')
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(visual.encode_png(picture))
      files.append(path)
    line.update(done)
  line.close()
  count = len(sources) - len(skipped)
  if not count:
    raise errors.UserError(
      f'none of the {len(sources)} files of {inputs} is a readable image'
    )
  rest = f', {len(skipped)} unreadable skipped' if skipped else ''
  _say(f'predicted {count} images{rest}: {len(files)} files in {output}')
  return Summary(count, files, skipped)


def parse_formats(formats: str | Sequence[str]) -> tuple[str, ...]:
  """Output formats from a list, a comma-separated string, or 'all'.

  Raises:
    UserError: one of them is unknown, or there is none.
  """
  names = formats.split(',') if isinstance(formats, str) else formats
  names = [name.strip() for name in names if name.strip()]
  if names == ['all']:
    return FORMATS
  if not names:
    raise errors.UserError(
      f'config.predict.format is empty; valid: {", ".join(FORMATS)}, all'
    )
  for name in names:
    if name not in FORMATS:
      choices = (*FORMATS, 'all')
      raise errors.unknown('config.predict.format', name, choices)
  return tuple(dict.fromkeys(names))


def check_ids(name: str, classes: class_set.Classes) -> None:
  """Checks that a format's ids exist for all classes.

  Raises:
    UserError: names a class that has none.
  """
  last = {
    'train_ids': label_tables.IGNORE,
    'label_ids': label_tables.NUM_CLASSES,
  }
  for label, train_id in zip(classes.names, classes.train_ids, strict=True):
    if name in last and not 0 <= train_id < last[name]:
      why = 'covers several train ids' if train_id < 0 else 'is none of them'
      raise errors.UserError(
        f'config.predict.format={name} needs Cityscapes classes, but the class '
        f'{label!r} {why}; color and overlay work'
      )


def find(inputs: str) -> list[Source]:
  """The images that a path or a pattern names, sorted by path.

  A folder or a pattern leaves out what earlier predictions wrote
  (`*_color.png` and so on); a file that is named itself is always taken.

  Raises:
    UserError: there is none, or two of them share a stem.
  """
  root = pathlib.Path(inputs).expanduser()
  if root.is_file():
    return [Source(root, pathlib.PurePath(root.name).with_suffix(''))]
  folder = root if root.is_dir() else None
  paths = (
    folder.rglob('*')
    if folder
    else map(pathlib.Path, glob.glob(str(root), recursive=True))
  )
  sources = []
  for path in sorted(paths):
    usable = path.suffix.lower() in SUFFIXES and path.is_file()
    if usable and not _is_output(path):
      name = path.relative_to(folder) if folder else path.name
      sources.append(Source(path, pathlib.PurePath(name).with_suffix('')))
  if not sources:
    reason = 'no jpg or png image in' if folder else 'no image at'
    raise errors.UserError(f'{reason} {root}')
  taken: dict[pathlib.PurePath, pathlib.Path] = {}
  for path, stem in sources:
    if stem in taken:
      raise errors.UserError(
        f'{taken[stem]} and {path} would write the same files; predict them '
        'into different folders'
      )
    taken[stem] = path
  return sources


def _is_output(path: pathlib.Path) -> bool:
  return path.stem.endswith(tuple(f'_{name}' for name in FORMATS))


def read(path: pathlib.Path) -> np.ndarray | None:
  """An image as RGB u8 `[H, W, 3]`; None where it cannot be decoded."""
  try:
    data = np.frombuffer(path.read_bytes(), np.uint8)
  except OSError:
    return None
  if not data.size:
    return None
  image = cv2.imdecode(data, cv2.IMREAD_COLOR)
  return None if image is None else np.ascontiguousarray(image[..., ::-1])


def labels_of(
  predictor: evaluate.Predictor,
  image: np.ndarray,
  options: evaluate.Options = evaluate.WHOLE,
  resize: str = 'pil_bicubic',
) -> np.ndarray:
  """Classes u8 `[H, W]` of one image u8 `[H, W, 3]`, at its own size."""
  size = (image.shape[0], image.shape[1])
  found = evaluate.scores(predictor, image[None], size, options, resize)
  return np.asarray(jnp.argmax(found[0], axis=-1)).astype(np.uint8)


def _pictures(
  image: np.ndarray,
  ids: np.ndarray,
  formats: Sequence[str],
  classes: class_set.Classes,
  alpha: float,
) -> Iterator[tuple[str, np.ndarray]]:
  for name in formats:
    if name == 'color':
      yield name, visual.colourise(ids, classes.colours)
    elif name == 'overlay':
      yield name, visual.overlay(image, ids, alpha, classes.colours)
    else:
      train_ids = np.array(classes.train_ids, np.uint8)[ids]
      table = label_tables.TRAIN_ID_TO_CITYSCAPES_ID
      yield name, train_ids if name == 'train_ids' else table[train_ids]


def _say(text: str) -> None:
  print(text, file=sys.stderr, flush=True)
