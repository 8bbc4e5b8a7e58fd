"""Resizing and cropping of one example on the host, in NumPy.

Resize modes give different pixels, and published results depend on them:
Pillow's filters are antialiased, OpenCV's bilinear is not. So the mode is
always named. Labels and other maps of ids use `nearest`.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from jaxseg_da import errors

Size = tuple[int, int]

_PIL = {
  'pil_bicubic': Image.Resampling.BICUBIC,
  'pil_bilinear': Image.Resampling.BILINEAR,
}
_CV = {'cv_area': cv2.INTER_AREA, 'cv_linear': cv2.INTER_LINEAR}
MODES = (*_PIL, *_CV, 'nearest')


def check_mode(mode: str) -> str:
  """`mode`, or `errors.UserError` with the list of resize modes."""
  if mode not in MODES:
    raise errors.unknown('resize mode', mode, MODES)
  return mode


def resize(array: np.ndarray, size: Size, mode: str) -> np.ndarray:
  """Resizes to `size`, not keeping the aspect ratio.

  Args:
    array: `[H, W, C]`; u8 with 3 channels for the filters, any for `nearest`.
    size: (height, width) of the result.
    mode: one of `MODES`.

  Returns:
    `[h, w, C]` of the same dtype; `array` itself where the size is the same.

  Raises:
    errors.UserError: the mode is unknown.
  """
  check_mode(mode)
  if array.shape[:2] == tuple(size):
    return array
  if mode == 'nearest':
    return nearest(array, size)
  height, width = size
  if mode in _PIL:
    image = Image.fromarray(array).resize((width, height), _PIL[mode])
    return np.asarray(image)
  return cv2.resize(array, (width, height), interpolation=_CV[mode])


def nearest(array: np.ndarray, size: Size) -> np.ndarray:
  """Nearest neighbour of pixel centres, as Pillow samples; any dtype.

  Args:
    array: `[H, W, ...]`.
    size: (height, width) of the result.

  Returns:
    `[h, w, ...]`.
  """
  rows, columns = (
    ((2 * np.arange(new) + 1) * old) // (2 * new)
    for new, old in zip(size, array.shape[:2], strict=True)
  )
  return array[rows[:, None], columns]


def crop_offsets(
  rng: np.random.Generator, size: Size, crop: Size
) -> tuple[int, int]:
  """A uniform position (top, left) of a `crop` inside an image of `size`."""
  (height, width), (crop_height, crop_width) = size, crop
  if crop_height > height or crop_width > width:
    raise errors.UserError(
      f'crop {crop_height}x{crop_width} is larger than the image '
      f'{height}x{width}'
    )
  top = int(rng.integers(height - crop_height + 1))
  left = int(rng.integers(width - crop_width + 1))
  return top, left


def crop(array: np.ndarray, offsets: tuple[int, int], size: Size) -> np.ndarray:
  """The window of `size` at `offsets` (top, left) of an `[H, W, ...]`."""
  top, left = offsets
  return array[top : top + size[0], left : left + size[1]]
