"""Vehicles on the carriageway and along the kerbs; riders and two-wheelers."""

from __future__ import annotations

from data_prep.streets.world import draft as draft_lib
from data_prep.streets.world import hashing
from data_prep.streets.world import materials as m


def trains(draft: draft_lib.Draft) -> None:
  """Trains on one track along the road."""
  r = draft.stream('trains')
  count = r.poisson(draft.domain.rates.train)
  if not count:
    return
  outer = draft.drive - 1.5 if draft.lanes > 1 and r.chance(0.5) else 1.6
  draft.rails = -max(1.6, outer) if draft.lateral < 3.6 else r.sign() * 1.6
  for _ in range(min(count, 3)):
    z, length = r.near(18.0, 80.0), r.uniform(18.0, 32.0)
    if draft.claim(draft.rails, 2.6, z, length, gap=3.0):
      draft.add(
        r,
        m.TRAIN,
        x=draft.rails,
        z=z,
        width=r.uniform(2.4, 2.65),
        height=r.uniform(3.3, 3.9),
        length=length,
        style=r.choice(draft.domain.styles.train),
        variant=r.integer(4),
        facing=r.sign(),
      )


def moving(draft: draft_lib.Draft) -> None:
  """Buses, trucks and cars in the lanes; those that do not fit are dropped."""
  rates = draft.domain.rates
  for label, rate, start in (
    (m.BUS, rates.bus, 17.0),
    (m.TRUCK, rates.truck, 18.0),
    (m.CAR, rates.car, 9.5),
  ):
    r = draft.stream(f'traffic{label}')
    for _ in range(r.poisson(rate)):
      for _ in range(4):
        x, facing = _lane(draft, r)
        z = r.near(start, 80.0)
        if _vehicle(draft, r, label, x, z, facing):
          break


def _lane(draft: draft_lib.Draft, r: hashing.Random) -> tuple[float, int]:
  """A lane centre, and the direction of its traffic."""
  facing = r.sign()
  lane = r.integer(draft.lanes)
  x = (lane + 0.5) * draft.lane_width + r.uniform(-0.25, 0.25)
  return facing * x, facing


def _vehicle(
  draft: draft_lib.Draft,
  r: hashing.Random,
  label: int,
  x: float,
  z: float,
  facing: int,
) -> bool:
  """Adds a vehicle where the ground is free; tells whether it was."""
  style, (length, width, height) = _vehicle_size(draft, r, label)
  variant = r.integer(4)
  if not draft.claim(x, width, z, length):
    return False
  draft.add(
    r,
    label,
    x=x,
    z=z,
    width=width,
    height=height,
    length=length,
    style=style,
    variant=variant,
    facing=facing,
  )
  return True


def _vehicle_size(
  draft: draft_lib.Draft, r: hashing.Random, label: int
) -> tuple[int, tuple[float, float, float]]:
  """Style and (length, width, height) of a vehicle."""
  styles, u = draft.domain.styles, r.uniform
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


def parked(draft: draft_lib.Draft) -> None:
  """Cars along both kerbs, in slots; the rate is the expected number."""
  r = draft.stream('parked')
  slots = []
  for side in (-1, 1):
    z = 7.0 + r.uniform(0.0, 6.0)
    while z < 75.0:
      slots.append((side, z))
      z += r.uniform(5.4, 6.8)
  share = draft.domain.rates.parked / len(slots)
  for side, z in slots:
    inset = r.uniform(1.0, 1.25)
    wanted = r.chance(share)
    free = not any(z1 - 7 < z < z2 + 3 for z1, z2 in draft.junctions)
    if wanted and free:
      x = side * (draft.road - inset)
      if abs(x - draft.lateral) > 2.1 or z > 12:
        _vehicle(draft, r, m.CAR, x, z, side)


def two_wheelers(draft: draft_lib.Draft) -> None:
  """Parked bicycles and motorcycles, and riders on the carriageway."""
  rates = draft.domain.rates
  for label, rate in (
    (m.MOTORCYCLE, rates.motorcycle),
    (m.BICYCLE, rates.bicycle),
  ):
    r = draft.stream(f'parked{label}')
    for _ in range(r.poisson(rate)):
      x = r.sign() * r.uniform(draft.road + 0.1, draft.road + draft.walk * 0.8)
      _two_wheeler(draft, r, label, x, r.near(5.5, 38.0), r.chance(0.3))
  r = draft.stream('riders')
  for _ in range(r.poisson(rates.rider)):
    x = r.sign() * r.uniform(1.0, max(1.2, draft.road - 0.8))
    z = r.near(8.0, 46.0)
    bicycle = rates.bicycle / (rates.bicycle + rates.motorcycle)
    label = m.BICYCLE if r.chance(bicycle) else m.MOTORCYCLE
    behind = r.chance(0.6)
    if not draft.claim(x, 0.8, z, 0.6, gap=0.4):
      continue
    _two_wheeler(draft, r, label, x, z, behind)
    draft.add(
      r,
      m.RIDER,
      x=x,
      z=z - 0.02,
      base=0.42,
      height=r.uniform(1.22, 1.42),
      width=0.62 if behind else 0.95,
      style=int(behind),
      variant=r.integer(4),
      facing=r.sign(),
    )


def _two_wheeler(draft: draft_lib.Draft, r, label, x, z, behind: bool) -> None:
  """A bicycle or motorcycle, seen from behind or from the side."""
  motor = label == m.MOTORCYCLE
  width = (0.72 if motor else 0.56) if behind else r.uniform(1.65, 1.95)
  draft.add(
    r,
    label,
    x=x,
    z=z,
    width=width,
    style=int(behind),
    height=r.uniform(1.1, 1.3) if motor else r.uniform(1.0, 1.12),
    variant=r.integer(4),
    facing=r.sign(),
  )
