"""The scene under construction: the street's dimensions and what is on it."""

from __future__ import annotations

from collections.abc import Iterator

from data_prep.streets.world import domains, hashing
from data_prep.streets.world.scene import FAR, PARKING, Thing


class Draft:
  """Collects the things of one scene.

  There is one random stream per purpose, so a change of one rate moves
  nothing else. Only content parameters of the domain are read.

  Attributes:
    seed: the scene seed.
    domain: whose content parameters apply.
    things: what was added so far.
    rails: lateral centre of the tram track, or None.
    road, walk, verge, curve, lateral, junctions, lanes: as in `Scene`.
    drive: half width of the moving lanes.
    lane_width: width of one of them.
  """

  def __init__(self, seed: int, domain: domains.Domain):
    self.seed = seed
    self.domain = domain
    self.things: list[Thing] = []
    self._taken: list[tuple[float, float, float, float]] = []
    r = self.stream('road')
    self.road = r.uniform(*domain.road)
    self.walk = r.uniform(*domain.walk)
    has_verge = r.chance(domain.verge)
    self.verge = r.uniform(*domain.verge_width) * has_verge
    parking = PARKING if self.road > 4.4 else 1.0
    self.drive = self.road - parking  # half width of the moving lanes
    self.lanes = max(1, int(self.drive / 3.1))
    self.lane_width = self.drive / self.lanes
    ego_lane = r.integer(self.lanes)
    self.lateral = (ego_lane + 0.5) * self.lane_width + r.uniform(-0.3, 0.3)
    self.curve = r.normal() * domain.curve
    self.junctions = self._junctions()
    self.rails: float | None = None

  def stream(self, purpose: str) -> hashing.Random:
    """The random stream of one purpose."""
    return hashing.Random(self.seed, purpose)

  def add(self, r: hashing.Random, label: int, **values) -> None:
    """Adds a thing with a random seed and tint."""
    seed = r.bits() & 0xFFFFFFFF
    tint = _tint(r.bits())
    self.things.append(Thing(label=label, seed=seed, tint=tint, **values))

  def claim(
    self, x: float, width: float, z: float, length: float, gap: float = 0.8
  ) -> bool:
    """Reserves ground for a vehicle; False where it is already taken."""
    x0, x1 = x - width / 2, x + width / 2
    z0, z1 = z - gap, z + length + gap
    for a0, a1, b0, b1 in self._taken:
      if x0 < a1 and a0 < x1 and z0 < b1 and b0 < z1:
        return False
    self._taken.append((x0, x1, z0, z1))
    return True

  def blocks(self) -> Iterator[tuple[float, float]]:
    """The stretches between crossing streets."""
    start = -6.0
    for z1, z2 in self.junctions:
      yield start, z1 - 1.5
      start = z2 + 1.5
    yield start, FAR

  def _junctions(self) -> tuple[tuple[float, float], ...]:
    r = self.stream('junctions')
    found, z = [], 14.0
    for _ in range(r.poisson(self.domain.junction)):
      z += r.uniform(4.0, 60.0)
      width = r.uniform(7.0, 13.0)
      if z + width < FAR - 15:
        found.append((z, z + width))
      z += width + 12.0
    return tuple(found)


def _tint(bits: int) -> tuple[float, float, float]:
  """A colour offset of unit variance: a shared grey part and a hue."""
  grey, *hue = (
    (((bits >> shift) & 0xFF) + ((bits >> (shift + 8)) & 0xFF) - 255) / 104.5
    for shift in (0, 16, 32, 48)
  )
  red, green, blue = (0.8 * grey + 0.6 * part for part in hue)
  return red, green, blue
