"""File formats that raw data sets use and prepared ones do not."""

from __future__ import annotations

import io
import json
from typing import Any

import cv2
import numpy as np
import scipy.io
from PIL import Image

# A MATLAB file begins with so many bytes of text, with the date by default.
_MAT_HEADER = 116


def deep_png(array: np.ndarray) -> bytes:
  """PNG bytes of colour u8 or u16 `[H, W, 3]` (RGB) or `[H, W, 4]` (RGBA)."""
  order = [2, 1, 0, 3][: array.shape[2]]  # OpenCV stores BGR.
  _, buffer = cv2.imencode('.png', np.ascontiguousarray(array[..., order]))
  return buffer.tobytes()


def palette_png(ids: np.ndarray, palette: np.ndarray) -> bytes:
  """PNG bytes of u8 `[H, W]`, shown in the colours u8 `[256, 3]`."""
  image = Image.fromarray(ids)
  image.putpalette(palette.ravel().tolist())
  buffer = io.BytesIO()
  image.save(buffer, 'PNG')
  return buffer.getvalue()


def json_text(value: Any) -> bytes:
  """JSON with sorted keys."""
  return json.dumps(value, sort_keys=True).encode()


def mat(variables: dict[str, np.ndarray]) -> bytes:
  """A MATLAB v5 file of arrays; the same bytes on every day."""
  buffer = io.BytesIO()
  scipy.io.savemat(buffer, variables, do_compression=True)
  data = buffer.getvalue()
  return b'MATLAB 5.0 MAT-file'.ljust(_MAT_HEADER) + data[_MAT_HEADER:]
