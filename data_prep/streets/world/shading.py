"""Colours of a geometry buffer: materials, texture, light, sky, shadows.

Every value is a function of coordinates on the surface (or of the direction,
for the sky), so two views of a scene agree. All arrays are float32.
"""

from __future__ import annotations

import numpy as np

from data_prep.streets.world import (
  domains,
  geometry,
  hashing,
  patterns,
  surfaces,
)
from data_prep.streets.world import materials as m
from data_prep.streets.world import scene as scene_lib
from data_prep.streets.world.geometry import Face
from data_prep.streets.world.surfaces import Points, Table


def shade(
  buffer: geometry.Buffer,
  rays: geometry.Rays,
  scene: scene_lib.Scene,
  domain: domains.Domain,
  label: np.ndarray,
) -> np.ndarray:
  """The radiance image before the camera: float32 `[H, W, 3]`, 0 to 255."""
  table = surfaces.make_table(buffer, rays, domain)
  points = surfaces.make_points(buffer, rays, table, label)
  colour = np.take(table.colour, points.index, axis=0)
  special = np.nonzero(buffer.part.reshape(-1))[0]
  codes = buffer.part.reshape(-1)[special]
  own = colour[special] * m.PART_OWN[codes][:, None]
  colour[special] = own + m.PART_FIXED[codes]
  patterns.ground(colour, points, scene, domain)
  patterns.buildings(colour, points, table)
  patterns.barriers(colour, points, table)
  gain = _texture(points, table, domain)
  gain *= _light(points, table, scene, domain)
  colour *= gain[:, None]
  image = colour.reshape(*label.shape, 3)
  _sky(image, buffer, rays, scene, domain)
  _shadows(image, buffer, rays, scene, domain)
  return image


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
  edges = [
    rays.cx + rays.f * e / z for e in (x0, x1) for z in (max(z0, 0.8), z1)
  ]
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
