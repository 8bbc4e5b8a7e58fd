"""The analytic renderer: ground, extruded solids and upright cards.

Everything that decides labels, instances or depth is computed with additions,
products, divisions, comparisons and floors of float64 values, in a fixed
order, so it is the same on every platform.

Camera frame: x right, y up (relative to the camera), z ahead. A pixel looks
along `(a, -b, 1)`, with `a = (u - c_x) / f` and `b = (v - c_y) / f`, so a point
at depth z has x = a z and lies b z below the camera.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from data_prep.streets.world import materials as m
from data_prep.streets.world import scene as scene_lib

NEAR = 0.6  # nothing closer than this is drawn
GROUND_END = 172.0  # the ground is drawn up to this depth
# Surface indices: 0 is the sky, then the kinds of ground, then the things.
GROUND = (m.ROAD, m.SIDEWALK, m.TERRAIN)
FIRST_THING = 1 + len(GROUND)
_GROUND_INDEX = np.zeros(19, np.int32)
_GROUND_INDEX[list(GROUND)] = range(1, FIRST_THING)


class Face(enum.IntEnum):
  """Which way a visible surface point looks."""

  SKY = 0
  GROUND = 1
  CARD = 2
  END = 3  # towards the camera
  SIDE = 4  # left or right
  TOP = 5
  SLOPE = 6  # up and towards the camera, or away from it


class Rays(NamedTuple):
  """The rays of one view, and where the camera is.

  Attributes:
    a: float64 `[W]`, slopes to the right.
    b: float64 `[H]`, slopes downwards.
    f: focal length in pixels.
    cx: principal column.
    cy: principal (horizon) row.
    x: lateral road coordinate of the camera.
    height: camera height.
    z: distance driven.
    curve: bend of the road.
  """

  a: np.ndarray
  b: np.ndarray
  f: float
  cx: float
  cy: float
  x: float
  height: float
  z: float
  curve: float

  def lateral(self, x: float, z: float) -> float:
    """Camera-frame x of road coordinates `(x, z)`."""
    return x + self.curve * z * z - self.x


def make_rays(
  scene: scene_lib.Scene,
  size: tuple[int, int],
  offset: tuple[float, float] = (0.0, 0.0),
) -> Rays:
  """The rays of a view moved by `offset` = (right, ahead) metres."""
  height, width = size
  f, cx, cy = scene.focal * width, width / 2 - 0.5, scene.horizon * height
  a = (np.arange(width, dtype=np.float64) - cx) / f
  a[a == 0] = 1e-9
  b = (np.arange(height, dtype=np.float64) - cy) / f
  x = scene.lateral + offset[0]
  return Rays(a, b, f, cx, cy, x, scene.height, offset[1], scene.curve)


class Surface(NamedTuple):
  """What shading must know about one drawn thing."""

  thing: scene_lib.Thing
  instance: int
  x: float  # camera-frame centre


class Buffer:
  """The geometry buffer of one view; all arrays are `[H, W]`.

  Attributes:
    depth: float64, planar depth, infinite for the sky.
    surface: int32: 0 sky, 1 to 3 ground, then `surfaces`.
    part: uint8 `materials.Part`.
    face: uint8 `Face`.
    surfaces: what was drawn.
  """

  def __init__(self, size: tuple[int, int]):
    self.depth = np.full(size, np.inf)
    self.surface = np.zeros(size, np.int32)
    self.part = np.zeros(size, np.uint8)
    self.face = np.zeros(size, np.uint8)
    self.surfaces: list[Surface] = []

  def add(self, surface: Surface) -> int:
    """Registers a thing and returns its index for `write`."""
    self.surfaces.append(surface)
    return FIRST_THING - 1 + len(self.surfaces)

  def write(self, where, index: int, depth, part, face) -> None:
    """Stores the fragments at `where`, which were tested against `depth`."""
    self.depth[where] = depth
    self.surface[where] = index
    self.part[where] = part
    self.face[where] = face

  def labels(self) -> np.ndarray:
    """uint8 `[H, W]` train ids."""
    return np.array(self.surface_labels(), np.uint8)[self.surface]

  def surface_labels(self) -> list[int]:
    """Train ids in the order of the surface indices."""
    return [m.SKY, *GROUND, *(s.thing.label for s in self.surfaces)]

  def instances(self) -> np.ndarray:
    """uint16 `[H, W]`: 1 and up for people and vehicles, else 0."""
    ids = [0] * FIRST_THING + [*(s.instance for s in self.surfaces)]
    return np.array(ids, np.uint16)[self.surface]


def draw_ground(buffer: Buffer, rays: Rays, scene: scene_lib.Scene) -> None:
  """Fills the rows below the horizon."""
  rows = np.nonzero(rays.b * GROUND_END > rays.height)[0]
  if not len(rows):
    return
  below = slice(rows[0], None)
  z = (rays.height / rays.b[below])[:, None]
  x = ground_x(rays, rays.a[None], z)
  label = scene_lib.ground_class(scene, x, z + rays.z)
  buffer.depth[below] = z
  buffer.surface[below] = _GROUND_INDEX[label]
  buffer.face[below] = Face.GROUND


def ground_x(rays: Rays, a: np.ndarray, z: np.ndarray) -> np.ndarray:
  """Lateral road coordinate of ground points at slope `a` and depth `z`."""
  ahead = z + rays.z
  return a * z + rays.x - rays.curve * ahead * ahead


class Profile(NamedTuple):
  """A convex polygon in the (z, y) plane, as half planes ny y + nz z <= d."""

  ny: np.ndarray
  nz: np.ndarray
  d: np.ndarray
  faces: np.ndarray


def profile(points: Sequence[tuple[float, float]]) -> Profile:
  """The half planes of a convex, counter-clockwise polygon of (z, y)."""
  nz, ny, d, faces = [], [], [], []
  for (z0, y0), (z1, y1) in zip(points, [*points[1:], points[0]], strict=True):
    edge_y, edge_z = y1 - y0, z0 - z1
    nz.append(edge_y)
    ny.append(edge_z)
    d.append(edge_y * z0 + edge_z * y0)
    upright, level = edge_z == 0, edge_y == 0
    faces.append(Face.END if upright else Face.TOP if level else Face.SLOPE)
  column = lambda values: np.array(values)[:, None]
  return Profile(column(ny), column(nz), column(d), np.array(faces, np.uint8))


class Hits(NamedTuple):
  """Visible points of a solid, as 1-D arrays.

  Attributes:
    where: row and column indices into the buffer.
    z: depth.
    face: `Face`.
    x: camera-frame x.
    y: height above the ground.
  """

  where: tuple[np.ndarray, np.ndarray]
  z: np.ndarray
  face: np.ndarray
  x: np.ndarray
  y: np.ndarray


def cast(
  buffer: Buffer, rays: Rays, x0: float, x1: float, shape: Profile
) -> Hits | None:
  """Intersects the rays with a profile extruded from `x0` to `x1`.

  The profile is in road z and height; `x0` and `x1` are camera-frame x. The
  entry depth is the largest of a per-column and a per-row bound, so only the
  final comparison is two-dimensional.
  """
  near, far = x0 / rays.a, x1 / rays.a
  column_in, column_out = np.minimum(near, far), np.maximum(near, far)
  d = shape.d - shape.ny * rays.height - shape.nz * rays.z
  slope = shape.nz - shape.ny * rays.b
  slope[slope == 0] = 1e-12
  bound = d / slope
  entering = np.where(slope < 0, bound, -np.inf)
  plane = entering.argmax(0)
  row_in = entering.max(0)
  row_out = np.where(slope > 0, bound, np.inf).min(0)
  rows = _span((row_in < row_out) & (row_out > NEAR))
  if rows is None:
    return None
  row_in, row_out = row_in[rows], row_out[rows]
  columns = _span(
    (column_out > max(NEAR, row_in.min())) & (column_in < row_out.max())
  )
  if columns is None:
    return None
  column_in, column_out = column_in[columns][None], column_out[columns][None]
  z = np.maximum(column_in, row_in[:, None])
  end = np.minimum(column_out, row_out[:, None])
  hit = z < np.minimum(end, buffer.depth[rows, columns])
  hit &= z > NEAR
  v, u = np.nonzero(hit)
  if not len(v):
    return None
  z = z[v, u]
  side = column_in[0, u] >= row_in[v]
  face = np.where(side, np.uint8(Face.SIDE), shape.faces[plane[rows]][v])
  v += rows.start
  u += columns.start
  return Hits((v, u), z, face, rays.a[u] * z, rays.height - rays.b[v] * z)


def _span(mask: np.ndarray) -> slice | None:
  """The smallest slice that covers the true entries."""
  found = np.nonzero(mask)[0]
  return slice(int(found[0]), int(found[-1]) + 1) if len(found) else None


def draw_card(
  buffer: Buffer,
  rays: Rays,
  surface: Surface,
  silhouette: Callable[[np.ndarray, np.ndarray, scene_lib.Thing], np.ndarray],
) -> None:
  """Draws an upright card; posts keep a width of at least one pixel."""
  thing = surface.thing
  z = thing.z - rays.z
  if z < NEAR * 2:
    return
  scale = rays.f / z
  half = thing.width / 2 * scale
  u0, u1 = (
    rays.cx + surface.x * scale - half,
    rays.cx + surface.x * scale + half,
  )
  v1 = rays.cy + (rays.height - thing.base) * scale
  v0 = v1 - thing.height * scale
  if thing.label == m.POLE:
    u0, u1, v0, v1 = *_at_least_one(u0, u1), *_at_least_one(v0, v1)
  height, width = buffer.depth.shape
  left, right = max(0, math.ceil(u0)), min(width, math.ceil(u1))
  top, bottom = max(0, math.ceil(v0)), min(height, math.ceil(v1))
  if left >= right or top >= bottom:
    return
  box = (slice(top, bottom), slice(left, right))
  closer = buffer.depth[box] > z
  if not closer.any():
    return
  s = (2 * (np.arange(left, right) - u0) / (u1 - u0) - 1)[None]
  t = ((v1 - np.arange(top, bottom)) / (v1 - v0))[:, None]
  part = silhouette(s, t, thing)
  part = np.broadcast_to(part, closer.shape)
  v, u = np.nonzero(closer & (part != m.Part.HOLE))
  if len(v):
    where = (v + top, u + left)
    buffer.write(where, buffer.add(surface), z, part[v, u], Face.CARD)


def _at_least_one(low: float, high: float) -> tuple[float, float]:
  """Widens an interval of pixels that is shorter than one."""
  if high - low >= 1:
    return low, high
  start = math.floor((low + high) / 2)
  return float(start), start + 1.0
