"""The layout of GTA5 ("Playing for Data")."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator

import numpy as np

from data_prep import codecs
from data_prep.streets import world
from data_prep.streets.export import encode, scenes, writer
from jaxseg_da.classes import labels

PACKAGES = ('disparity', 'split')

# Pairs in one of the official archives.
_PER_ARCHIVE = 2500
# A network's disparity is 1/2 at this distance, in metres.
_HALF = 10.0


def export_gta5(
  directory: str | os.PathLike[str],
  n: int,
  size: scenes.Size,
  domain: str = 'gta',
  *,
  packages: Collection[str] = (),
  zipped: bool = False,
) -> None:
  """Writes `images/00001.png` and palette PNGs `labels/00001.png`.

  Args:
    directory: where to; made where it is missing.
    n: number of pairs.
    size: (height, width).
    domain: a domain of the street world.
    packages: also write `disparity/00001.png`, 16 bits of what a depth network
      could give, see `network_disparity`; `split.mat`, the three id lists.
    zipped: write `01_images.zip`, `01_labels.zip`, ... instead: at least two
      of each if there are two pairs.

  Raises:
    errors.UserError: an unknown name, or the folder cannot be written.
  """
  scenes.check_packages('gta5', packages, PACKAGES)
  files = _files(scenes.domain(domain), n, size, packages)
  writer.write(directory, files, zipped=zipped)


def _files(
  scenery: world.Domain, n: int, size: scenes.Size, packages: Collection[str]
) -> Iterator[writer.File]:
  parts = min(n, max(2, math.ceil(n / _PER_ARCHIVE)))
  rendered = scenes.render(scenery, 'train', range(n), size)
  for index, scene in enumerate(rendered):
    part = f'{1 + index * parts // n:02d}'
    name = f'{index + 1:05d}.png'
    ids = labels.TRAIN_ID_TO_CITYSCAPES_ID[scene['label']]
    image = codecs.encode_png(scene['image'])
    label = encode.palette_png(ids, labels.GTA5_PALETTE)
    yield writer.File(f'{part}_images.zip', f'images/{name}', image)
    yield writer.File(f'{part}_labels.zip', f'labels/{name}', label)
    if 'disparity' in packages:
      data = codecs.encode_png(network_disparity(scene['depth']))
      yield writer.File('disparity.zip', f'disparity/{name}', data)
  if 'split' in packages:
    yield writer.File('read_mapping.zip', 'split.mat', encode.mat(_split(n)))


def network_disparity(depth: np.ndarray) -> np.ndarray:
  """Disparity as networks give it, u16 `[H, W]`: 65535 times a sigmoid.

  It is 1 / (1 + depth / 10 m): falling, in (0, 1), without a unit of length.

  Args:
    depth: metres `[H, W]`, 0 where there is none; 0 is stored there.
  """
  return scenes.to_u16(65535 / (1 + depth / _HALF), depth)


def _split(n: int) -> dict[str, np.ndarray]:
  """Disjoint columns of ids, in about the official proportions 2 : 1 : 1."""
  ids = np.arange(1, n + 1, dtype=np.float64)[:, None]
  phase = ids[:, 0] % 4
  return {
    'trainIds': ids[(phase == 1) | (phase == 2)],
    'valIds': ids[phase == 3],
    'testIds': ids[phase == 0],
  }
