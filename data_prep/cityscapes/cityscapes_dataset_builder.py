"""TFDS builder `cityscapes`: Cordts et al., The Cityscapes Dataset (2016)."""

from __future__ import annotations

import tensorflow_datasets as tfds

from data_prep import raw_builder
from data_prep.cityscapes import layout


class Builder(raw_builder.RawBuilder):
  """Cityscapes: 5,000 finely annotated frames of German and Swiss streets.

  Labels of `train` are taken where they are, and never looked for by training
  on a target domain. The official labels of `test` are dummies: stored as 255.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}  # noqa: RUF012 (TFDS' contract)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Put leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip there, or '
    'extract both there into leftImg8bit/ and gtFine/.'
  )
  HOMEPAGE = 'https://www.cityscapes-dataset.com'
  LAYOUT = layout.LAYOUT
