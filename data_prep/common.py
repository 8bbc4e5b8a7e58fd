"""Codecs and examples that all prepared data sets share; no TFDS import.

An example holds *encoded* images: the bytes of the original file where they can
stay as they are, otherwise PNG. Worker processes import this module only.
"""

from __future__ import annotations

import io
import pathlib
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from jaxseg_da import errors, labels
from jaxseg_da.data import transforms

Example = dict[str, Any]

# Stored images are read many times and rarely shipped: speed before size.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


def encode_png(array: np.ndarray) -> bytes:
  """PNG bytes of RGB u8 `[H, W, 3]`, or of u8 or u16 `[H, W]` and `[H, W, 1]`.

  Raises:
    ValueError: another dtype or number of channels.
  """
  colour = array.ndim == 3 and array.shape[2] == 3
  if array.dtype != np.uint8 and (colour or array.dtype != np.uint16):
    raise ValueError(f'PNG of {array.dtype} {array.shape} is not supported')
  if colour:
    array = array[..., ::-1]  # OpenCV stores BGR.
  done, buffer = cv2.imencode('.png', np.ascontiguousarray(array), _PNG)
  if not done:
    raise ValueError(f'PNG of {array.dtype} {array.shape} is not supported')
  return buffer.tobytes()


def class_histogram(label: np.ndarray) -> np.ndarray:
  """Pixels per train id, i32 `[19]`; ignored pixels are left out."""
  counts = np.bincount(label.ravel(), minlength=256)
  return counts[: labels.NUM_CLASSES].astype(np.int32)


def metric_to_u16(depth: np.ndarray) -> np.ndarray:
  """Metres to u16 centimetres; 0 = invalid, far is cut at 655.35 m.

  Args:
    depth: float `[H, W]` in metres, 0 where there is none.
  """
  centimetres = np.rint(np.asarray(depth, np.float64) * 100)
  # What is valid and closer than 5 mm must not become invalid.
  centimetres = np.where(depth > 0, np.maximum(centimetres, 1), 0)
  return np.minimum(centimetres, 65535).astype(np.uint16)


def label_features(label: np.ndarray | None, size: tuple[int, int]) -> Example:
  """`label` and `class_histogram` of train ids u8 `[H, W]`.

  Args:
    label: train ids, or None where the example has no label: all 255.
    size: (height, width) of the image.
  """
  if label is None:
    label = np.full(size, labels.IGNORE, np.uint8)
  return {
    'label': encode_png(label),
    'class_histogram': class_histogram(label),
  }


def read_image(path: pathlib.Path) -> tuple[bytes, np.ndarray]:
  """Decodes an image file completely.

  Args:
    path: a PNG or JPEG file.

  Returns:
    Bytes of an RGB image of 8 bits: the file's own where it is one, otherwise a
    PNG; and its pixels, u8 `[H, W, 3]`.

  Raises:
    errors.UserError: the file is missing or cannot be decoded.
  """
  data, image = _open(path)
  if image.mode == 'RGB' and image.format in ('PNG', 'JPEG'):
    return data, np.asarray(image)
  pixels = np.asarray(image.convert('RGB'))
  return encode_png(pixels), pixels


def read_ids(path: pathlib.Path) -> np.ndarray:
  """Raw ids u8 `[H, W]` of a grey or palette label file.

  Of a palette file these are the indices, never the colours.

  Raises:
    errors.UserError: missing, not decodable, or a picture in colours.
  """
  _, image = _open(path)
  if image.mode not in ('P', 'L'):
    raise errors.UserError(
      f'{path} is no label file: expected palette indices or 8-bit grey '
      f'values, found mode {image.mode}; if the palette was converted to '
      'colours, take the original file'
    )
  return np.asarray(image)


def _open(path: pathlib.Path) -> tuple[bytes, Image.Image]:
  try:
    data = path.read_bytes()
  except OSError as error:
    raise errors.UserError(f'{path}: {error.strerror}') from error
  try:
    image = Image.open(io.BytesIO(data))
    image.load()
  except Exception as error:  # Pillow raises many types for broken files.
    reason = str(error).replace('\n', ' ') or type(error).__name__
    if isinstance(error, Image.UnidentifiedImageError):
      reason = 'not an image'
    raise errors.UserError(f'{path} cannot be decoded: {reason}') from error
  return data, image


class Pair(NamedTuple):
  """One image file and its label file, to be made an example.

  Attributes:
    image_id: stable name, unique in the split.
    image: path of the image.
    label: path of the raw label file, or None.
    size: (height, width) to store, or None for the files' own.
    resize: mode for the image, see `transforms.MODES`.
  """

  image_id: str
  image: pathlib.Path
  label: pathlib.Path | None
  size: tuple[int, int] | None
  resize: str


def pair_example(
  pair: Pair, to_train_id: np.ndarray
) -> tuple[Example, tuple[int, int]]:
  """Reads, checks, maps and encodes one pair.

  Args:
    pair: the files.
    to_train_id: u8 `[256]`, raw id to train id.

  Returns:
    The example and its (height, width).

  Raises:
    errors.UserError: names the file that is missing or wrong.
  """
  data, pixels = read_image(pair.image)
  label = None
  if pair.label is not None:
    ids = read_ids(pair.label)
    if ids.shape != pixels.shape[:2]:
      raise errors.UserError(
        f'{pair.label} is {shape_text(ids.shape)} but its image {pair.image} '
        f'is {shape_text(pixels.shape)}'
      )
    label = to_train_id[ids]
  size = pixels.shape[:2]
  if pair.size is not None and pair.size != size:
    size = pair.size
    data = encode_png(transforms.resize(pixels, size, pair.resize))
    if label is not None:
      label = transforms.nearest(label, size)
  example = {'image_id': pair.image_id, 'image': data}
  return example | label_features(label, size), size


def parse_size(text: str) -> tuple[int, int]:
  """'HxW' as (height, width); raises `errors.UserError` for anything else."""
  parts = text.lower().split('x')
  if len(parts) == 2 and all(p.isascii() and p.isdigit() for p in parts):
    height, width = map(int, parts)
    if 0 < height <= 65535 and 0 < width <= 65535:
      return height, width
  raise errors.UserError(
    f'bad size {text!r}: expected HEIGHTxWIDTH in pixels, as in 512x1024'
  )


def shape_text(shape: tuple[int, ...]) -> str:
  """'HxW' of an array's shape."""
  return f'{shape[0]}x{shape[1]}'
