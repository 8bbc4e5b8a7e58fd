"""Cityscapes: raw tree -> build -> every pixel; what may lie where."""

from __future__ import annotations

import json
import pathlib
import re
import shutil

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

from data_prep import build
from data_prep.cityscapes import layout
from data_prep.streets import export
from jaxseg_da import errors
from jaxseg_da.classes import labels
from jaxseg_da.data import sources, transforms
from tests import trees

SIZE = (16, 32)
FOLDERS = {
  'train': 'train',
  'validation': 'val',
  'test': 'test',
  'train_extra': 'train_extra',
}
PACKAGES = ('test', 'train_extra', 'right', 'disparity', 'camera', 'sequence')
DUMMIES = pathlib.Path(layout.__file__).parent / 'dummy_data'


def run(raw, out, *more):
  flags = [f'--manual_dir={raw}', f'--data_dir={out}', '--workers=1', *more]
  return build.main(['cityscapes', *flags])


def open_split(out, split='train'):
  return sources.open_dataset(f'cityscapes:{split}', out)


def stored(out):
  """All examples of a build by split."""
  folder = out / 'cityscapes/1.0.0'
  names = json.loads((folder / 'metadata.json').read_text())['labelled']
  return {
    name: [source[index] for index in range(len(source))]
    for name in names
    for source in [open_split(out, name)]
  }


def assert_same(actual, expected):
  assert actual.keys() == expected.keys()
  for split, examples in expected.items():
    for ours, theirs in zip(actual[split], examples, strict=True):
      assert ours.keys() == theirs.keys()
      for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, f'{split} {name}')


def assert_refused(capsys, out, message):
  """One sentence; and nothing is left that looks finished."""
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1, lines
  assert re.search(message, lines[0]), lines[0]
  assert not [*out.glob('cityscapes/*.*.*')]


def write_random(root):
  """Exported scenes whose labels and disparities are then drawn at random."""
  export.export_cityscapes(
    root, 2, 1, SIZE, packages=PACKAGES, cities=('aachen', 'bad-honnef')
  )
  rng = np.random.default_rng(5)
  for path in sorted(root.rglob('*_labelIds.png')):
    ids = rng.integers(0, 34, SIZE, np.uint8)
    Image.fromarray(ids).save(path)
  for path in sorted(root.rglob('*_disparity.png')):
    cv2.imwrite(str(path), rng.integers(0, 65536, SIZE).astype(np.uint16))


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
  """A tree with all packages; read only."""
  root = tmp_path_factory.mktemp('cityscapes')
  write_random(root)
  return root


@pytest.fixture(scope='module')
def built(tree, tmp_path_factory):
  """The folder in which `tree` was built."""
  out = tmp_path_factory.mktemp('built')
  assert run(tree, out) == 0
  return out


@pytest.fixture
def raw(tree, tmp_path):
  """A copy of `tree` to damage."""
  return shutil.copytree(tree, tmp_path / 'raw')


def pixels(path):
  """Of a colour PNG through Pillow, of another as it is through OpenCV."""
  if path.stem.endswith('Img8bit'):
    return np.asarray(Image.open(path).convert('RGB'))
  return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., None]


def source_files(tree, split, name, shift=0):
  """Feature -> path of the frame so called, and of its neighbours."""
  folder = FOLDERS[split]
  city, sequence, _ = name.split('_')
  truth = 'gtCoarse' if split == 'train_extra' else 'gtFine'

  def path(kind, ending, frame=19):
    stem = f'{city}_{sequence}_{frame:06d}'
    return tree / kind / folder / city / f'{stem}_{ending}'

  return {
    'image': path('leftImg8bit', 'leftImg8bit.png'),
    'label': path(truth, f'{truth}_labelIds.png'),
    'depth': path('disparity', 'disparity.png'),
    'camera': path('camera', 'camera.json'),
    'image_right': path('rightImg8bit', 'rightImg8bit.png'),
    'image_prev': path('leftImg8bit_sequence', 'leftImg8bit.png', 18),
    'image_next': path('leftImg8bit_sequence', 'leftImg8bit.png', 20),
  }


@pytest.mark.parametrize(
  ('split', 'names'),
  [
    ('train', ['aachen_000000_000019', 'bad-honnef_000001_000019']),
    ('validation', ['aachen_000002_000019']),
    ('test', ['bad-honnef_000003_000019']),
    ('train_extra', ['aachen_000004_000019', 'bad-honnef_000005_000019']),
  ],
)
def test_every_pixel_of_every_feature(tree, built, split, names):
  source = open_split(built, split)
  examples = [source[index] for index in range(len(source))]
  assert [example['image_id'] for example in examples] == names
  assert source.labelled == (split != 'test')
  for example in examples:
    files = source_files(tree, split, example['image_id'])
    for name in ('image', 'image_right', 'image_prev', 'image_next', 'depth'):
      expected = np.zeros((*SIZE, 3))
      if split != 'train_extra' or name in ('image', 'image_right', 'depth'):
        expected = pixels(files[name])
      np.testing.assert_array_equal(example[name], expected, name)
    label = np.full((*SIZE, 1), 255)
    if split != 'test':
      label = labels.CITYSCAPES_ID_TO_TRAIN_ID[pixels(files['label'])]
    np.testing.assert_array_equal(example['label'], label)
    counts = [(label == c).sum() for c in range(19)]
    np.testing.assert_array_equal(example['class_histogram'], counts)
    camera = json.loads(files['camera'].read_text())
    intrinsics = [camera['intrinsic'][k] for k in ('fx', 'fy', 'u0', 'v0')]
    np.testing.assert_allclose(example['intrinsics'], intrinsics, 1e-6)
    baseline = camera['extrinsic']['baseline']
    assert example['baseline'] == pytest.approx(baseline)


def test_metadata_names_kind_and_real_features(built):
  metadata = open_split(built).metadata
  assert metadata['depth_kind'] == 'disparity'
  assert metadata['depth_unit'] == '1/256 px'
  assert metadata['image_size'] == [16, 32]
  pair = ['image_prev', 'image_next']
  extra = ['depth', 'camera', 'image_right']
  assert metadata['split_features'] == {
    'train': ['label', *extra, *pair],
    'validation': ['label', *extra, *pair],
    'test': [*extra, *pair],
    'train_extra': ['label', *extra],
  }


def test_every_official_id_is_mapped_and_own_car_and_borders_ignored(tmp_path):
  raw = tmp_path / 'raw'
  trees.write_cityscapes(raw, {'val': {'ulm': 1}})
  (file,) = raw.glob('gtFine/val/ulm/*')
  ids = np.arange(32 * 64).reshape(32, 64) % 34
  Image.fromarray(ids.astype(np.uint8)).save(file)
  assert run(raw, tmp_path) == 0
  label = open_split(tmp_path, 'validation')[0]['label'][..., 0]
  # unlabeled, ego vehicle, rectification border, out of roi, ...
  assert (label[ids < 7] == 255).all()
  assert [*label.ravel()[7:34]] == [
    *(0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11),
    *(12, 13, 14, 15, 255, 255, 16, 17, 18),
  ]


def test_zips_give_the_same_records(tmp_path, tree, built):
  raw = tmp_path / 'raw'
  raw.mkdir()
  for path in sorted(tree.iterdir()):
    if path.name == 'disparity':  # Some extracted, some not.
      shutil.copytree(path, raw / path.name)
    else:
      shutil.make_archive(str(raw / path.name), 'zip', tree, path.name)
  assert run(raw, tmp_path) == 0
  assert_same(stored(tmp_path), stored(built))


def test_exported_archives_have_the_official_names_and_build(tmp_path):
  raw = tmp_path / 'raw'
  export.export_cityscapes(raw, 1, 1, SIZE, packages=PACKAGES, zipped=True)
  assert {
    'leftImg8bit_trainvaltest.zip',
    'gtFine_trainvaltest.zip',
    'leftImg8bit_trainextra.zip',
    'leftImg8bit_sequence_trainvaltest.zip',
    'gtCoarse.zip',
  } <= {path.name for path in raw.iterdir()}
  export.export_cityscapes(tmp_path / 'tree', 1, 1, SIZE, packages=PACKAGES)
  assert run(raw, tmp_path / 'a') == run(tmp_path / 'tree', tmp_path / 'b') == 0
  assert_same(stored(tmp_path / 'a'), stored(tmp_path / 'b'))


def test_names_of_archives_may_have_become_folders(raw, tmp_path, built):
  for path in sorted(raw.iterdir()):
    (raw / f'{path.name}_trainvaltest').mkdir()
    path.rename(raw / f'{path.name}_trainvaltest' / path.name)
  (raw / 'leftImg8bit_trainvaltest/leftImg8bit/Thumbs.db').write_bytes(b'x')
  assert run(raw, tmp_path) == 0
  assert_same(stored(tmp_path), stored(built))


def test_long_recordings_have_neighbours_by_frame_number(tmp_path):
  raw = tmp_path / 'raw'
  packages = ('sequence',)
  export.export_cityscapes(raw, 2, 1, SIZE, packages=packages, recordings=True)
  assert run(raw, tmp_path) == 0
  example = open_split(tmp_path)[1]
  assert example['image_id'] == 'streets_000000_000049'
  for name, number in (('image_prev', 48), ('image_next', 50)):
    frame = f'streets_000000_{number:06d}_leftImg8bit.png'
    (file,) = raw.glob(f'leftImg8bit_sequence/train/*/{frame}')
    np.testing.assert_array_equal(example[name], pixels(file))


def test_size_resizes_images_labels_disparity_and_camera(tree, tmp_path):
  assert run(tree, tmp_path, '--size=8x24', '--limit=1') == 0
  source = open_split(tmp_path)
  assert len(source) == 1
  files = source_files(tree, 'train', source[0]['image_id'])
  for name in ('image', 'image_right', 'image_prev', 'image_next'):
    resized = Image.open(files[name]).resize((24, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(source[0][name], np.asarray(resized), name)
  label = labels.CITYSCAPES_ID_TO_TRAIN_ID[pixels(files['label'])]
  np.testing.assert_array_equal(
    source[0]['label'], transforms.nearest(label, (8, 24))
  )
  disparity = transforms.nearest(pixels(files['depth']), (8, 24)).astype(float)
  # Pixels have become 4/3 as wide.
  scaled = np.where(disparity > 0, np.rint((disparity - 1) * 3 / 4) + 1, 0)
  np.testing.assert_array_equal(source[0]['depth'], scaled)
  camera = json.loads(files['camera'].read_text())
  fx, fy, cx, cy = (camera['intrinsic'][k] for k in ('fx', 'fy', 'u0', 'v0'))
  expected = [fx * 0.75, fy / 2, (cx + 0.5) * 0.75 - 0.5, (cy + 0.5) / 2 - 0.5]
  np.testing.assert_allclose(source[0]['intrinsics'], expected, 1e-6)
  baseline = camera['extrinsic']['baseline']
  assert source[0]['baseline'] == pytest.approx(baseline)


BASE = {'image_id', 'image', 'label', 'class_histogram'}


@pytest.mark.parametrize(
  ('flag', 'features', 'kind'),
  [
    ('--features=none', set(), None),
    ('--features=depth', {'depth'}, 'disparity'),
    ('--features=camera', {'intrinsics', 'baseline'}, None),
    ('--features=image_prev,image_right', {'image_prev', 'image_right'}, None),
  ],
)
def test_features_are_chosen(tree, tmp_path, flag, features, kind):
  assert run(tree, tmp_path, flag, '--limit=1') == 0
  source = open_split(tmp_path)
  assert source[0].keys() == BASE | features
  assert source.metadata['depth_kind'] == kind


@pytest.mark.parametrize('zipped', [False, True])
def test_training_labels_may_be_missing(tmp_path, zipped):
  raw = tmp_path / 'raw'
  options = {'packages': PACKAGES, 'train_labels': False, 'zipped': zipped}
  export.export_cityscapes(raw, 2, 1, SIZE, **options)
  assert run(raw, tmp_path) == 0
  for split in FOLDERS:
    source = open_split(tmp_path, split)
    assert source.labelled == (split == 'validation')
    if not source.labelled:
      assert (source[0]['label'] == 255).all()
      assert not source[0]['class_histogram'].any()


def test_any_of_the_splits_may_be_missing(tmp_path):
  raw = tmp_path / 'raw'
  trees.write_cityscapes(raw, {'val': {'ulm': 2}})
  assert run(raw, tmp_path) == 0
  assert [*stored(tmp_path)] == ['validation']


def _first(pattern):
  return lambda root: sorted(root.glob(pattern))[0]


def _unlink(pattern):
  return lambda root: _first(pattern)(root).unlink()


def _replace(pattern, array):
  return lambda root: cv2.imwrite(str(_first(pattern)(root)), array)


def _copy(pattern, old, new):
  """Copies a file to where one part of its path is another."""

  def harm(root):
    source = _first(pattern)(root)
    target = pathlib.Path(str(source).replace(old, new))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)

  return harm


SMALL = np.full((15, 32), 7, np.uint8)


@pytest.mark.parametrize(
  ('harm', 'message'),
  [
    (
      _unlink('gtFine/val/*/*labelIds.png'),
      r'_leftImg8bit\.png has no label: expected gtFine/val/aachen/'
      r'aachen_000002_000019_gtFine_labelIds\.png \(1 of the 1 images of val',
    ),
    (
      _unlink('gtFine/train/aachen/*labelIds.png'),
      r'has no label: expected gtFine/train/aachen/aachen_000000_000019_gtFi',
    ),
    (
      _unlink('gtCoarse/train_extra/aachen/*labelIds.png'),
      r'expected gtCoarse/train_extra/aachen/aachen_000004_000019_gtCoarse_la',
    ),
    (
      _unlink('rightImg8bit/train/aachen/*'),
      r'leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png has no '
      r'image_right \(1 of the 2 images of train have none\)',
    ),
    (_unlink('disparity/train/aachen/*'), 'aachen_000000_.* has no depth'),
    (_unlink('camera/train_extra/aachen/*'), 'aachen_000004.* has no camera'),
    (
      _unlink('leftImg8bit_sequence/train/aachen/*_000020_*'),
      'aachen_000000_000019_leftImg8bit.png has no image_next',
    ),
    (
      _replace('gtFine/train/aachen/*labelIds.png', SMALL),
      r'gtFine_labelIds\.png is 15x32 but its image .*leftImg8bit\.png is 16x3',
    ),
    (
      _replace('rightImg8bit/train/aachen/*', np.dstack([SMALL] * 3)),
      r'rightImg8bit\.png is 15x32 but .*leftImg8bit\.png is 16x32',
    ),
    (
      _replace('disparity/train/aachen/*', SMALL),
      'aachen_000000_000019_disparity.png holds uint8 values but depth needs',
    ),
    (
      _copy('leftImg8bit/train/aachen/*', '/train/', '/val/'),
      'leftImg8bit/train/aachen/.* and .*leftImg8bit/val/aachen/.* are two '
      "files for 'aachen_000000_000019'",
    ),
    (
      _copy('gtFine/val/aachen/*labelIds.png', '/gtFine/', '/copy/gtFine/'),
      "are two files for 'aachen_000002_000019'",
    ),
  ],
)
def test_a_broken_tree_is_one_sentence(raw, tmp_path, capsys, harm, message):
  harm(raw)
  assert run(raw, tmp_path) == 2
  assert_refused(capsys, tmp_path, message)


def test_no_images(tmp_path, capsys):
  (tmp_path / 'raw/train').mkdir(parents=True)
  (tmp_path / 'raw/train/a.png').write_bytes(b'x')
  assert run(tmp_path / 'raw', tmp_path) == 2
  message = r'no Cityscapes images in .*/raw: expected leftImg8bit/\{train,val'
  assert_refused(capsys, tmp_path, message)


GOOD = {
  'intrinsic': {'fx': 9.0, 'fy': 8.0, 'u0': 7.0, 'v0': 6.0},
  'extrinsic': {'baseline': 0.2, 'pitch': 0.0},
}


def without(group, key, **values):
  rest = {k: v for k, v in GOOD[group].items() if k != key}
  return json.dumps(GOOD | {group: rest | values})


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (json.dumps(GOOD)[:-4], 'cannot be decoded: no JSON'),
    ('', 'cannot be decoded: no JSON'),
    ('\udcff', 'cannot be decoded: no JSON'),
    ('[' * 100_000, 'cannot be decoded: no JSON'),
    ('[]', 'it has no number intrinsic.fx'),
    ('{"intrinsic": null}', 'it has no number intrinsic.fx'),
    (without('intrinsic', 'v0'), 'it has no number intrinsic.v0'),
    (without('intrinsic', 'fy', fy='x'), 'it has no number intrinsic.fy'),
    (without('intrinsic', 'u0', u0=float('nan')), 'no number intrinsic.u0'),
    (without('intrinsic', 'u0', u0=10**400), 'no number intrinsic.u0'),
    (without('extrinsic', 'baseline'), 'no number extrinsic.baseline'),
  ],
)
def test_a_broken_camera_is_named(text, message):
  data = text.encode(errors='surrogateescape')
  with pytest.raises(errors.UserError) as info:
    layout.read_camera(data, 'camera/train/a_camera.json')
  assert str(info.value).startswith('camera/train/a_camera.json ')
  assert message in str(info.value)
  assert '\n' not in str(info.value)


def test_a_camera_is_read():
  camera = layout.read_camera(json.dumps(GOOD).encode(), 'x')
  assert camera == ((9.0, 8.0, 7.0, 6.0), 0.2)


def test_a_broken_camera_file_stops_the_build(raw, tmp_path, capsys):
  _first('camera/val/*/*')(raw).write_text('{')
  assert run(raw, tmp_path) == 2
  assert_refused(capsys, tmp_path, r'000019_camera\.json cannot be decoded: no')


def depth_folder(tree, folder, ending, write):
  """Writes a depth file per image of all splits but test, in sub-folders."""
  rng = np.random.default_rng(6)
  depths = {}
  for image in sorted(tree.glob('leftImg8bit/[tv][ra]*/*/*.png')):
    name = image.stem.removesuffix('_leftImg8bit')
    path = folder / image.parent.parent.name / 'x' / f'{name}_{ending}'
    path.parent.mkdir(parents=True, exist_ok=True)
    depths[name] = rng.integers(10, 65536, SIZE).astype(np.uint16)
    write(path, depths[name])
  return depths


def write_mat(path, centimetres):
  scipy.io.savemat(path, {'depth_map': centimetres / 100})


def write_png(path, values):
  cv2.imwrite(str(path), values)


@pytest.mark.parametrize(
  ('kind', 'ending', 'write'),
  [
    ('metric', 'depth_stereoscopic.mat', write_mat),
    ('network_disparity', 'leftImg8bit.png', write_png),
    ('disparity', 'disparity.png', write_png),
  ],
)
def test_depth_from_elsewhere_takes_the_place_of_the_official_one(
  tree, tmp_path, kind, ending, write
):
  folder = tmp_path / 'depth'
  depths = depth_folder(tree, folder, ending, write)
  flags = [f'--depth_dir={folder}', f'--depth_kind={kind}']
  assert run(tree, tmp_path, *flags, '--features=depth') == 0
  found = stored(tmp_path)
  for example in found['train'] + found['validation'] + found['train_extra']:
    np.testing.assert_array_equal(
      example['depth'][..., 0], depths[example['image_id']]
    )
  metadata = open_split(tmp_path).metadata
  assert metadata['depth_kind'] == kind
  assert metadata['split_features']['test'] == []


def test_disparity_of_a_network_is_not_taken_for_the_official_one(tmp_path):
  raw = tmp_path / 'raw'
  trees.write_cityscapes(raw, {'train': {'ulm': 1}})
  (raw / 'disparity/train/ulm').mkdir(parents=True)
  file = 'disparity/train/ulm/ulm_000000_000019_leftImg8bit.png'
  cv2.imwrite(str(raw / file), np.full(SIZE, 9, np.uint16))
  assert run(raw, tmp_path) == 0
  assert open_split(tmp_path)[0].keys() == BASE


def test_two_kinds_of_depth_in_one_folder_are_refused(tree, tmp_path, capsys):
  folder = tmp_path / 'depth'
  depth_folder(tree, folder, 'depth_stereoscopic.mat', write_mat)
  depth_folder(tree, folder, 'leftImg8bit.png', write_png)
  flags = [f'--depth_dir={folder}', '--depth_kind=metric']
  assert run(tree, tmp_path, *flags) == 2
  assert_refused(capsys, tmp_path, r'\.mat and .*\.png are two files for')


def test_matlab_files_are_metres(tree, tmp_path, capsys):
  folder = tmp_path / 'depth'
  depth_folder(tree, folder, 'depth_stereoscopic.mat', write_mat)
  flags = [f'--depth_dir={folder}', '--depth_kind=network_disparity']
  assert run(tree, tmp_path, *flags) == 2
  assert_refused(capsys, tmp_path, 'is a MATLAB file, which holds metres')


def test_dummy_data_builds_all_splits(tmp_path):
  assert run(DUMMIES, tmp_path) == 0
  found = stored(tmp_path)
  assert [*found] == [*FOLDERS]
  assert all(len(examples) == 1 for examples in found.values())
  assert open_split(tmp_path).metadata['split_features']['train'] == [
    *('label', 'depth', 'camera', 'image_right', 'image_prev', 'image_next')
  ]


def test_dummy_data_is_what_the_command_in_the_readme_gives(tmp_path):
  readme = (DUMMIES.parent / 'README.md').read_text()
  (command,) = re.findall(r'python -m data_prep\.streets\.export (.+)', readme)
  name, target, *flags = command.split()
  assert target == 'data_prep/cityscapes/dummy_data'
  assert export.main([name, str(tmp_path / 'new'), *flags]) == 0
  names = [
    sorted(path.relative_to(root) for path in root.rglob('*.*'))
    for root in (DUMMIES, tmp_path / 'new')
  ]
  assert names[0] == names[1]
  for path in names[0]:
    new, old = (root / path for root in (tmp_path / 'new', DUMMIES))
    if path.suffix == '.json':
      assert json.loads(new.read_text()) == json.loads(old.read_text())
    else:  # The same pixels; how they are packed is up to a library.
      np.testing.assert_array_equal(pixels(new), pixels(old), str(path))
