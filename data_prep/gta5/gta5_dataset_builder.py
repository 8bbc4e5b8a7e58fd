"""TFDS builder `gta5`: Richter et al., Playing for Data (ECCV 2016)."""

from __future__ import annotations

import tensorflow_datasets as tfds

from data_prep import raw_builder
from data_prep.gta5 import layout


class Builder(raw_builder.RawBuilder):
  """GTA5: 24,966 frames of a game with Cityscapes label ids.

  TFDS reserves the name `all` for the union of the splits. Without the authors'
  id lists there is one stored split, `unsplit`, and `all` is that one.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}  # noqa: RUF012 (TFDS' contract)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Put 01_images.zip .. 10_images.zip and 01_labels.zip .. 10_labels.zip '
    'there, or extract all of them there into images/ and labels/.'
  )
  HOMEPAGE = 'https://download.visinf.tu-darmstadt.de/data/from_games/'
  LAYOUT = layout.LAYOUT
