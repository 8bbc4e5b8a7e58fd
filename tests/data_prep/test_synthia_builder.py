"""SYNTHIA: tree or zip -> build -> every pixel; one sentence for defects."""

from __future__ import annotations

import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from data_prep import build, codecs
from data_prep.streets import export, world
from data_prep.streets.export import encode
from jaxseg_da.classes import labels
from jaxseg_da.data import sources, transforms

SIZE = (16, 32)
SMALL = (12, 20)
# Written down a second time, from the published map: position = SYNTHIA id.
TRAIN_IDS = np.array(
  [255, 10, 2, 0, 1, 4, 8, 5, 13, 7, 11, 18, 17, 255, 255, 6, 9, 12, 14, 15]
  + [16, 3, 255],
  np.uint8,
)


def run(raw, out, *more):
  return build.main(
    ['synthia', f'--manual_dir={raw}', f'--data_dir={out}', '--workers=1']
    + [*more]
  )


def prepared(raw, out, *more, split='train'):
  assert run(raw, out, *more) == 0
  return sources.open_dataset(f'synthia:{split}', out)


def refused(capsys, raw, out, *parts):
  """The build ends with one sentence that has all `parts`, and no data."""
  assert run(raw, out) == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1, lines
  for part in ('error: ', *parts):
    assert part in lines[0]
  assert not [*out.glob('synthia/*.*.*')]


def write(path, data):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data)


def random_tree(root, count=3, labels_folder='GT/LABELS', deep=True):
  """Random frames; returns image, ids, depth of each."""
  rng = np.random.default_rng(5)
  frames = []
  for index in range(count):
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    ids = rng.integers(0, 23, SIZE, np.uint8)
    depth = rng.integers(0, 65536, SIZE, np.uint16)
    depth[0, :2] = 0, 65535
    instance = rng.integers(0, 65536, (*SIZE, 2), np.uint16)
    label = np.concatenate([ids[..., None].astype(np.uint16), instance], -1)
    name = f'{index:07d}.png'
    write(root / 'RGB' / name, codecs.encode_png(image))
    data = encode.deep_png(label) if deep else codecs.encode_png(ids)
    write(root / labels_folder / name, data)
    write(root / 'Depth/Depth' / name, codecs.encode_png(depth))
    frames.append((image, ids, depth))
  return frames


@pytest.mark.parametrize('zipped', [False, True], ids=['tree', 'zip'])
@pytest.mark.parametrize('size', [None, SMALL])
def test_exported_scenes_pixel_for_pixel(tmp_path, zipped, size):
  raw = tmp_path / 'raw'
  export.export_synthia(raw, 3, SIZE, packages=('color',), zipped=zipped)
  assert zipfile.is_zipfile(raw / 'SYNTHIA_RAND_CITYSCAPES.zip') == zipped
  more = [f'--size={size[0]}x{size[1]}'] if size else []
  source = prepared(raw, tmp_path, *more)
  assert [x['image_id'] for x in source] == ['0000000', '0000001', '0000002']
  domain = world.domain('gta')
  for index, example in enumerate(source):
    scene = world.render_example(domain, 'train', index, SIZE)
    image, label = scene['image'], scene['label']
    depth = np.rint(scene['depth'] * 100)
    depth = np.where(scene['depth'] > 0, depth.clip(1, 65535), 65535)
    if size:
      image = transforms.resize(image, size, 'pil_bicubic')
      label = transforms.nearest(label, size)
      depth = transforms.nearest(depth, size)
    np.testing.assert_array_equal(example['image'], image)
    np.testing.assert_array_equal(example['label'][..., 0], label)
    np.testing.assert_array_equal(example['depth'][..., 0], depth)
    np.testing.assert_array_equal(
      example['class_histogram'], np.bincount(label.ravel(), minlength=256)[:19]
    )


def test_every_id_is_mapped_and_depth_keeps_16_bits(tmp_path):
  frames = random_tree(tmp_path / 'raw/RAND_CITYSCAPES')
  source = prepared(tmp_path / 'raw', tmp_path)
  assert source.labelled
  assert source.metadata['depth_kind'] == 'metric'
  assert source.metadata['depth_unit'] == 'cm'
  assert source.metadata['split_features'] == {'train': ['label', 'depth']}
  for example, (image, ids, depth) in zip(source, frames, strict=True):
    np.testing.assert_array_equal(example['image'], image)
    np.testing.assert_array_equal(example['label'][..., 0], TRAIN_IDS[ids])
    np.testing.assert_array_equal(example['depth'][..., 0], depth)


def test_lane_marking_is_ignored_and_three_classes_are_never_counted():
  table = labels.SYNTHIA_ID_TO_TRAIN_ID
  np.testing.assert_array_equal(table[:23], TRAIN_IDS)
  assert (table[[0, 13, 14, 22]] == 255).all()
  assert (table[23:] == 255).all()


@pytest.mark.parametrize(
  'folder',
  ['parsed_LABELS', 'GT/parsed_LABELS', 'synthia_mapped_to_cityscapes'],
)
def test_copies_in_8_bits_are_read(tmp_path, folder):
  frames = random_tree(tmp_path / 'raw', 2, folder, deep=False)
  source = prepared(tmp_path / 'raw', tmp_path)
  for example, (_, ids, _) in zip(source, frames, strict=True):
    np.testing.assert_array_equal(example['label'][..., 0], TRAIN_IDS[ids])


def test_originals_come_before_copies_and_colours_are_not_read(tmp_path):
  raw = tmp_path / 'raw'
  frames = random_tree(raw)
  for folder in (
    'GT/parsed_LABELS',
    'synthia_mapped_to_cityscapes',
    'GT/COLOR',
  ):
    for index in range(3):
      write(raw / folder / f'{index:07d}.png', b'no image')
  source = prepared(raw, tmp_path)
  np.testing.assert_array_equal(
    source[2]['label'][..., 0], TRAIN_IDS[frames[2][1]]
  )


def test_strays_and_other_files_are_not_seen(tmp_path):
  raw = tmp_path / 'raw'
  random_tree(raw)
  for name in ('RGB/Thumbs.db', 'RGB/._0000001.png', 'RGB/1.png', 'x.txt'):
    write(raw / name, b'x')
  assert len(prepared(raw, tmp_path)) == 3


def test_depth_may_lie_one_folder_higher(tmp_path):
  raw = tmp_path / 'raw'
  frames = random_tree(raw)
  (raw / 'Depth/Depth').rename(raw / 'D')
  (raw / 'Depth').rmdir()
  (raw / 'D').rename(raw / 'Depth')
  source = prepared(raw, tmp_path)
  np.testing.assert_array_equal(source[1]['depth'][..., 0], frames[1][2])


def test_depth_may_be_missing(tmp_path):
  raw = tmp_path / 'raw'
  random_tree(raw)
  shutil.rmtree(raw / 'Depth')
  source = prepared(raw, tmp_path)
  assert 'depth' not in source[0]
  assert source.metadata['depth_kind'] is None


def test_incomplete_depth_can_be_left_out(tmp_path, capsys):
  raw = tmp_path / 'raw'
  random_tree(raw)
  (raw / 'Depth/Depth/0000001.png').unlink()
  refused(
    capsys, raw, tmp_path, 'RGB/0000001.png has no depth', '--features=none'
  )
  assert 'depth' not in prepared(raw, tmp_path, '--features=none')[0]


def test_other_depth_with_its_kind(tmp_path):
  raw, folder = tmp_path / 'raw', tmp_path / 'depth'
  random_tree(raw)
  for index in range(3):
    values = np.full(SIZE, 1000 * index + 7, np.uint16)
    write(folder / f'{index:07d}.png', codecs.encode_png(values))
  more = [f'--depth_dir={folder}', '--depth_kind=network_disparity']
  source = prepared(raw, tmp_path, *more)
  assert source.metadata['depth_kind'] == 'network_disparity'
  assert [int(x['depth'][0, 0, 0]) for x in source] == [7, 1007, 2007]


def test_the_common_split_by_lists(tmp_path):
  random_tree(tmp_path / 'raw', 4)
  names = [f'{index:07d}\n' for index in range(4)]
  (tmp_path / 'train.txt').write_text(''.join(names[:3]))
  (tmp_path / 'validation.txt').write_text(''.join(names[3:]))
  more = [f'--list={s}={tmp_path / s}.txt' for s in ('train', 'validation')]
  validation = prepared(tmp_path / 'raw', tmp_path, *more, split='validation')
  assert [x['image_id'] for x in validation] == ['0000003']
  train = sources.open_dataset('synthia', tmp_path)
  assert (train.split, len(train)) == ('train', 3)


def damages():
  """Name -> what happens to frame 1 of a tree, and parts of the sentence."""
  name = '0000001.png'

  def replaced(folder, data):
    return lambda raw: write(raw / folder / name, data)

  def cut(folder):
    def harm(raw):
      path = raw / folder / name
      path.write_bytes(path.read_bytes()[:-40])

    return harm

  label, image = f'GT/LABELS/{name}', f'RGB/{name}'
  zeros = np.zeros((*SIZE, 3), np.uint16)
  eight = codecs.encode_png(zeros.astype(np.uint8))
  high = zeros.copy()
  high[3, 4, 0] = 3 + 256
  mapped = np.full(SIZE, 255, np.uint8)
  other = encode.deep_png(zeros[1:])
  return {
    'no label': (
      lambda raw: (raw / label).unlink(),
      [image, f'has no label: expected {label}', '1 of the 3 images'],
    ),
    'truncated label': (cut('GT/LABELS'), [label, 'cannot be decoded']),
    'truncated image': (cut('RGB'), [image, 'cannot be decoded']),
    'truncated depth': (cut('Depth/Depth'), [f'Depth/{name}', 'cannot be']),
    'other size': (
      replaced('GT/LABELS', other),
      [label, 'is 15x32 but its image', image, 'is 16x32'],
    ),
    '8 bits': (replaced('GT/LABELS', eight), [label, 'labels look 8-bit']),
    'high byte': (
      replaced('GT/LABELS', encode.deep_png(high)),
      [label, 'value 259 is no SYNTHIA class'],
    ),
    'train ids': (
      replaced('GT/LABELS', codecs.encode_png(mapped)),
      [label, 'already mapped to train ids'],
    ),
    '8-bit depth': (replaced('Depth/Depth', eight), [name, 'needs 16 bits']),
    'two label files': (
      replaced('again/GT/LABELS', other),
      [f'again/{label}', f'raw/{label}', 'remove one of them'],
    ),
  }


@pytest.mark.parametrize('name', damages())
def test_a_broken_frame_is_named_and_leaves_nothing(tmp_path, capsys, name):
  harm, parts = damages()[name]
  random_tree(tmp_path / 'raw')
  harm(tmp_path / 'raw')
  refused(capsys, tmp_path / 'raw', tmp_path, *parts)


def test_no_labels_at_all(tmp_path, capsys):
  random_tree(tmp_path / 'raw')
  shutil.rmtree(tmp_path / 'raw/GT')
  refused(capsys, tmp_path / 'raw', tmp_path, 'expected GT/LABELS/0000000.png')


def test_a_rar_has_to_be_extracted(tmp_path, capsys):
  write(tmp_path / 'raw/SYNTHIA_RAND_CITYSCAPES.rar', b'Rar!')
  refused(
    capsys,
    tmp_path / 'raw',
    tmp_path,
    'no SYNTHIA images in',
    'raw/SYNTHIA_RAND_CITYSCAPES.rar cannot be read in place: extract it there',
  )


def test_a_palette_of_copies_is_read_by_index(tmp_path):
  frames = random_tree(tmp_path / 'raw', 1, 'parsed_LABELS', deep=False)
  path = tmp_path / 'raw/parsed_LABELS/0000000.png'
  image = Image.fromarray(frames[0][1])
  image.putpalette([*range(255, -1, -1)] * 3)
  image.save(path)
  source = prepared(tmp_path / 'raw', tmp_path)
  np.testing.assert_array_equal(
    source[0]['label'][..., 0], TRAIN_IDS[frames[0][1]]
  )


def test_metadata_records_the_options(tmp_path):
  random_tree(tmp_path / 'raw')
  prepared(tmp_path / 'raw', tmp_path, '--size=12x20', '--limit=2')
  path = tmp_path / 'synthia/1.0.0/metadata.json'
  metadata = json.loads(path.read_text())
  assert metadata['size'] == [12, 20]
  assert metadata['resize'] == 'pil_bicubic'
  assert metadata['limit'] == 2
  assert metadata['image_size'] == [12, 20]
