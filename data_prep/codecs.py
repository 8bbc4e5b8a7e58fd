"""Image files as bytes in, pixels out, and back; no TFDS import.

`where` is what messages call the file: a path, or a member of a zip.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from jaxseg_da import errors

# Driving scenes have up to some tens of megapixels. What claims more is made
# to fill the memory; Pillow draws its line a little higher.
MAX_PIXELS = 80_000_000

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


def encode_jpeg(array: np.ndarray, quality: int = 95) -> bytes:
  """JPEG bytes of RGB u8 `[H, W, 3]`."""
  options = [cv2.IMWRITE_JPEG_QUALITY, quality]
  done, buffer = cv2.imencode('.jpg', array[..., ::-1], options)
  if not done:
    raise ValueError(f'JPEG of {array.dtype} {array.shape} is not supported')
  return buffer.tobytes()


def decode_image(data: bytes, where: str) -> tuple[bytes, np.ndarray]:
  """Decodes an image file completely.

  Returns:
    Bytes of an RGB image of 8 bits: `data` itself where it is a PNG or JPEG of
    that kind, otherwise a PNG; and its pixels, u8 `[H, W, 3]`.

  Raises:
    errors.UserError: it cannot be decoded.
  """
  image = _load(data, where)
  if image.mode == 'RGB' and image.format in ('PNG', 'JPEG'):
    return data, np.asarray(image)
  pixels = np.asarray(image.convert('RGB'))
  return encode_png(pixels), pixels


def decode_ids(data: bytes, where: str) -> np.ndarray:
  """Raw ids u8 `[H, W]` of a grey or palette label file.

  Of a palette file these are the indices, never the colours.

  Raises:
    errors.UserError: it cannot be decoded, or is a picture in colours.
  """
  image = _load(data, where)
  if image.mode not in ('P', 'L'):
    raise errors.UserError(
      f'{where} is no label file: expected palette indices or 8-bit grey '
      f'values, found mode {image.mode}; if the palette was converted to '
      'colours, take the original file'
    )
  return np.asarray(image)


def decode_deep(data: bytes, where: str) -> np.ndarray:
  """Values of a PNG as they are stored, 8 or 16 bits, through OpenCV.

  Pillow cuts 16-bit colour images to 8 bits without a word.

  Returns:
    u8 or u16 `[H, W]`, or `[H, W, C]` with the file's first channel first.

  Raises:
    errors.UserError: it cannot be decoded.
  """
  # OpenCV fills what is missing with zeros, and libpng complains on stderr:
  # checksums tell beforehand.
  _checked(_open(data, where).verify, where)
  array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
  if array is None:
    raise errors.UserError(f'{where} cannot be decoded: not a readable image')
  if array.ndim == 3:  # OpenCV gives BGR, with alpha last.
    array = array[..., [2, 1, 0, 3][: array.shape[2]]]
  return array


def image_size(data: bytes, where: str) -> tuple[int, int]:
  """(height, width) from the header.

  Raises:
    errors.UserError: no image, or one of more than `MAX_PIXELS`.
  """
  image = _open(data, where)
  return image.height, image.width


def _load(data: bytes, where: str) -> Image.Image:
  image = _open(data, where)
  _checked(image.load, where)
  return image


def _checked(action: Callable[[], object], where: str) -> None:
  try:
    action()
  except Exception as error:  # Pillow raises many types for broken files.
    reason = str(error).replace('\n', ' ') or type(error).__name__
    raise errors.UserError(f'{where} cannot be decoded: {reason}') from error


def _open(data: bytes, where: str) -> Image.Image:
  """The image with its header read; sizes are judged before pixels are."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('error', Image.DecompressionBombWarning)
      image = Image.open(io.BytesIO(data))
  except (
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
  ) as error:
    raise _bomb(where, 'far too many') from error
  except Image.UnidentifiedImageError as error:
    raise errors.UserError(
      f'{where} cannot be decoded: not an image'
    ) from error
  except Exception as error:
    reason = str(error).replace('\n', ' ') or type(error).__name__
    raise errors.UserError(f'{where} cannot be decoded: {reason}') from error
  if image.width * image.height > MAX_PIXELS:
    raise _bomb(where, f'{image.width * image.height / 1e6:.0f}')
  return image


def _bomb(where: str, megapixels: str) -> errors.UserError:
  return errors.UserError(
    f'{where} claims {megapixels} megapixels, more than '
    f'{MAX_PIXELS // 1_000_000}: no driving scene, it is not decoded'
  )
