"""Raw tree -> build -> every pixel; and one clear sentence for a wrong tree."""

from __future__ import annotations

import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import build
from data_prep.streets import export, world
from jaxseg_da import labels
from jaxseg_da.data import sources, transforms
from tests import trees

COUNTS = {
  'train': {'aachen': 2, 'bad-homburg': 1},
  'val': {'ulm': 2},
  'test': {'bonn': 1},
}


def run(name, raw, out, *more):
  return build.main([name, f'--manual_dir={raw}', f'--data_dir={out}', *more])


def stored_bytes(source, index):
  return source._record(index)['image']


def test_gta5_pixels_and_file_bytes(tmp_path, capsys):
  pairs = trees.write_gta5(tmp_path / 'raw', 3, ((32, 64), (30, 64)))
  (tmp_path / 'raw/images/Thumbs.db').write_bytes(b'x')
  (tmp_path / 'raw/images/._00001.png').write_bytes(b'x')
  assert run('gta5', tmp_path / 'raw', tmp_path) == 0
  folder = tmp_path / 'gta5/1.0.0'
  assert f'wrote {folder}' in capsys.readouterr().out
  source = sources.open_dataset('gta5', tmp_path)
  assert len(source) == 3
  for index, (image, ids) in enumerate(pairs):
    example = source[index]
    np.testing.assert_array_equal(example['image'], image)
    np.testing.assert_array_equal(
      example['label'][..., 0], labels.GTA5_ID_TO_TRAIN_ID[ids]
    )
    file = tmp_path / f'raw/images/{index + 1:05d}.png'
    assert stored_bytes(source, index) == file.read_bytes()
  assert run('gta5', tmp_path / 'raw', tmp_path) == 0
  assert f'already prepared: {folder}' in capsys.readouterr().out


def test_gta5_leaves_known_bad_pairs_out(tmp_path):
  trees.write_gta5(tmp_path / 'raw', 1)
  for folder in ('images', 'labels'):
    source = tmp_path / 'raw' / folder / '00001.png'
    shutil.copy(source, source.with_name('15188.png'))
  run('gta5', tmp_path / 'raw', tmp_path)
  assert len(sources.open_dataset('gta5', tmp_path)) == 1


def test_size_and_limit_are_applied_and_recorded(tmp_path):
  pairs = trees.write_gta5(tmp_path / 'raw', 3)
  raw = tmp_path / 'raw'
  assert run('gta5', raw, tmp_path, '--size=20x30', '--limit=2') == 0
  source = sources.open_dataset('gta5', tmp_path)
  assert len(source) == 2
  recorded = {k: source.metadata[k] for k in ('size', 'resize', 'limit')}
  assert recorded == {'size': [20, 30], 'resize': 'pil_bicubic', 'limit': 2}
  for example, (image, ids) in zip(source, pairs, strict=False):
    resized = Image.fromarray(image).resize((30, 20), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(example['image'], resized)
    label = labels.GTA5_ID_TO_TRAIN_ID[ids]
    np.testing.assert_array_equal(
      example['label'][..., 0], transforms.nearest(label, (20, 30))
    )


def test_cityscapes_pixels_splits_and_labels(tmp_path):
  raw = tmp_path / 'raw'
  pairs = trees.write_cityscapes(raw, COUNTS)
  folder = raw / 'leftImg8bit/train/aachen'
  (folder / '._aachen_000000_000019_leftImg8bit.png').write_bytes(b'x')
  assert run('cityscapes', raw, tmp_path) == 0
  found = {}
  for split in ('train', 'validation', 'test'):
    source = sources.open_dataset(f'cityscapes:{split}', tmp_path)
    assert source.labelled == (split != 'test')
    for index in range(len(source)):
      example = source[index]
      found[example['image_id']] = split
      image, ids = pairs[example['image_id']]
      np.testing.assert_array_equal(example['image'], image)
      expected = labels.CITYSCAPES_ID_TO_TRAIN_ID[ids]
      if split == 'test':
        expected = np.full_like(expected, 255)
      np.testing.assert_array_equal(example['label'][..., 0], expected)
  assert found == {
    'aachen_000000_000019': 'train',
    'aachen_000001_000019': 'train',
    'bad-homburg_000000_000019': 'train',
    'ulm_000000_000019': 'validation',
    'ulm_000001_000019': 'validation',
    'bonn_000000_000019': 'test',
  }
  assert sources.open_dataset('cityscapes', tmp_path).split == 'train'


def test_cityscapes_train_labels_may_be_missing(tmp_path):
  raw = tmp_path / 'raw'
  trees.write_cityscapes(raw, COUNTS)
  shutil.rmtree(raw / 'gtFine/train/aachen')
  assert run('cityscapes', raw, tmp_path) == 0
  train = sources.open_dataset('cityscapes:train', tmp_path)
  assert not train.labelled
  assert (train[0]['label'] == 255).all()
  assert not train[0]['class_histogram'].any()
  assert sources.open_dataset('cityscapes:validation', tmp_path).labelled


def _damage(name):
  """Name -> what happens to a GTA5 tree of three pairs, and the message."""

  def label(root):
    return root / 'labels/00002.png'

  def image(root):
    return root / 'images/00002.png'

  def cut(path):
    path.write_bytes(path.read_bytes()[:-400])

  def other_size(root):
    Image.new('P', (64, 30)).save(label(root))

  def colours(root):
    Image.open(label(root)).convert('RGB').save(label(root))

  return {
    'missing label': (
      lambda root: label(root).unlink(),
      'labels/00002.png: No such file',
    ),
    'other size': (
      other_size,
      'labels/00002.png is 30x64 but its image .*images/00002.png is 32x64',
    ),
    'truncated image': (
      lambda root: cut(image(root)),
      'images/00002.png cannot be decoded: .*truncated',
    ),
    'truncated label': (
      lambda root: cut(label(root)),
      'labels/00002.png cannot be decoded',
    ),
    'no image': (
      lambda root: image(root).write_text('hello'),
      'images/00002.png cannot be decoded: not an image',
    ),
    'empty file': (
      lambda root: image(root).write_bytes(b''),
      'images/00002.png cannot be decoded: not an image',
    ),
    'colours': (
      colours,
      'labels/00002.png is no label file: .* mode RGB; if the palette',
    ),
  }[name]


@pytest.mark.parametrize(
  'name',
  [
    'missing label',
    'other size',
    'truncated image',
    'truncated label',
    'no image',
    'empty file',
    'colours',
  ],
)
def test_a_broken_pair_is_named_and_leaves_nothing(tmp_path, capsys, name):
  harm, message = _damage(name)
  raw = tmp_path / 'raw'
  trees.write_gta5(raw, 3)
  harm(raw)
  assert run('gta5', raw, tmp_path) == 2
  assert_one_line(capsys, message)
  assert not [*tmp_path.glob('gta5/*.*.*')]


def assert_one_line(capsys, message):
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1
  assert re.search(message, lines[0]), lines[0]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['gta6'], "unknown data set 'gta6'; valid: cityscapes, gta5, streets"),
    ([], 'arguments are required: NAME'),
    (['gta5'], 'gta5 needs --manual_dir=RAW. Extract'),
    (['gta5', '--manual_dir=/nowhere'], '/nowhere is no folder'),
    (['gta5', '--manual_dir={empty}'], 'is empty'),
    (['gta5', '--manual_dir={other}'], 'no GTA5 images in '),
    (['cityscapes', '--manual_dir={other}'], 'no Cityscapes images in '),
    (['streets', '--size=96'], "bad size '96': expected HEIGHTxWIDTH"),
    (['streets', '--size=-1x5'], "bad size '-1x5'"),
    (['streets', '--limit=0'], '--limit=0: expected a positive number'),
    (['streets', '--workers=x'], '--workers=x: expected a positive'),
    (['streets', '--config=town'], "unknown domain of streets 'town'"),
    (['gta5', '--manual_dir={other}', '--config=x'], 'gta5 has no configs'),
    (['streets', '--sizes=1x1'], 'unrecognized arguments: --sizes=1x1'),
    (['streets', 'gta'], 'unrecognized arguments: gta'),
    (['streets', '--data_dir={file}'], '{file}'),
  ],
)
def test_wrong_usage_is_one_line_and_exit_2(
  tmp_path, capsys, arguments, message
):
  places = {
    'empty': tmp_path / 'empty',
    'other': tmp_path / 'other',
    'file': tmp_path / 'file',
  }
  places['empty'].mkdir()
  (places['other'] / 'x').mkdir(parents=True)
  places['file'].write_text('x')
  arguments = [a.format(**places) for a in arguments]
  if not any(a.startswith('--data_dir') for a in arguments):
    arguments.append(f'--data_dir={tmp_path / "out"}')
  assert build.main(arguments) == 2
  assert_one_line(capsys, message.format(**places))


def test_exported_gta5_layout(tmp_path):
  export.export_gta5(tmp_path / 'raw', 2, trees.SIZE)
  with Image.open(tmp_path / 'raw/labels/00002.png') as image:
    assert image.mode == 'P'
    colours = np.asarray(image.convert('RGB'))
  assert run('gta5', tmp_path / 'raw', tmp_path) == 0
  source = sources.open_dataset('gta5', tmp_path)
  for index in range(2):
    scene = world.render_example(
      world.domain('gta'), 'train', index, trees.SIZE
    )
    np.testing.assert_array_equal(source[index]['image'], scene['image'])
    np.testing.assert_array_equal(
      source[index]['label'][..., 0], scene['label']
    )
  known = scene['label'] < 19
  np.testing.assert_array_equal(
    colours[known], labels.COLOURS[scene['label'][known]]
  )


@pytest.mark.parametrize('train_labels', [True, False])
def test_exported_cityscapes_layout(tmp_path, train_labels):
  raw = tmp_path / 'raw'
  export.export_cityscapes(raw, 1, 2, trees.SIZE, train_labels=train_labels)
  assert run('cityscapes', raw, tmp_path) == 0
  for split, count in (('train', 1), ('validation', 2)):
    source = sources.open_dataset(f'cityscapes:{split}', tmp_path)
    assert len(source) == count
    assert source.labelled == (train_labels or split != 'train')
    for index in range(count):
      scene = world.render_example(
        world.domain('city'), split, index, trees.SIZE
      )
      np.testing.assert_array_equal(source[index]['image'], scene['image'])
      if source.labelled:
        np.testing.assert_array_equal(
          source[index]['label'][..., 0], scene['label']
        )


def test_export_command(tmp_path, capsys):
  out = tmp_path / 'out'
  assert export.main(['gta5', str(out), '--n=1', '--size=8x16']) == 0
  assert (out / 'labels/00001.png').exists()
  assert export.main(['cityscapes', str(out), '--n=1', '--size=8x16']) == 0
  assert len([*pathlib.Path(out).glob('gtFine/*/*/*labelIds.png')]) == 2
  capsys.readouterr()
  assert export.main(['gta5', str(out), '--size=8']) == 2
  assert_one_line(capsys, "bad size '8'")
