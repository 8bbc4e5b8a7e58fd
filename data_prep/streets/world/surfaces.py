"""Surface coordinates of pixels and properties of the surfaces drawn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_prep.streets.world import domains, geometry
from data_prep.streets.world import materials as m
from data_prep.streets.world import scene as scene_lib
from data_prep.streets.world.geometry import Face


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


def make_table(
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


def make_points(
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


def _tint_gain(domain: domains.Domain) -> np.ndarray:
  """Standard deviation of the colour offset per class."""
  gain = np.full(19, domain.tint, np.float32)
  gain[[m.CAR, m.PERSON, m.RIDER, m.TRUCK, m.BUS]] *= 1.8
  gain[[m.ROAD, m.SIDEWALK, m.TERRAIN, m.SKY]] = 0
  gain[[m.POLE, m.LIGHT, m.VEGETATION, m.BICYCLE]] *= 0.6
  return gain
