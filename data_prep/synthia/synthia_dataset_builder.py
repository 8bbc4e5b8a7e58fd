"""TFDS builder `synthia`: Ros et al., The SYNTHIA Dataset (CVPR 2016)."""

from __future__ import annotations

import tensorflow_datasets as tfds

from data_prep import raw_builder
from data_prep.synthia import layout


class Builder(raw_builder.RawBuilder):
  """SYNTHIA-RAND-CITYSCAPES: 9,400 rendered frames with depth.

  Of the 19 classes 16 are labelled: there is no terrain, truck or train.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}  # noqa: RUF012 (TFDS' contract)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Extract SYNTHIA_RAND_CITYSCAPES.rar there, so that it holds '
    'RAND_CITYSCAPES/RGB/, GT/LABELS/ and Depth/; a zip of the same may stay '
    'as it is.'
  )
  HOMEPAGE = 'https://synthia-dataset.net'
  LAYOUT = layout.LAYOUT
