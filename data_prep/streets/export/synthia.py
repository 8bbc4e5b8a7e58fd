"""The layout of SYNTHIA-RAND-CITYSCAPES."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from data_prep import codecs
from data_prep.streets import world
from data_prep.streets.export import encode, scenes, writer
from jaxseg_da.classes import labels

PACKAGES = ('color',)

_ARCHIVE = 'SYNTHIA_RAND_CITYSCAPES.zip'
_ROOT = 'RAND_CITYSCAPES'
_README = b'Street scenes in the layout of SYNTHIA-RAND-CITYSCAPES.\n'

_IDS = labels.lookup_table(
  ((r.train_id, r.id) for r in labels.SYNTHIA if r.train_id != labels.IGNORE),
  0,
)
_COLOURS = labels.palette(labels.SYNTHIA)
# Instances are numbered in such steps, as real numbers need more than 8 bits.
_INSTANCE_STEP = 100
# Centimetres of what has no depth: the far plane, and 16 bits of ones.
_FAR = 65535


def export_synthia(
  directory: str | os.PathLike[str],
  n: int,
  size: scenes.Size,
  domain: str = 'gta',
  *,
  packages: Collection[str] = (),
  zipped: bool = False,
) -> None:
  """Writes `RAND_CITYSCAPES/{RGB,GT/LABELS,Depth/Depth}/0000000.png`.

  Label files have 16 bits and three channels: class id, instance, 0. Depth is
  in centimetres, 65535 where there is none.

  Args:
    directory: where to; made where it is missing.
    n: number of frames.
    size: (height, width).
    domain: a domain of the street world.
    packages: also write `color`: `GT/COLOR`, the labels for the eye.
    zipped: write `SYNTHIA_RAND_CITYSCAPES.zip` instead.

  Raises:
    errors.UserError: an unknown name, or the folder cannot be written.
  """
  scenes.check_packages('synthia', packages, PACKAGES)
  files = _files(scenes.domain(domain), n, size, packages)
  writer.write(directory, files, zipped=zipped)


def _files(
  scenery: world.Domain, n: int, size: scenes.Size, packages: Collection[str]
) -> Iterator[writer.File]:
  yield _file('README.txt', _README)
  rendered = scenes.render(scenery, 'train', range(n), size)
  for index, scene in enumerate(rendered):
    name = f'{index:07d}.png'
    ids = _IDS[scene['label']]
    depth = world.depth_to_centimetres(scene['depth'])
    depth = np.where(scene['depth'] > 0, depth, np.uint16(_FAR))
    yield _file(f'RGB/{name}', codecs.encode_png(scene['image']))
    yield _file(f'GT/LABELS/{name}', encode.deep_png(_channels(ids, scene)))
    yield _file(f'Depth/Depth/{name}', codecs.encode_png(depth))
    if 'color' in packages:
      yield _file(f'GT/COLOR/{name}', codecs.encode_png(_COLOURS[ids]))


def _file(path: str, data: bytes) -> writer.File:
  return writer.File(_ARCHIVE, f'{_ROOT}/{path}', data)


def _channels(ids: np.ndarray, scene: dict[str, Any]) -> np.ndarray:
  """What a label file holds, u16 `[H, W, 3]`."""
  instance = scene['instance'] * _INSTANCE_STEP
  return np.stack([ids, instance, np.zeros_like(instance)], axis=-1)
