"""Writes street scenes in the folder layout of real data sets.

`python -m data_prep.streets.export LAYOUT OUT --n=4 --size=HxW`. So the
builders of real data sets, and training on them, are tried without the data.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from data_prep import common
from data_prep.streets import world
from jaxseg_da import errors, labels

_CITY = 'streets'


def export_gta5(
  directory: str | os.PathLike[str],
  n: int,
  size: tuple[int, int],
  domain: str = 'gta',
) -> None:
  """Writes `images/00001.png` and palette PNGs `labels/00001.png`.

  Args:
    directory: where to; made where it is missing.
    n: number of pairs.
    size: (height, width).
    domain: a domain of the street world.
  """
  root = pathlib.Path(directory)
  scenery: Any = world.domain(domain)
  for index in range(n):
    scene = world.render_example(scenery, 'train', index, size)
    name = f'{index + 1:05d}.png'
    _write(root / 'images' / name, common.encode_png(scene['image']))
    label = Image.fromarray(_raw_ids(scene['label']))
    label.putpalette(np.asarray(labels.CITYSCAPES_PALETTE).ravel().tolist())
    path = root / 'labels' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    label.save(path)


def export_cityscapes(
  directory: str | os.PathLike[str],
  n_train: int,
  n_val: int,
  size: tuple[int, int],
  domain: str = 'city',
  *,
  train_labels: bool = True,
) -> None:
  """Writes the folders `leftImg8bit` and `gtFine` with `train` and `val`.

  Args:
    directory: where to; made where it is missing.
    n_train: number of training frames.
    n_val: number of validation frames.
    size: (height, width).
    domain: a domain of the street world.
    train_labels: whether training frames get label files.
  """
  root = pathlib.Path(directory)
  scenery: Any = world.domain(domain)
  folders = (('train', 'train', n_train), ('val', 'validation', n_val))
  for folder, split, count in folders:
    for index in range(count):
      scene = world.render_example(scenery, split, index, size)
      stem = f'{_CITY}_{index:06d}_000019'
      images = root / 'leftImg8bit' / folder / _CITY
      data = common.encode_png(scene['image'])
      _write(images / f'{stem}_leftImg8bit.png', data)
      if train_labels or folder != 'train':
        ids = root / 'gtFine' / folder / _CITY
        data = common.encode_png(_raw_ids(scene['label']))
        _write(ids / f'{stem}_gtFine_labelIds.png', data)


def _raw_ids(label: np.ndarray) -> np.ndarray:
  """Cityscapes label ids u8 of train ids u8; ignored pixels become 0."""
  return np.asarray(labels.TRAIN_ID_TO_CITYSCAPES_ID, np.uint8)[label]


def _write(path: pathlib.Path, data: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data)


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='data_prep.streets.export', description=__doc__
  )
  parser.add_argument('layout', choices=('gta5', 'cityscapes'))
  parser.add_argument('out')
  parser.add_argument('--n', type=int, default=4, help='images per split')
  parser.add_argument('--size', default='96x192', help='HxW')
  args = parser.parse_args(argv)
  try:
    size = common.parse_size(args.size)
  except errors.UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  if args.layout == 'gta5':
    export_gta5(args.out, args.n, size)
  else:
    export_cityscapes(args.out, args.n, args.n, size)
  print(f'wrote {args.out}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
