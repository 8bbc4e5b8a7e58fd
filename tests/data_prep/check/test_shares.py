from __future__ import annotations

import importlib

import numpy as np
import pytest

from data_prep.checks import shares
from jaxseg_da.classes import labels


def test_reference_rows_are_percentages():
  for row in shares.REFERENCE.values():
    assert len(row) == labels.NUM_CLASSES
    assert sum(row) == pytest.approx(100, abs=0.1)


def test_shares():
  counts = np.zeros(256, np.int64)
  counts[[7, 11, 0]] = 30, 10, 60
  found = shares.shares(counts, labels.GTA5_ID_TO_TRAIN_ID)
  assert found.ignored == 60
  assert found.percent[[0, 2]].tolist() == [75, 25]
  assert found.percent.sum() == 100
  nothing = shares.shares(np.zeros(256, np.int64), labels.GTA5_ID_TO_TRAIN_ID)
  assert nothing.ignored == 0
  assert not nothing.percent.any()


def scheme_counts(table):
  """Pixels with the shares of Cityscapes, stored in the ids of a table."""
  counts = np.zeros(256, np.int64)
  for train_id, share in enumerate(shares.REFERENCE['Cityscapes train']):
    counts[np.flatnonzero(table == train_id)] = round(100 * share)
  return counts


@pytest.mark.parametrize(
  ('own', 'stored', 'expected'),
  [
    ('gta5', labels.CITYSCAPES_ID_TO_TRAIN_ID, ''),
    ('gta5', np.arange(256), 'train ids'),
    ('gta5', labels.SYNTHIA_ID_TO_TRAIN_ID, 'ids of SYNTHIA'),
    ('cityscapes', labels.IDD_ID_TO_TRAIN_ID, 'ids of IDD'),
    ('synthia', labels.SYNTHIA_ID_TO_TRAIN_ID, ''),
    ('synthia', labels.CITYSCAPES_ID_TO_TRAIN_ID, 'ids of Cityscapes'),
    ('idd', labels.IDD_ID_TO_TRAIN_ID, ''),
  ],
)
def test_better_scheme(own, stored, expected):
  layout = importlib.import_module(f'data_prep.{own}.layout').LAYOUT
  assert shares.better_scheme(layout, scheme_counts(stored)) == expected
