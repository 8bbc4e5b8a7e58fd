"""The layout of Cityscapes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_prep import codecs
from data_prep.streets.export import encode, scenes, writer
from jaxseg_da.classes import labels

PACKAGES = (
  'test',
  'train_extra',
  'right',
  'disparity',
  'camera',
  'sequence',
  'stereo_depth',
)

# The annotated frame of a snippet of 30.
_ANNOTATED = 19
_SNIPPET = 30
# Archives that are not named after their top folder and the splits.
_ARCHIVES = {
  'gtCoarse': 'gtCoarse.zip',
  'depth': 'depth_stereoscopic_trainvaltest.zip',
}
# Where the camera sits in the car, metres and radians. Plausible, no more:
# street scenes have no car; only the baseline is their own.
_MOUNT = {'pitch': 0.0, 'roll': 0.0, 'yaw': 0.0, 'x': 1.7, 'y': 0.1, 'z': 1.22}


class _Place(NamedTuple):
  """Where the files of one annotated frame lie."""

  folder: str
  city: str
  sequence: int
  frame: int

  def file(
    self, kind: str, ending: str, data: bytes, shift: int = 0
  ) -> writer.File:
    """The file of one kind, `shift` frames after the annotated one."""
    splits = 'trainextra' if self.folder == 'train_extra' else 'trainvaltest'
    stem = f'{self.city}_{self.sequence:06d}_{self.frame + shift:06d}'
    return writer.File(
      _ARCHIVES.get(kind, f'{kind}_{splits}.zip'),
      f'{kind}/{self.folder}/{self.city}/{stem}_{ending}',
      data,
    )


def export_cityscapes(
  directory: str | os.PathLike[str],
  n_train: int,
  n_val: int,
  size: scenes.Size,
  domain: str = 'city',
  *,
  train_labels: bool = True,
  packages: Collection[str] = (),
  cities: Sequence[str] = ('streets',),
  recordings: bool = False,
  zipped: bool = False,
) -> None:
  """Writes the folders `leftImg8bit` and `gtFine` with `train` and `val`.

  Frame k is `CITY_00000k_000019`, counted through train, val, test and
  train_extra: as in the real data, no two splits share a name.

  Args:
    directory: where to; made where it is missing.
    n_train: number of training frames.
    n_val: number of validation frames.
    size: (height, width).
    domain: a domain of the street world.
    train_labels: whether training frames get label files, coarse ones as well.
    packages: also write these.
      test: `n_val` frames of `test` with dummy labels;
      train_extra: `n_train` more training frames, labels in `gtCoarse` (the
      same as fine ones);
      right: `rightImg8bit`;
      disparity: 16 bits, 256 d + 1 pixels, 0 where there is none;
      camera: calibration as JSON;
      sequence: frames 18, 19, 20 in `leftImg8bit_sequence`;
      stereo_depth: `depth/SPLIT/CITY/*_depth_stereoscopic.mat`, metres.
    cities: frame k goes to city k modulo their number.
    recordings: name the frames as in long recordings: frame k is number
      30 k + 19 of sequence 0, instead of number 19 of sequence k.
    zipped: write the official archives instead.

  Raises:
    errors.UserError: an unknown name, or the folder cannot be written.
  """
  scenes.check_packages('cityscapes', packages, PACKAGES)
  scenery = scenes.domain(domain)
  splits = [('train', 'train', n_train), ('val', 'validation', n_val)]
  if 'test' in packages:
    splits.append(('test', 'test', n_val))
  if 'train_extra' in packages:
    splits.append(('train_extra', 'train_extra', n_train))
  views = 'right' in packages or 'sequence' in packages

  def files() -> Iterator[writer.File]:
    numbers = itertools.count()
    for folder, split, count in splits:
      for scene in scenes.render(
        scenery, split, range(count), size, views=views
      ):
        number = next(numbers)
        city = cities[number % len(cities)]
        place = _Place(folder, city, number, _ANNOTATED)
        if recordings:
          place = _Place(folder, city, 0, _SNIPPET * number + _ANNOTATED)
        yield place.file(
          'leftImg8bit', 'leftImg8bit.png', codecs.encode_png(scene['image'])
        )
        if train_labels or not folder.startswith('train'):
          yield from _label_files(place, scene)
        yield from _package_files(place, scene, packages)

  writer.write(directory, files(), zipped=zipped)


def _label_files(place: _Place, scene: dict[str, Any]) -> Iterator[writer.File]:
  kind = 'gtCoarse' if place.folder == 'train_extra' else 'gtFine'
  ids = labels.TRAIN_ID_TO_CITYSCAPES_ID[scene['label']]
  instances = np.where(
    scene['instance'] > 0, ids.astype(np.uint16) * 1000 + scene['instance'], ids
  )
  if place.folder == 'test':
    ids = instances = _dummy_ids(scene['label'])
  opaque = np.full((*ids.shape, 1), 255, np.uint8)
  colours = np.concatenate([labels.CITYSCAPES_PALETTE[ids], opaque], axis=-1)
  for ending, data in (
    ('labelIds', codecs.encode_png(ids)),
    ('instanceIds', codecs.encode_png(instances.astype(np.uint16))),
    ('color', encode.deep_png(colours)),
  ):
    yield place.file(kind, f'{kind}_{ending}.png', data)


def _dummy_ids(label: np.ndarray) -> np.ndarray:
  """Ids u8 `[H, W]` of a test frame: own car, image border, the rest 0."""
  ids = np.zeros_like(label)
  ids[label == labels.IGNORE] = 1
  ids[:, 0], ids[0] = 2, 3
  return ids


def _package_files(
  place: _Place, scene: dict[str, Any], packages: Collection[str]
) -> Iterator[writer.File]:
  # The archives of sequences and completed depth hold the main splits only.
  extra = place.folder == 'train_extra'
  if 'right' in packages:
    data = codecs.encode_png(scene['image_right'])
    yield place.file('rightImg8bit', 'rightImg8bit.png', data)
  if 'disparity' in packages:
    data = codecs.encode_png(disparity(scene))
    yield place.file('disparity', 'disparity.png', data)
  if 'camera' in packages:
    data = encode.json_text(camera(scene))
    yield place.file('camera', 'camera.json', data)
  if 'sequence' in packages and not extra:
    for shift, view in ((-1, 'image_prev'), (0, 'image'), (1, 'image_next')):
      data = codecs.encode_png(scene[view])
      kind = 'leftImg8bit_sequence'
      yield place.file(kind, 'leftImg8bit.png', data, shift)
  if 'stereo_depth' in packages and not extra:
    data = encode.mat({'depth_map': scene['depth'].astype(np.float64)})
    yield place.file('depth', 'depth_stereoscopic.mat', data)


def disparity(scene: dict[str, Any]) -> np.ndarray:
  """Disparity of a scene in the official form, u16 `[H, W]`."""
  depth = scene['depth'].astype(np.float64)
  pixels = scene['baseline'] * scene['intrinsics'][0]
  values = pixels / np.where(depth > 0, depth, 1)
  return scenes.to_u16(256 * values + 1, depth)


def camera(scene: dict[str, Any]) -> dict[str, dict[str, float]]:
  """Calibration of a scene in the official form."""
  intrinsic = zip(('fx', 'fy', 'u0', 'v0'), scene['intrinsics'], strict=True)
  return {
    'extrinsic': {'baseline': float(scene['baseline']), **_MOUNT},
    'intrinsic': {key: float(value) for key, value in intrinsic},
  }
