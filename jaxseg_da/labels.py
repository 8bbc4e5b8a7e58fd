"""Class tables of the driving data sets: ids, train ids, names, colours.

Labels inside the library are always *train ids*: 0..18 for the classes that
Cityscapes evaluates, 255 for every pixel that does not count. Raw label files
hold other ids; the look-up tables here translate, so that nobody needs files
such as `labelTrainIds`. NumPy only.

Sources: the label list of cityscapesScripts; the class mapping that comes with
"Playing for Data" (Richter et al., 2016). GTA5 uses the ids of Cityscapes,
stores the licence plate as 34, and paints `static` slightly lighter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

IGNORE = 255
NUM_CLASSES = 19


class LabelClass(NamedTuple):
  """One row of a class table.

  Attributes:
    name: official name.
    id: pixel value in the raw label images (-1: never stored).
    train_id: 0..18, or `IGNORE`.
    category: group of the class.
    ignore: whether the official evaluation leaves the class out.
    colour: RGB, 0..255.
  """

  name: str
  id: int
  train_id: int
  category: str
  ignore: bool
  colour: tuple[int, int, int]


CITYSCAPES = tuple(
  LabelClass(*row)
  for row in (
    ('unlabeled', 0, 255, 'void', True, (0, 0, 0)),
    ('ego vehicle', 1, 255, 'void', True, (0, 0, 0)),
    ('rectification border', 2, 255, 'void', True, (0, 0, 0)),
    ('out of roi', 3, 255, 'void', True, (0, 0, 0)),
    ('static', 4, 255, 'void', True, (0, 0, 0)),
    ('dynamic', 5, 255, 'void', True, (111, 74, 0)),
    ('ground', 6, 255, 'void', True, (81, 0, 81)),
    ('road', 7, 0, 'flat', False, (128, 64, 128)),
    ('sidewalk', 8, 1, 'flat', False, (244, 35, 232)),
    ('parking', 9, 255, 'flat', True, (250, 170, 160)),
    ('rail track', 10, 255, 'flat', True, (230, 150, 140)),
    ('building', 11, 2, 'construction', False, (70, 70, 70)),
    ('wall', 12, 3, 'construction', False, (102, 102, 156)),
    ('fence', 13, 4, 'construction', False, (190, 153, 153)),
    ('guard rail', 14, 255, 'construction', True, (180, 165, 180)),
    ('bridge', 15, 255, 'construction', True, (150, 100, 100)),
    ('tunnel', 16, 255, 'construction', True, (150, 120, 90)),
    ('pole', 17, 5, 'object', False, (153, 153, 153)),
    ('polegroup', 18, 255, 'object', True, (153, 153, 153)),
    ('traffic light', 19, 6, 'object', False, (250, 170, 30)),
    ('traffic sign', 20, 7, 'object', False, (220, 220, 0)),
    ('vegetation', 21, 8, 'nature', False, (107, 142, 35)),
    ('terrain', 22, 9, 'nature', False, (152, 251, 152)),
    ('sky', 23, 10, 'sky', False, (70, 130, 180)),
    ('person', 24, 11, 'human', False, (220, 20, 60)),
    ('rider', 25, 12, 'human', False, (255, 0, 0)),
    ('car', 26, 13, 'vehicle', False, (0, 0, 142)),
    ('truck', 27, 14, 'vehicle', False, (0, 0, 70)),
    ('bus', 28, 15, 'vehicle', False, (0, 60, 100)),
    ('caravan', 29, 255, 'vehicle', True, (0, 0, 90)),
    ('trailer', 30, 255, 'vehicle', True, (0, 0, 110)),
    ('train', 31, 16, 'vehicle', False, (0, 80, 100)),
    ('motorcycle', 32, 17, 'vehicle', False, (0, 0, 230)),
    ('bicycle', 33, 18, 'vehicle', False, (119, 11, 32)),
    ('license plate', -1, 255, 'vehicle', True, (0, 0, 142)),
  )
)


def _gta5(row: LabelClass) -> LabelClass:
  if row.name == 'static':
    return row._replace(colour=(20, 20, 20))
  return row._replace(id=34) if row.id < 0 else row


GTA5 = tuple(_gta5(row) for row in CITYSCAPES)

TRAIN_CLASSES = tuple(
  sorted(
    (row for row in CITYSCAPES if row.train_id != IGNORE),
    key=lambda row: row.train_id,
  )
)
NAMES = tuple(row.name for row in TRAIN_CLASSES)
COLOURS = np.array([row.colour for row in TRAIN_CLASSES], np.uint8)

# Train ids that papers average over: all, and those that SYNTHIA also labels
# (without terrain, truck, train; then without wall, fence, pole as well).
SUBSETS: dict[int, tuple[int, ...]] = {
  19: tuple(range(NUM_CLASSES)),
  16: (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
  13: (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
}


def lookup_table(pairs: Iterable[tuple[int, int]], default: int) -> np.ndarray:
  """A table u8 `[256]` with `table[a] = b` for each pair, else `default`."""
  table = np.full(256, default, np.uint8)
  for key, value in pairs:
    if key >= 0:
      table[key] = value
  table.setflags(write=False)
  return table


def palette(classes: Iterable[LabelClass]) -> np.ndarray:
  """Colours u8 `[256, 3]` indexed by raw id; black where there is no class."""
  table = np.zeros((256, 3), np.uint8)
  for row in classes:
    if row.id >= 0:
      table[row.id] = row.colour
  table.setflags(write=False)
  return table


COLOURS.setflags(write=False)
CITYSCAPES_ID_TO_TRAIN_ID = lookup_table(
  ((row.id, row.train_id) for row in CITYSCAPES), IGNORE
)
GTA5_ID_TO_TRAIN_ID = lookup_table(
  ((row.id, row.train_id) for row in GTA5), IGNORE
)
# What the Cityscapes server wants; ignored pixels become 'unlabeled' (0).
TRAIN_ID_TO_CITYSCAPES_ID = lookup_table(
  ((row.train_id, row.id) for row in TRAIN_CLASSES), 0
)
CITYSCAPES_PALETTE = palette(CITYSCAPES)
GTA5_PALETTE = palette(GTA5)
