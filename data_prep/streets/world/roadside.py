"""Both sides of the street, and what closes it at its far end."""

from __future__ import annotations

from data_prep.streets.world import draft as draft_lib
from data_prep.streets.world import hashing
from data_prep.streets.world import materials as m
from data_prep.streets.world.scene import FAR


def facades(draft: draft_lib.Draft) -> None:
  """Buildings, hedges, walls and fences along each block."""
  r = draft.stream('facades')
  for side in (-1, 1):
    for start, end in draft.blocks():
      z = start
      while z < end - 3.0:
        length = min(r.uniform(*draft.domain.segment), end - z)
        _segment(draft, r, side, z, length)
        z += length


def _segment(
  draft: draft_lib.Draft, r: hashing.Random, side: int, z: float, length: float
) -> None:
  kind = r.choice(draft.domain.styles.roadside)
  edge = draft.road + draft.walk + draft.verge
  if kind == 0:
    _building(
      draft, r, side, z, length, edge + r.uniform(*draft.domain.setback)
    )
  elif kind == 1:
    _solid(
      draft,
      r,
      m.VEGETATION,
      side,
      edge + r.uniform(0, 1),
      z,
      length,
      5.0,
      r.uniform(3.0, 9.0),
    )
  elif kind == 2:
    _solid(
      draft,
      r,
      m.WALL,
      side,
      edge,
      z,
      length,
      0.4,
      r.uniform(1.5, 3.2),
      style=r.choice(draft.domain.styles.wall),
    )
    _behind(draft, r, side, z, length, edge)
  else:
    _solid(
      draft,
      r,
      m.FENCE,
      side,
      edge,
      z,
      length,
      0.15,
      r.uniform(1.1, 2.1),
      style=r.choice(draft.domain.styles.fence),
    )
    _behind(draft, r, side, z, length, edge)


def _behind(
  draft: draft_lib.Draft,
  r: hashing.Random,
  side: int,
  z: float,
  length: float,
  edge: float,
) -> None:
  """Something taller behind a wall or fence."""
  distance = edge + r.uniform(3.0, 14.0)
  if r.chance(0.5):
    _building(draft, r, side, z, length, distance)
  else:
    height = r.uniform(4.0, 10.0)
    _solid(draft, r, m.VEGETATION, side, distance, z, length, 5.0, height)


def _building(
  draft: draft_lib.Draft,
  r: hashing.Random,
  side: int,
  z: float,
  length: float,
  x: float,
) -> None:
  height = r.uniform(*draft.domain.building_height)
  style = r.choice(draft.domain.styles.building)
  _solid(
    draft,
    r,
    m.BUILDING,
    side,
    x,
    z,
    length,
    14.0,
    height,
    style=style,
    variant=r.integer(6),
  )


def _solid(
  draft: draft_lib.Draft,
  r,
  label,
  side,
  x,
  z,
  length,
  depth,
  height,
  style=0,
  variant=0,
) -> None:
  """A block beside the street whose near side is at distance `x`."""
  draft.add(
    r,
    label,
    x=side * (x + depth / 2),
    z=z,
    width=depth,
    height=height,
    length=length,
    style=style,
    variant=variant,
  )


def backdrop(draft: draft_lib.Draft) -> None:
  """Buildings and trees that close the street at its far end."""
  r = draft.stream('backdrop')
  x = -110.0
  while x < 110.0:
    width = r.uniform(10.0, 26.0)
    green = r.chance(0.35)
    height = r.uniform(*draft.domain.backdrop)
    draft.add(
      r,
      m.VEGETATION if green else m.BUILDING,
      x=x + width / 2,
      z=FAR + r.uniform(0, 12),
      width=width,
      height=height * (0.5 if green else 1.0),
      length=12.0,
      style=r.choice(draft.domain.styles.building),
    )
    x += width
