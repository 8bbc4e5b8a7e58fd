"""A procedural street world: images, labels, depth, instances, views.

Plain NumPy. Labels, instances and depth are the same on every platform.
"""

from __future__ import annotations

from data_prep.streets.world.domains import (
  CITY,
  GTA,
  PRESETS,
  Domain,
  domain,
  mix,
)
from data_prep.streets.world.render import (
  View,
  depth_to_centimetres,
  render_example,
  render_view,
  scene_seed,
)
from data_prep.streets.world.scene import Scene, ground_class, make_scene

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
  'render_example',
  'render_view',
  'scene_seed',
]
