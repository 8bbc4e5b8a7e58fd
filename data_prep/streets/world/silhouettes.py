"""Silhouettes of upright cards: people, two-wheelers, signs, lights, trees.

Each function takes `s` `[1, w]` in [-1, 1] from left to right, `t` `[h, 1]` in
[0, 1] upwards and the thing, and returns uint8 `materials.Part` codes that
broadcast to `[h, w]`, `Part.HOLE` where the card is transparent.
"""

from __future__ import annotations

import numpy as np

from data_prep.streets.world import hashing
from data_prep.streets.world import materials as m
from data_prep.streets.world.materials import Part
from data_prep.streets.world.scene import Thing


def _paint(shape, *layers) -> np.ndarray:
  """Paints `(mask, part)` layers over transparency, first to last."""
  part = np.full(shape, Part.HOLE, np.uint8)
  for mask, code in layers:
    part[np.broadcast_to(mask, shape)] = code
  return part


def _shape(s, t) -> tuple[int, int]:
  return t.shape[0], s.shape[1]


def _disc(s, t, x, y, rx, ry):
  """Inside an ellipse."""
  dx, dy = (s - x) / rx, (t - y) / ry
  return dx * dx + dy * dy < 1


def person(s, t, thing: Thing) -> np.ndarray:
  """A standing or walking person: trousers, coat or bag."""
  across = np.abs(s)
  s = s * thing.facing
  stride = 0.06 * thing.variant
  leg = t < 0.5
  spread = 0.36 + stride * (0.5 - t) * 2
  legs = leg & (np.abs(across - spread) < 0.22)
  torso = (t > 0.44) & (t < 0.85) & (across < 0.66 + 0.2 * (t > 0.6))
  arms = (t > 0.42) & (t < 0.82) & (across > 0.72) & (across < 0.95)
  head = _disc(s, t, 0.05, 0.925, 0.36, 0.075)
  hair = head & ((t > 0.945) | (s < -0.2))
  layers = [(legs, Part.TROUSERS), (torso | arms, Part.BODY)]
  if thing.style == 1:
    coat = (t > 0.24) & (t < 0.5) & (across < 0.98 - 0.6 * t)
    layers.append((coat, Part.BODY))
  elif thing.style == 2:
    bag = (t > 0.5) & (t < 0.78) & (s > 0.3)
    layers.append((bag, Part.DARK))
  layers += [(head, Part.SKIN), (hair, Part.HAIR)]
  return _paint(_shape(s, t), *layers)


def rider(s, t, thing: Thing) -> np.ndarray:
  """The upper body and legs of a rider, from behind or from the side."""
  side = thing.style == 0
  s = s * thing.facing
  lean = 0.35 * t if side else 0.0 * t
  across = np.abs(s - lean)
  torso = (t > 0.38) & (t < 0.8) & (across < (0.34 if side else 0.72))
  reach = np.abs(t - 0.62 + 0.12 * s) < 0.05
  arms = (
    reach & (s > 0.2)
    if side
    else (across > 0.7) & (across < 0.95) & (t > 0.42) & (t < 0.76)
  )
  legs = (t < 0.42) & (
    np.abs(s - 0.1 - 0.3 * t) < 0.2 if side else np.abs(across - 0.4) < 0.26
  )
  width = 0.24 if side else 0.38
  head = _disc(s, t, 0.33 if side else 0.0, 0.895, width, 0.1)
  helmet = head & (t > 0.88)
  cover = Part.WHITE if thing.variant == 0 else Part.HAIR
  return _paint(
    _shape(s, t),
    (legs, Part.TROUSERS),
    (torso | arms, Part.BODY),
    (head, Part.SKIN),
    (helmet, cover),
  )


def bicycle(s, t, thing: Thing) -> np.ndarray:
  """A bicycle, from the side or from behind."""
  return _two_wheeler(s, t, thing, 0.72, 0.05)


def motorcycle(s, t, thing: Thing) -> np.ndarray:
  """A motorcycle, from the side or from behind."""
  return _two_wheeler(s, t, thing, 0.45, 0.11)


def _two_wheeler(s, t, thing: Thing, rim: float, tube: float) -> np.ndarray:
  s = s * thing.facing
  motor = thing.label == m.MOTORCYCLE
  if thing.style:  # from behind
    across = np.abs(s)
    wheel = (across < (0.3 if motor else 0.26)) & (t < 0.62)
    body = (across < (0.55 if motor else 0.2)) & (t > 0.4) & (t < 0.86)
    bar = (np.abs(t - 0.92) < 0.07) & (across < 0.95)
    lamp = motor & (across < 0.2) & (np.abs(t - 0.62) < 0.06)
    return _paint(
      _shape(s, t),
      (body | bar, Part.BODY),
      (wheel, Part.TYRE),
      (lamp, Part.TAIL_LAMP),
    )
  dx = (np.abs(s) - 0.62) / 0.37
  dy = (t - 0.31) / 0.31
  radius = dx * dx + dy * dy
  ring = (radius < 1) & (radius > rim * rim)
  slope = np.abs(t - 0.3 - 0.55 * np.abs(s - 0.1)) < tube * 1.6
  low = (np.abs(t - 0.36 - 0.3 * s) < tube) & (np.abs(s) < 0.55)
  high = (np.abs(t - 0.7 - 0.08 * s) < tube) & (np.abs(s) < 0.45)
  fork = (np.abs(s - 0.62 + 0.3 * (t - 0.31)) < 0.06) & (t > 0.3)
  saddle = (np.abs(t - 0.86) < 0.06) & (np.abs(s + 0.3) < 0.2)
  bar = (np.abs(t - 0.96) < 0.05) & (np.abs(s - 0.4) < 0.16)
  frame = (slope & (np.abs(s) < 0.5)) | low | high | fork
  layers = [(ring, Part.TYRE), (frame, Part.BODY)]
  if motor:
    engine = (t > 0.26) & (t < 0.66) & (np.abs(s) < 0.34)
    tank = _disc(s, t, 0.12, 0.76, 0.36, 0.13)
    layers += [(engine, Part.DARK), (tank, Part.BODY)]
  layers.append((saddle | bar, Part.DARK))
  return _paint(_shape(s, t), *layers)


def pole(s, t, thing: Thing) -> np.ndarray:
  """A post or an arm: the whole card."""
  return np.zeros((1, 1), np.uint8)


def light(s, t, thing: Thing) -> np.ndarray:
  """A traffic light with three lamps, one of them lit."""
  lamp = np.minimum(np.floor(t * 3), 2)
  y = (t * 3 - lamp - 0.5) / 0.38
  inside = (s / 0.62) * (s / 0.62) + y * y < 1
  lit = (Part.GREEN_LAMP, Part.AMBER_LAMP, Part.RED_LAMP)[thing.variant]
  case = Part.YELLOW if thing.style else Part.BODY
  return _paint(
    _shape(s, t),
    (np.abs(s) < 2, case),
    (inside, Part.LAMP_OFF),
    (inside & (lamp == thing.variant), lit),
  )


def sign(s, t, thing: Thing) -> np.ndarray:
  """A traffic sign: ring, disc, triangle, diamond, board or octagon."""
  y = 2 * t - 1
  across, up = np.abs(s), np.abs(y)
  shape = _shape(s, t)
  round_ = s * s + y * y
  if thing.style == 0:
    inner = (round_ < 0.5, Part.WHITE)
    bar = ((across < 0.5) & (up < 0.14) & (thing.variant < 2), Part.HAIR)
    return _paint(shape, (round_ < 1, Part.RED), inner, bar)
  if thing.style == 1:
    arrow = (np.abs(s + 0.3 * y) < 0.16) & (up < 0.6)
    return _paint(shape, (round_ < 1, Part.BLUE), (arrow, Part.WHITE))
  if thing.style == 2:
    up_ = t if thing.variant % 2 else 1 - t
    rim = up_ * 1.0
    inner = (across < rim - 0.3) & (up_ < 0.9)
    return _paint(shape, (across < rim, Part.RED), (inner, Part.WHITE))
  if thing.style == 3:
    mark = (across < 0.12) & (up < 0.4)
    return _paint(shape, (across + up < 1, Part.YELLOW), (mark, Part.HAIR))
  if thing.style == 4:
    board = (Part.BLUE, Part.GREEN, Part.WHITE, Part.YELLOW)[thing.variant]
    ink = Part.HAIR if thing.variant > 1 else Part.WHITE
    lines = (across < 0.75) & (np.abs(up - 0.4) < 0.14)
    return _paint(shape, (across < 2, board), (lines, ink))
  octagon = (across + up < 1.42) & (across < 1)
  letters = (across < 0.7) & (up < 0.2)
  return _paint(shape, (octagon, Part.RED), (letters, Part.WHITE))


def tree(s, t, thing: Thing) -> np.ndarray:
  """A tree: round, spreading, conical or palm."""
  seed = thing.seed
  across = np.abs(s)
  if thing.style == 3:
    return _palm(s, t, thing)
  trunk = (t < 0.5) & (across < (0.06, 0.05, 0.09)[thing.style])
  x, y = np.broadcast_arrays(s * 4 + 9, t * 7)
  ragged = hashing.value_noise(x, y, seed)
  if thing.style == 2:
    edge = (1 - t) * (0.95 + 0.3 * ragged) + 0.05
    crown = (across < edge) & (t > 0.14 + 0.02 * ragged)
  else:
    middle, radius = ((0.66, 0.33), (0.66, 0.34))[thing.style]
    y = (t - middle) / radius
    power = s * s + y * y
    crown = (power < 0.82 + 0.36 * ragged) & (t > 0.26)
  return _paint(_shape(s, t), (trunk, Part.TRUNK), (crown, Part.BODY))


def _palm(s, t, thing: Thing) -> np.ndarray:
  """A bare trunk with drooping fronds."""
  trunk = (t < 0.86) & (np.abs(s - 0.1 * t) < 0.05)
  y = t - 0.86
  across = np.abs(s - 0.09)
  droop = 0.1 - 0.26 * across * across
  frond = (np.abs(y - droop) < 0.035 + 0.03 * across) & (across < 0.95)
  steep = (np.abs(y + 0.5 * across - 0.06) < 0.035) & (across < 0.42)
  tuft = (np.abs(y - 0.25 * across) < 0.03) & (across < 0.5)
  core = _disc(s, t, 0.09, 0.88, 0.24, 0.05)
  return _paint(
    _shape(s, t), (trunk, Part.TRUNK), (frond | steep | tuft | core, Part.BODY)
  )


BY_LABEL = {
  m.PERSON: person,
  m.RIDER: rider,
  m.BICYCLE: bicycle,
  m.MOTORCYCLE: motorcycle,
  m.POLE: pole,
  m.LIGHT: light,
  m.SIGN: sign,
  m.VEGETATION: tree,
}
