"""Class ids, surface parts and their colours, and texture scales."""

from __future__ import annotations

import enum

import numpy as np

# Cityscapes train ids.
(
  ROAD,
  SIDEWALK,
  BUILDING,
  WALL,
  FENCE,
  POLE,
  LIGHT,
  SIGN,
  VEGETATION,
  TERRAIN,
  SKY,
  PERSON,
  RIDER,
  CAR,
  TRUCK,
  BUS,
  TRAIN,
  MOTORCYCLE,
  BICYCLE,
) = range(19)
IGNORE = 255
FIRST_INSTANCE_CLASS = PERSON


class Part(enum.IntEnum):
  """What a point of a surface is made of; `HOLE` means no surface."""

  BODY = 0
  DARK = enum.auto()
  GLASS = enum.auto()
  TYRE = enum.auto()
  RIM = enum.auto()
  TAIL_LAMP = enum.auto()
  HEAD_LAMP = enum.auto()
  PLATE = enum.auto()
  SKIN = enum.auto()
  HAIR = enum.auto()
  TROUSERS = enum.auto()
  TRUNK = enum.auto()
  WHITE = enum.auto()
  RED = enum.auto()
  BLUE = enum.auto()
  YELLOW = enum.auto()
  GREEN = enum.auto()
  GREEN_LAMP = enum.auto()
  AMBER_LAMP = enum.auto()
  RED_LAMP = enum.auto()
  LAMP_OFF = enum.auto()
  DISPLAY = enum.auto()
  METAL = enum.auto()
  SHADE = enum.auto()
  HOLE = 255


# part -> (share of the own colour, its gain, fixed RGB of the rest)
_PARTS = {
  Part.BODY: (1.0, 1.0, (0, 0, 0)),
  Part.DARK: (1.0, 0.42, (0, 0, 0)),
  Part.GLASS: (0.25, 0.5, (52, 62, 74)),
  Part.TYRE: (0.0, 0.0, (30, 30, 32)),
  Part.RIM: (0.0, 0.0, (128, 130, 134)),
  Part.TAIL_LAMP: (0.0, 0.0, (196, 44, 36)),
  Part.HEAD_LAMP: (0.0, 0.0, (240, 236, 212)),
  Part.PLATE: (0.0, 0.0, (214, 214, 204)),
  Part.SKIN: (0.1, 1.0, (190, 150, 128)),
  Part.HAIR: (0.0, 0.0, (58, 46, 40)),
  Part.TROUSERS: (0.3, 0.45, (46, 48, 62)),
  Part.TRUNK: (0.0, 0.0, (92, 74, 58)),
  Part.WHITE: (0.0, 0.0, (225, 225, 222)),
  Part.RED: (0.0, 0.0, (190, 48, 48)),
  Part.BLUE: (0.0, 0.0, (54, 90, 186)),
  Part.YELLOW: (0.0, 0.0, (226, 186, 50)),
  Part.GREEN: (0.0, 0.0, (40, 120, 84)),
  Part.GREEN_LAMP: (0.0, 0.0, (80, 235, 130)),
  Part.AMBER_LAMP: (0.0, 0.0, (250, 190, 60)),
  Part.RED_LAMP: (0.0, 0.0, (245, 60, 50)),
  Part.LAMP_OFF: (1.0, 0.5, (0, 0, 0)),
  Part.DISPLAY: (0.0, 0.0, (240, 186, 84)),
  Part.METAL: (0.2, 1.0, (150, 154, 158)),
  Part.SHADE: (1.0, 0.72, (0, 0, 0)),
}
_order = [_PARTS[part] for part in Part if part is not Part.HOLE]
PART_OWN = np.array([own * gain for own, gain, _ in _order], np.float32)
PART_FIXED = np.array(
  [np.multiply(colour, 1 - own) for own, _, colour in _order], np.float32
)

# Texture per class: coarse cycles per metre (along, up), relative amplitude of
# the coarse octave and of the fine one, whose frequency is 4 times as high.
_TEXTURES = {
  ROAD: (0.8, 0.5, 0.09, 0.07),
  SIDEWALK: (0.8, 0.5, 0.06, 0.05),
  BUILDING: (0.7, 0.7, 0.06, 0.045),
  WALL: (1.4, 1.8, 0.09, 0.06),
  FENCE: (1.0, 1.0, 0.05, 0.03),
  POLE: (1.0, 0.6, 0.06, 0.0),
  VEGETATION: (1.2, 1.2, 0.30, 0.24),
  TERRAIN: (1.0, 0.8, 0.12, 0.14),
  PERSON: (3.0, 3.0, 0.06, 0.04),
  RIDER: (3.0, 3.0, 0.06, 0.04),
  CAR: (0.9, 0.9, 0.05, 0.0),
  TRUCK: (0.5, 0.5, 0.06, 0.03),
  BUS: (0.5, 0.5, 0.05, 0.0),
  TRAIN: (0.5, 0.5, 0.05, 0.0),
}
TEXTURES = np.array(
  [_TEXTURES.get(c, (1.5, 1.5, 0.05, 0.0)) for c in range(19)], np.float32
)
