"""Label files of SYNTHIA-RAND-CITYSCAPES.

`GT/LABELS` holds 16-bit RGB PNG: the class in the first channel, the instance
in the second. Copies with the class alone, in 8 or 16 bits, are read as well.
"""

from __future__ import annotations

import numpy as np

from data_prep import codecs
from jaxseg_da import errors
from jaxseg_da.classes import labels

_LARGEST = len(labels.SYNTHIA) - 1
_REMEDY = 'take the original file of GT/LABELS'


def read(data: bytes, where: str) -> np.ndarray:
  """SYNTHIA ids u8 `[H, W]`, 0..22, of a label file.

  Raises:
    errors.UserError: it cannot be decoded, or holds something else.
  """
  if data.startswith(b'\x89PNG') and data[25:26] == b'\x03':
    # A palette: indices are wanted, OpenCV would hand out the colours.
    values = codecs.decode_ids(data, where)
  else:
    values = codecs.decode_deep(data, where)
  channels = 1 if values.ndim == 2 else values.shape[2]
  if values.dtype == np.uint8 and channels == 3:
    raise errors.UserError(
      f'{where}: labels look 8-bit: the 16-bit PNG was converted by a program '
      f'that cannot read it (Pillow); {_REMEDY}'
    )
  if values.dtype not in (np.uint8, np.uint16) or channels not in (1, 3):
    raise errors.UserError(
      f'{where} is no SYNTHIA label file: found {channels} channels of '
      f'{values.dtype}, expected 3 of 16 bits; {_REMEDY}'
    )
  ids = values if channels == 1 else values[..., 0]
  _check(ids, where)
  return ids.astype(np.uint8)


def _check(ids: np.ndarray, where: str) -> None:
  largest = int(ids.max())
  if largest <= _LARGEST:
    return
  strange = ids[ids > _LARGEST]
  if ids.dtype == np.uint8 and (strange == labels.IGNORE).all():
    raise errors.UserError(
      f'{where}: labels look already mapped to train ids, with 255 for what is '
      f'ignored; {_REMEDY}'
    )
  raise errors.UserError(
    f'{where}: value {strange.min()} is no SYNTHIA class (0 to {_LARGEST}); '
    f'{_REMEDY}'
  )
