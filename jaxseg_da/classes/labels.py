"""Class tables of the driving data sets: ids, train ids, names, colours.

Labels inside the library are always *train ids*: 0..18 for the classes that
Cityscapes evaluates, 255 for every pixel that does not count. Raw label files
hold other ids; the look-up tables here translate, so that nobody needs files
such as `labelTrainIds`. NumPy only.

Sources: the label list of cityscapesScripts; the class mapping that comes with
"Playing for Data" (Richter et al., 2016); the map of SYNTHIA that all public
adaptation code shares; `anue_labels.py` of the AutoNUE tools for IDD. GTA5 uses
the ids of Cityscapes, stores the licence plate as 34, and paints `static`
slightly lighter.
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

# The position is the id. What Cityscapes knows by the same name counts as the
# same class. Lane marking is a class of its own, not road: published results
# ignore it.
_SYNTHIA_NAMES = (
  'void', 'sky', 'building', 'road', 'sidewalk', 'fence', 'vegetation', 'pole',
  'car', 'traffic sign', 'person', 'bicycle', 'motorcycle', 'parking slot',
  'road work', 'traffic light', 'terrain', 'rider', 'truck', 'bus', 'train',
  'wall', 'lane marking',
)  # fmt: skip


def _synthia(index: int, name: str) -> LabelClass:
  for row in TRAIN_CLASSES:
    if row.name == name:
      return row._replace(id=index)
  return LabelClass(name, index, IGNORE, 'void', True, (0, 0, 0))


# Terrain, truck and train are defined, but no frame shows them. The label files
# hold no colours; these are the ones of Cityscapes.
SYNTHIA = tuple(_synthia(*pair) for pair in enumerate(_SYNTHIA_NAMES))

# The train id is IDD's csTrainId, the category its level 2. Its csId is not
# used at all: 'vehicle fallback' has 355 there, which does not fit 8 bits.
# `ignore` is about IDD's own evaluation, which counts more classes than there
# are train ids: autorickshaws and curbs, for example.
IDD = tuple(
  LabelClass(*row)
  for row in (
    ('road', 0, 0, 'drivable', False, (128, 64, 128)),
    ('parking', 1, 255, 'drivable', False, (250, 170, 160)),
    ('drivable fallback', 2, 255, 'drivable', False, (81, 0, 81)),
    ('sidewalk', 3, 1, 'non-drivable', False, (244, 35, 232)),
    ('rail track', 4, 255, 'non-drivable', False, (230, 150, 140)),
    ('non-drivable fallback', 5, 9, 'non-drivable', False, (152, 251, 152)),
    ('person', 6, 11, 'living-thing', False, (220, 20, 60)),
    ('animal', 7, 255, 'living-thing', True, (246, 198, 145)),
    ('rider', 8, 12, 'living-thing', False, (255, 0, 0)),
    ('motorcycle', 9, 17, '2-wheeler', False, (0, 0, 230)),
    ('bicycle', 10, 18, '2-wheeler', False, (119, 11, 32)),
    ('autorickshaw', 11, 255, 'autorickshaw', False, (255, 204, 54)),
    ('car', 12, 13, 'car', False, (0, 0, 142)),
    ('truck', 13, 14, 'large-vehicle', False, (0, 0, 70)),
    ('bus', 14, 15, 'large-vehicle', False, (0, 60, 100)),
    ('caravan', 15, 255, 'large-vehicle', True, (0, 0, 90)),
    ('trailer', 16, 255, 'large-vehicle', True, (0, 0, 110)),
    ('train', 17, 16, 'large-vehicle', True, (0, 80, 100)),
    ('vehicle fallback', 18, 255, 'large-vehicle', False, (136, 143, 153)),
    ('curb', 19, 255, 'barrier', False, (220, 190, 40)),
    ('wall', 20, 3, 'barrier', False, (102, 102, 156)),
    ('fence', 21, 4, 'barrier', False, (190, 153, 153)),
    ('guard rail', 22, 255, 'barrier', False, (180, 165, 180)),
    ('billboard', 23, 255, 'structures', False, (174, 64, 67)),
    ('traffic sign', 24, 7, 'structures', False, (220, 220, 0)),
    ('traffic light', 25, 6, 'structures', False, (250, 170, 30)),
    ('pole', 26, 5, 'structures', False, (153, 153, 153)),
    ('polegroup', 27, 255, 'structures', False, (153, 153, 153)),
    ('obs-str-bar-fallback', 28, 255, 'structures', False, (169, 187, 214)),
    ('building', 29, 2, 'construction', False, (70, 70, 70)),
    ('bridge', 30, 255, 'construction', False, (150, 100, 100)),
    ('tunnel', 31, 255, 'construction', False, (150, 120, 90)),
    ('vegetation', 32, 8, 'vegetation', False, (107, 142, 35)),
    ('sky', 33, 10, 'sky', False, (70, 130, 180)),
    ('fallback background', 34, 255, 'object fallback', False, (169, 187, 214)),
    ('unlabeled', 35, 255, 'void', True, (0, 0, 0)),
    ('ego vehicle', 36, 255, 'void', True, (0, 0, 0)),
    ('rectification border', 37, 255, 'void', True, (0, 0, 0)),
    ('out of roi', 38, 255, 'void', True, (0, 0, 0)),
    ('license plate', 39, 255, 'vehicle', True, (0, 0, 142)),
  )
)
IDD_NAME_TO_ID = {row.name: row.id for row in IDD}

# Train ids that papers average over: all, and those that SYNTHIA also labels
# (without terrain, truck, train; then without wall, fence, pole as well).
SUBSETS: dict[int, tuple[int, ...]] = {
  19: tuple(range(NUM_CLASSES)),
  16: (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
  13: (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
}
# Train ids that CCDA averages over with IDD as the target: without terrain, for
# which IDD has only 'non-drivable fallback', and without train. Not in
# `SUBSETS`, whose sizes become fields of results.
IDD_CLASSES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 17, 18)


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
SYNTHIA_ID_TO_TRAIN_ID = lookup_table(
  ((row.id, row.train_id) for row in SYNTHIA), IGNORE
)
IDD_ID_TO_TRAIN_ID = lookup_table(
  ((row.id, row.train_id) for row in IDD), IGNORE
)
# What the Cityscapes server wants; ignored pixels become 'unlabeled' (0).
TRAIN_ID_TO_CITYSCAPES_ID = lookup_table(
  ((row.train_id, row.id) for row in TRAIN_CLASSES), 0
)
CITYSCAPES_PALETTE = palette(CITYSCAPES)
GTA5_PALETTE = palette(GTA5)
IDD_PALETTE = palette(IDD)
