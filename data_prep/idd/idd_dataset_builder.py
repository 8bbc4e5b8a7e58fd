"""TFDS builder `idd`: Varma et al., IDD (WACV 2019)."""

from __future__ import annotations

import tensorflow_datasets as tfds

from data_prep import raw_builder
from data_prep.idd import layout


class Builder(raw_builder.RawBuilder):
  """IDD: frames of Indian streets, labelled with polygons; parts I and II.

  Labels of `train` are taken where they are, and never looked for by training
  on a target domain. `test` has none.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}  # noqa: RUF012 (TFDS' contract)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Extract the archives of IDD Segmentation, part I, part II or both, there, '
    'so that it holds leftImg8bit/ and gtFine/ or folders with these.'
  )
  HOMEPAGE = 'https://idd.insaan.iiit.ac.in'
  LAYOUT = layout.LAYOUT
