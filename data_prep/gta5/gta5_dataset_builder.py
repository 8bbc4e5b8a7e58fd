"""TFDS builder `gta5`: Richter et al., Playing for Data (ECCV 2016)."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds

from data_prep import builders, common
from jaxseg_da import errors, labels

_NAME = re.compile(r'\d{5}\.png')

# Pairs that cannot be used, with the reason; left out of the build.
KNOWN_BAD = {
  '15188': 'image and label have different sizes',
  '17705': 'image and label have different sizes',
}


class Builder(builders.DrivingBuilder):
  """GTA5: 24,966 frames of a game with Cityscapes label ids.

  TFDS reserves the name `all` for the union of the splits. Without the authors'
  id lists there is one stored split, `unsplit`, and `all` is that one.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}  # noqa: RUF012 (TFDS' contract)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Extract 01_images.zip .. 10_images.zip and 01_labels.zip .. '
    '10_labels.zip into one folder, so that it holds images/ and labels/.'
  )
  HOMEPAGE = 'https://download.visinf.tu-darmstadt.de/data/from_games/'
  RESIZE = 'pil_bicubic'  # AdaptSegNet, ADVENT, DACS: Pillow's bicubic.
  ALL = ('unsplit',)

  def schema(self) -> Any:
    """See base class."""
    return builders.features()

  def plan(
    self, manual_dir: pathlib.Path | None
  ) -> Mapping[str, builders.Split]:
    """See base class."""
    assert manual_dir is not None
    pairs = [
      common.Pair(
        image_id=image.stem,
        image=image,
        label=manual_dir / 'labels' / image.name,
        size=self.storage_size,
        resize=self.RESIZE,
      )
      for image in sorted((manual_dir / 'images').glob('*.png'))
      if _NAME.fullmatch(image.name) and image.stem not in KNOWN_BAD
    ]
    if not pairs:
      raise errors.UserError(
        f'no GTA5 images in {manual_dir}: expected {manual_dir}/images/'
        '00001.png and so on, and the same names in labels/'
      )
    table = labels.GTA5_ID_TO_TRAIN_ID
    return {'unsplit': builders.pair_split(self, pairs, table, labelled=True)}
