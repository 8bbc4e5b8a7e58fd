"""People, lamps, traffic lights, signs and trees."""

from __future__ import annotations

from data_prep.streets.world import draft as draft_lib
from data_prep.streets.world import hashing
from data_prep.streets.world import materials as m


def people(draft: draft_lib.Draft) -> None:
  """Pedestrians on the sidewalks, some on a zebra crossing."""
  r = draft.stream('people')
  for _ in range(r.poisson(draft.domain.rates.person)):
    x = r.sign() * r.uniform(draft.road + 0.3, draft.road + draft.walk)
    z = r.near(4.5, 44.0)
    if draft.junctions and r.chance(0.2):
      x = r.uniform(-draft.road, draft.road)
      z = draft.junctions[0][0] - r.uniform(0.6, 2.6)
    draft.add(
      r,
      m.PERSON,
      x=x,
      z=z,
      width=r.uniform(0.46, 0.62),
      height=r.uniform(1.52, 1.9) * (0.72 if r.chance(0.1) else 1.0),
      style=r.choice(draft.domain.styles.person),
      variant=r.integer(4),
      facing=r.sign(),
    )


def _post(draft: draft_lib.Draft, r, x, z, height, width=0.13) -> None:
  draft.add(r, m.POLE, x=x, z=z, width=width, height=height)


def street_furniture(draft: draft_lib.Draft) -> None:
  """Lamp posts, traffic lights and signs."""
  rates, styles = draft.domain.rates, draft.domain.styles
  r = draft.stream('lamps')
  for _ in range(r.poisson(rates.lamp)):
    side = r.sign()
    x, z = side * r.uniform(draft.road + 0.3, draft.road + 0.8), r.near(5, 70)
    height = r.uniform(5.0, 8.5)
    _post(draft, r, x, z, height, r.uniform(0.13, 0.2))
    if r.choice(styles.lamp):
      draft.add(
        r,
        m.POLE,
        x=x - side * 0.8,
        z=z,
        width=1.7,
        height=0.12,
        base=height - 0.12,
      )
  r = draft.stream('lights')
  for _ in range(r.poisson(rates.light)):
    _traffic_light(draft, r)
  r = draft.stream('signs')
  for _ in range(r.poisson(rates.sign)):
    _sign(draft, r)


def _crossing(
  draft: draft_lib.Draft, r: hashing.Random, low: float, high: float
) -> float:
  """A distance, preferably just before a crossing street."""
  if draft.junctions and r.chance(0.6):
    z1, z2 = draft.junctions[r.integer(len(draft.junctions))]
    return (z1 - r.uniform(0.3, 1.2)) if r.chance(0.6) else z2 + 0.8
  return r.near(low, high)


def _traffic_light(draft: draft_lib.Draft, r: hashing.Random) -> None:
  side = r.sign()
  x = side * r.uniform(draft.road + 0.3, draft.road + 0.8)
  z = _crossing(draft, r, 6.0, 40.0)
  variant = r.integer(3)
  if r.choice(draft.domain.styles.light):
    arm = r.uniform(2.5, min(6.0, draft.road))
    _post(draft, r, x, z, 6.0, 0.2)
    draft.add(
      r, m.POLE, x=x - side * arm / 2, z=z, width=arm, height=0.14, base=5.7
    )
    for part in (1.0, 0.55):
      draft.add(
        r,
        m.LIGHT,
        x=x - side * arm * part,
        z=z - 0.02,
        width=0.42,
        height=1.15,
        base=4.75,
        style=1,
        variant=variant,
      )
    return
  base = r.uniform(2.2, 3.0)
  _post(draft, r, x, z, base + 1.0, 0.14)
  draft.add(
    r,
    m.LIGHT,
    x=x,
    z=z - 0.02,
    width=r.uniform(0.34, 0.42),
    height=r.uniform(0.9, 1.1),
    base=base,
    variant=variant,
  )


def _sign(draft: draft_lib.Draft, r: hashing.Random) -> None:
  x = r.sign() * r.uniform(draft.road + 0.25, draft.road + 1.0)
  z = _crossing(draft, r, 5.0, 42.0)
  base, style = r.uniform(1.9, 2.7), r.choice(draft.domain.styles.sign)
  height = r.uniform(0.7, 1.05)
  width = height * (r.uniform(1.3, 2.2) if style == 4 else 1.0)
  _post(draft, r, x, z, base + height * 0.8, 0.1)
  draft.add(
    r,
    m.SIGN,
    x=x,
    z=z - 0.02,
    width=width,
    height=height,
    base=base,
    style=style,
    variant=r.integer(4),
  )


def trees(draft: draft_lib.Draft) -> None:
  """Trees on the sidewalks and in the green strips."""
  r = draft.stream('trees')
  edge = draft.road + draft.walk
  for _ in range(r.poisson(draft.domain.rates.tree)):
    side = r.sign()
    if draft.verge and r.chance(0.5):
      x = edge + draft.verge * 0.5
    else:
      x = draft.road + r.uniform(0.6, max(0.8, draft.walk - 0.6))
    style = r.choice(draft.domain.styles.tree)
    width = (
      r.uniform(2.6, 4.4),
      r.uniform(4.0, 7.0),
      r.uniform(1.6, 2.6),
      r.uniform(3.0, 4.2),
    )[style]
    height = (
      r.uniform(4.0, 6.5),
      r.uniform(6.0, 10.0),
      r.uniform(5.0, 10.0),
      r.uniform(7.0, 12.0),
    )[style]
    draft.add(
      r,
      m.VEGETATION,
      x=side * x,
      z=r.near(6.5, 85.0),
      width=width,
      height=height,
      style=style,
    )
