"""Raw trees of random pixels in the layout of real data sets."""

from __future__ import annotations

import pathlib

import numpy as np
from PIL import Image

from jaxseg_da.classes import labels

SIZE = (32, 64)


def pair(
  rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  """A random image u8 `[H, W, 3]` and raw ids u8 `[H, W]`, 0..34."""
  image = rng.integers(0, 256, (*size, 3), np.uint8)
  return image, rng.integers(0, 35, size, np.uint8)


def write_gta5(
  root: pathlib.Path, count: int, sizes: tuple[tuple[int, int], ...] = (SIZE,)
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Writes `count` pairs, sizes in turn; returns them."""
  rng = np.random.default_rng(3)
  pairs = [pair(rng, sizes[i % len(sizes)]) for i in range(count)]
  for folder in ('images', 'labels'):
    (root / folder).mkdir(parents=True)
  for index, (image, ids) in enumerate(pairs):
    name = f'{index + 1:05d}.png'
    Image.fromarray(image).save(root / 'images' / name)
    label = Image.fromarray(ids)
    label.putpalette(labels.CITYSCAPES_PALETTE.ravel().tolist())
    label.save(root / 'labels' / name)
  return pairs


def write_cityscapes(
  root: pathlib.Path, counts: dict[str, dict[str, int]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Writes {folder: {city: count}}; returns pairs by image id."""
  rng = np.random.default_rng(4)
  pairs = {}
  for folder, cities in counts.items():
    for city, count in cities.items():
      images = root / 'leftImg8bit' / folder / city
      ids = root / 'gtFine' / folder / city
      images.mkdir(parents=True)
      ids.mkdir(parents=True)
      for index in range(count):
        stem = f'{city}_{index:06d}_000019'
        image, label = pairs[stem] = pair(rng, SIZE)
        Image.fromarray(image).save(images / f'{stem}_leftImg8bit.png')
        Image.fromarray(label).save(ids / f'{stem}_gtFine_labelIds.png')
  return pairs
