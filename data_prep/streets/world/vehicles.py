"""Cars, trucks, buses and trains: extruded profiles with painted parts.

A vehicle is one or two convex profiles, extruded over its width. Profiles are
given from the rear (0) to the front (length); a vehicle that comes towards the
camera is mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from data_prep.streets.world import geometry
from data_prep.streets.world import materials as m
from data_prep.streets.world.geometry import Face
from data_prep.streets.world.materials import Part
from data_prep.streets.world.scene import Thing

# Cars, as fractions of the length: cabin from (rear foot, rear top) to (front
# top, front foot); as fractions of the height: belt line and nose.
_CARS = (
  (0.14, 0.26, 0.56, 0.74, 0.62, 0.52),  # saloon
  (0.0, 0.09, 0.56, 0.77, 0.60, 0.52),  # hatchback
  (0.0, 0.05, 0.62, 0.78, 0.57, 0.50),  # estate
  (0.0, 0.02, 0.74, 0.90, 0.52, 0.44),  # van
  (0.38, 0.42, 0.62, 0.75, 0.58, 0.54),  # pickup
)


class Points(NamedTuple):
  """Surface points in vehicle coordinates, 1-D arrays.

  Attributes:
    face: `Face`; the painted parts differ by face.
    along: metres from the rear.
    s: across, -1 to 1.
    y: height above the ground.
    back: whether an END or SLOPE face is the rear of the vehicle.
  """

  face: np.ndarray
  along: np.ndarray
  s: np.ndarray
  y: np.ndarray
  back: bool


Painter = Callable[[Points, Thing], np.ndarray]


def solids(thing: Thing) -> Iterator[tuple[float, geometry.Profile, Painter]]:
  """Yields (width, profile, painter) of each solid of a vehicle."""
  length, height = thing.length, thing.height
  if thing.label == m.CAR:
    foot, top, front_top, front_foot, belt, nose = _CARS[thing.style]
    body = [(0, 0), (1, 0), (1, nose), (front_foot, belt), (0, belt)]
    cabin = [(foot, belt), (front_foot, belt), (front_top, 1.0), (top, 1.0)]
    yield thing.width, _scaled(thing, body), _car_body
    yield thing.width * 0.9, _scaled(thing, cabin), _car_cabin
  elif thing.label == m.TRUCK:
    cab = 1 - 2.0 / length
    cargo = [(0, 0), (cab - 0.02, 0), (cab - 0.02, 1), (0, 1)]
    front = [(cab, 0), (1, 0), (1, 0.45), (1 - 0.3 / length, 0.8), (cab, 0.8)]
    yield thing.width, _scaled(thing, cargo), _truck_cargo
    yield thing.width * 0.96, _scaled(thing, front), _truck_cab
  elif thing.label == m.BUS:
    body = [(0, 0), (1, 0), (1, 1), (0, 1)]
    yield thing.width, _scaled(thing, body), _bus
  else:
    nose = min(0.9, height * 0.25) / length
    body = [(0, 0), (1, 0), (1, 0.4), (1 - nose, 1), (nose, 1), (0, 0.4)]
    yield thing.width, _scaled(thing, body), _train


def _scaled(thing: Thing, points) -> geometry.Profile:
  """A profile in road coordinates from fractions of length and height."""
  scaled = [(u * thing.length, v * thing.height) for u, v in points]
  if thing.facing > 0:
    return geometry.profile([(thing.z + z, y) for z, y in scaled])
  end = thing.z + thing.length
  return geometry.profile([(end - z, y) for z, y in reversed(scaled)])


def draw(
  buffer: geometry.Buffer, rays: geometry.Rays, surface: geometry.Surface
) -> None:
  """Draws one vehicle."""
  thing, index = surface.thing, None
  for width, shape, painter in solids(thing):
    x0, x1 = surface.x - width / 2, surface.x + width / 2
    hits = geometry.cast(buffer, rays, x0, x1, shape)
    if hits is None:
      continue
    ahead = hits.z + rays.z - thing.z
    along = ahead if thing.facing > 0 else thing.length - ahead
    s = (hits.x - surface.x) / (width / 2)
    points = Points(hits.face, along, s, hits.y, thing.facing > 0)
    part = painter(points, thing)
    keep = part != Part.HOLE
    v, u = hits.where
    if not keep.any():
      continue
    index = buffer.add(surface) if index is None else index
    where = (v[keep], u[keep])
    buffer.write(where, index, hits.z[keep], part[keep], hits.face[keep])


def _layers(points: Points, *layers) -> np.ndarray:
  """Paints `(mask, part)` layers over the body colour."""
  part = np.zeros(points.s.shape, np.uint8)
  for mask, code in layers:
    part[mask] = code
  return part


def _wheels(points: Points, radius: float, *centres: float):
  """Masks of tyres, rims and wheel arches on the sides."""
  squares = [
    (points.along - c) * (points.along - c)
    + (points.y - radius) * (points.y - radius)
    for c in centres
  ]
  distance = np.minimum.reduce(squares) / (radius * radius)
  side = points.face == Face.SIDE
  return side & (distance < 1), side & (distance < 0.3), side & (distance < 1.5)


def _lamp(points: Points) -> Part:
  return Part.TAIL_LAMP if points.back else Part.HEAD_LAMP


def _car_body(points: Points, thing: Thing) -> np.ndarray:
  length, height = thing.length, thing.height
  y, across = points.y, np.abs(points.s)
  end, side = points.face == Face.END, points.face == Face.SIDE
  tyre, rim, arch = _wheels(points, 0.32, 0.18 * length, 0.81 * length)
  edge = (points.along < 0.03 * length) | (points.along > 0.97 * length)
  level = (y > 0.36 * height) & (y < 0.47 * height)
  door = side & (np.abs(points.along - 0.43 * length) < 0.02)
  grille = end & (across < 0.5) & level & (not points.back)
  plate = end & (across < 0.24) & (y > 0.29 * height) & (y < 0.36 * height)
  return _layers(
    points,
    (door, Part.SHADE),
    (side & (y < 0.3), Part.DARK),
    (end & (y < 0.28 * height), Part.DARK),
    (grille, Part.DARK),
    (plate, Part.PLATE),
    (end & level & (across > 0.64), _lamp(points)),
    (side & level & edge, _lamp(points)),
    (arch, Part.DARK),
    (y < 0.2, Part.HOLE),
    (end & (y < 0.24) & (across > 0.6) & (across < 0.94), Part.TYRE),
    (tyre, Part.TYRE),
    (rim, Part.RIM),
  )


def _car_cabin(points: Points, thing: Thing) -> np.ndarray:
  foot, top, front_top, front_foot, belt, _ = _CARS[thing.style]
  length, height = thing.length, thing.height
  up = (points.y / height - belt) / (1 - belt)
  band = (up > 0.06) & (up < 0.88)
  along = points.along / length
  rear = foot + (top - foot) * up + 0.03
  front = front_foot + (front_top - front_foot) * up - 0.03
  side = points.face == Face.SIDE
  closed = (thing.style == 3) & (along < 0.45)  # delivery van
  pillar = np.abs(along - 0.43) < 0.012
  window = side & band & (along > rear) & (along < front) & ~pillar & ~closed
  screen = ~side & (points.face != Face.TOP) & (np.abs(points.s) < 0.88) & band
  return _layers(points, (window | screen, Part.GLASS))


def _truck_cargo(points: Points, thing: Thing) -> np.ndarray:
  y, across = points.y, np.abs(points.s)
  length, height = thing.length, thing.height
  end, side = points.face == Face.END, points.face == Face.SIDE
  tyre, rim, _ = _wheels(points, 0.46, 0.12 * length, 0.25 * length)
  load = Part.METAL if thing.style == 2 else Part.BODY
  seam = end & (across < 0.02)
  ribs = side & (points.along % 1.2 < 0.08)
  if thing.style == 2:
    seam = np.abs(y / height - 0.62) < 0.03
  stripe = (thing.style == 1) & (np.abs(y / height - 0.5) < 0.08)
  return _layers(
    points,
    (y > 0, load),
    (stripe & side, Part.WHITE),
    (seam | ribs, Part.SHADE),
    (y < 1.0, Part.DARK),
    (y < 0.55, Part.HOLE),
    (end & (np.abs(y - 0.85) < 0.09) & (across > 0.68), _lamp(points)),
    (end & (y < 0.75) & (across > 0.48) & (across < 0.94), Part.TYRE),
    (tyre, Part.TYRE),
    (rim, Part.RIM),
  )


def _truck_cab(points: Points, thing: Thing) -> np.ndarray:
  y, across = points.y / thing.height, np.abs(points.s)
  end, side = points.face == Face.END, points.face == Face.SIDE
  tyre, rim, arch = _wheels(points, 0.46, thing.length - 1.1)
  screen = (y > 0.47) & (y < 0.74)
  door = side & screen & (thing.length - points.along < 1.3)
  front = (points.face == Face.SLOPE) | (end & (not points.back))
  return _layers(
    points,
    (front & (y < 0.4) & (across < 0.6), Part.DARK),
    (front & screen & (across < 0.9), Part.GLASS),
    (door, Part.GLASS),
    (end & (y < 0.22) & (y > 0.15) & (across > 0.6), _lamp(points)),
    (arch, Part.DARK),
    (points.y < 0.4, Part.HOLE),
    (end & (points.y < 0.5) & (across > 0.6), Part.TYRE),
    (tyre, Part.TYRE),
    (rim, Part.RIM),
  )


def _bus(points: Points, thing: Thing) -> np.ndarray:
  y, across = points.y / thing.height, np.abs(points.s)
  end, side = points.face == Face.END, points.face == Face.SIDE
  length = thing.length
  tyre, rim, arch = _wheels(points, 0.47, 0.24 * length, 0.8 * length)
  coach = thing.style == 1
  low = 0.5 if coach else 0.42
  band = (y > low) & (y < 0.82)
  pillar = points.along % 1.5 < 0.12
  door = side & (np.abs(points.along % (length / 3) - 1.0) < 0.55)
  door &= (y > 0.12) & (y < 0.8) & (points.s > 0)
  screen_low = (0.5 if coach else 0.56) if points.back else 0.36
  screen = end & (y > screen_low) & (y < 0.82) & (across < 0.88)
  stripe = np.abs(y - (0.36 if coach else 0.9)) < 0.04
  display = end & (y > 0.86) & (y < 0.95) & (across < 0.6)
  lamps = end & (np.abs(y - 0.2) < 0.04) & (across > 0.68)
  engine = end & points.back & (np.abs(y - 0.32) < 0.09) & (across < 0.6)
  return _layers(
    points,
    (stripe & side, Part.WHITE),
    (engine, Part.SHADE),
    (side & band & ~pillar, Part.GLASS),
    (door, Part.GLASS),
    (screen, Part.GLASS),
    (display & (not coach), Part.DISPLAY),
    (y < 0.13, Part.DARK),
    (lamps, _lamp(points)),
    (arch, Part.DARK),
    (points.y < 0.26, Part.HOLE),
    (end & (points.y < 0.34) & (across > 0.6) & (across < 0.92), Part.TYRE),
    (tyre, Part.TYRE),
    (rim, Part.RIM),
  )


def _train(points: Points, thing: Thing) -> np.ndarray:
  y, across = points.y / thing.height, np.abs(points.s)
  side = points.face == Face.SIDE
  nose = ~side & (points.face != Face.TOP)
  tram = thing.style == 1
  band = (y > (0.4 if tram else 0.52)) & (y < 0.8)
  pillar = points.along % 2.2 < 0.25
  door = side & (points.along % 6.6 < 1.3) & (y > 0.1) & (y < 0.8)
  joint = side & (points.along % 9.0 < 0.35)
  stripe = np.abs(y - (0.3 if tram else 0.42)) < 0.05
  windscreen = nose & (y > 0.44) & (y < 0.8) & (across < 0.84)
  display = nose & (y > 0.85) & (y < 0.94) & (across < 0.5)
  lamps = nose & (np.abs(y - 0.24) < 0.035) & (np.abs(across - 0.7) < 0.14)
  livery = (Part.WHITE, Part.RED, Part.YELLOW, Part.WHITE)[thing.variant]
  return _layers(
    points,
    (stripe, livery),
    (side & band & ~pillar, Part.GLASS),
    (door, Part.SHADE),
    (door & band, Part.GLASS),
    (windscreen, Part.GLASS),
    (display, Part.DISPLAY),
    (y < 0.11, Part.DARK),
    (joint, Part.DARK),
    (lamps, _lamp(points)),
    (points.y < 0.1, Part.HOLE),
  )
