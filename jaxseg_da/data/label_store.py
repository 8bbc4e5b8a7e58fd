"""Files of pseudo-labels, read at random while training."""

from __future__ import annotations

import io
import os
import pathlib

import numpy as np
from PIL import Image

from jaxseg_da import errors, visual


class Store:
  """The hard pseudo-labels of one stage, a PNG file per image.

  Files are there whole or not at all, so a pass that was interrupted goes on
  with what `written` lacks. Safe to use from several threads and processes
  that work on different images.

  Args:
    folder: the stage's artefacts. Errors tell to remove it, so what says that
      the pass is complete has to lie in it, too.
  """

  def __init__(self, folder: str | os.PathLike[str]):
    self._folder = pathlib.Path(folder)

  def written(self) -> set[int]:
    """The indices of the images that have labels."""
    stems = (path.stem for path in self._folder.glob('*.png'))
    return {int(stem) for stem in stems if stem.isdecimal()}

  def write(self, index: int, label: np.ndarray) -> None:
    """Stores the labels of an image, in place of older ones.

    Args:
      index: position in the data set.
      label: u8 `[H, W]`, 255 is ignored.

    Raises:
      ValueError: it is no such array.
    """
    if label.ndim != 2:
      raise ValueError(f'labels have to be [H, W], not {label.shape}')
    data = visual.encode_png(label)
    path = self._path(index)
    self._folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    temporary.write_bytes(data)
    temporary.replace(path)

  def read(self, index: int) -> np.ndarray:
    """The labels of an image, u8 `[H, W]`.

    Raises:
      UserError: they are missing or damaged; names the file.
    """
    path = self._path(index)
    advice = f'remove {self._folder} and run the same command again'
    try:
      data = path.read_bytes()
    except FileNotFoundError:
      raise errors.UserError(
        f'pseudo-labels {path} are missing: {advice}'
      ) from None
    try:
      return _decode(data)
    except Exception as error:  # Pillow raises many types for broken files.
      raise errors.UserError(
        f'pseudo-labels {path} are damaged: {advice}'
      ) from error

  def _path(self, index: int) -> pathlib.Path:
    return self._folder / f'{index:06d}.png'


def _decode(data: bytes) -> np.ndarray:
  Image.open(io.BytesIO(data)).verify()  # checksums, which loading skips
  image = Image.open(io.BytesIO(data))
  if image.mode != 'L':
    raise ValueError(f'mode {image.mode}')
  return np.asarray(image)
