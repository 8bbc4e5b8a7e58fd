"""What describes a street domain, and the line between two of them.

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
  palette: tuple[Colour, ...]
  tint: float
  texture: float
  saturation: float
  gains: Colour
  gamma: float
  contrast: float
  brightness: float
  fog: float
  fog_colour: Colour
  blur: float
  noise: float
  vignette: float
  exposure: float
  sun: float
  sky: tuple[Colour, Colour]
  clouds: float
  marking: Colour
  road: Range
  walk: Range
  verge: float
  verge_width: Range
  building_height: Range
  segment: Range
  setback: Range
  junction: float
  curve: float
  backdrop: Range
  rates: Rates
  styles: Styles
  height: Range
  focal: Range
  horizon: Range
  bonnet: float
  baseline: float
  step: Range


_CONTENT = frozenset(
  [
    'road',
    'walk',
    'verge',
    'verge_width',
    'building_height',
    'segment',
    'setback',
    'junction',
    'curve',
    'backdrop',
    'rates',
    'styles',
    'height',
    'focal',
    'horizon',
    'bonnet',
    'baseline',
    'step',
  ]
)


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
      content if field.name in _CONTENT else appearance,
    )
    for field in dataclasses.fields(Domain)
    if field.name != 'family'
  }
  family = b.family if appearance or content else a.family
  return Domain(family=family, **values)


def _between(a: Any, b: Any, share: float) -> Any:
  """Interpolates numbers, and tuples of them element by element."""
  if not isinstance(a, tuple):
    return (1 - share) * a + share * b
  parts = [_between(x, y, share) for x, y in zip(a, b, strict=True)]
  return type(a)(*parts) if hasattr(a, '_fields') else tuple(parts)
