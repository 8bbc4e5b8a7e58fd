"""The scene grammar: what stands where in one street.

A scene is drawn from the content parameters of a domain only. Road
coordinates: x to the right of the road's centre line, z ahead of the camera's
start, y up; metres. The road bends by `curve` z^2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from data_prep.streets.world import domains, hashing
from data_prep.streets.world import materials as m

FAR = 150.0  # where the street is closed by a backdrop
PARKING = 2.2  # width of a parking strip
JUNCTION_REACH = 90.0  # how far a crossing street runs to each side


@dataclasses.dataclass(frozen=True)
class Thing:
  """One object: a solid when `length` is positive, else an upright card.

  Attributes:
    label: train id.
    x: lateral centre.
    z: nearest end.
    width: extent along x.
    height: extent along y.
    length: extent along z.
    base: height of the lower edge above the ground.
    style: index into the style table of its kind.
    variant: colour or pattern variant.
    facing: +1 drives away from the camera, -1 towards it.
    seed: texture seed, below 2**32.
    tint: colour offset in units of the domain's tint.
    kind: which drawing rule applies, where the label does not tell.
  """

  label: int
  x: float
  z: float
  width: float
  height: float
  length: float = 0.0
  base: float = 0.0
  style: int = 0
  variant: int = 0
  facing: int = 1
  seed: int = 0
  tint: tuple[float, float, float] = (0.0, 0.0, 0.0)
  kind: str = ''


@dataclasses.dataclass(frozen=True)
class Scene:
  """A street: camera, cross-section, crossing streets and things on it.

  Attributes:
    seed: the scene seed.
    height: camera height.
    focal: focal length in image widths.
    horizon: horizon row as a fraction of the image height.
    lateral: the camera's position across the road.
    road: half width of the carriageway.
    walk: width of the sidewalks.
    verge: width of the green strips.
    curve: bend of the road.
    junctions: `(z1, z2)` of each crossing street.
    rails: lateral centre of the tram track, or None.
    lanes: lanes per direction.
    marking: style of the centre line.
    sun_side: -1 or +1, where the light comes from.
    bonnet: height of the ego bonnet as a fraction of the image.
    baseline: stereo baseline.
    step: distance driven between two frames.
    drift: lateral motion between two frames.
    things: all objects, nearest first.
  """

  seed: int
  height: float
  focal: float
  horizon: float
  lateral: float
  road: float
  walk: float
  verge: float
  curve: float
  junctions: tuple[tuple[float, float], ...]
  rails: float | None
  lanes: int
  marking: int
  sun_side: int
  bonnet: float
  baseline: float
  step: float
  drift: float
  things: tuple[Thing, ...]


def make_scene(seed: int, domain: domains.Domain) -> Scene:
  """Draws the scene of `seed`; only content parameters of `domain` matter."""
  return _Builder(seed, domain).build()


class _Builder:
  """Collects the things of one scene; one random stream per purpose."""

  def __init__(self, seed: int, domain: domains.Domain):
    self.seed = seed
    self.domain = domain
    self.things: list[Thing] = []
    self.taken: list[tuple[float, float, float, float]] = []
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
    return hashing.Random(self.seed, purpose)

  def build(self) -> Scene:
    d = self.domain
    self._facades()
    self._backdrop()
    self._trains()
    self._traffic()
    self._parked()
    self._two_wheelers()
    self._people()
    self._street_furniture()
    self._trees()
    r = self.stream('camera')
    return Scene(
      seed=self.seed,
      height=r.uniform(*d.height),
      focal=r.uniform(*d.focal),
      horizon=r.uniform(*d.horizon),
      lateral=self.lateral,
      road=self.road,
      walk=self.walk,
      verge=self.verge,
      curve=self.curve,
      junctions=self.junctions,
      rails=self.rails,
      lanes=self.lanes,
      marking=r.choice(d.styles.marking),
      sun_side=r.sign(),
      bonnet=d.bonnet,
      baseline=d.baseline,
      step=r.uniform(*d.step),
      drift=r.uniform(-0.04, 0.04),
      things=tuple(sorted(self.things, key=lambda thing: thing.z)),
    )

  # Helpers.

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
    for a0, a1, b0, b1 in self.taken:
      if x0 < a1 and a0 < x1 and z0 < b1 and b0 < z1:
        return False
    self.taken.append((x0, x1, z0, z1))
    return True

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

  def blocks(self) -> Iterator[tuple[float, float]]:
    """The stretches between crossing streets."""
    start = -6.0
    for z1, z2 in self.junctions:
      yield start, z1 - 1.5
      start = z2 + 1.5
    yield start, FAR

  # Both sides of the street.

  def _facades(self) -> None:
    r = self.stream('facades')
    for side in (-1, 1):
      for start, end in self.blocks():
        z = start
        while z < end - 3.0:
          length = min(r.uniform(*self.domain.segment), end - z)
          self._segment(r, side, z, length)
          z += length

  def _segment(
    self, r: hashing.Random, side: int, z: float, length: float
  ) -> None:
    kind = r.choice(self.domain.styles.roadside)
    edge = self.road + self.walk + self.verge
    if kind == 0:
      self._building(r, side, z, length, edge + r.uniform(*self.domain.setback))
    elif kind == 1:
      self._solid(
        r, m.VEGETATION, side, edge + r.uniform(0, 1), z, length, 5.0,
        r.uniform(3.0, 9.0),
      )
    elif kind == 2:
      self._solid(
        r, m.WALL, side, edge, z, length, 0.4, r.uniform(1.5, 3.2),
        style=r.choice(self.domain.styles.wall),
      )
      self._behind(r, side, z, length, edge)
    else:
      self._solid(
        r, m.FENCE, side, edge, z, length, 0.15, r.uniform(1.1, 2.1),
        style=r.choice(self.domain.styles.fence),
      )
      self._behind(r, side, z, length, edge)

  def _behind(
    self, r: hashing.Random, side: int, z: float, length: float, edge: float
  ) -> None:
    """Something taller behind a wall or fence."""
    distance = edge + r.uniform(3.0, 14.0)
    if r.chance(0.5):
      self._building(r, side, z, length, distance)
    else:
      height = r.uniform(4.0, 10.0)
      self._solid(r, m.VEGETATION, side, distance, z, length, 5.0, height)

  def _building(
    self, r: hashing.Random, side: int, z: float, length: float, x: float
  ) -> None:
    height = r.uniform(*self.domain.building_height)
    style = r.choice(self.domain.styles.building)
    self._solid(
      r, m.BUILDING, side, x, z, length, 14.0, height, style=style,
      variant=r.integer(6),
    )

  def _solid(
    self, r, label, side, x, z, length, depth, height, style=0, variant=0
  ) -> None:
    """A block beside the street whose near side is at distance `x`."""
    self.add(
      r, label, x=side * (x + depth / 2), z=z, width=depth, height=height,
      length=length, style=style, variant=variant,
    )

  def _backdrop(self) -> None:
    """Buildings and trees that close the street at its far end."""
    r = self.stream('backdrop')
    x = -110.0
    while x < 110.0:
      width = r.uniform(10.0, 26.0)
      green = r.chance(0.35)
      height = r.uniform(*self.domain.backdrop)
      self.add(
        r, m.VEGETATION if green else m.BUILDING,
        x=x + width / 2, z=FAR + r.uniform(0, 12), width=width,
        height=height * (0.5 if green else 1.0), length=12.0,
        style=r.choice(self.domain.styles.building),
      )
      x += width

  # Traffic.

  def _trains(self) -> None:
    r = self.stream('trains')
    count = r.poisson(self.domain.rates.train)
    if not count:
      return
    outer = self.drive - 1.5 if self.lanes > 1 and r.chance(0.5) else 1.6
    self.rails = -max(1.6, outer) if self.lateral < 3.6 else r.sign() * 1.6
    for _ in range(min(count, 3)):
      z, length = r.near(18.0, 80.0), r.uniform(18.0, 32.0)
      if self.claim(self.rails, 2.6, z, length, gap=3.0):
        self.add(
          r, m.TRAIN, x=self.rails, z=z, width=r.uniform(2.4, 2.65),
          height=r.uniform(3.3, 3.9), length=length,
          style=r.choice(self.domain.styles.train), variant=r.integer(4),
          facing=r.sign(),
        )

  def _traffic(self) -> None:
    rates = self.domain.rates
    for label, rate, start in (
      (m.BUS, rates.bus, 17.0),
      (m.TRUCK, rates.truck, 18.0),
      (m.CAR, rates.car, 9.5),
    ):
      r = self.stream(f'traffic{label}')
      for _ in range(r.poisson(rate)):
        for _ in range(4):
          x, facing = self._lane(r)
          z = r.near(start, 80.0)
          if self._vehicle(r, label, x, z, facing):
            break

  def _lane(self, r: hashing.Random) -> tuple[float, int]:
    """A lane centre, and the direction of its traffic."""
    facing = r.sign()
    lane = r.integer(self.lanes)
    x = (lane + 0.5) * self.lane_width + r.uniform(-0.25, 0.25)
    return facing * x, facing

  def _vehicle(
    self, r: hashing.Random, label: int, x: float, z: float, facing: int
  ) -> bool:
    style, (length, width, height) = self._vehicle_size(r, label)
    variant = r.integer(4)
    if not self.claim(x, width, z, length):
      return False
    self.add(
      r, label, x=x, z=z, width=width, height=height, length=length,
      style=style, variant=variant, facing=facing,
    )
    return True

  def _vehicle_size(self, r: hashing.Random, label: int):
    styles, u = self.domain.styles, r.uniform
    if label == m.BUS:
      size = (u(9.5, 13.0), u(2.45, 2.6), u(2.9, 3.4))
      return r.choice(styles.bus), size
    if label == m.TRUCK:
      size = (u(6.0, 11.0), u(2.25, 2.5), u(2.7, 3.7))
      return r.choice(styles.truck), size
    style = r.choice(styles.car)
    height = (1.42, 1.5, 1.66, 1.95, 1.8)[style]
    length = (4.6, 3.9, 4.6, 4.8, 5.3)[style]
    scale = u(0.94, 1.06)
    return style, (length * scale, u(1.68, 1.92), height * u(0.95, 1.06))

  def _parked(self) -> None:
    """Cars along both kerbs, in slots; the rate is the expected number."""
    r = self.stream('parked')
    slots = []
    for side in (-1, 1):
      z = 7.0 + r.uniform(0.0, 6.0)
      while z < 75.0:
        slots.append((side, z))
        z += r.uniform(5.4, 6.8)
    share = self.domain.rates.parked / len(slots)
    for side, z in slots:
      inset = r.uniform(1.0, 1.25)
      wanted = r.chance(share)
      free = not any(z1 - 7 < z < z2 + 3 for z1, z2 in self.junctions)
      if wanted and free:
        x = side * (self.road - inset)
        if abs(x - self.lateral) > 2.1 or z > 12:
          self._vehicle(r, m.CAR, x, z, side)

  def _two_wheelers(self) -> None:
    rates = self.domain.rates
    for label, rate in (
      (m.MOTORCYCLE, rates.motorcycle),
      (m.BICYCLE, rates.bicycle),
    ):
      r = self.stream(f'parked{label}')
      for _ in range(r.poisson(rate)):
        x = r.sign() * r.uniform(self.road + 0.1, self.road + self.walk * 0.8)
        self._two_wheeler(r, label, x, r.near(5.5, 38.0), r.chance(0.3))
    r = self.stream('riders')
    for _ in range(r.poisson(rates.rider)):
      x = r.sign() * r.uniform(1.0, max(1.2, self.road - 0.8))
      z = r.near(8.0, 46.0)
      bicycle = rates.bicycle / (rates.bicycle + rates.motorcycle)
      label = m.BICYCLE if r.chance(bicycle) else m.MOTORCYCLE
      behind = r.chance(0.6)
      if not self.claim(x, 0.8, z, 0.6, gap=0.4):
        continue
      self._two_wheeler(r, label, x, z, behind)
      self.add(
        r, m.RIDER, x=x, z=z - 0.02, base=0.42, height=r.uniform(1.22, 1.42),
        width=0.62 if behind else 0.95, style=int(behind),
        variant=r.integer(4), facing=r.sign(),
      )

  def _two_wheeler(self, r, label, x, z, behind: bool) -> None:
    """A bicycle or motorcycle, seen from behind or from the side."""
    motor = label == m.MOTORCYCLE
    width = (0.72 if motor else 0.56) if behind else r.uniform(1.65, 1.95)
    self.add(
      r, label, x=x, z=z, width=width, style=int(behind),
      height=r.uniform(1.1, 1.3) if motor else r.uniform(1.0, 1.12),
      variant=r.integer(4), facing=r.sign(),
    )

  # People, posts and trees.

  def _people(self) -> None:
    r = self.stream('people')
    for _ in range(r.poisson(self.domain.rates.person)):
      x = r.sign() * r.uniform(self.road + 0.3, self.road + self.walk)
      z = r.near(4.5, 60.0)
      if self.junctions and r.chance(0.2):
        x = r.uniform(-self.road, self.road)
        z = self.junctions[0][0] - r.uniform(0.6, 2.6)
      self.add(
        r, m.PERSON, x=x, z=z, width=r.uniform(0.46, 0.62),
        height=r.uniform(1.52, 1.9) * (0.72 if r.chance(0.1) else 1.0),
        style=r.choice(self.domain.styles.person), variant=r.integer(4),
        facing=r.sign(),
      )

  def _post(self, r, x, z, height, width=0.13) -> None:
    self.add(r, m.POLE, x=x, z=z, width=width, height=height)

  def _street_furniture(self) -> None:
    rates, styles = self.domain.rates, self.domain.styles
    r = self.stream('lamps')
    for _ in range(r.poisson(rates.lamp)):
      side = r.sign()
      x, z = side * r.uniform(self.road + 0.3, self.road + 0.8), r.near(5, 70)
      height = r.uniform(5.0, 8.5)
      self._post(r, x, z, height, r.uniform(0.13, 0.2))
      if r.choice(styles.lamp):
        self.add(
          r, m.POLE, x=x - side * 0.8, z=z, width=1.7, height=0.12,
          base=height - 0.12,
        )
    r = self.stream('lights')
    for _ in range(r.poisson(rates.light)):
      self._traffic_light(r)
    r = self.stream('signs')
    for _ in range(r.poisson(rates.sign)):
      self._sign(r)

  def _crossing(self, r: hashing.Random, low: float, high: float) -> float:
    """A distance, preferably just before a crossing street."""
    if self.junctions and r.chance(0.6):
      z1, z2 = self.junctions[r.integer(len(self.junctions))]
      return (z1 - r.uniform(0.3, 1.2)) if r.chance(0.6) else z2 + 0.8
    return r.near(low, high)

  def _traffic_light(self, r: hashing.Random) -> None:
    side = r.sign()
    x = side * r.uniform(self.road + 0.3, self.road + 0.8)
    z = self._crossing(r, 6.0, 40.0)
    variant = r.integer(3)
    if r.choice(self.domain.styles.light):
      arm = r.uniform(2.5, min(6.0, self.road))
      self._post(r, x, z, 6.0, 0.2)
      self.add(
        r, m.POLE, x=x - side * arm / 2, z=z, width=arm, height=0.14, base=5.7
      )
      for part in (1.0, 0.55):
        self.add(
          r, m.LIGHT, x=x - side * arm * part, z=z - 0.02, width=0.42,
          height=1.15, base=4.75, style=1, variant=variant,
        )
      return
    base = r.uniform(2.2, 3.0)
    self._post(r, x, z, base + 1.0, 0.14)
    self.add(
      r, m.LIGHT, x=x, z=z - 0.02, width=r.uniform(0.34, 0.42),
      height=r.uniform(0.9, 1.1), base=base, variant=variant,
    )

  def _sign(self, r: hashing.Random) -> None:
    x = r.sign() * r.uniform(self.road + 0.25, self.road + 1.0)
    z = self._crossing(r, 5.0, 42.0)
    base, style = r.uniform(1.9, 2.7), r.choice(self.domain.styles.sign)
    height = r.uniform(0.65, 0.95)
    width = height * (r.uniform(1.3, 2.2) if style == 4 else 1.0)
    self._post(r, x, z, base + height * 0.8, 0.09)
    self.add(
      r, m.SIGN, x=x, z=z - 0.02, width=width, height=height, base=base,
      style=style, variant=r.integer(4),
    )

  def _trees(self) -> None:
    r = self.stream('trees')
    edge = self.road + self.walk
    for _ in range(r.poisson(self.domain.rates.tree)):
      side = r.sign()
      if self.verge and r.chance(0.5):
        x = edge + self.verge * 0.5
      else:
        x = self.road + r.uniform(0.6, max(0.8, self.walk - 0.6))
      style = r.choice(self.domain.styles.tree)
      width = (r.uniform(2.6, 4.4), r.uniform(4.0, 7.0), r.uniform(1.6, 2.6),
               r.uniform(3.0, 4.2))[style]
      height = (r.uniform(4.0, 6.5), r.uniform(6.0, 10.0),
                r.uniform(5.0, 10.0), r.uniform(7.0, 12.0))[style]
      self.add(
        r, m.VEGETATION, x=side * x, z=r.near(6.5, 85.0), width=width,
        height=height, style=style,
      )


def _tint(bits: int) -> tuple[float, float, float]:
  """A colour offset of unit variance: a shared grey part and a hue."""
  grey, *hue = (
    (((bits >> shift) & 0xFF) + ((bits >> (shift + 8)) & 0xFF) - 255) / 104.5
    for shift in (0, 16, 32, 48)
  )
  red, green, blue = (0.8 * grey + 0.6 * part for part in hue)
  return red, green, blue


def ground_class(scene: Scene, x, z):
  """Train id of the ground at road coordinates: road, sidewalk or terrain.

  Args:
    scene: the street.
    x: float array, lateral road coordinate.
    z: float array, distance, broadcastable with `x`.

  Returns:
    uint8 array of the broadcast shape.
  """
  across = np.abs(x)
  label = np.where(
    across < scene.road + scene.walk, np.uint8(m.SIDEWALK), np.uint8(m.TERRAIN)
  )
  label[across < scene.road] = m.ROAD
  for z1, z2 in scene.junctions:
    inside = (z >= z1) & (z < z2) & (across < JUNCTION_REACH)
    label[inside] = m.ROAD
  return label
