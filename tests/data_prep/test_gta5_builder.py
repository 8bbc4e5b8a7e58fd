"""GTA5: raw tree -> build -> every pixel; what a user may ask of a build."""

from __future__ import annotations

import io
import json
import shutil
import sys

import cv2
import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from data_prep import build
from data_prep.gta5 import gta5_dataset_builder
from jaxseg_da.classes import labels
from jaxseg_da.data import sources, transforms
from tests import trees


def run(raw, out, *more):
  flags = [f'--manual_dir={raw}', f'--data_dir={out}', '--workers=1', *more]
  return build.main(['gta5', *flags])


def ids_of(source):
  return [source[index]['image_id'] for index in range(len(source))]


def assert_equals(source, pairs, first=0):
  assert len(source) == len(pairs)
  for index, (image, ids) in enumerate(pairs):
    example = source[index]
    assert example['image_id'] == f'{first + index + 1:05d}'
    np.testing.assert_array_equal(example['image'], image)
    expected = labels.GTA5_ID_TO_TRAIN_ID[ids]
    np.testing.assert_array_equal(example['label'][..., 0], expected)
    counts = [(expected == c).sum() for c in range(19)]
    np.testing.assert_array_equal(example['class_histogram'], counts)


@pytest.mark.parametrize('zipped', [False, True])
def test_every_pixel_of_images_of_several_sizes(tmp_path, capsys, zipped):
  raw = tmp_path / 'raw'
  pairs = trees.write_gta5(raw, 3, ((32, 64), (30, 64)))
  (raw / 'images/Thumbs.db').write_bytes(b'x')
  (raw / 'images/._00001.png').write_bytes(b'x')
  data = (raw / 'images/00002.png').read_bytes()
  if zipped:
    for name in ('images', 'labels'):
      archive = str(raw / f'01_{name}')
      shutil.make_archive(archive, 'zip', raw, name)
      shutil.rmtree(raw / name)
  assert run(raw, tmp_path) == 0
  folder = tmp_path / 'gta5/1.0.0'
  assert f'wrote {folder}' in capsys.readouterr().out
  source = sources.open_dataset('gta5', tmp_path)
  assert_equals(source, pairs)
  assert source._record(1)['image'] == data  # The file's own bytes.
  assert source.labelled
  assert run(raw, tmp_path) == 0
  assert f'already prepared: {folder}' in capsys.readouterr().out


def test_archives_may_lie_beside_what_was_extracted_from_them(tmp_path):
  raw = tmp_path / 'raw'
  pairs = trees.write_gta5(raw, 2)
  shutil.make_archive(str(tmp_path / '01_images'), 'zip', raw, 'images')
  shutil.move(tmp_path / '01_images.zip', raw / '01_images.zip')
  assert run(raw, tmp_path) == 0
  assert_equals(sources.open_dataset('gta5', tmp_path), pairs)


@pytest.mark.parametrize(
  ('mode', 'resample'),
  [
    ('', Image.Resampling.BICUBIC),
    ('pil_bilinear', Image.Resampling.BILINEAR),
  ],
)
def test_size_resize_and_limit_are_applied_and_recorded(
  tmp_path, mode, resample
):
  raw = tmp_path / 'raw'
  pairs = trees.write_gta5(raw, 3)
  flags = ['--size=20x30', '--limit=2', *([f'--resize={mode}'] * bool(mode))]
  assert run(raw, tmp_path, *flags) == 0
  source = sources.open_dataset('gta5', tmp_path)
  assert len(source) == 2
  recorded = {k: source.metadata[k] for k in ('size', 'resize', 'limit')}
  assert recorded == {
    'size': [20, 30],
    'resize': mode or 'pil_bicubic',
    'limit': 2,
  }
  for example, (image, ids) in zip(source, pairs, strict=False):
    resized = Image.fromarray(image).resize((30, 20), resample)
    np.testing.assert_array_equal(example['image'], resized)
    label = labels.GTA5_ID_TO_TRAIN_ID[ids]
    np.testing.assert_array_equal(
      example['label'][..., 0], transforms.nearest(label, (20, 30))
    )


def test_jpeg_images_are_small_and_labels_stay_exact(tmp_path):
  raw = tmp_path / 'raw'
  pairs = trees.write_gta5(raw, 1)
  assert run(raw, tmp_path, '--encoding=jpeg95', '--size=16x32') == 0
  source = sources.open_dataset('gta5', tmp_path)
  stored = source._record(0)['image']
  with Image.open(io.BytesIO(stored)) as image:
    assert (image.format, image.size) == ('JPEG', (32, 16))
  label = labels.GTA5_ID_TO_TRAIN_ID[pairs[0][1]]
  np.testing.assert_array_equal(
    source[0]['label'][..., 0], transforms.nearest(label, (16, 32))
  )
  assert source.metadata['encoding'] == 'jpeg95'


def test_split_mat_gives_the_splits_of_the_authors(tmp_path, capsys):
  raw = tmp_path / 'raw'
  pairs = trees.write_gta5(raw, 4)
  lists = {'trainIds': [[2], [1]], 'valIds': [[3]], 'testIds': [[4]]}
  scipy.io.savemat(raw / 'split.mat', lists)
  assert run(raw, tmp_path) == 0
  names = ('train', 'validation', 'test', 'all')
  found = {
    name: ids_of(sources.open_dataset(f'gta5:{name}', tmp_path))
    for name in names
  }
  assert found == {
    'train': ['00001', '00002'],
    'validation': ['00003'],
    'test': ['00004'],
    'all': ['00001', '00002', '00003', '00004'],
  }
  assert_equals(sources.open_dataset('gta5', tmp_path), pairs)
  scipy.io.savemat(raw / 'split.mat', lists | {'testIds': [[5]]})
  assert run(raw, tmp_path / 'b') == 2
  assert 'split.mat names no split for image 00004' in capsys.readouterr().err
  scipy.io.savemat(raw / 'split.mat', {'trainIds': [[1]]})
  assert run(raw, tmp_path / 'b') == 2
  assert "split.mat has no variable 'valIds'" in capsys.readouterr().err


def test_lists_choose_examples_and_make_splits(tmp_path, capsys):
  raw = tmp_path / 'raw'
  trees.write_gta5(raw, 5)
  (tmp_path / 'a.txt').write_text('# a comment\n00003\n00001 x\n\n')
  (tmp_path / 'b.txt').write_text('/images/00005.png\t/labels/00005.png\n')
  assert run(raw, tmp_path / '1', f'--list={tmp_path}/a.txt') == 0
  source = sources.open_dataset('gta5', tmp_path / '1')
  assert ids_of(source) == ['00001', '00003']
  flags = [f'--list=train={tmp_path}/a.txt', f'--list=held={tmp_path}/b.txt']
  assert run(raw, tmp_path / '2', *flags) == 0
  source = sources.open_dataset('gta5', tmp_path / '2')
  assert (source.split, ids_of(source)) == ('train', ['00003', '00001'])
  source = sources.open_dataset('gta5:held', tmp_path / '2')
  assert ids_of(source) == ['00005']
  capsys.readouterr()
  (tmp_path / 'b.txt').write_text('00004\n')  # The content decides.
  assert run(raw, tmp_path / '2', *flags) == 2
  assert 'was built with lists=' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('text', 'flag', 'message'),
  [
    ('00009\n00008', '{}', "names '00009', which is not there (2 of 2"),
    ('00001\n00001', '{}', "names '00001' twice"),
    ('#', '{}', 'names no image'),
    ('00001', 'all={}', 'a split not called all'),
    (None, '{}', 'cannot be read'),
  ],
)
def test_bad_lists(tmp_path, capsys, text, flag, message):
  trees.write_gta5(tmp_path / 'raw', 2)
  file = tmp_path / 'list.txt'
  if text:
    file.write_text(text)
  flag = '--list=' + flag.format(file)
  assert run(tmp_path / 'raw', tmp_path, flag) == 2
  assert message in capsys.readouterr().err


def _with_known_bad(raw):
  """A tree with 00001, and 15188 whose label is smaller than its image."""
  pairs = trees.write_gta5(raw, 1)
  shutil.copy(raw / 'images/00001.png', raw / 'images/15188.png')
  small = Image.fromarray(np.full((16, 32), 7, np.uint8))
  small.putpixel((0, 0), 8)
  small.save(raw / 'labels/15188.png')
  return pairs


def test_known_bad_pairs_are_left_out_and_named(tmp_path, capsys):
  pairs = _with_known_bad(tmp_path / 'raw')
  assert run(tmp_path / 'raw', tmp_path) == 0
  out = capsys.readouterr().out
  assert 'left out 15188: image and label have different sizes' in out
  source = sources.open_dataset('gta5', tmp_path)
  assert_equals(source, pairs)
  assert list(source.metadata['dropped']) == ['15188']


def test_known_bad_pairs_can_be_kept_or_named_by_the_user(tmp_path, capsys):
  raw = tmp_path / 'raw'
  _with_known_bad(raw)
  assert run(raw, tmp_path / 'keep', '--known_bad=keep') == 0
  source = sources.open_dataset('gta5', tmp_path / 'keep')
  assert ids_of(source) == ['00001', '15188']
  label = source[1]['label'][..., 0]
  assert label.shape == (32, 64)
  assert (label[:2, :2] == 1).all()
  assert (label[2:] == 0).all()
  (tmp_path / 'bad.txt').write_text('00001 blurred\n')
  assert run(raw, tmp_path / 'own', f'--known_bad={tmp_path}/bad.txt') == 2
  assert 'labels/15188.png is 16x32 but its image' in capsys.readouterr().err
  (tmp_path / 'bad.txt').write_text('15188 sizes\n00001 blurred\n')
  assert run(raw, tmp_path / 'own', f'--known_bad={tmp_path}/bad.txt') == 2
  assert 'nothing to build' in capsys.readouterr().err
  (tmp_path / 'bad.txt').write_text('00001\n')
  assert run(raw, tmp_path / 'own', f'--known_bad={tmp_path}/bad.txt') == 2
  assert "bad.txt:1: '00001' has no reason" in capsys.readouterr().err
  assert run(raw, tmp_path / 'own', '--known_bad=dropp') == 2
  assert 'expected drop, keep, or a file' in capsys.readouterr().err


def test_loading_screens_are_left_out(tmp_path, capsys):
  raw = tmp_path / 'raw'
  trees.write_gta5(raw, 2)
  Image.fromarray(np.full((32, 64), 4, np.uint8)).save(raw / 'labels/00001.png')
  assert run(raw, tmp_path) == 0
  assert 'left out 00001: the whole label is one' in capsys.readouterr().out
  assert ids_of(sources.open_dataset('gta5', tmp_path)) == ['00002']
  assert run(raw, tmp_path / 'all', '--known_bad=keep') == 0
  assert len(sources.open_dataset('gta5', tmp_path / 'all')) == 2


def _write_depth(folder, count, size=trees.SIZE):
  rng = np.random.default_rng(7)
  folder.mkdir()
  depths = rng.integers(0, 65536, (count, *size)).astype(np.uint16)
  for index, depth in enumerate(depths):
    cv2.imwrite(str(folder / f'{index + 1:05d}.png'), depth)
  return depths


def test_depth_folder_of_a_declared_kind(tmp_path, capsys):
  raw, folder = tmp_path / 'raw', tmp_path / 'disparity'
  trees.write_gta5(raw, 2)
  depths = _write_depth(folder, 2)
  flags = [f'--depth_dir={folder}', '--depth_kind=network_disparity']
  assert run(raw, tmp_path, *flags) == 0
  source = sources.open_dataset('gta5', tmp_path)
  for index, depth in enumerate(depths):
    np.testing.assert_array_equal(source[index]['depth'][..., 0], depth)
  kind = {k: source.metadata[k] for k in ('depth_kind', 'depth_unit')}
  assert kind == {'depth_kind': 'network_disparity', 'depth_unit': '1/65535'}
  (folder / '00002.png').unlink()
  assert run(raw, tmp_path / 'b', *flags) == 2
  message = '00002.png has no depth (1 of the 2 images of unsplit have none)'
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--depth_dir={}'], '--depth_dir and --depth_kind go together'),
    (['--depth_kind=metric'], '--depth_dir and --depth_kind go together'),
    (['--depth_dir={}', '--depth_kind=x'], "unknown depth kind 'x'"),
    (['--depth_dir={}/no', '--depth_kind=metric'], '/no is no folder'),
    (['--depth_dir={}', '--depth_kind=metric'], 'holds no depth for the im'),
    (['--features=depth'], "--features names 'depth', but no files for it"),
    (['--features=x'], "unknown feature 'x'"),
    (['--encoding=gif'], "unknown encoding 'gif'"),
    (['--resize=area'], "unknown resize mode 'area'"),
  ],
)
def test_bad_options(tmp_path, capsys, flags, message):
  trees.write_gta5(tmp_path / 'raw', 1)
  (tmp_path / 'empty').mkdir()
  flags = [flag.format(tmp_path / 'empty') for flag in flags]
  assert run(tmp_path / 'raw', tmp_path, *flags) == 2
  assert message in capsys.readouterr().err


def test_metadata_says_which_features_are_real(tmp_path):
  trees.write_gta5(tmp_path / 'raw', 1)
  assert run(tmp_path / 'raw', tmp_path) == 0
  file = tmp_path / 'gta5/1.0.0/metadata.json'
  found = json.loads(file.read_text())
  assert found['split_features'] == {'unsplit': ['label']}
  assert found['labelled'] == {'unsplit': True}
  assert found['image_size'] == [32, 64]


def test_the_builder_is_an_ordinary_one_of_tfds(tmp_path):
  pairs = trees.write_gta5(tmp_path / 'raw', 2)
  builder = gta5_dataset_builder.Builder(data_dir=tmp_path)
  config = tfds.download.DownloadConfig(manual_dir=tmp_path / 'raw')
  builder.download_and_prepare(
    download_dir=tmp_path / 'download', download_config=config
  )
  assert_equals(sources.open_dataset('gta5', tmp_path), pairs)
  again = tfds.builder_from_directory(builder.data_dir)
  assert again.info.splits['unsplit'].num_examples == 2
  assert again.as_data_source('unsplit')[0]['image'].shape == (32, 64, 3)
  assert 'tensorflow' not in sys.modules
