"""Label files of IDD: polygons in the JSON format of Cityscapes.

`imgWidth`, `imgHeight`, `objects: [{label, polygon: [[x, y], ...], deleted}]`,
painted one over the other in the order of the file, as the AutoNUE tools do.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from data_prep import codecs
from jaxseg_da import errors
from jaxseg_da.classes import labels

# Pixels. Corners outside the image are normal; Pillow calculates with 32 bits.
_FAR = 1 << 20


def read(data: bytes, where: str) -> np.ndarray:
  """IDD ids u8 `[imgHeight, imgWidth]`, 0..39, of a polygon file.

  Where nothing is painted, the id is that of 'unlabeled'. IDD has no negative
  ids, so that even licence plates are painted, unlike those of Cityscapes.

  Raises:
    errors.UserError: broken, of an absurd size, or with a class that IDD does
      not have.
  """
  annotation = _parse(data, where)
  height, width = _size(annotation, where)
  background = labels.IDD_NAME_TO_ID['unlabeled']
  canvas = Image.new('L', (width, height), background)
  drawer = ImageDraw.Draw(canvas)
  objects = annotation.get('objects')
  if not isinstance(objects, list):
    raise errors.UserError(f"{where} has no list 'objects': no polygon file")
  for index, thing in enumerate(objects):
    which = f'{where}: object {index}'
    if not isinstance(thing, dict):
      raise errors.UserError(f"{which} has no 'label' and 'polygon'")
    if thing.get('deleted'):
      continue
    value = _id(thing.get('label'), which)
    corners = thing.get('polygon')
    if not isinstance(corners, list):
      raise errors.UserError(f"{which} has no list 'polygon'")
    if len(corners) >= 3:
      drawer.polygon(_flat(corners, which), fill=value)
  return np.asarray(canvas)


def image_size(data: bytes, where: str) -> tuple[int, int]:
  """(height, width) of the annotated image, as the polygon file has it.

  Raises:
    errors.UserError: broken, or of an absurd size.
  """
  return _size(_parse(data, where), where)


def _parse(data: bytes, where: str) -> dict[str, Any]:
  try:
    annotation = json.loads(data)
  except (ValueError, RecursionError) as error:
    raise errors.UserError(
      f'{where} cannot be read: no complete JSON ({error})'
    ) from error
  if not isinstance(annotation, dict):
    raise errors.UserError(f'{where} is no polygon file: no JSON object')
  return annotation


def _size(annotation: dict[str, Any], where: str) -> tuple[int, int]:
  sides = []
  for key in ('imgHeight', 'imgWidth'):
    side = annotation.get(key)
    if type(side) is not int or side < 1:
      raise errors.UserError(
        f'{where} is no polygon file: {key} is no positive whole number'
      )
    sides.append(side)
  height, width = sides
  if height * width > codecs.MAX_PIXELS:
    raise errors.UserError(
      f'{where} claims an image of {width}x{height} pixels: no driving scene, '
      'it is not rasterised'
    )
  return height, width


def _id(label: Any, which: str) -> int:
  """The id of a class, or of a group of them such as 'cargroup'."""
  if not isinstance(label, str):
    raise errors.UserError(f"{which} has no 'label'")
  ids = labels.IDD_NAME_TO_ID
  # Names in the table come first: 'polegroup' is a class of its own.
  found = ids.get(label, ids.get(label.removesuffix('group')))
  if found is None:
    raise errors.UserError(
      f'{which} is labelled {label!r}, a class that IDD does not have: is the '
      'file from another data set?'
    )
  return found


def _flat(corners: list[Any], which: str) -> list[float]:
  """Corners as x0, y0, x1, y1, ..."""
  try:
    points = np.asarray(corners)
  except ValueError:  # Of unequal lengths.
    points = np.empty(0)
  if points.dtype.kind in 'iuf' and points.shape[1:] == (2,):
    points = points.astype(np.float64)
    if (np.abs(points) < _FAR).all():
      return points.ravel().tolist()
  raise errors.UserError(
    f'{which} has corners that are no pixel positions [x, y] near the image'
  )
