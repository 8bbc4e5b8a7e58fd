"""Every file of every exported layout, decoded by plain libraries."""

from __future__ import annotations

import functools
import json
import pathlib
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image, ImageDraw

from data_prep.streets import export, world
from data_prep.streets.export import polygons
from jaxseg_da import errors
from jaxseg_da.classes import labels

# One worker: what the module prepares is prepared once.
pytestmark = pytest.mark.xdist_group('export')

SIZE = (24, 48)
N = 2
# What is exported by the command with everything that a layout has.
PACKAGES = {
  'gta5': 'disparity,split',
  'synthia': 'color',
  'cityscapes': (
    'test,train_extra,right,disparity,camera,sequence,stereo_depth'
  ),
  'idd': 'test,part2',
  'frames': '',
}


def command(layout, out, *more):
  """Exports everything of a layout."""
  return export.main(
    [
      layout,
      str(out),
      f'--n={N}',
      '--size=24x48',
      f'--with={PACKAGES[layout]}',
      *more,
    ]
  )


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
  """The trees of all layouts by name."""
  root = tmp_path_factory.mktemp('trees')
  for layout in PACKAGES:
    assert command(layout, root / layout) == 0
  return root


@functools.cache
def scene(domain, split, index):
  return world.render_example(
    world.domain(domain), split, index, SIZE, views=True
  )


def names(root):
  return {
    path.relative_to(root).as_posix()
    for path in root.rglob('*')
    if path.is_file()
  }


def pixels(path, mode):
  """Pixels through Pillow; the file has to be of that mode."""
  with Image.open(path) as image:
    assert image.mode == mode
    return np.asarray(image)


def deep(path):
  """Pixels as OpenCV has them: BGR."""
  array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
  assert array.dtype == np.uint16
  return array


def same(actual, expected):
  assert np.shape(actual) == np.shape(expected)
  np.testing.assert_array_equal(actual, expected)


def city_ids(label):
  """Cityscapes ids of train ids, by the names of the classes."""
  ids = {name: row.id for row in labels.CITYSCAPES for name in [row.name]}
  table = np.zeros(256, np.uint8)
  for train_id, name in enumerate(labels.NAMES):
    table[train_id] = ids[name]
  return table[label]


def test_gta5(trees):
  root = trees / 'gta5'
  files = {'split.mat'}
  for index in range(N):
    name = f'{index + 1:05d}.png'
    files |= {f'{kind}/{name}' for kind in ('images', 'labels', 'disparity')}
    expected = scene('gta', 'train', index)
    same(pixels(root / 'images' / name, 'RGB'), expected['image'])
    ids = pixels(root / 'labels' / name, 'P')
    same(ids, city_ids(expected['label']))
    with Image.open(root / 'labels' / name) as image:
      same(np.asarray(image.convert('RGB')), labels.GTA5_PALETTE[ids])
    disparity = deep(root / 'disparity' / name)
    near = expected['depth'] > 0
    assert near.any()
    assert not near.all()
    np.testing.assert_array_equal(disparity > 0, near)
    depth = 10 * (65535 / disparity[near] - 1.0)
    np.testing.assert_allclose(depth, expected['depth'][near], rtol=1e-2)
  assert names(root) == files


@pytest.mark.parametrize('n', [1, 2, 9])
def test_gta5_split_covers_the_ids(tmp_path, n):
  export.export_gta5(tmp_path, n, (8, 16), packages=['split'])
  file = scipy.io.loadmat(tmp_path / 'split.mat')
  lists = [file[f'{name}Ids'] for name in ('train', 'val', 'test')]
  assert all(ids.shape == (ids.size, 1) for ids in lists)
  assert lists[0].size > 0
  ids = np.concatenate(lists).ravel()
  same(np.sort(ids), np.arange(1, n + 1))


@pytest.mark.parametrize('n, expected', [(1, [1]), (2, [1, 1]), (5, [3, 2])])
def test_gta5_archives_share_the_pairs(tmp_path, n, expected):
  export.export_gta5(tmp_path, n, (8, 16), zipped=True)
  for kind in ('images', 'labels'):
    found = {}
    for path in sorted(tmp_path.glob(f'*_{kind}.zip')):
      with zipfile.ZipFile(path) as archive:
        found[path.name] = archive.namelist()
    assert [len(members) for members in found.values()] == expected
    assert [*found] == [f'{i + 1:02d}_{kind}.zip' for i in range(len(expected))]
    members = [name for part in found.values() for name in part]
    assert members == [f'{kind}/{i + 1:05d}.png' for i in range(n)]


def test_synthia(trees):
  root = trees / 'synthia/RAND_CITYSCAPES'
  # Train id -> SYNTHIA id, written down again on purpose.
  table = np.zeros(256, np.uint8)
  table[:19] = (
    3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11,
  )  # fmt: skip
  files = {'README.txt'}
  for index in range(N):
    name = f'{index:07d}.png'
    kinds = ('RGB', 'GT/LABELS', 'GT/COLOR', 'Depth/Depth')
    files |= {f'{kind}/{name}' for kind in kinds}
    expected = scene('gta', 'train', index)
    same(pixels(root / 'RGB' / name, 'RGB'), expected['image'])
    data = (root / 'GT/LABELS' / name).read_bytes()
    # The header says: 16 bits, true colour.
    assert tuple(data[24:26]) == (16, 2)
    third, second, first = np.moveaxis(deep(root / 'GT/LABELS' / name), -1, 0)
    same(first, table[expected['label']])
    same(second, expected['instance'] * 100)
    assert second.max() > 255
    assert not third.any()
    depth = deep(root / 'Depth/Depth' / name)
    near = expected['depth'] > 0
    assert (depth[~near] == 65535).all()
    np.testing.assert_allclose(
      depth[near] / 100, expected['depth'][near], atol=0.0051
    )
    colours = pixels(root / 'GT/COLOR' / name, 'RGB')
    counted = expected['label'] < 19
    same(colours[counted], labels.COLOURS[expected['label'][counted]])
  assert names(root) == files


CITY_SPLITS = (
  ('train', 'train', 0),
  ('val', 'validation', 2),
  ('test', 'test', 4),
  ('train_extra', 'train_extra', 6),
)


def test_cityscapes(trees):
  root = trees / 'cityscapes'
  files = set()

  def path(kind, ending, frame=19):
    place = f'{kind}/{folder}/streets'
    name = f'{place}/streets_{number:06d}_{frame:06d}_{ending}'
    files.add(name)
    return root / name

  for folder, split, first in CITY_SPLITS:
    for index in range(N):
      number = first + index
      expected = scene('city', split, index)
      image = pixels(path('leftImg8bit', 'leftImg8bit.png'), 'RGB')
      same(image, expected['image'])
      image = pixels(path('rightImg8bit', 'rightImg8bit.png'), 'RGB')
      same(image, expected['image_right'])
      check_city_labels(path, folder, expected)
      camera = json.loads(path('camera', 'camera.json').read_text())
      check_camera(camera, expected)
      stored = deep(path('disparity', 'disparity.png'))
      near = expected['depth'] > 0
      np.testing.assert_array_equal(stored > 0, near)
      disparity = (stored[near] - 1.0) / 256
      depth = (
        camera['extrinsic']['baseline'] * camera['intrinsic']['fx'] / disparity
      )
      # Half a step of the coding.
      wanted = expected['depth'][near]
      error = np.abs(depth / wanted - 1)
      assert (error <= 0.51 / 256 / disparity).all()
      if folder == 'train_extra':
        continue
      for frame, view in (
        (18, 'image_prev'),
        (19, 'image'),
        (20, 'image_next'),
      ):
        kind = 'leftImg8bit_sequence'
        image = pixels(path(kind, 'leftImg8bit.png', frame), 'RGB')
        same(image, expected[view])
      file = scipy.io.loadmat(path('depth', 'depth_stereoscopic.mat'))
      same(file['depth_map'], expected['depth'])
  assert names(root) == files


def check_city_labels(path, folder, expected):
  kind = 'gtCoarse' if folder == 'train_extra' else 'gtFine'
  ids = pixels(path(kind, f'{kind}_labelIds.png'), 'L')
  colours = pixels(path(kind, f'{kind}_color.png'), 'RGBA')
  instances = deep(path(kind, f'{kind}_instanceIds.png'))
  if folder == 'test':
    assert {*np.unique(ids)} <= {0, 1, 2, 3}
    same(instances, ids)
  else:
    same(ids, city_ids(expected['label']))
    things = expected['instance'] > 0
    assert things.any()
    same(instances[~things], ids[~things])
    same(instances[things] // 1000, ids[things])
    same(instances[things] % 1000, expected['instance'][things])
  same(colours[..., :3], labels.CITYSCAPES_PALETTE[ids])
  assert (colours[..., 3] == 255).all()


def check_camera(camera, expected):
  assert {*camera} == {'extrinsic', 'intrinsic'}
  assert {*camera['extrinsic']} == {
    'baseline', 'pitch', 'roll', 'x', 'y', 'yaw', 'z',
  }  # fmt: skip
  assert camera['extrinsic']['baseline'] == expected['baseline']
  intrinsic = [camera['intrinsic'][key] for key in ('fx', 'fy', 'u0', 'v0')]
  assert len(camera['intrinsic']) == 4
  same(intrinsic, expected['intrinsics'])


def test_cityscapes_without_packages_and_train_labels(tmp_path):
  export.export_cityscapes(tmp_path, 1, 2, SIZE, train_labels=False)
  folders = {'/'.join(name.split('/')[:2]) for name in names(tmp_path)}
  assert folders == {'leftImg8bit/train', 'leftImg8bit/val', 'gtFine/val'}
  file = 'gtFine/val/streets/streets_000002_000019_gtFine_labelIds.png'
  expected = scene('city', 'validation', 1)['label']
  same(pixels(tmp_path / file, 'L'), city_ids(expected))


def test_cityscapes_without_any_label_to_train_on(tmp_path):
  export.export_cityscapes(
    tmp_path, 1, 1, SIZE, packages=['train_extra', 'test'], train_labels=False
  )
  labelled = {name for name in names(tmp_path) if name.startswith('gt')}
  assert {name.split('/')[1] for name in labelled} == {'val', 'test'}
  assert (tmp_path / 'leftImg8bit/train_extra').exists()


def test_cityscapes_cities_and_recordings(tmp_path):
  export.export_cityscapes(
    tmp_path,
    2,
    1,
    SIZE,
    cities=('aachen', 'bad-homburg'),
    packages=['sequence'],
    recordings=True,
  )
  found = {path.name for path in tmp_path.glob('leftImg8bit/*/*/*')}
  assert found == {
    'aachen_000000_000019_leftImg8bit.png',
    'bad-homburg_000000_000049_leftImg8bit.png',
    'aachen_000000_000079_leftImg8bit.png',
  }
  file = 'bad-homburg/bad-homburg_000000_000050_leftImg8bit.png'
  image = pixels(tmp_path / 'leftImg8bit_sequence/train' / file, 'RGB')
  same(image, scene('city', 'train', 1)['image_next'])


def rasterised(objects, size, table, background):
  """Paints polygons in order, with nothing but Pillow."""
  canvas = Image.new('L', (size[1], size[0]), background)
  for thing in objects:
    corners = [tuple(corner) for corner in thing['polygon']]
    ImageDraw.Draw(canvas).polygon(corners, fill=table[thing['label']])
  return np.asarray(canvas)


def idd_label(path):
  annotation = json.loads(path.read_text())
  size = (annotation['imgHeight'], annotation['imgWidth'])
  table = {row.name: row.train_id for row in labels.IDD}
  return rasterised(annotation['objects'], size, table, 255)


IDD_PARTS = (
  ('IDD_Segmentation', ('41', '151'), '{:06d}', 'png'),
  ('idd20kII', ('201', '317'), 'frame{:04d}', 'jpg'),
)
IDD_SPLITS = (
  ('train', 'train', 0),
  ('val', 'validation', 2),
  ('test', 'test', 4),
)


def test_idd(trees):
  root = trees / 'idd'
  files = set()
  for part, (top, drives, name, ending) in enumerate(IDD_PARTS):
    for folder, split, first in IDD_SPLITS:
      for index in range(N):
        number = name.format((first + index) // 2)
        stem = f'{folder}/{drives[index]}/{number}'
        image = f'{top}/leftImg8bit/{stem}_leftImg8bit.{ending}'
        label = f'{top}/gtFine/{stem}_gtFine_polygons.json'
        expected = scene('city', split, part * N + index)
        files.add(image)
        found = pixels(root / image, 'RGB')
        if ending == 'png':
          same(found, expected['image'])
        else:
          difference = found.astype(int) - expected['image']
          assert np.abs(difference).mean() < 6
          assert (root / image).read_bytes()[:2] == b'\xff\xd8'
        if folder != 'test':
          files.add(label)
          same(idd_label(root / label), expected['label'])
  assert names(root) == files


def test_idd_without_train_labels(tmp_path):
  export.export_idd(tmp_path, 1, 1, SIZE, train_labels=False)
  labelled = [*tmp_path.glob('*/gtFine/*/*/*.json')]
  assert [path.parts[-3] for path in labelled] == ['val']


def test_idd_ignored_pixels(tmp_path):
  """Ignored pixels: some are painted 'unlabeled', some not at all."""
  label = np.full((4, 6), 255, np.uint8)
  label[1:3, 2:4] = 13
  annotation = export.idd.annotation(label)
  (tmp_path / 'x.json').write_text(json.dumps(annotation))
  same(idd_label(tmp_path / 'x.json'), label)
  assert [t['label'] for t in annotation['objects']] == ['car', 'unlabeled']


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (9, 1), (13, 17)])
@pytest.mark.parametrize('classes', [1, 2, 20])
def test_polygons_are_exact(size, classes):
  rng = np.random.default_rng(classes)
  for _ in range(10):
    label = rng.integers(0, classes, size, np.uint8)
    objects = [
      {'label': polygon.value, 'polygon': polygon.points}
      for polygon in polygons.from_label(label)
    ]
    same(rasterised(objects, size, range(classes), 99), label)


def test_polygons_are_few():
  """One for the ground, one for a box on it, one for what is right of it."""
  label = np.zeros((20, 30), np.uint8)
  label[5:15, 10:20] = 1
  assert len(polygons.from_label(label)) == 3


def test_frames(trees):
  root = trees / 'frames'
  files = set()
  for index in range(N):
    folder = f'seq_{index:02d}'
    expected = scene('city', 'train', index)
    views = ('image_prev', 'image', 'image_next')
    for number, view in enumerate(views):
      name = f'{folder}/{number:06d}.png'
      files.add(name)
      same(pixels(root / name, 'RGB'), expected[view])
    files.add(f'{folder}/intrinsics.txt')
    found = np.loadtxt(root / folder / 'intrinsics.txt', dtype=np.float32)
    same(found, expected['intrinsics'])
  assert names(root) == files


ARCHIVES = {
  'gta5': {
    '01_images.zip', '02_images.zip', '01_labels.zip', '02_labels.zip',
    'disparity.zip', 'read_mapping.zip',
  },
  'synthia': {'SYNTHIA_RAND_CITYSCAPES.zip'},
  'cityscapes': {
    'leftImg8bit_trainvaltest.zip', 'gtFine_trainvaltest.zip',
    'rightImg8bit_trainvaltest.zip', 'disparity_trainvaltest.zip',
    'camera_trainvaltest.zip', 'leftImg8bit_sequence_trainvaltest.zip',
    'leftImg8bit_trainextra.zip', 'gtCoarse.zip',
    'rightImg8bit_trainextra.zip', 'disparity_trainextra.zip',
    'camera_trainextra.zip', 'depth_stereoscopic_trainvaltest.zip',
  },
  'idd': {'IDD_Segmentation.zip', 'idd20kII.zip'},
  'frames': {'frames.zip'},
}  # fmt: skip


@pytest.mark.parametrize('layout', PACKAGES)
def test_zips_hold_the_tree(trees, tmp_path, layout):
  for name in ('a', 'b'):
    assert command(layout, tmp_path / name, '--zip') == 0
  assert names(tmp_path / 'a') == ARCHIVES[layout]
  for name in ARCHIVES[layout]:
    once, again = (tmp_path / x / name for x in 'ab')
    assert once.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(once) as archive:
      assert archive.testzip() is None
      archive.extractall(tmp_path / 'extracted')
  assert contents(tmp_path / 'extracted') == contents(trees / layout)


def contents(root):
  return {name: (root / name).read_bytes() for name in names(root)}


def test_matlab_files_have_no_date(trees):
  files = [*trees.rglob('*.mat')]
  assert len(files) == 1 + 3 * N
  for path in files:
    assert path.read_bytes()[:116].strip() == b'MATLAB 5.0 MAT-file'


def test_another_domain(tmp_path):
  arguments = ['gta5', str(tmp_path), '--n=1', '--size=24x48']
  assert export.main([*arguments, '--domain=city_hard']) == 0
  expected = scene('city_hard', 'train', 0)['image']
  same(pixels(tmp_path / 'images/00001.png', 'RGB'), expected)


def test_command(tmp_path):
  out = tmp_path / 'out'
  run = subprocess.run(
    [
      *(sys.executable, '-m', 'data_prep.streets.export', 'idd', str(out)),
      *('--n=1', '--size=8x16', '--no_train_labels'),
    ],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=True,
  )
  assert run.stdout == f'wrote {out}\n'
  assert len(names(out)) == 3


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['gta'], "unknown layout 'gta'"),
    (['gta5', '--n=0'], '--n=0: expected a positive number'),
    (['gta5', '--size=8'], "bad size '8'"),
    (['gta5', '--domain=town'], "unknown street domain 'town'"),
    (['gta5', '--with=right'], 'it has: disparity, split'),
    (['frames', '--with=right'], 'it has: none'),
    (['synthia', '--no_train_labels'], 'not for synthia'),
    (['gta5', '--what'], 'unrecognized arguments: --what'),
  ],
)
def test_wrong_arguments(tmp_path, capsys, arguments, message):
  layout, *more = arguments
  assert export.main([layout, str(tmp_path / 'out'), *more]) == 2
  text = capsys.readouterr().err
  assert text.startswith('error: ')
  assert text.count('\n') == 1
  assert message in text
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('zipped', [True, False])
def test_a_folder_that_cannot_be_made(tmp_path, zipped):
  (tmp_path / 'file').write_text('x')
  with pytest.raises(errors.UserError, match=r'file/out: Not a directory'):
    export.export_gta5(tmp_path / 'file/out', 1, SIZE, zipped=zipped)
