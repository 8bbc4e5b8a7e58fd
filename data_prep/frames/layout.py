"""Folders of consecutive images, with the camera that took them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep import items, layouts, raw
from jaxseg_da import errors
from jaxseg_da.classes import labels

_FORM = "one line 'fx fy cx cy' in pixels"
# Some programs write a camera in fractions of the image size, about 1.
_FEWEST_PIXELS = 4


def find(data: raw.Raw) -> layouts.Splits:
  """Every image that has one before and one after it in its folder.

  Raises:
    errors.UserError: no images, no three in one folder, no intrinsics, or two
      images of one name.
  """
  images = data.find(
    r'[^/]+\.(?i:png|jpe?g)', lambda match: match.string.rpartition('.')[0]
  )
  if not images:
    raise layouts.nothing_found(
      data,
      f'images in {data.root}: expected a folder of consecutive PNG or JPEG '
      'files per sequence',
    )
  sequences: dict[str, list[str]] = {}
  for name in sorted(images, key=_natural):
    sequences.setdefault(_folder(name), []).append(name)
  cameras = data.find(r'intrinsics\.txt', lambda match: _folder(match.string))
  members = []
  for folder, names in sequences.items():
    if len(names) < 3:
      continue
    camera = _nearest(data, folder, cameras)
    for before, name, after in zip(names, names[1:], names[2:], strict=False):
      views = {'image_prev': images[before], 'image_next': images[after]}
      members.append(items.Item(name, images[name], views=views, camera=camera))
  if not members:
    raise errors.UserError(_too_few(data, sequences))
  return {'train': members}


def _natural(name: str) -> str:
  """A key that sorts numbers by their value."""
  return re.sub(r'\d+', lambda match: match[0].zfill(30), name)


def _folder(path: str) -> str:
  return path.rpartition('/')[0]


def _nearest(
  data: raw.Raw, folder: str, cameras: Mapping[str, raw.Entry]
) -> raw.Entry:
  """The camera of a folder, or of the closest one above it that has one."""
  above = folder
  while above and above not in cameras:
    above = _folder(above)
  if above in cameras:
    return cameras[above]
  own, shared = data.root / folder, data.root
  choice = f', or {shared}/intrinsics.txt for all,' if folder else ''
  raise errors.UserError(
    f'the images in {own} have no camera: expected {own}/intrinsics.txt'
    f'{choice} with {_FORM}'
  )


def _too_few(data: raw.Raw, sequences: Mapping[str, Sequence[str]]) -> str:
  folder = max(sequences, key=lambda name: len(sequences[name]))
  return (
    f'no folder in {data.root} has 3 consecutive images: {data.root / folder} '
    f'has {len(sequences[folder])}'
  )


def read_camera(data: bytes, where: str) -> items.Camera:
  """The camera in an intrinsics.txt: fx fy cx cy, or a matrix of three lines.

  Args:
    data: the file's bytes.
    where: its path, for messages.

  Raises:
    errors.UserError: something else, or no numbers of pixels.
  """
  try:
    fx, fy, cx, cy = _numbers(data.decode('utf-8-sig'))
  except ValueError as error:
    raise errors.UserError(
      f'{where} is no camera: expected {_FORM}, or the matrix '
      "'fx 0 cx', '0 fy cy', '0 0 1' on three lines"
    ) from error
  if min(fx, fy) < _FEWEST_PIXELS:
    raise errors.UserError(
      f'{where} has the focal lengths {fx:g} and {fy:g}, which are no pixels: '
      "multiply fx and cx by the image's width, fy and cy by its height"
    )
  return items.Camera((fx, fy, cx, cy))


def _numbers(text: str) -> tuple[float, float, float, float]:
  """fx, fy, cx, cy of a camera's text; `ValueError` for any other."""
  lines = [line.split() for line in text.splitlines()]
  rows = [[float(word) for word in line] for line in lines if line]
  if len(rows) == 1:
    fx, fy, cx, cy = rows[0]
  else:
    (fx, _, cx), (_, fy, cy), _ = rows
    if rows != [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]:
      raise ValueError('no matrix of a camera without skew')
  if not all(map(math.isfinite, (fx, fy, cx, cy))) or min(fx, fy) <= 0:
    raise ValueError('no camera has such numbers')
  return fx, fy, cx, cy


LAYOUT = layouts.Layout(
  name='frames',
  find=find,
  # There are no labels.
  to_train_id=np.full(256, labels.IGNORE, np.uint8),
  read_camera=read_camera,
  resize='pil_bicubic',
)
