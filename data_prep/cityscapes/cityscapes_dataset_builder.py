"""TFDS builder `cityscapes`: Cordts et al., The Cityscapes Dataset (2016)."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds

from data_prep import builders, common
from jaxseg_da import errors, labels

_SUFFIX = '_leftImg8bit.png'
_NAME = re.compile(r'[A-Za-z][A-Za-z-]*_\d{6}_\d{6}' + re.escape(_SUFFIX))
_FOLDERS = {'train': 'train', 'validation': 'val', 'test': 'test'}


class Builder(builders.DrivingBuilder):
  """Cityscapes: 5,000 finely annotated frames of German and Swiss streets.

  Labels of `train` are taken where they are, and never looked for by training
  on a target domain. The official labels of `test` are dummies: stored as 255.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}  # noqa: RUF012 (TFDS' contract)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Extract leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip into one '
    'folder, so that it holds leftImg8bit/ and gtFine/.'
  )
  HOMEPAGE = 'https://www.cityscapes-dataset.com'
  RESIZE = 'pil_bicubic'  # AdaptSegNet, ADVENT: Pillow's bicubic.

  def schema(self) -> Any:
    """See base class."""
    return builders.features()

  def plan(
    self, manual_dir: pathlib.Path | None
  ) -> Mapping[str, builders.Split]:
    """See base class."""
    assert manual_dir is not None
    splits = {
      name: self._split(manual_dir, name, folder)
      for name, folder in _FOLDERS.items()
    }
    if not any(split.count for split in splits.values()):
      raise errors.UserError(
        f'no Cityscapes images in {manual_dir}: expected {manual_dir}/'
        'leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png'
      )
    return splits

  def _split(
    self, root: pathlib.Path, name: str, folder: str
  ) -> builders.Split:
    pairs = []
    images = (root / 'leftImg8bit' / folder).glob(f'*/*{_SUFFIX}')
    for image in sorted(p for p in images if _NAME.fullmatch(p.name)):
      image_id = image.name.removesuffix(_SUFFIX)
      label = root.joinpath(
        'gtFine', folder, image.parent.name, f'{image_id}_gtFine_labelIds.png'
      )
      # Training splits do without labels, the validation split cannot.
      absent = name == 'train' and not label.exists()
      pairs.append(
        common.Pair(
          image_id=image_id,
          image=image,
          label=None if absent or name == 'test' else label,
          size=self.storage_size,
          resize=self.RESIZE,
        )
      )
    labelled = all(pair.label for pair in pairs)
    table = labels.CITYSCAPES_ID_TO_TRAIN_ID
    return builders.pair_split(self, pairs, table, labelled=labelled)
