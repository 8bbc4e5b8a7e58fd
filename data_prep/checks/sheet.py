"""Pictures of single frames for the page: small, as JPEG."""

from __future__ import annotations

import base64
from typing import NamedTuple

import cv2
import numpy as np

from data_prep import codecs, items, layouts
from data_prep.checks import sample
from jaxseg_da.data import transforms
from jaxseg_da.drawing import visual

_HEIGHT = 240  # pixels
_QUALITY = 85
_VIEWS = {
  'image_right': 'right camera',
  'image_prev': 'frame before',
  'image_next': 'frame after',
}


class Picture(NamedTuple):
  """A picture with its caption.

  Attributes:
    caption: what it shows.
    uri: the JPEG as a data URI.
    width: in pixels.
    height: in pixels.
  """

  caption: str
  uri: str
  width: int
  height: int


def pictures(layout: layouts.Layout, item: items.Item) -> list[Picture]:
  """What can be read of a frame, the image first."""
  parts = sample.read(layout, item).parts
  shown: list[tuple[str, np.ndarray]] = []
  image = parts.get('image')
  if image is not None:
    image = _small(image)
    shown.append(('image', image))
  if 'label' in parts:
    shown.append(('label', _painted(layout, parts['label'], image)))
  if 'depth' in parts:
    kind = layout.depth_kind
    shown.append((f'depth ({kind})', _heat(parts['depth'], kind)))
  shown += [
    (caption, _small(parts[name]))
    for name, caption in _VIEWS.items()
    if name in parts
  ]
  return [_picture(caption, pixels) for caption, pixels in shown]


def _picture(caption: str, pixels: np.ndarray) -> Picture:
  data = base64.b64encode(codecs.encode_jpeg(pixels, _QUALITY)).decode('ascii')
  height, width = pixels.shape[:2]
  return Picture(caption, f'data:image/jpeg;base64,{data}', width, height)


def _small_size(array: np.ndarray) -> items.Size:
  height, width = array.shape[:2]
  wanted = min(height, _HEIGHT)
  return wanted, max(1, round(width * wanted / height))


def _small(pixels: np.ndarray) -> np.ndarray:
  return transforms.resize(pixels, _small_size(pixels), 'cv_area')


def _painted(
  layout: layouts.Layout, ids: np.ndarray, image: np.ndarray | None
) -> np.ndarray:
  """Raw ids in the colours of their classes, over the image where it is."""
  size = _small_size(ids) if image is None else image.shape[:2]
  train_ids = layout.to_train_id[transforms.nearest(ids, size)]
  if image is None:
    return visual.colourise(train_ids)
  return visual.overlay(image, train_ids, alpha=0.65)


def _heat(values: np.ndarray, kind: str) -> np.ndarray:
  """Stored depth in colours: near is bright, far is dark, none is black."""
  values = transforms.nearest(values, _small_size(values))
  valid = values > 0
  distances = np.maximum(values, 1).astype(np.float64)
  near = np.sqrt(1 / distances if kind == 'metric' else distances)
  low, high = np.percentile(near[valid], (2, 98)) if valid.any() else (0, 1)
  scaled = np.clip((near - low) / max(high - low, 1e-6), 0, 1)
  colours = cv2.applyColorMap(
    np.rint(255 * scaled).astype(np.uint8), cv2.COLORMAP_INFERNO
  )[..., ::-1]
  return np.where(valid[..., None], colours, 0).astype(np.uint8)
