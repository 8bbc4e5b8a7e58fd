"""Prepared data sets are read back exactly, and damage is named."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from data_prep import codecs, layouts, prepare
from jaxseg_da import errors
from jaxseg_da.classes import labels
from jaxseg_da.data import sources
from tests import trees

COUNT = 5


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  root = tmp_path_factory.mktemp('gta5')
  pairs = trees.write_gta5(root / 'raw', COUNT)
  prepare.build('gta5', root / 'out', manual_dir=root / 'raw', num_workers=1)
  return root / 'out', pairs


def shard(data_dir: pathlib.Path) -> pathlib.Path:
  (path,) = data_dir.glob('gta5/*/*.array_record*')
  return path


def test_examples_are_read_in_order_and_decoded_exactly(prepared):
  data_dir, pairs = prepared
  source = sources.open_dataset('gta5', data_dir)
  assert (len(source), source.spec) == (COUNT, 'gta5:all')
  assert source.labelled
  assert source.num_classes == 19
  for index, (image, ids) in enumerate(pairs):
    example = source[index]
    assert example['image_id'] == f'{index + 1:05d}'
    np.testing.assert_array_equal(example['image'], image)
    label = labels.GTA5_ID_TO_TRAIN_ID[ids]
    np.testing.assert_array_equal(example['label'], label[..., None])
    np.testing.assert_array_equal(
      example['class_histogram'], [(label == c).sum() for c in range(19)]
    )


def test_read_returns_only_what_is_asked_for(prepared):
  source = sources.open_dataset('gta5', prepared[0])
  assert set(source.read(0, ('image',))) == {'image'}
  with pytest.raises(IndexError, match='no example 5 of 5'):
    source.read(COUNT)
  with pytest.raises(IndexError):
    source.read(-1)


def test_splits_and_slices(prepared):
  data_dir, pairs = prepared
  source = sources.open_dataset('gta5:all[1:3]', data_dir)
  assert len(source) == 2
  np.testing.assert_array_equal(source[0]['image'], pairs[1][0])
  twice = sources.open_dataset('gta5:all[:1]+all[4:]', data_dir)
  np.testing.assert_array_equal(twice[1]['image'], pairs[4][0])
  assert sources.open_dataset('gta5', data_dir, 'all[:2]').split == 'all[:2]'


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    ('gta6', r"unknown dataset 'gta6'; valid: .*Did you mean 'gta5'"),
    ('gta5:validation', r"unknown split of gta5 'validation'; valid: all\."),
    ('gta5:all[', r'gta5:all\[ cannot be opened'),
    ('a b', r"bad data set 'a b': expected NAME"),
    ('streets', r'needs a domain, as in streets/gta'),
    (
      'cityscapes:train',
      r'no prepared data set in \S*/cityscapes; build it with: '
      r'python -m data_prep.build cityscapes --data_dir=\S+ --manual_dir=RAW',
    ),
    ('streets/city', r'data_prep.build streets --data_dir=\S+ --config=city'),
  ],
)
def test_bad_specs_say_what_is_valid(prepared, spec, message):
  with pytest.raises(errors.UserError, match=message):
    sources.open_dataset(spec, prepared[0])


@pytest.fixture
def copy(prepared, tmp_path):
  return pathlib.Path(shutil.copytree(prepared[0], tmp_path / 'copy'))


def test_a_flipped_byte_names_the_record_and_spares_the_others(prepared, copy):
  data = bytearray(shard(copy).read_bytes())
  needle = sources.open_dataset('gta5', copy)._record(2)['image'][1000:1040]
  position = data.find(needle)
  assert position > 0
  data[position] ^= 0x10
  shard(copy).write_bytes(data)
  source = sources.open_dataset('gta5', copy)
  with pytest.raises(errors.UserError) as caught:
    source[2]
  message = str(caught.value)
  assert 'gta5:all: record 2 of split all is corrupt' in message
  assert str(shard(copy)) in message
  assert '\n' not in message
  for index in (0, 1, 3, 4):
    np.testing.assert_array_equal(source[index]['image'], prepared[1][index][0])


@pytest.mark.parametrize('keep', [0, 1000, 70000])
def test_a_truncated_file_is_named(copy, keep):
  path = shard(copy)
  path.write_bytes(path.read_bytes()[:keep])
  source = sources.open_dataset('gta5', copy)
  with pytest.raises(errors.UserError, match=f'record 0 .* corrupt in {path}'):
    source[0]


def test_bytes_that_are_no_image_are_named(prepared, monkeypatch):
  source = sources.open_dataset('gta5', prepared[0])
  record = source._record(1)
  for change in ({'image': b'x'}, {'label': record['image']}):
    monkeypatch.setattr(source, '_record', lambda i, c=change: record | c)
    with pytest.raises(errors.UserError, match=r'record 1 .* corrupt'):
      source[1]


def test_missing_and_damaged_files_are_found_on_opening(copy):
  path = shard(copy)
  path.rename(path.with_name('elsewhere'))
  with pytest.raises(errors.UserError, match=f'{path} is missing'):
    sources.open_dataset('gta5', copy)
  (path.parent / 'dataset_info.json').write_text('{')
  with pytest.raises(errors.UserError, match=f'{path.parent} is damaged'):
    sources.open_dataset('gta5', copy)


def test_the_newest_version_is_read(copy):
  (version,) = (copy / 'gta5').glob('1.*')
  for other in ('0.9.0', '0.10.0'):
    shutil.copytree(version, copy / 'gta5' / other)
  source = sources.open_dataset('gta5', copy)
  assert source.directory == version


def test_sizes_come_from_the_metadata_or_from_the_headers(tmp_path):
  sizes = ((32, 64), (16, 24))
  trees.write_gta5(tmp_path / 'raw', 3, sizes)
  prepare.build('gta5', tmp_path, manual_dir=tmp_path / 'raw', num_workers=1)
  source = sources.open_dataset('gta5', tmp_path)
  assert source.metadata['image_size'] is None
  assert source.sizes() == [sizes[0], sizes[1], sizes[0]]
  prepare.build(
    'gta5',
    tmp_path / 'b',
    manual_dir=tmp_path / 'raw',
    options=layouts.Options(size=(8, 16)),
  )
  source = sources.open_dataset('gta5', tmp_path / 'b')
  assert source.metadata['image_size'] == [8, 16]
  assert source.sizes() == [(8, 16)] * 3


def test_colours_and_16_bits_survive():
  red = np.zeros((2, 3, 3), np.uint8)
  red[..., 0] = 200
  decoded = sources._decode('image', codecs.encode_png(red))
  np.testing.assert_array_equal(decoded, red)
  depth = np.array([[0, 1, 255], [256, 300, 65535]], np.uint16)
  decoded = sources._decode('depth', codecs.encode_png(depth))
  np.testing.assert_array_equal(decoded[..., 0], depth)
  shallow = cv2.imencode('.png', depth.astype(np.uint8))[1].tobytes()
  with pytest.raises(ValueError, match='depth is uint8'):
    sources._decode('depth', shallow)


def test_neither_building_nor_reading_imports_tensorflow(tmp_path):
  trees.write_gta5(tmp_path / 'raw', 2)
  program = (
    'import sys\n'
    'from data_prep import build\n'
    'from jaxseg_da.data import pipeline, sources\n'
    'assert "tensorflow_datasets" not in sys.modules\n'
    f'arguments = ["gta5", "--manual_dir={tmp_path / "raw"}",'
    f' "--data_dir={tmp_path}"]\n'
    'assert build.main(arguments) == 0\n'
    f's = sources.open_dataset("gta5", {str(tmp_path)!r})\n'
    'domains = {"source": pipeline.Domain(s)}\n'
    'with pipeline.pair_batches(domains, batch_size=2, seed=0, stage=0,'
    ' num_steps=1) as batches:\n'
    '  assert next(batches)["source"]["image"].shape == (2, 32, 64, 3)\n'
    'assert "tensorflow" not in sys.modules\n'
    'assert "torch" not in sys.modules\n'
  )
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', program],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
