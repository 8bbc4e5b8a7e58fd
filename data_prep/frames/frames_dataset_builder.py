"""TFDS builder `frames`: any video as triplets of consecutive images."""

from __future__ import annotations

import tensorflow_datasets as tfds

from data_prep import raw_builder
from data_prep.frames import layout


class Builder(raw_builder.RawBuilder):
  """Consecutive images and the camera's intrinsics; no labels.

  An example is an image with the one before and the one after it.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}  # noqa: RUF012 (TFDS' contract)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Put a folder of consecutive images there for each sequence, with an '
    "intrinsics.txt in it or beside it: one line 'fx fy cx cy' in pixels."
  )
  LAYOUT = layout.LAYOUT
