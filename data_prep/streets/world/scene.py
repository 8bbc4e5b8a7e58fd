"""What a street is: cross-section, crossing streets and things on it.

Road coordinates: x to the right of the road's centre line, z ahead of the
camera's start, y up; metres. The road bends by `curve` z^2.
"""

from __future__ import annotations

import dataclasses

import numpy as np

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
