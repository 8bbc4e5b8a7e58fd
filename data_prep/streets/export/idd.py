"""The layout of IDD, parts I and II."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np

from data_prep import codecs
from data_prep.streets.export import encode, polygons, scenes, writer
from jaxseg_da.classes import labels

PACKAGES = ('test', 'part2')

_NAMES = {
  row.train_id: row.name for row in labels.IDD if row.train_id != labels.IGNORE
}
_UNLABELED = 'unlabeled'


class _Part(NamedTuple):
  """How the two parts differ."""

  folder: str
  drives: tuple[str, ...]
  name: str
  ending: str


_PARTS = (
  _Part('IDD_Segmentation', ('41', '151'), '{:06d}', 'png'),
  _Part('idd20kII', ('201', '317'), 'frame{:04d}', 'jpg'),
)


def export_idd(
  directory: str | os.PathLike[str],
  n_train: int,
  n_val: int,
  size: scenes.Size,
  domain: str = 'city',
  *,
  train_labels: bool = True,
  packages: Collection[str] = (),
  zipped: bool = False,
) -> None:
  """Writes `IDD_Segmentation/leftImg8bit` and polygons in `gtFine`.

  The frames of a part, counted through train, val and test, go to its two
  drives in turn and are numbered anew in each: only drive and number together
  name an image.

  Args:
    directory: where to; made where it is missing.
    n_train: number of training frames.
    n_val: number of validation frames.
    size: (height, width).
    domain: a domain of the street world.
    train_labels: whether training frames get label files.
    packages: also write these.
      test: `n_val` frames of `test`, which have no labels;
      part2: `idd20kII` with JPEG images, as many frames of further scenes.
    zipped: write one archive per part instead.

  Raises:
    errors.UserError: an unknown name, or the folder cannot be written.
  """
  scenes.check_packages('idd', packages, PACKAGES)
  scenery = scenes.domain(domain)
  splits = [('train', 'train', n_train), ('val', 'validation', n_val)]
  if 'test' in packages:
    splits.append(('test', 'test', n_val))
  parts = _PARTS if 'part2' in packages else _PARTS[:1]

  def files() -> Iterator[writer.File]:
    for position, part in enumerate(parts):
      numbers = itertools.count()
      for folder, split, count in splits:
        labelled = folder == 'val' or (train_labels and folder == 'train')
        indices = range(count * position, count * (position + 1))
        for scene in scenes.render(scenery, split, indices, size):
          yield from _frame(part, folder, next(numbers), scene, labelled)

  writer.write(directory, files(), zipped=zipped)


def _frame(
  part: _Part, folder: str, number: int, scene: dict[str, Any], labelled: bool
) -> Iterator[writer.File]:
  turn, position = divmod(number, len(part.drives))
  stem = f'{folder}/{part.drives[position]}/{part.name.format(turn)}'

  def file(kind: str, ending: str, data: bytes) -> writer.File:
    path = f'{part.folder}/{kind}/{stem}_{ending}'
    return writer.File(f'{part.folder}.zip', path, data)

  png = part.ending == 'png'
  encoder = codecs.encode_png if png else codecs.encode_jpeg
  image = encoder(scene['image'])
  yield file('leftImg8bit', f'leftImg8bit.{part.ending}', image)
  if labelled:
    data = encode.json_text(annotation(scene['label']))
    yield file('gtFine', 'gtFine_polygons.json', data)


def annotation(label: np.ndarray) -> dict[str, Any]:
  """An annotation of train ids u8 `[H, W]`, exact to the pixel.

  Ignored pixels are 'unlabeled', by a polygon of that name or, at the left
  edge, by none: that is what is not painted over.
  """
  height, width = label.shape
  objects = [
    {
      'deleted': 0,
      'draw': True,
      'id': number,
      'label': _NAMES.get(polygon.value, _UNLABELED),
      'polygon': polygon.points,
      'verified': 0,
    }
    for number, polygon in enumerate(polygons.from_label(label))
    if polygon.value in _NAMES or polygon.points[0][0] > 0
  ]
  return {'imgHeight': height, 'imgWidth': width, 'objects': objects}
