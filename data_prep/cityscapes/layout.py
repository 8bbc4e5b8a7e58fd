"""Where the files of Cityscapes lie, and which split each belongs to."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from data_prep import items, layouts, official, raw
from jaxseg_da import errors
from jaxseg_da.classes import labels

# The official folders -> our splits.
_SPLITS = {
  'train': 'train',
  'val': 'validation',
  'test': 'test',
  'train_extra': 'train_extra',
}
# The same folders -> the package of their labels. Those of test are dummies.
_LABELS = {'train': 'gtFine', 'val': 'gtFine', 'train_extra': 'gtCoarse'}
# City, sequence, frame.
_ID = r'([A-Za-z][A-Za-z-]*_\d{6}_\d{6})'


def find(data: raw.Raw) -> layouts.Splits:
  """The frames of all splits, with what the optional packages add to them.

  Raises:
    errors.UserError: no images, or two files of one kind for one frame.
  """
  anywhere = '|'.join(_SPLITS)
  images = _find(data, f'leftImg8bit/(?:{anywhere})', r'leftImg8bit\.png')
  if not images:
    raise layouts.nothing_found(
      data,
      f'Cityscapes images in {data.root}: expected '
      'leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png, extracted or in '
      'leftImg8bit_trainvaltest.zip',
    )
  labelled = '|'.join(f'{kind}/{folder}' for folder, kind in _LABELS.items())
  ids = _find(data, f'(?:{labelled})', r'gt(?:Fine|Coarse)_labelIds\.png')
  right, disparity, camera = (
    _find(data, f'{kind}/(?:{anywhere})', ending)
    for kind, ending in (
      ('rightImg8bit', r'rightImg8bit\.png'),
      ('disparity', r'disparity\.png'),
      ('camera', r'camera\.json'),
    )
  )
  video = _neighbours(data, anywhere, images)
  splits: layouts.Splits = {split: [] for split in _SPLITS.values()}
  for name, image in images.items():
    folder, city, _ = image.path.split('/')[-3:]
    views = {
      'image_right': right.get(name),
      'image_prev': video.get(_shifted(name, -1)),
      'image_next': video.get(_shifted(name, 1)),
    }
    item = items.Item(
      image_id=name,
      image=image,
      depth=disparity.get(name),
      views={view: file for view, file in views.items() if file},
      camera=camera.get(name),
    )
    if folder in _LABELS:
      kind = _LABELS[folder]
      item = item._replace(
        label_name=f'{kind}/{folder}/{city}/{name}_{kind}_labelIds.png',
        label=ids.get(name),
      )
    splits[_SPLITS[folder]].append(item)
  return splits


def _find(
  data: raw.Raw,
  folder: str,
  ending: str,
  key: Callable[[re.Match[str]], str | None] | None = None,
) -> dict[str, raw.Entry]:
  """Files FOLDER/CITY/ID_ENDING by id, whatever split they lie in."""
  return data.find(rf'{folder}/[^/]+/{_ID}_{ending}', key)


def _neighbours(
  data: raw.Raw, folders: str, names: Iterable[str]
) -> dict[str, raw.Entry]:
  """The frames before and after each; the package has 28 more of each."""
  wanted = {_shifted(name, by) for name in names for by in (-1, 1)}
  return _find(
    data,
    f'leftImg8bit_sequence/(?:{folders})',
    r'leftImg8bit\.png',
    lambda match: match[1] if match[1] in wanted else None,
  )


def _shifted(name: str, frames: int) -> str:
  """The id of the frame so many frames later."""
  return f'{name[:-6]}{int(name[-6:]) + frames:06d}'


def read_camera(data: bytes, where: str) -> items.Camera:
  """The left camera of a calibration file.

  Args:
    data: the file's bytes.
    where: its path, for messages.

  Raises:
    errors.UserError: no JSON, or a number is missing or no number.
  """
  try:
    camera = json.loads(data)
  except (ValueError, RecursionError) as error:
    raise errors.UserError(
      f'{where} cannot be decoded: no JSON ({error})'
    ) from error
  fx, fy, cx, cy, baseline = (
    _number(camera, where, *keys)
    for keys in (
      ('intrinsic', 'fx'),
      ('intrinsic', 'fy'),
      ('intrinsic', 'u0'),
      ('intrinsic', 'v0'),
      ('extrinsic', 'baseline'),
    )
  )
  return items.Camera((fx, fy, cx, cy), baseline)


def _number(camera: Any, where: str, group: str, key: str) -> float:
  try:
    number = float(camera[group][key])
  except (TypeError, LookupError, ValueError, OverflowError):
    number = math.nan
  if not math.isfinite(number):
    raise errors.UserError(
      f'{where} is no camera of Cityscapes: it has no number {group}.{key}'
    )
  return number


LAYOUT = layouts.Layout(
  name='cityscapes',
  find=find,
  to_train_id=labels.CITYSCAPES_ID_TO_TRAIN_ID,
  labelled=('validation',),
  depth_kind='disparity',
  # Also CorDA's depth: the stereo completion, and its own network's.
  depth_key=_ID
  + r'_(?:disparity\.png|depth_stereoscopic\.mat|leftImg8bit\.png)',
  read_camera=read_camera,
  resize='pil_bicubic',  # AdaptSegNet, ADVENT
  expected={
    'train': 2975,
    'validation': 500,
    'test': 1525,
    'train_extra': 19998,
  },
  official=official.Official(
    title='Cityscapes',
    sizes=((1024, 2048),),
    # The archive of coarse labels has many whose images are in another one.
    label_key=rf'gtFine/(?:train|val)/[^/]+/{_ID}_gtFine_labelIds\.png',
    reference='Cityscapes train',
  ),
)
