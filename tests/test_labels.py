from __future__ import annotations

import subprocess
import sys

import numpy as np

from jaxseg_da import labels

# The list of the AdaptSegNet data loader, written out by hand.
GTA5_MAP = {
  7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10,
  24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip


def test_gta5_ids_map_as_published():
  expected = np.full(256, 255)
  for key, value in GTA5_MAP.items():
    expected[key] = value
  np.testing.assert_array_equal(labels.GTA5_ID_TO_TRAIN_ID, expected)


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


def test_palettes():
  assert tuple(labels.CITYSCAPES_PALETTE[4]) == (0, 0, 0)
  assert tuple(labels.GTA5_PALETTE[4]) == (20, 20, 20)
  assert tuple(labels.CITYSCAPES_PALETTE[9]) == (250, 170, 160)
  assert tuple(labels.GTA5_PALETTE[34]) == (0, 0, 142)
  assert not labels.CITYSCAPES_PALETTE[34:].any()


def test_subsets_shared_with_synthia():
  dropped = [set(range(19)) - set(labels.SUBSETS[n]) for n in (19, 16, 13)]
  names = [{labels.NAMES[i] for i in ids} for ids in dropped]
  assert names[0] == set()
  assert names[1] == {'terrain', 'truck', 'train'}
  assert names[2] - names[1] == {'wall', 'fence', 'pole'}
  for size, ids in labels.SUBSETS.items():
    assert len(ids) == size
    assert list(ids) == sorted(ids)


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
