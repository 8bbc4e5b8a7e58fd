from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from jaxseg_da.classes import labels

# The list of the AdaptSegNet data loader, written out by hand.
GTA5_MAP = {
  7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10,
  24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip
# The map that MaxSquareLoss, CorDA and DAFormer share.
SYNTHIA_MAP = {
  1: 10, 2: 2, 3: 0, 4: 1, 5: 4, 6: 8, 7: 5, 8: 13, 9: 7, 10: 11, 11: 18,
  12: 17, 15: 6, 16: 9, 17: 12, 18: 14, 19: 15, 20: 16, 21: 3,
}  # fmt: skip
# The column csTrainId of the AutoNUE tools.
IDD_MAP = {
  0: 0, 3: 1, 29: 2, 20: 3, 21: 4, 26: 5, 25: 6, 24: 7, 32: 8, 5: 9, 33: 10,
  6: 11, 8: 12, 12: 13, 13: 14, 14: 15, 17: 16, 9: 17, 10: 18,
}  # fmt: skip


@pytest.mark.parametrize(
  ('table', 'published'),
  [
    (labels.GTA5_ID_TO_TRAIN_ID, GTA5_MAP),
    (labels.SYNTHIA_ID_TO_TRAIN_ID, SYNTHIA_MAP),
    (labels.IDD_ID_TO_TRAIN_ID, IDD_MAP),
  ],
)
def test_ids_map_as_published(table, published):
  expected = np.full(256, 255)
  for key, value in published.items():
    expected[key] = value
  np.testing.assert_array_equal(table, expected)
  assert table.dtype == np.uint8


def test_cityscapes_ids_agree_with_gta5():
  np.testing.assert_array_equal(
    labels.CITYSCAPES_ID_TO_TRAIN_ID, labels.GTA5_ID_TO_TRAIN_ID
  )


def test_train_ids_survive_the_round_trip():
  back = labels.CITYSCAPES_ID_TO_TRAIN_ID[labels.TRAIN_ID_TO_CITYSCAPES_ID]
  np.testing.assert_array_equal(back[:19], np.arange(19))
  assert labels.TRAIN_ID_TO_CITYSCAPES_ID[18] == 33
  assert labels.TRAIN_ID_TO_CITYSCAPES_ID[255] == 0
  assert (back[19:] == labels.IGNORE).all()


def test_names_and_colours_of_the_train_classes():
  assert labels.NAMES == (
    'road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light',
    'traffic sign', 'vegetation', 'terrain', 'sky', 'person', 'rider', 'car',
    'truck', 'bus', 'train', 'motorcycle', 'bicycle',
  )  # fmt: skip
  assert labels.COLOURS.shape == (19, 3)
  assert labels.COLOURS.dtype == np.uint8
  assert tuple(labels.COLOURS[0]) == (128, 64, 128)
  assert tuple(labels.COLOURS[10]) == (70, 130, 180)
  assert tuple(labels.COLOURS[18]) == (119, 11, 32)


def test_tables_hold_every_id_once():
  assert [row.id for row in labels.CITYSCAPES] == [*range(34), -1]
  assert [row.id for row in labels.GTA5] == list(range(35))
  assert sum(not row.ignore for row in labels.CITYSCAPES) == 19
  for row in labels.CITYSCAPES:
    assert row.ignore == (row.train_id == labels.IGNORE)
  assert [row.id for row in labels.SYNTHIA] == list(range(23))
  assert [row.id for row in labels.IDD] == list(range(40))


@pytest.mark.parametrize('table', [labels.SYNTHIA, labels.IDD])
def test_train_ids_mean_the_same_in_every_table(table):
  seen = []
  for row in table:
    if row.train_id == labels.IGNORE:
      assert row.name not in labels.NAMES
      continue
    seen.append(row.train_id)
    if row.name != 'non-drivable fallback':  # IDD's stand-in for terrain.
      assert row.name == labels.NAMES[row.train_id]
    assert row.colour == tuple(labels.COLOURS[row.train_id])
  assert sorted(seen) == list(range(19))


def test_synthia_classes_that_do_not_count():
  ignored = {r.id: r.name for r in labels.SYNTHIA if r.ignore}
  assert ignored == {
    0: 'void', 13: 'parking slot', 14: 'road work', 22: 'lane marking',
  }  # fmt: skip


def test_idd_table():
  by_name = {row.name: row for row in labels.IDD}
  assert len(by_name) == 40
  for name, row in by_name.items():
    assert labels.IDD_NAME_TO_ID[name] == row.id
  # Large and frequent, yet without a train id.
  for name, value in {
    'parking': 1, 'animal': 7, 'autorickshaw': 11, 'vehicle fallback': 18,
    'curb': 19, 'guard rail': 22, 'billboard': 23, 'unlabeled': 35,
    'license plate': 39,
  }.items():  # fmt: skip
    assert (by_name[name].id, by_name[name].train_id) == (value, 255)
  official = {row.name for row in labels.IDD if row.ignore}
  assert official == {
    'animal', 'caravan', 'trailer', 'train', 'unlabeled', 'ego vehicle',
    'rectification border', 'out of roi', 'license plate',
  }  # fmt: skip
  groups = dict.fromkeys(row.category for row in labels.IDD)
  assert list(groups) == [
    'drivable', 'non-drivable', 'living-thing', '2-wheeler', 'autorickshaw',
    'car', 'large-vehicle', 'barrier', 'structures', 'construction',
    'vegetation', 'sky', 'object fallback', 'void', 'vehicle',
  ]  # fmt: skip


def test_palettes():
  assert tuple(labels.CITYSCAPES_PALETTE[4]) == (0, 0, 0)
  assert tuple(labels.GTA5_PALETTE[4]) == (20, 20, 20)
  assert tuple(labels.CITYSCAPES_PALETTE[9]) == (250, 170, 160)
  assert tuple(labels.GTA5_PALETTE[34]) == (0, 0, 142)
  assert not labels.CITYSCAPES_PALETTE[34:].any()
  assert tuple(labels.IDD_PALETTE[7]) == (246, 198, 145)
  assert tuple(labels.IDD_PALETTE[11]) == (255, 204, 54)
  assert tuple(labels.IDD_PALETTE[18]) == (136, 143, 153)
  assert tuple(labels.IDD_PALETTE[39]) == (0, 0, 142)
  assert not labels.IDD_PALETTE[40:].any()


def test_subsets_shared_with_synthia():
  dropped = [set(range(19)) - set(labels.SUBSETS[n]) for n in (19, 16, 13)]
  names = [{labels.NAMES[i] for i in ids} for ids in dropped]
  assert names[0] == set()
  assert names[1] == {'terrain', 'truck', 'train'}
  assert names[2] - names[1] == {'wall', 'fence', 'pole'}
  for size, ids in labels.SUBSETS.items():
    assert len(ids) == size
    assert list(ids) == sorted(ids)


def test_classes_of_gta5_to_idd():
  dropped = set(range(19)) - set(labels.IDD_CLASSES)
  assert {labels.NAMES[i] for i in dropped} == {'terrain', 'train'}
  assert list(labels.IDD_CLASSES) == sorted(set(labels.IDD_CLASSES))
  # Each size of `SUBSETS` is a field of results.json.
  assert list(labels.SUBSETS) == [19, 16, 13]


def test_library_import_is_light():
  code = (
    'import sys\n'
    'from jaxseg_da import losses, metrics, ops, labels\n'
    "heavy = ('tensorflow_datasets', 'orbax', 'grain', 'ml_collections',"
    " 'tensorflow')\n"
    'print([name for name in heavy if name in sys.modules])\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == '[]'
