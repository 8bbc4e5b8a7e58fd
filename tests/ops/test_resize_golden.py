"""Resize modes: pixels that are stored, and that follow from definitions.

`fixtures/resize/golden.npz` holds what Pillow 13.0 and OpenCV 5.0 gave. A
library that resizes otherwise changes published results and fails here.
"""

from __future__ import annotations

import itertools
import json
import pathlib

import numpy as np
import pytest

import data_prep
from configs import source_only
from data_prep import layouts, prepare
from jaxseg_da.data import transforms

GOLDEN = pathlib.Path(__file__).parents[1] / 'fixtures/resize/golden.npz'
SHAPE = (9, 13)
# No multiple of the image's: so that every filter weight is a fraction.
SIZES = {'down': (4, 5), 'up': (14, 20)}
CASES = [*itertools.product(transforms.MODES, SIZES)]
# Pillow's arithmetic is fixed-point, OpenCV's rounds in its own way.
TOLERANCE = {mode: int(mode != 'nearest') for mode in transforms.MODES}


def image() -> np.ndarray:
  """Slopes, edges from 0 to 255 and three different channels, u8 9x13x3."""
  y, x, channel = np.ogrid[: SHAPE[0], : SHAPE[1], :3]
  value = 7 * y * y + 5 * x * y + 31 * x + 60 * channel * (x - y)
  edge = 255 * ((x // 3 + y // 2) % 2)
  return np.where(x < 9, value % 256, edge).astype(np.uint8)


def cubic(x: np.ndarray) -> np.ndarray:
  """Keys' cubic kernel with a = -1/2, support 2."""
  x = np.abs(x)
  inner = 1.5 * x**3 - 2.5 * x**2 + 1
  outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
  return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def triangle(x: np.ndarray) -> np.ndarray:
  """The bilinear kernel, support 1."""
  return np.maximum(0.0, 1 - np.abs(x))


def antialiased(old: int, new: int, kernel) -> np.ndarray:
  """Pillow's weights `[new, old]`: a kernel as wide as the target's pixel."""
  scale = old / new
  centres = (np.arange(new)[:, None] + 0.5) * scale
  distance = np.arange(old) + 0.5 - centres
  weights = kernel(distance / max(scale, 1.0))
  return weights / weights.sum(1, keepdims=True)


def two_taps(old: int, new: int) -> np.ndarray:
  """OpenCV's bilinear weights: the two neighbours, however far the next."""
  centres = (np.arange(new) + 0.5) * old / new - 0.5
  centres = np.clip(centres, 0, old - 1)
  return triangle(np.arange(old) - centres[:, None])


def coverage(old: int, new: int) -> np.ndarray:
  """Area weights: the share of the target's pixel that a pixel covers."""
  left = np.arange(new)[:, None] * old / new
  right = left + old / new
  first = np.arange(old)
  covered = np.minimum(first + 1, right) - np.maximum(first, left)
  return np.maximum(covered, 0) * new / old


def closest(old: int, new: int) -> np.ndarray:
  """The one pixel in which the centre of the target's pixel lies."""
  centres = (np.arange(new) + 0.5) * old / new
  return np.eye(old)[np.floor(centres).astype(int)]


WEIGHTS = {
  'pil_bicubic': lambda old, new: antialiased(old, new, cubic),
  'pil_bilinear': lambda old, new: antialiased(old, new, triangle),
  'cv_area': coverage,
  'cv_linear': two_taps,
  'nearest': closest,
}


def defined(mode: str, size: tuple[int, int]) -> np.ndarray:
  """What a mode should give, in float64, rounded to u8."""
  rows, columns = (
    WEIGHTS[mode](old, new) for old, new in zip(SHAPE, size, strict=True)
  )
  wide = np.einsum('xw,hwc->hxc', columns, image().astype(np.float64))
  if mode.startswith('pil'):
    wide = np.clip(np.rint(wide), 0, 255)  # Pillow keeps 8 bits in between.
  tall = np.einsum('yh,hxc->yxc', rows, wide)
  return np.clip(np.rint(tall), 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def golden() -> dict[str, np.ndarray]:
  with np.load(GOLDEN) as stored:
    return dict(stored)


@pytest.mark.parametrize(('mode', 'way'), CASES)
def test_pixels_are_the_stored_ones(golden, mode, way):
  found = transforms.resize(image(), SIZES[way], mode)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, golden[f'{mode}_{way}'])


@pytest.mark.parametrize(('mode', 'way'), CASES)
def test_stored_pixels_follow_from_the_definition(golden, mode, way):
  expected = defined(mode, SIZES[way]).astype(int)
  error = np.abs(golden[f'{mode}_{way}'] - expected)
  assert error.max() <= TOLERANCE[mode]
  assert error.mean() < 0.1, 'rounding, not another filter'


@pytest.mark.parametrize('way', SIZES)
def test_every_mode_gives_its_own_pixels(golden, way):
  for pair in itertools.combinations(transforms.MODES, 2):
    a, b = (golden[f'{mode}_{way}'].astype(int) for mode in pair)
    # To enlarge, both libraries' bilinear is one filter with two roundings.
    rounding = way == 'up' and pair == ('pil_bilinear', 'cv_linear')
    assert np.abs(a - b).mean() > (0.1 if rounding else 3), pair


def test_nothing_stored_is_left_unchecked(golden):
  assert set(golden) == {f'{mode}_{way}' for mode, way in CASES}


@pytest.mark.parametrize(
  ('name', 'mode'),
  [
    ('gta5', 'pil_bicubic'),  # AdaptSegNet, ADVENT
    ('synthia', 'pil_bicubic'),
    ('cityscapes', 'pil_bicubic'),
    ('idd', 'cv_area'),  # CCDA
  ],
)
def test_builds_record_the_mode_of_the_papers(name, mode, tmp_path):
  raw = pathlib.Path(data_prep.__file__).parent / name / 'dummy_data'
  options = layouts.Options(size=(16, 32))
  folder, _ = prepare.build(
    name, tmp_path, manual_dir=raw, options=options, num_workers=1
  )
  recorded = json.loads((folder / 'metadata.json').read_text())
  assert recorded['resize'] == mode


@pytest.mark.parametrize(
  'pair', ['gta5_to_cityscapes', 'synthia_to_cityscapes', 'gta5_to_idd']
)
def test_training_resizes_as_the_papers_do(pair):
  data = source_only.get_config(pair).data
  assert data.resize == 'pil_bicubic'
  assert data.target_resize in ('', 'pil_bicubic')
