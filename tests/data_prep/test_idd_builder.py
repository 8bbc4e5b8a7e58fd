"""IDD: trees or zips -> build -> every pixel; one sentence for defects."""

from __future__ import annotations

import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest

from data_prep import build, codecs
from data_prep.streets import export, world
from jaxseg_da.classes import labels
from jaxseg_da.data import sources, transforms

SIZE = (16, 32)
SMALL = (12, 20)
SPLITS = ('train', 'validation', 'test')
FOLDERS = dict(zip(SPLITS, ('train', 'val', 'test'), strict=True))
# What `exported` writes, in the order of the build.
IDS = {
  'train': ['151/000000', '201/frame0000', '317/frame0000', '41/000000'],
  'validation': ['151/000001', '201/frame0001', '317/frame0001', '41/000001'],
  'test': ['151/000002', '201/frame0002', '317/frame0002', '41/000002'],
}


def run(raw, out, *more):
  return build.main(
    ['idd', f'--manual_dir={raw}', f'--data_dir={out}', '--workers=1', *more]
  )


def opened(out, split='train'):
  return sources.open_dataset(f'idd:{split}', out)


def refused(capsys, raw, out, *parts):
  """The build ends with one sentence that has all `parts`, and no data."""
  assert run(raw, out) == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1, lines
  for part in ('error: ', *parts):
    assert part in lines[0]
  assert not [*out.glob('idd/*.*.*')]


def exported(raw, **more):
  """Two frames per split and part; returns image id -> (split, index)."""
  packages = ('test', 'part2')
  export.export_idd(raw, 2, 2, SIZE, packages=packages, **more)
  # Per part the drives take turns; part II shows the scenes after part I's.
  return {
    f'{drive}/{name.format(turn)}': (split, 2 * part + position)
    for part, (drives, name) in enumerate(
      [(('41', '151'), '{:06d}'), (('201', '317'), 'frame{:04d}')]
    )
    for turn, split in enumerate(SPLITS)
    for position, drive in enumerate(drives)
  }


def write(path, data):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data if isinstance(data, bytes) else data.encode())


def random_image(size=SIZE, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def box(label, left, top, right, bottom, **more):
  corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
  return {'label': label, 'polygon': corners, **more}


def frame(raw, name, objects=(), size=SIZE, image_size=None, folder='train'):
  """Writes an image, of `image_size` if given, and its polygons."""
  image = random_image(image_size or size, len(name))
  path = raw / 'leftImg8bit' / folder / f'{name}_leftImg8bit.png'
  write(path, codecs.encode_png(image))
  height, width = size
  annotation = {'imgHeight': height, 'imgWidth': width, 'objects': [*objects]}
  write(polygon_file(raw, name, folder), json.dumps(annotation))
  return image


def polygon_file(raw, name, folder='train') -> pathlib.Path:
  return raw / 'gtFine' / folder / f'{name}_gtFine_polygons.json'


@pytest.mark.parametrize('zipped', [False, True], ids=['trees', 'zips'])
@pytest.mark.parametrize('size', [None, SMALL])
def test_both_parts_pixel_for_pixel(tmp_path, zipped, size):
  raw = tmp_path / 'raw'
  scenes = exported(raw, zipped=zipped)
  assert len([*raw.glob('*.zip')]) == (2 if zipped else 0)
  more = [f'--size={size[0]}x{size[1]}'] if size else []
  assert run(raw, tmp_path, *more) == 0
  files = tmp_path / 'files' if zipped else raw
  if zipped:
    exported(files)
  for split in SPLITS:
    source = opened(tmp_path, split)
    assert source.labelled == (split != 'test')
    assert [x['image_id'] for x in source] == IDS[split]
    for example in source:
      check(example, scenes[example['image_id']], files, size)
  metadata = opened(tmp_path).metadata
  assert metadata['resize'] == ('cv_area' if size else None)


def check(example, where, files, size):
  """Compares with the scene, and with the exported file where it is a JPEG."""
  split, index = where
  scene = world.render_example(world.domain('city'), split, index, SIZE)
  image, label = scene['image'], scene['label']
  if 'frame' in example['image_id']:
    name = f'{FOLDERS[split]}/{example["image_id"]}_leftImg8bit.jpg'
    file = files / 'idd20kII/leftImg8bit' / name
    image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
  if split == 'test':
    label = np.full_like(label, 255)
  if size:
    image = transforms.resize(image, size, 'cv_area')
    label = transforms.nearest(label, size)
  np.testing.assert_array_equal(example['image'], image)
  np.testing.assert_array_equal(example['label'][..., 0], label)
  np.testing.assert_array_equal(
    example['class_histogram'], np.bincount(label.ravel(), minlength=256)[:19]
  )


def test_files_are_stored_as_they_are(tmp_path):
  raw = tmp_path / 'raw'
  exported(raw)
  run(raw, tmp_path)
  source = opened(tmp_path)
  for index, name in enumerate(IDS['train']):
    (file,) = raw.glob(f'*/leftImg8bit/train/{name}_leftImg8bit.*')
    assert source._record(index)['image'] == file.read_bytes()


def test_merged_parts_give_the_same(tmp_path):
  raw, merged = tmp_path / 'raw', tmp_path / 'merged'
  exported(raw)
  for part in raw.iterdir():
    shutil.copytree(part, merged / 'IDD', dirs_exist_ok=True)
  run(raw, tmp_path / 'a')
  run(merged, tmp_path / 'b')
  for split in SPLITS:
    a, b = opened(tmp_path / 'a', split), opened(tmp_path / 'b', split)
    records = [[s._record(i) for i in range(len(s))] for s in (a, b)]
    assert repr(records[0]) == repr(records[1])


def test_part_one_alone(tmp_path):
  export.export_idd(tmp_path / 'raw', 1, 1, SIZE)
  run(tmp_path / 'raw', tmp_path)
  assert len(opened(tmp_path)) == len(opened(tmp_path, 'validation')) == 1


def test_sizes_may_differ(tmp_path):
  raw = tmp_path / 'raw'
  images = {
    name: frame(raw, name, [box('sky', 0, 0, 99, 3)], size)
    for name, size in (('1/7', (20, 40)), ('1/8', (16, 30)), ('2/7', (9, 9)))
  }
  run(raw, tmp_path)
  source = opened(tmp_path)
  assert source.metadata['image_size'] is None
  assert source.sizes() == [(20, 40), (16, 30), (9, 9)]
  for example in source:
    image = images[example['image_id']]
    np.testing.assert_array_equal(example['image'], image)
    label = np.full(image.shape[:2], 255)
    label[:4] = 10
    np.testing.assert_array_equal(example['label'][..., 0], label)


def test_every_class_and_the_trap_of_vehicle_fallback(tmp_path):
  """By its csId, 355, a vehicle fallback would be painted as 99."""
  names = [row.name for row in labels.IDD]
  objects = [
    box(name, i % 32, 8 * (i // 32), i % 32, 8 * (i // 32) + 7)
    for i, name in enumerate(names)
  ]
  frame(tmp_path / 'raw', '1/7', objects)
  run(tmp_path / 'raw', tmp_path)
  label = opened(tmp_path)[0]['label'][..., 0]
  found = {
    name: int(label[8 * (i // 32), i % 32]) for i, name in enumerate(names)
  }
  # From the published table; what is not named here is ignored.
  assert {name: v for name, v in found.items() if v != 255} == {
    'road': 0, 'sidewalk': 1, 'building': 2, 'wall': 3, 'fence': 4, 'pole': 5,
    'traffic light': 6, 'traffic sign': 7, 'vegetation': 8,
    'non-drivable fallback': 9, 'sky': 10, 'person': 11, 'rider': 12, 'car': 13,
    'truck': 14, 'bus': 15, 'train': 16, 'motorcycle': 17, 'bicycle': 18,
  }  # fmt: skip
  assert found['vehicle fallback'] == 255


@pytest.mark.parametrize('image_size', [(32, 64), (8, 16), (19, 38), (16, 32)])
def test_polygons_of_a_resized_image(tmp_path, image_size):
  raw = tmp_path / 'raw'
  objects = [box('road', 0, 8, 31, 15), box('car', 3, 6, 9, 11)]
  image = frame(raw, '1/7', objects, image_size=image_size)
  run(raw, tmp_path)
  label = np.full(SIZE, 255)
  label[8:] = 0
  label[6:12, 3:10] = 13
  example = opened(tmp_path)[0]
  np.testing.assert_array_equal(example['image'], image)
  np.testing.assert_array_equal(
    example['label'][..., 0], transforms.nearest(label, image_size)
  )


@pytest.mark.parametrize(
  ('image_size', 'accepted'),
  [((200, 402), True), ((200, 398), True), ((200, 406), False),
   ((200, 394), False), ((100, 50), False)],
)  # fmt: skip
def test_a_shape_may_differ_by_one_percent(
  tmp_path, capsys, image_size, accepted
):
  raw = tmp_path / 'raw'
  frame(raw, '1/7', size=(100, 200), image_size=image_size)
  if accepted:
    assert run(raw, tmp_path) == 0
    assert opened(tmp_path)[0]['label'].shape == (*image_size, 1)
  else:
    height, width = image_size
    refused(
      capsys,
      raw,
      tmp_path,
      '1/7_gtFine_polygons.json is 100x200 but its image',
      f'1/7_leftImg8bit.png is {height}x{width}',
    )


def test_labels_that_tools_made_are_not_read(tmp_path):
  raw = tmp_path / 'raw'
  scenes = exported(raw)
  for file in [*raw.glob('*/gtFine/*/*/*_polygons.json')]:
    stem = file.name.removesuffix('_polygons.json')
    for ending in (
      'labellevel3Ids.png',
      'labelLevel3Ids.png',
      'labelcsTrainIds.png',
      'instancelevel3Ids.png',
    ):
      write(file.with_name(f'{stem}_{ending}'), b'no image')
  run(raw, tmp_path)
  for example in opened(tmp_path):
    check(example, scenes[example['image_id']], raw, None)


def test_train_labels_may_be_missing(tmp_path):
  exported(tmp_path / 'raw', train_labels=False)
  assert run(tmp_path / 'raw', tmp_path) == 0
  train = opened(tmp_path)
  assert not train.labelled
  assert (train[0]['label'] == 255).all()
  assert opened(tmp_path, 'validation').labelled


def test_lists_as_papers_publish_them(tmp_path):
  exported(tmp_path / 'raw')
  path = tmp_path / 'val.txt'
  path.write_text(
    'leftImg8bit/train/41/000000_leftImg8bit.png\ntrain/201/frame0000\n'
  )
  assert run(tmp_path / 'raw', tmp_path, f'--list=validation={path}') == 0
  source = opened(tmp_path, 'validation')
  assert [x['image_id'] for x in source] == ['41/000000', '201/frame0000']


def damages():
  """Name -> what happens to an exported tree, and parts of the sentence."""
  image = 'IDD_Segmentation/leftImg8bit/train/41/000000_leftImg8bit.png'
  outline = 'IDD_Segmentation/gtFine/train/41/000000_gtFine_polygons.json'
  jpeg = 'idd20kII/leftImg8bit/val/317/frame0001_leftImg8bit.jpg'
  val = 'gtFine/val/151/000001_gtFine_polygons.json'

  def cut(name, count):
    def harm(raw):
      (raw / name).write_bytes((raw / name).read_bytes()[:-count])

    return harm

  def copied(old, new):
    def harm(raw):
      write(raw / new, (raw / old).read_bytes())

    return harm

  def changed(**more):
    def harm(raw):
      document = json.loads((raw / outline).read_text()) | more
      (raw / outline).write_text(json.dumps(document))

    return harm

  return {
    'no polygons': (
      lambda raw: (raw / outline).unlink(),
      [image, 'has no label', 'gtFine/train/41/000000_gtFine_polygons.json'],
    ),
    'no polygons of val': (
      lambda raw: [shutil.rmtree(x) for x in raw.glob('*/gtFine/val')],
      [f'has no label: expected {val} (4 of the 4 images of validation'],
    ),
    'broken JSON': (cut(outline, 9), [outline, 'no complete JSON']),
    'unknown class': (
      changed(objects=[box('cow', 0, 0, 5, 5)]),
      [outline, "object 0 is labelled 'cow'", 'IDD does not have'],
    ),
    'no size': (changed(imgWidth=None), [outline, 'imgWidth']),
    'bomb': (changed(imgWidth=10**9), [outline, '1000000000x16']),
    'other shape': (
      changed(imgWidth=33),
      [outline, 'is 16x33 but its image', image, 'is 16x32'],
    ),
    'truncated PNG': (cut(image, 400), [image, 'cannot be decoded']),
    'truncated JPEG': (cut(jpeg, 400), [jpeg, 'cannot be decoded']),
    'no image': (lambda raw: write(raw / jpeg, b'<html>'), [jpeg, 'not an']),
    'PNG and JPEG': (
      copied(image, image.replace('.png', '.jpg')),
      [image, image.replace('.png', '.jpg'), "two files for '41/000000'"],
    ),
    'in both parts': (
      copied(image, image.replace('IDD_Segmentation', 'idd20kII')),
      [image, 'idd20kII/leftImg8bit/train/41/000000', 'two files for'],
    ),
    'in two splits': (
      copied(image, image.replace('train', 'val')),
      [image, 'leftImg8bit/val/41/000000', "two files for '41/000000'"],
    ),
    'two outlines': (
      copied(outline, f'old/{outline}'),
      [outline, f'old/{outline}', "two files for 'train/41/000000'"],
    ),
  }


@pytest.mark.parametrize('name', damages())
def test_a_broken_frame_is_named_and_leaves_nothing(tmp_path, capsys, name):
  harm, parts = damages()[name]
  exported(tmp_path / 'raw')
  harm(tmp_path / 'raw')
  refused(capsys, tmp_path / 'raw', tmp_path, *parts)


def test_the_official_archive_has_to_be_extracted(tmp_path, capsys):
  write(tmp_path / 'raw/idd-segmentation.tar.gz', b'\x1f\x8b')
  refused(
    capsys,
    tmp_path / 'raw',
    tmp_path,
    'no IDD images in',
    'raw/idd-segmentation.tar.gz cannot be read in place: extract it there',
  )
