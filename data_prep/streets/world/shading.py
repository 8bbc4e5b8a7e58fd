"""Colours of a geometry buffer: materials, patterns, texture, light, sky.

Every pattern is a function of coordinates on the surface, so two views of a
scene agree. All arrays are float32 once the geometry is done.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_prep.streets.world import domains, geometry, hashing
from data_prep.streets.world import materials as m
from data_prep.streets.world import scene as scene_lib
from data_prep.streets.world.geometry import Face
from data_prep.streets.world.materials import Part

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
    (150, 60, 52), (58, 84, 120), (70, 104, 76), (170, 140, 80), (84, 78, 76),
    (120, 80, 110),
  ],
  np.float32,
)


class Points(NamedTuple):
  """Surface coordinates of all pixels, flattened to `[H * W]`.

  Attributes:
    label: uint8 class.
    index: surface index of the buffer.
    face: `Face`.
    p: metres along the surface.
    q: metres up the surface, or ahead on level ones.
    grain: metres per pixel along p.
    a: ray slope to the right.
  """

  label: np.ndarray
  index: np.ndarray
  face: np.ndarray
  p: np.ndarray
  q: np.ndarray
  grain: np.ndarray
  a: np.ndarray


class Table(NamedTuple):
  """Per-surface values, to be gathered by surface index."""

  label: np.ndarray
  colour: np.ndarray
  seed: np.ndarray
  style: np.ndarray
  variant: np.ndarray
  x: np.ndarray
  z: np.ndarray
  half: np.ndarray
  height: np.ndarray


def _table(
  buffer: geometry.Buffer, rays: geometry.Rays, domain: domains.Domain
) -> Table:
  """Per-surface columns; the first rows stand for sky and ground."""
  ground = scene_lib.Thing(m.ROAD, 0.0, 0.0, 1.0, 1.0, seed=11)
  first = geometry.FIRST_THING
  things = [ground] * first + [s.thing for s in buffer.surfaces]
  column = lambda name, kind: np.array(
    [getattr(thing, name) for thing in things], kind
  )
  label = np.array(buffer.surface_labels())
  tint = column('tint', np.float32) * _tint_gain(domain)[label][:, None]
  colour = np.array(domain.palette, np.float32)[label] + tint
  return Table(
    label=label,
    colour=np.maximum(colour, 12),
    seed=column('seed', np.uint32),
    style=column('style', np.int32),
    variant=column('variant', np.int32),
    x=np.array([0.0] * first + [s.x for s in buffer.surfaces], np.float32),
    z=column('z', np.float32) - np.float32(rays.z),
    half=column('width', np.float32) / 2,
    height=column('height', np.float32),
  )


def _points(
  buffer: geometry.Buffer, rays: geometry.Rays, table: Table, label
) -> Points:
  """Surface coordinates of all pixels; meaningless for the sky."""
  shape = label.shape
  depth64 = np.minimum(buffer.depth, 1e3)
  depth = depth64.astype(np.float32)
  a = rays.a.astype(np.float32)[None]
  b = rays.b.astype(np.float32)[:, None]
  x = table.x[buffer.surface]
  p = a * depth - x
  q = np.float32(rays.height) - b * depth
  grain = depth / np.float32(rays.f)
  side = np.nonzero(buffer.face == Face.SIDE)
  z = table.z[buffer.surface[side]]
  p[side] = depth[side] - z
  grain[side] /= np.maximum(np.abs(a[0]), np.float32(0.01))[side[1]]
  level = np.nonzero(buffer.face == Face.TOP)
  q[level] = depth[level] - table.z[buffer.surface[level]]
  ground = np.nonzero(buffer.face == Face.GROUND)
  q[ground] = depth64[ground] + rays.z
  p[ground] = geometry.ground_x(rays, rays.a[ground[1]], depth64[ground])
  grain[ground] /= np.maximum(b[:, 0], np.float32(0.03))[ground[0]]
  a = np.broadcast_to(a, shape)
  arrays = (label, buffer.surface, buffer.face, p, q, grain, a)
  return Points(*(array.reshape(-1) for array in arrays))


def shade(
  buffer: geometry.Buffer,
  rays: geometry.Rays,
  scene: scene_lib.Scene,
  domain: domains.Domain,
  label: np.ndarray,
) -> np.ndarray:
  """The radiance image before the camera: float32 `[H, W, 3]`, 0 to 255."""
  table = _table(buffer, rays, domain)
  points = _points(buffer, rays, table, label)
  colour = np.take(table.colour, points.index, axis=0)
  special = np.nonzero(buffer.part.reshape(-1))[0]
  codes = buffer.part.reshape(-1)[special]
  own = colour[special] * m.PART_OWN[codes][:, None]
  colour[special] = own + m.PART_FIXED[codes]
  _ground_patterns(colour, points, scene, domain)
  _building_patterns(colour, points, table)
  _barrier_patterns(colour, points, table)
  gain = _texture(points, table, domain)
  gain *= _light(points, table, scene, domain)
  colour *= gain[:, None]
  image = colour.reshape(*label.shape, 3)
  _sky(image, buffer, rays, scene, domain)
  _shadows(image, buffer, rays, scene, domain)
  return image


def _tint_gain(domain: domains.Domain) -> np.ndarray:
  """Standard deviation of the colour offset per class."""
  gain = np.full(19, domain.tint, np.float32)
  gain[[m.CAR, m.PERSON, m.RIDER, m.TRUCK, m.BUS]] *= 1.8
  gain[[m.ROAD, m.SIDEWALK, m.TERRAIN, m.SKY]] = 0
  gain[[m.POLE, m.LIGHT, m.VEGETATION, m.BICYCLE]] *= 0.6
  return gain


def _sky(image, buffer, rays, scene, domain) -> None:
  """A gradient with clouds, fixed to the viewing direction."""
  v, u = np.nonzero(buffer.surface == 0)
  b = rays.b[v]
  down = np.clip(b / 0.42 + 1, 0, 1).astype(np.float32)[:, None]
  top, horizon = np.array(domain.sky, np.float32)
  x, y = rays.a[u] * 4, b * 13
  seed = scene.seed & 0xFFFFFFFF
  cloud = hashing.value_noise(x, y, seed)
  cloud += np.float32(0.5) * hashing.value_noise(x * 2.7, y * 2.7, seed ^ 1)
  cloud = np.clip(cloud * np.float32(1.5), 0, 1)[:, None]
  cloud *= np.float32(domain.clouds * domain.texture)
  image[v, u] = top + (horizon - top) * down + cloud


def _texture(points: Points, table: Table, domain) -> np.ndarray:
  """Multiplicative texture of two octaves, faded where it would alias."""
  along, up, coarse, fine = (
    np.take(column, points.index) for column in m.TEXTURES[table.label].T.copy()
  )
  seed = np.take(table.seed, points.index)
  sharp = np.float32(0.6) / (along * points.grain)
  x, y = points.p * along, points.q * up
  gain = hashing.value_noise(x, y, seed)
  gain *= coarse * np.minimum(sharp, 1)
  fine = fine * np.minimum(sharp * np.float32(0.25), 1)
  near = np.nonzero(fine > 0.004)[0]
  gain[near] += fine[near] * hashing.value_noise(
    x[near] * 4, y[near] * 4, seed[near] + np.uint32(1)
  )
  return 1 + np.float32(domain.texture) * gain


def _light(points: Points, table: Table, scene, domain) -> np.ndarray:
  """Directional light by face; cards are rounded across."""
  sun = np.float32(domain.sun)
  by_face = np.ones(len(Face), np.float32)
  by_face[Face.END] = 1 - 0.12 * sun
  by_face[Face.TOP] = 1 + 0.3 * sun
  by_face[Face.SLOPE] = 1 + 0.12 * sun
  light = by_face[points.face]
  sides = np.nonzero(points.face == Face.SIDE)[0]
  towards = points.a[sides] * scene.sun_side < 0
  light[sides] = np.where(towards, 1 + 0.5 * sun, 1 - 0.45 * sun)
  cards = np.nonzero(points.face == Face.CARD)[0]
  half = table.half[points.index[cards]]
  round_ = np.float32(0.35) * sun * scene.sun_side
  light[cards] += round_ * points.p[cards] / half
  return light


def _ground_patterns(colour, points: Points, scene, domain) -> None:
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


def _building_patterns(colour, points: Points, table: Table) -> None:
  """Windows, storey lines, shops and roofs."""
  where = np.nonzero((points.label == m.BUILDING) & (points.face != Face.TOP))[0]
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


def _barrier_patterns(colour, points: Points, table: Table) -> None:
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
    style == 0, p % 0.36 > 0.17,
    np.where(style == 1, ((p + q) % 0.3 > 0.1) & ((p - q) % 0.3 > 0.1),
             q % 0.5 > 0.2),
  )
  fine = np.where(style == 2, 0.5, 0.33).astype(np.float32)
  dark = np.where(grain < fine * 0.6, np.where(gap, 0.56, 1.0), 0.78)
  bond = np.floor(q / 0.25)
  joint = np.where(
    style == 0, p % 2.4 < 0.1,
    np.where(style == 1, (q % 0.25 < 0.05) | ((p + 0.3 * bond) % 0.6 < 0.06),
             (q % 0.5 < 0.07) | ((p + 0.45 * bond) % 0.9 < 0.08)),
  )
  mortar = np.where(joint & (grain < 0.3), 0.8, 1.0)
  gain = np.where(fence, np.where(top, 1.08, dark), np.where(top, 1.1, mortar))
  colour[where] *= gain.astype(np.float32)[:, None]


def _shadows(image, buffer, rays, scene, domain) -> None:
  """Contact shadows on the ground, stretched away from the sun."""
  reach = np.float32(domain.sun * 1.6)
  for surface in buffer.surfaces:
    thing = surface.thing
    if thing.label in (m.BUILDING, m.WALL, m.FENCE, m.LIGHT, m.SIGN, m.RIDER):
      continue
    if thing.base > 1 or (thing.label == m.VEGETATION and thing.length):
      continue
    _shadow(image, buffer, rays, scene, thing, surface.x, reach, domain)


def _shadow(image, buffer, rays, scene, thing, x, reach, domain) -> None:
  depth = max(thing.length, min(0.5, thing.width))
  z0, z1 = thing.z - rays.z - 0.15, thing.z - rays.z + depth + 0.15
  if z1 < 1:
    return
  horizon = rays.cy + rays.f * rays.height / z1
  front = rays.cy + rays.f * rays.height / max(z0, 0.8)
  height, width = buffer.depth.shape
  top, bottom = max(0, int(np.ceil(horizon))), min(height, int(front) + 1)
  tall = min(thing.height, 3.0) * float(reach)
  x0 = x - thing.width / 2 - (tall if scene.sun_side > 0 else 0.05)
  x1 = x + thing.width / 2 + (tall if scene.sun_side < 0 else 0.05)
  edges = [rays.cx + rays.f * e / z for e in (x0, x1) for z in (max(z0, 0.8), z1)]
  left = max(0, int(np.ceil(max(min(edges), 0))))
  right = min(width, int(min(max(edges), width)) + 1)
  if top >= bottom or left >= right:
    return
  box = (slice(top, bottom), slice(left, right))
  z = (rays.height / rays.b[top:bottom])[:, None]
  across = rays.a[None, left:right] * z
  inside = (across > x0) & (across < x1) & (z > z0) & (z < z1)
  inside &= buffer.face[box] == Face.GROUND
  strength = np.float32(0.55 - 0.2 * domain.sun)
  image[box][inside] *= strength
