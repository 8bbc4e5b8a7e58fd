from __future__ import annotations

import re

import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.data import label_store
from jaxseg_da.labels import IGNORE
from jaxseg_da.visual import encode_png


def _label(index: int) -> np.ndarray:
  label = np.random.default_rng(index).integers(0, 5, (16, 32), np.uint8)
  label[:3] = IGNORE
  return label


def test_a_store_returns_what_was_written(tmp_path):
  store = label_store.Store(tmp_path / 'new' / 'folder')
  assert store.written() == set()
  for index in (0, 41, 1_234_567):
    store.write(index, _label(index))
  store.write(41, _label(42))
  assert store.written() == {0, 41, 1_234_567}
  np.testing.assert_array_equal(store.read(0), _label(0))
  np.testing.assert_array_equal(store.read(41), _label(42))
  assert store.read(1_234_567).dtype == np.uint8


def test_a_pass_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
  store = label_store.Store(tmp_path)
  store.write(0, _label(0))
  with monkeypatch.context() as patch:
    patch.setattr('pathlib.Path.replace', _killed)
    with pytest.raises(KeyboardInterrupt):
      store.write(1, _label(1))
  assert len(list(tmp_path.iterdir())) == 2  # the half-written file is there
  again = label_store.Store(tmp_path)
  assert again.written() == {0}
  for index in {0, 1, 2} - again.written():
    again.write(index, _label(index))
  for index in range(3):
    np.testing.assert_array_equal(again.read(index), _label(index))


def _killed(*_):
  raise KeyboardInterrupt


def test_missing_labels_are_named(tmp_path):
  store = label_store.Store(tmp_path)
  message = f'{tmp_path}/000003.png are missing: remove {tmp_path} and run'
  with pytest.raises(errors.UserError, match=re.escape(message)):
    store.read(3)


def _flip(data: bytes) -> bytes:
  middle = len(data) // 2
  return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
  'damage',
  [
    lambda data: b'',
    lambda data: b'no picture',
    lambda data: data[: len(data) // 2],
    lambda data: data[:-20],
    _flip,
    lambda data: encode_png(np.zeros((4, 4, 3), np.uint8)),
  ],
  ids=['empty', 'text', 'half', 'end', 'bit', 'colours'],
)
def test_damaged_labels_are_named(tmp_path, damage):
  store = label_store.Store(tmp_path)
  store.write(7, _label(7))
  path = tmp_path / '000007.png'
  path.write_bytes(damage(path.read_bytes()))
  message = f'{path} are damaged: remove {tmp_path} and run'
  with pytest.raises(errors.UserError, match=re.escape(message)):
    store.read(7)


def test_only_label_maps_can_be_stored(tmp_path):
  store = label_store.Store(tmp_path)
  with pytest.raises(ValueError, match=r'\[H, W\]'):
    store.write(0, _label(0)[..., None])
  with pytest.raises(ValueError, match='int64'):
    store.write(0, _label(0).astype(np.int64))
  assert store.written() == set()
