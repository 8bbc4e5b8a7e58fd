"""The two street domains, the line between them, and the named presets.

A `Domain` holds about fifty numbers. Each belongs to one of two axes:
*appearance* (palette, light, weather, camera response: changes pixels only)
or *content* (road layout, rates, object styles, camera pose: changes labels).
`mix` moves along the axes separately. Styles are probabilities, so a mixed
domain shows objects of both styles.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

Range = tuple[float, float]
Colour = tuple[float, float, float]


class Rates(NamedTuple):
  """Expected number of objects per scene."""

  parked: float
  car: float
  truck: float
  bus: float
  train: float
  motorcycle: float
  bicycle: float
  rider: float
  person: float
  lamp: float
  light: float
  sign: float
  tree: float


class Styles(NamedTuple):
  """Probability weights of object styles; the order is fixed by the code."""

  building: tuple[float, ...]  # office, ribbon, old town, glass, balconies
  roadside: tuple[float, ...]  # building, hedge, wall, fence
  car: tuple[float, ...]  # saloon, hatchback, estate, van, pickup
  truck: tuple[float, ...]  # box, tarpaulin, tanker
  bus: tuple[float, ...]  # city bus, coach
  train: tuple[float, ...]  # railcar, tram
  tree: tuple[float, ...]  # round, spreading, conical, palm
  sign: tuple[float, ...]  # ring, disc, triangle, diamond, board, octagon
  light: tuple[float, ...]  # upright at the kerb, on a mast arm
  lamp: tuple[float, ...]  # bare post, arm over the road
  person: tuple[float, ...]  # trousers, coat, bag
  fence: tuple[float, ...]  # pickets, mesh, rails
  wall: tuple[float, ...]  # panels, bricks, stones
  marking: tuple[float, ...]  # double yellow, dashed white, none


def _appearance() -> Any:
  return dataclasses.field(metadata={'axis': 'appearance'})


def _content() -> Any:
  return dataclasses.field(metadata={'axis': 'content'})


@dataclasses.dataclass(frozen=True)
class Domain:
  """All parameters of one street domain; lengths in metres.

  Attributes:
    family: the name that enters the scene seed.
    palette: mean RGB colour of each of the 19 classes.
    tint: standard deviation of an object's colour, in grey levels.
    texture: gain of all surface textures.
    saturation: 1 keeps colours, 0 is grey.
    gains: white balance, per channel.
    gamma: exponent of the response curve.
    contrast: gain about grey level 110.
    brightness: offset in grey levels.
    fog: extinction per metre.
    fog_colour: what fog fades to.
    blur: 0 sharp, 1 one pass of a small kernel.
    noise: standard deviation of sensor noise, in grey levels.
    vignette: darkening of the corners.
    exposure: standard deviation of the exposure, relative.
    sun: strength of directional light.
    sky: RGB at the top and at the horizon.
    clouds: gain of cloud texture, in grey levels.
    marking: RGB of white road paint.
    road: half width of the carriageway.
    walk: width of each sidewalk.
    verge: probability of a green strip beside the sidewalk.
    verge_width: width of that strip.
    building_height: height range.
    segment: length range of roadside segments.
    setback: distance of buildings behind the sidewalk.
    junction: expected number of crossing streets.
    curve: standard deviation of the curvature term, per metre.
    backdrop: height range of what closes the street.
    rates: expected object counts.
    styles: style weights.
    height: camera height range.
    focal: focal length range, in image widths.
    horizon: horizon row range, as a fraction of the image height.
    bonnet: height of the ego bonnet, as a fraction of the image height.
    baseline: distance between the stereo cameras.
    step: distance driven between two frames, as a range.
  """

  family: str
  palette: tuple[Colour, ...] = _appearance()
  tint: float = _appearance()
  texture: float = _appearance()
  saturation: float = _appearance()
  gains: Colour = _appearance()
  gamma: float = _appearance()
  contrast: float = _appearance()
  brightness: float = _appearance()
  fog: float = _appearance()
  fog_colour: Colour = _appearance()
  blur: float = _appearance()
  noise: float = _appearance()
  vignette: float = _appearance()
  exposure: float = _appearance()
  sun: float = _appearance()
  sky: tuple[Colour, Colour] = _appearance()
  clouds: float = _appearance()
  marking: Colour = _appearance()
  road: Range = _content()
  walk: Range = _content()
  verge: float = _content()
  verge_width: Range = _content()
  building_height: Range = _content()
  segment: Range = _content()
  setback: Range = _content()
  junction: float = _content()
  curve: float = _content()
  backdrop: Range = _content()
  rates: Rates = _content()
  styles: Styles = _content()
  height: Range = _content()
  focal: Range = _content()
  horizon: Range = _content()
  bonnet: float = _content()
  baseline: float = _content()
  step: Range = _content()


GTA = Domain(
  family='gta',
  palette=(
    (92, 92, 98),
    (160, 150, 140),
    (158, 118, 92),
    (128, 108, 96),
    (140, 128, 112),
    (84, 84, 88),
    (40, 44, 40),
    (60, 90, 190),
    (62, 120, 48),
    (120, 140, 70),
    (0, 0, 0),
    (150, 110, 95),
    (140, 90, 90),
    (150, 40, 44),
    (150, 150, 165),
    (190, 150, 50),
    (90, 130, 140),
    (60, 62, 90),
    (84, 70, 64),
  ),
  tint=22.0,
  texture=1.0,
  saturation=1.0,
  gains=(1.0, 1.0, 1.0),
  gamma=1.0,
  contrast=1.0,
  brightness=0.0,
  fog=0.0,
  fog_colour=(200.0, 205.0, 205.0),
  blur=0.0,
  noise=0.0,
  vignette=0.0,
  exposure=0.07,
  sun=0.35,
  sky=((90.0, 140.0, 225.0), (190.0, 210.0, 240.0)),
  clouds=26.0,
  marking=(225.0, 225.0, 220.0),
  road=(5.8, 9.8),
  walk=(2.5, 5.0),
  verge=0.3,
  verge_width=(0.5, 2.5),
  building_height=(7.0, 32.0),
  segment=(9.0, 28.0),
  setback=(0.0, 5.0),
  junction=1.1,
  curve=0.0009,
  backdrop=(6.0, 26.0),
  rates=Rates(
    parked=1.7,
    car=4.2,
    truck=1.4,
    bus=0.7,
    train=0.5,
    motorcycle=1.6,
    bicycle=0.6,
    rider=1.0,
    person=4.5,
    lamp=4.0,
    light=2.4,
    sign=1.9,
    tree=3.2,
  ),
  styles=Styles(
    building=(0.42, 0.26, 0.0, 0.26, 0.06),
    roadside=(0.59, 0.21, 0.13, 0.07),
    car=(0.48, 0.06, 0.18, 0.06, 0.22),
    truck=(0.3, 0.2, 0.5),
    bus=(0.25, 0.75),
    train=(0.8, 0.2),
    tree=(0.4, 0.0, 0.2, 0.4),
    sign=(0.0, 0.08, 0.0, 0.42, 0.25, 0.25),
    light=(0.25, 0.75),
    lamp=(0.7, 0.3),
    person=(0.7, 0.1, 0.2),
    fence=(0.2, 0.3, 0.5),
    wall=(0.6, 0.35, 0.05),
    marking=(0.6, 0.4, 0.0),
  ),
  height=(1.45, 1.95),
  focal=(0.8, 0.98),
  horizon=(0.39, 0.49),
  bonnet=0.0,
  baseline=0.3,
  step=(0.5, 1.1),
)

CITY = Domain(
  family='city',
  palette=(
    (84, 90, 88),
    (118, 124, 120),
    (112, 116, 110),
    (104, 108, 104),
    (92, 100, 94),
    (80, 88, 84),
    (48, 56, 50),
    (84, 96, 140),
    (58, 80, 54),
    (96, 108, 74),
    (0, 0, 0),
    (84, 84, 86),
    (82, 86, 88),
    (84, 90, 94),
    (110, 114, 112),
    (130, 92, 70),
    (92, 104, 110),
    (58, 62, 64),
    (62, 64, 62),
  ),
  tint=13.0,
  texture=0.75,
  saturation=0.6,
  gains=(0.94, 1.03, 0.95),
  gamma=1.12,
  contrast=0.85,
  brightness=4.0,
  fog=1 / 220.0,
  fog_colour=(200.0, 205.0, 205.0),
  blur=1.0,
  noise=4.0,
  vignette=0.25,
  exposure=0.07,
  sun=0.12,
  sky=((205.0, 214.0, 214.0), (226.0, 230.0, 228.0)),
  clouds=10.0,
  marking=(175.0, 178.0, 172.0),
  road=(3.6, 5.6),
  walk=(3.0, 5.4),
  verge=0.7,
  verge_width=(0.6, 2.8),
  building_height=(12.0, 26.0),
  segment=(7.0, 20.0),
  setback=(0.0, 2.0),
  junction=0.8,
  curve=0.0006,
  backdrop=(12.0, 26.0),
  rates=Rates(
    parked=6.0,
    car=2.6,
    truck=0.28,
    bus=0.25,
    train=0.22,
    motorcycle=0.4,
    bicycle=2.4,
    rider=0.9,
    person=14.0,
    lamp=4.0,
    light=1.6,
    sign=3.2,
    tree=8.0,
  ),
  styles=Styles(
    building=(0.1, 0.08, 0.5, 0.04, 0.28),
    roadside=(0.52, 0.24, 0.08, 0.16),
    car=(0.2, 0.38, 0.27, 0.15, 0.0),
    truck=(0.5, 0.45, 0.05),
    bus=(0.85, 0.15),
    train=(0.0, 1.0),
    tree=(0.25, 0.6, 0.15, 0.0),
    sign=(0.3, 0.2, 0.26, 0.0, 0.24, 0.0),
    light=(0.95, 0.05),
    lamp=(0.45, 0.55),
    person=(0.4, 0.38, 0.22),
    fence=(0.5, 0.35, 0.15),
    wall=(0.2, 0.3, 0.5),
    marking=(0.0, 0.6, 0.4),
  ),
  height=(1.15, 1.3),
  focal=(1.06, 1.16),
  horizon=(0.42, 0.45),
  bonnet=0.06,
  baseline=0.22,
  step=(0.3, 0.8),
)

# name -> (appearance, content): the position of the target on the two axes.
PRESETS: dict[str, tuple[float, float]] = {
  'easy': (0.35, 0.35),
  'default': (0.5, 0.5),
  'hard': (0.65, 0.65),
  'extreme': (1.0, 1.0),
  'appearance': (0.5, 0.0),
  'content': (0.0, 1.0),
}


def mix(a: Domain, b: Domain, appearance: float, content: float) -> Domain:
  """The domain at (`appearance`, `content`) between `a` (0) and `b` (1).

  The result has the family of `b`, or of `a` when both shares are zero, so
  that `mix(a, b, 0, 0)` is `a` itself and `mix(a, b, 1, 1)` is `b`.

  Raises:
    ValueError: a share lies outside [0, 1].
  """
  shares = {'appearance': appearance, 'content': content}
  for name, share in shares.items():
    if not 0 <= share <= 1:
      raise ValueError(f'the {name} share is {share}; it must be in [0, 1]')
  values = {
    field.name: _between(
      getattr(a, field.name),
      getattr(b, field.name),
      shares[field.metadata['axis']],
    )
    for field in dataclasses.fields(Domain)
    if 'axis' in field.metadata
  }
  family = b.family if appearance or content else a.family
  return Domain(family=family, **values)


def _between(a: Any, b: Any, share: float) -> Any:
  """Interpolates numbers, and tuples of them element by element."""
  if not isinstance(a, tuple):
    return (1 - share) * a + share * b
  parts = [_between(x, y, share) for x, y in zip(a, b, strict=True)]
  return type(a)(*parts) if hasattr(a, '_fields') else tuple(parts)


def names() -> list[str]:
  """Every name that `domain` knows."""
  return ['gta', 'city', *(f'city_{p}' for p in PRESETS if p != 'default')]


def domain(name: str) -> Domain:
  """A domain by name: `gta`, `city` (the default preset) or `city_PRESET`.

  Raises:
    ValueError: the name is unknown.
  """
  if name == 'gta':
    return GTA
  preset = name.removeprefix('city_') if name != 'city' else 'default'
  if name not in (*names(), 'city_default'):
    raise ValueError(f'unknown street domain {name!r}; known: {names()}')
  return mix(GTA, CITY, *PRESETS[preset])
