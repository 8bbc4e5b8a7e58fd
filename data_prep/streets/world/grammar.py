"""The scene grammar: draws a street from the content of a domain."""

from __future__ import annotations

from data_prep.streets.world import (
  domains,
  furniture,
  roadside,
  scene,
  traffic,
)
from data_prep.streets.world import (
  draft as draft_lib,
)

# The order decides who gets the ground where two vehicles want the same spot.
_RULES = (
  roadside.facades,
  roadside.backdrop,
  traffic.trains,
  traffic.moving,
  traffic.parked,
  traffic.two_wheelers,
  furniture.people,
  furniture.street_furniture,
  furniture.trees,
)


def make_scene(seed: int, domain: domains.Domain) -> scene.Scene:
  """Draws the scene of `seed`; only content parameters of `domain` matter."""
  draft = draft_lib.Draft(seed, domain)
  for rule in _RULES:
    rule(draft)
  d = domain
  r = draft.stream('camera')
  return scene.Scene(
    seed=seed,
    height=r.uniform(*d.height),
    focal=r.uniform(*d.focal),
    horizon=r.uniform(*d.horizon),
    lateral=draft.lateral,
    road=draft.road,
    walk=draft.walk,
    verge=draft.verge,
    curve=draft.curve,
    junctions=draft.junctions,
    rails=draft.rails,
    lanes=draft.lanes,
    marking=r.choice(d.styles.marking),
    sun_side=r.sign(),
    bonnet=d.bonnet,
    baseline=d.baseline,
    step=r.uniform(*d.step),
    drift=r.uniform(-0.04, 0.04),
    things=tuple(sorted(draft.things, key=lambda thing: thing.z)),
  )
