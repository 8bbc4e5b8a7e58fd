"""Patterns painted on ground, buildings and barriers.

Each function changes `colour`, float32 `[H * W, 3]`, in place; patterns are
functions of coordinates on the surface and fade where they would alias.
"""

from __future__ import annotations

import numpy as np

from data_prep.streets.world import hashing
from data_prep.streets.world import materials as m
from data_prep.streets.world import scene as scene_lib
from data_prep.streets.world.geometry import Face
from data_prep.streets.world.surfaces import Points, Table

# Building styles: bay width, storey height, window span across and upwards
# (fractions), glass reflection, first windowed height.
_WINDOWS = np.array(
  [
    (2.6, 3.2, 0.26, 0.74, 0.30, 0.80, 0.3, 0.8),  # office
    (6.0, 3.4, 0.03, 0.97, 0.38, 0.82, 0.5, 0.8),  # ribbon
    (2.1, 3.5, 0.30, 0.70, 0.16, 0.80, 0.25, 3.9),  # old town
    (1.6, 3.6, 0.05, 0.95, 0.08, 0.95, 0.9, 0.3),  # glass
    (3.4, 2.9, 0.18, 0.62, 0.22, 0.78, 0.3, 0.8),  # balconies
  ],
  np.float32,
)
_GLASS = np.array((44, 52, 62), np.float32)
_ROOF = np.array((96, 74, 66), np.float32)
_SHOPS = np.array(
  [
    (150, 60, 52),
    (58, 84, 120),
    (70, 104, 76),
    (170, 140, 80),
    (84, 78, 76),
    (120, 80, 110),
  ],
  np.float32,
)


def ground(colour, points: Points, scene, domain) -> None:
  """Road paint, kerbs, paving joints and tram rails."""
  where = np.nonzero(points.face == Face.GROUND)[0]
  x, z = points.p[where], points.q[where]
  across, label = np.abs(x), points.label[where]
  grain = points.grain[where]
  road = (label == m.ROAD) & (across < scene.road)
  crossing = np.zeros(len(where), bool)
  paint = _centre_line(x, z, scene)
  for z1, z2 in scene.junctions:
    crossing |= (z > z1 - 3.4) & (z < z2 + 3.4)
    stripes = (z > z1 - 3.2) & (z < z1 - 0.5) & (x % 1.2 < 0.6)
    colour[where[stripes & road]] = domain.marking
  width = (scene.road - scene_lib.PARKING) / scene.lanes
  for lane in range(1, scene.lanes):
    paint |= (np.abs(across - lane * width) < 0.08) & (z % 9 < 3.5)
  if scene.road > 4.4:
    inside = scene.road - scene_lib.PARKING
    paint |= (np.abs(across - inside) < 0.05) & (z % 2 < 1)
  yellow = (scene.marking == 0) & (across < 0.5)
  paint &= road & ~crossing
  colour[where[paint]] = domain.marking
  colour[where[paint & yellow]] *= np.array((0.98, 0.8, 0.3), np.float32)
  if scene.rails is not None:
    rail = np.abs(np.abs(x - scene.rails) - 0.72) < 0.05
    colour[where[rail & road]] *= np.float32(0.6)
  walk = label == m.SIDEWALK
  kerb = walk & (across < scene.road + 0.18)
  colour[where[kerb]] *= np.float32(1.12)
  joint = walk & ((x % 1.2 < 0.07) | (z % 1.2 < 0.07)) & (grain < 0.5)
  colour[where[joint]] *= np.float32(0.86)


def _centre_line(x, z, scene) -> np.ndarray:
  """Where the centre line is painted."""
  if scene.marking == 0:
    return np.abs(np.abs(x) - 0.16) < 0.07
  if scene.marking == 1:
    return (np.abs(x) < 0.09) & (z % 6 < 3)
  return np.zeros(x.shape, bool)


def buildings(colour, points: Points, table: Table) -> None:
  """Windows, storey lines, shops and roofs."""
  upright = points.face != Face.TOP
  where = np.nonzero((points.label == m.BUILDING) & upright)[0]
  if not len(where):
    return
  index = points.index[where]
  p, q, grain = points.p[where], points.q[where], points.grain[where]
  style, seed = table.style[index], table.seed[index]
  height = table.height[index]
  bay, storey, x0, x1, y0, y1, mirror, first = _WINDOWS[style].T
  bay = bay * (0.85 + 0.3 * ((seed & np.uint32(255)) / np.float32(256)))
  column, row = p / bay, (q - first) / storey
  x, y = column - np.floor(column), row - np.floor(row)
  window = (x > x0) & (x < x1) & (y > y0) & (y < y1)
  window &= (q > first) & (q < height - 0.7)
  roof = (style == 2) & (q > height - 2.4)
  visible = np.clip(bay / grain / 2 - 0.6, 0, 1)
  share = np.where(window & ~roof, visible, 0)
  share += np.where(window | roof, 0, (1 - visible) * 0.25)
  gleam = hashing.lattice_uniform(column, row, seed)
  own = colour[where]
  glass = _GLASS + (gleam * (30 + 70 * mirror))[:, None] * np.array(
    (0.9, 1.0, 1.1), np.float32
  )
  own += (glass - own) * share[:, None]
  line = (y < 0.06) & (style != 3) & (grain < 0.5)
  own[line] *= np.float32(0.86)
  balcony = (style == 4) & (y < 0.2) & (x > 0.1) & (x < 0.72) & (q > first)
  own[balcony & (grain < 0.7)] *= np.float32(1.16)
  own[roof] = own[roof] * np.float32(0.25) + _ROOF * np.float32(0.72)
  _shops(own, p, q, table.variant[index], style, grain)
  colour[where] = own


def _shops(own, p, q, variant, style, grain) -> None:
  """Ground floors of old-town houses: shop windows under an awning."""
  shop = (style == 2) & (q < 3.6)
  awning = shop & (q > 2.75) & (q < 3.4)
  bay = p / np.float32(3.2)
  inside = bay - np.floor(bay)
  window = shop & (q > 0.5) & (q < 2.75) & (inside > 0.1) & (inside < 0.8)
  own[awning] = _SHOPS[variant[awning]]
  own[window & (grain < 1.2)] = _GLASS * np.float32(0.9)


def barriers(colour, points: Points, table: Table) -> None:
  """Pickets, mesh, rails; panels, bricks, stones."""
  where = np.nonzero((points.label == m.FENCE) | (points.label == m.WALL))[0]
  if not len(where):
    return
  index = points.index[where]
  p, q, grain = points.p[where], points.q[where], points.grain[where]
  style = table.style[index]
  top = q > table.height[index] - 0.12
  fence = points.label[where] == m.FENCE
  gap = np.where(
    style == 0,
    p % 0.36 > 0.17,
    np.where(
      style == 1, ((p + q) % 0.3 > 0.1) & ((p - q) % 0.3 > 0.1), q % 0.5 > 0.2
    ),
  )
  fine = np.where(style == 2, 0.5, 0.33).astype(np.float32)
  dark = np.where(grain < fine * 0.6, np.where(gap, 0.56, 1.0), 0.78)
  bond = np.floor(q / 0.25)
  joint = np.where(
    style == 0,
    p % 2.4 < 0.1,
    np.where(
      style == 1,
      (q % 0.25 < 0.05) | ((p + 0.3 * bond) % 0.6 < 0.06),
      (q % 0.5 < 0.07) | ((p + 0.45 * bond) % 0.9 < 0.08),
    ),
  )
  mortar = np.where(joint & (grain < 0.3), 0.8, 1.0)
  gain = np.where(fence, np.where(top, 1.08, dark), np.where(top, 1.1, mortar))
  colour[where] *= gain.astype(np.float32)[:, None]
