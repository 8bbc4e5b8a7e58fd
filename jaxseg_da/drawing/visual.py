"""Pictures of labels: colours, overlays, captioned panels, a legend.

Everything is NumPy on the host, RGB, u8. PNG bytes come from OpenCV.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from jaxseg_da.classes import labels as label_tables

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BAR = 24  # height of a caption, in pixels
_GAP = 4  # between pictures
_PAPER, _INK = (255, 255, 255), (32, 32, 32)


def colourise(
  labels: np.ndarray, colours: np.ndarray = label_tables.COLOURS
) -> np.ndarray:
  """Paints train ids.

  Args:
    labels: integers `[H, W]` or `[H, W, 1]`.
    colours: u8 `[C, 3]`; ids outside `0..C - 1`, such as 255, become black.

  Returns:
    u8 `[H, W, 3]`.
  """
  ids = _plane(labels).astype(np.int64)
  known = (ids >= 0) & (ids < len(colours))
  table = np.concatenate([colours, np.zeros((1, 3), np.uint8)])
  return table[np.where(known, ids, len(colours))]


def overlay(
  image: np.ndarray,
  labels: np.ndarray,
  alpha: float = 0.5,
  colours: np.ndarray = label_tables.COLOURS,
) -> np.ndarray:
  """Blends the classes' colours over an image; ignored pixels keep it.

  Args:
    image: u8 `[H, W, 3]`.
    labels: integers `[H, W]` or `[H, W, 1]`.
    alpha: 0 shows the image only, 1 the colours only.
    colours: u8 `[C, 3]`.

  Returns:
    u8 `[H, W, 3]`.

  Raises:
    ValueError: image and labels differ in size.
  """
  ids = _plane(labels)
  if image.shape[:2] != ids.shape:
    raise ValueError(f'image {image.shape} and labels {ids.shape} differ')
  paint = colourise(ids, colours).astype(np.float32)
  mixed = np.rint((1 - alpha) * image.astype(np.float32) + alpha * paint)
  known = (ids >= 0) & (ids < len(colours))
  return np.where(known[..., None], mixed, image).astype(np.uint8)


def panel(
  pictures: Sequence[tuple[str, np.ndarray]], height: int = 256
) -> np.ndarray:
  """Pictures side by side, each under its caption.

  Args:
    pictures: (caption, u8 `[H, W, 3]`); brought to one height. Enlarging
      repeats pixels, so that borders between classes stay sharp.
    height: of the pictures in pixels, captions not included.

  Returns:
    u8 `[height + 24, W', 3]`.

  Raises:
    ValueError: there is no picture.
  """
  if not pictures:
    raise ValueError('a panel needs at least one picture')
  columns = []
  for caption, picture in pictures:
    scaled = _at_height(picture, height)
    bar = np.full((_BAR, scaled.shape[1], 3), _PAPER, np.uint8)
    _text(bar, caption, (2, _BAR - 7), _INK, 0.65)
    gap = np.full((height + _BAR, _GAP, 3), _PAPER, np.uint8)
    columns += [np.concatenate([bar, scaled]), gap]
  return np.concatenate(columns[:-1], axis=1)


def legend(
  names: Sequence[str] = label_tables.NAMES,
  colours: np.ndarray = label_tables.COLOURS,
  columns: int = 10,
  width: int = 116,
) -> np.ndarray:
  """A strip of class names on their colours.

  Args:
    names: C class names.
    colours: u8 `[C, 3]`.
    columns: fields per row.
    width: of a field, in pixels.

  Returns:
    u8 `[H, columns * width, 3]`; unused fields are white.

  Raises:
    ValueError: names and colours differ in number.
  """
  if len(names) != len(colours):
    raise ValueError(f'{len(names)} names for {len(colours)} colours')
  rows = -(-len(names) // columns)
  strip = np.full((rows * _BAR, columns * width, 3), _PAPER, np.uint8)
  for i, name in enumerate(names):
    top, left = i // columns * _BAR, i % columns * width
    field = strip[top : top + _BAR, left : left + width]
    field[:] = colours[i]
    _text(field, name, (4, _BAR - 8), contrast(colours[i]))
  return strip


def heatmap(
  values: np.ndarray, rows: Sequence[str], columns: Sequence[str]
) -> np.ndarray:
  """A table of shares, the darker the larger, with per cent written inside.

  Args:
    values: float `[R, C]`, 0..1.
    rows: R names.
    columns: C names.

  Returns:
    u8 `[(R + 1) * 24, W, 3]`.

  Raises:
    ValueError: the names do not fit the values.
  """
  if values.shape != (len(rows), len(columns)):
    raise ValueError(f'{values.shape} values, {len(rows)} x {len(columns)}')
  margin, width = 150, 72
  shape = ((len(rows) + 1) * _BAR, margin + len(columns) * width, 3)
  page = np.full(shape, _PAPER, np.uint8)
  for j, name in enumerate(columns):
    at = margin + j * width
    _text(page[:_BAR, at : at + width - 2], name, (2, _BAR - 8), _INK, 0.38)
  for i, name in enumerate(rows):
    line = page[(i + 1) * _BAR : (i + 2) * _BAR]
    _text(line[:, :margin], name, (4, _BAR - 8), _INK)
    for j, value in enumerate(np.clip(values[i], 0, 1)):
      at = margin + j * width
      cell = line[:-1, at : at + width - 1]
      cell[:] = np.rint(255 - np.array([205, 150, 90]) * value)
      if value >= 0.005:
        _text(cell, f'{value:.0%}', (4, _BAR - 8), contrast(cell[0, 0]), 0.4)
  return page


def contrast(colour: Sequence[int]) -> tuple[int, int, int]:
  """Black or white, whichever is easier to read on an RGB colour.

  Relative luminance as in WCAG 2: the border of equal contrast is 0.179.
  """
  linear = [
    c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
    for c in (float(v) / 255 for v in colour)
  ]
  luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
  return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def encode_png(image: np.ndarray) -> bytes:
  """PNG bytes of u8 `[H, W, 3]` (RGB), `[H, W]` or `[H, W, 1]`, lossless.

  Raises:
    ValueError: the array is no such image.
  """
  image = np.asarray(image)
  grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
  colour = image.ndim == 3 and image.shape[2] == 3
  if image.dtype != np.uint8 or not (grey or colour) or not image.size:
    raise ValueError(f'no u8 image: {image.dtype} {image.shape}')
  pixels = image if grey else image[..., ::-1]
  done, data = cv2.imencode('.png', np.ascontiguousarray(pixels))
  if not done:
    raise ValueError(f'cannot encode {image.shape} as PNG')
  return data.tobytes()


def _plane(labels: np.ndarray) -> np.ndarray:
  labels = np.asarray(labels)
  if labels.ndim == 3 and labels.shape[2] == 1:
    labels = labels[..., 0]
  if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(f'no integer labels: {labels.dtype} {labels.shape}')
  return labels


def _at_height(picture: np.ndarray, height: int) -> np.ndarray:
  rows, columns = picture.shape[:2]
  if rows == height:
    return picture
  width = max(1, round(columns * height / rows))
  mode = cv2.INTER_AREA if height < rows else cv2.INTER_NEAREST
  return cv2.resize(picture, (width, height), interpolation=mode)


def _text(
  image: np.ndarray,
  text: str,
  at: tuple[int, int],
  colour: Sequence[int],
  size: float = 0.45,
) -> None:
  """Writes one line into `image` itself, cut off at its right border."""
  canvas = np.ascontiguousarray(image)
  paint = tuple(int(c) for c in colour)
  cv2.putText(canvas, text, at, _FONT, size, paint, 1, cv2.LINE_AA)
  image[:] = canvas
