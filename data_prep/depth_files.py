"""Depth files of users: 16-bit PNG of any kind, MATLAB files of metres.

MATLAB's format (v5, which v6 and v7 write too) is taken apart here: SciPy's
reader crashes the process on some damaged files and unpacks streams of any
size.
"""

from __future__ import annotations

import numpy as np

from data_prep import codecs, matlab
from jaxseg_da import errors
from jaxseg_da.data import depth

# The stereo completion of the foggy scenes project calls its depth this.
VARIABLE = 'depth_map'
NEAREST = 0.1  # metres; what is closer marks a hole in those files


def read(data: bytes, where: str, kind: str) -> np.ndarray:
  """Decodes a depth file to what a prepared data set stores.

  Args:
    data: the file's bytes.
    where: its path, for messages; `.mat` means MATLAB.
    kind: what the values are, see `depth.KINDS`. A PNG's are taken as they are.

  Returns:
    u16 `[H, W]`, 0 where invalid.

  Raises:
    errors.UserError: not decodable, or not of this kind.
  """
  depth.check_kind(kind)
  if not data.startswith(b'MATLAB ') and not where.lower().endswith('.mat'):
    return _read_png(data, where)
  if kind != 'metric':
    raise errors.UserError(
      f'{where} is a MATLAB file, which holds metres, but its depth kind is '
      f"declared as {kind!r}: declare 'metric' or give 16-bit PNG files"
    )
  metres = _read_mat(data, where)
  # Too close, NaN and infinity: the reference gives them the target of a hole.
  valid = np.isfinite(metres) & (metres >= NEAREST)
  return np.ascontiguousarray(depth.metric_to_u16(np.where(valid, metres, 0)))


def _read_png(data: bytes, where: str) -> np.ndarray:
  values = codecs.decode_deep(data, where)
  if values.dtype != np.uint16:
    raise errors.UserError(
      f'{where} holds {values.dtype} values but depth needs 16 bits: if a '
      'conversion cut the low byte off, take the original file'
    )
  if values.ndim == 3:
    # Some copies of SYNTHIA repeat the depth in all channels. Where channels
    # differ they are something else: colours, or class and instance.
    if (values != values[..., :1]).any():
      raise errors.UserError(
        f'{where} is no depth map: its {values.shape[2]} channels differ; '
        'check the folder that was given for depth'
      )
    values = values[..., 0]
  return np.ascontiguousarray(values)


def _read_mat(data: bytes, where: str) -> np.ndarray:
  """Metres `[H, W]`."""
  metres = matlab.load(data, where, VARIABLE)
  if metres.ndim != 2 or metres.dtype.kind != 'f' or not metres.size:
    raise errors.UserError(
      f'{where}: {VARIABLE!r} of {metres.dtype} {metres.shape} is no depth '
      'map: expected a real number of metres per pixel'
    )
  return metres
