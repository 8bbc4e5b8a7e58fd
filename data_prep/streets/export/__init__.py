"""Writes street scenes in the exact layout of real data sets.

So the readers of real data, and training on it, are tried without the data:
`python -m data_prep.streets.export LAYOUT OUT --n=4 --size=HxW`. One module
per layout; each turns scenes into files, `writer` into a tree or into zips
with the official names.
"""

from __future__ import annotations

from data_prep.streets.export.cityscapes import export_cityscapes
from data_prep.streets.export.cli import main
from data_prep.streets.export.frames import export_frames
from data_prep.streets.export.gta5 import export_gta5
from data_prep.streets.export.idd import export_idd
from data_prep.streets.export.synthia import export_synthia

__all__ = [
  'export_cityscapes',
  'export_frames',
  'export_gta5',
  'export_idd',
  'export_synthia',
  'main',
]
