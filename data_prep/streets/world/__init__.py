"""A procedural street world: images, labels, depth, instances, views.

Plain NumPy. Labels, instances and depth are the same on every platform.
"""

from __future__ import annotations

from data_prep.streets.world.domains import Domain, mix
from data_prep.streets.world.grammar import make_scene
from data_prep.streets.world.presets import CITY, GTA, PRESETS, domain, names
from data_prep.streets.world.render import (
  View,
  depth_to_centimetres,
  render_example,
  render_view,
  scene_seed,
)
from data_prep.streets.world.scene import Scene, ground_class

__all__ = [
  'CITY',
  'GTA',
  'PRESETS',
  'Domain',
  'Scene',
  'View',
  'depth_to_centimetres',
  'domain',
  'ground_class',
  'make_scene',
  'mix',
  'names',
  'render_example',
  'render_view',
  'scene_seed',
]
