"""Folders of consecutive images -> build -> every pixel of every triplet."""

from __future__ import annotations

import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import build
from data_prep.frames import layout
from data_prep.streets import export
from jaxseg_da import errors
from jaxseg_da.data import sources

SIZE = (16, 32)
CAMERA = (30.0, 31.0, 15.5, 7.25)
DUMMIES = pathlib.Path(layout.__file__).parent / 'dummy_data'


def run(raw, out, *more):
  flags = [f'--manual_dir={raw}', f'--data_dir={out}', '--workers=1', *more]
  return build.main(['frames', *flags])


def write(folder, names, camera=CAMERA, size=SIZE):
  """Writes random images, losslessly or as JPEG; returns them by name."""
  rng = np.random.default_rng(len(names))
  folder.mkdir(parents=True, exist_ok=True)
  for name in names:
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(image).save(folder / name)
  if camera:
    (folder / 'intrinsics.txt').write_text(' '.join(map(str, camera)) + '\n')
  return [pixels(folder / name) for name in names]


def pixels(path):
  return np.asarray(Image.open(path).convert('RGB'))


def examples(out, split='train'):
  source = sources.open_dataset(f'frames:{split}', out)
  return [source[index] for index in range(len(source))]


def ids(out, split='train'):
  return [example['image_id'] for example in examples(out, split)]


def assert_refused(capsys, out, message):
  """One sentence; and nothing is left that looks finished."""
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1, lines
  assert re.search(message, lines[0]), lines[0]
  assert not [*out.glob('frames/*.*.*')]


def assert_triplets(found, images, camera=CAMERA):
  """Each inner image is an example with its neighbours."""
  assert len(found) == len(images) - 2
  for index, example in enumerate(found):
    views = (example[v] for v in ('image_prev', 'image', 'image_next'))
    for view, image in zip(views, images[index:], strict=False):
      np.testing.assert_array_equal(view, image)
    np.testing.assert_allclose(example['intrinsics'], camera, 1e-6)
    assert example['baseline'] == 0
    assert (example['label'] == 255).all()
    assert not example['class_histogram'].any()


@pytest.mark.parametrize('ending', ['png', 'jpg', 'JPEG'])
def test_images_with_both_neighbours_in_natural_order(tmp_path, ending):
  raw = tmp_path / 'raw'
  names = [f'frame_{number}.{ending}' for number in (1, 2, 9, 10, 100)]
  images = write(raw / 'drive', names)
  (raw / 'drive/._frame_3.png').write_bytes(b'x')
  (raw / 'drive/Thumbs.db').write_bytes(b'x')
  assert run(raw, tmp_path) == 0
  found = examples(tmp_path)
  assert_triplets(found, images)
  assert ids(tmp_path) == ['drive/frame_2', 'drive/frame_9', 'drive/frame_10']
  source = sources.open_dataset('frames', tmp_path)
  assert (source.split, source.labelled) == ('train', False)
  assert source.metadata['split_features'] == {
    'train': ['camera', 'image_prev', 'image_next']
  }


def test_sequences_do_not_touch_and_may_lie_anywhere(tmp_path):
  raw = tmp_path / 'raw'
  wide = write(raw / 'seq_10', ['1.png', '2.png', '3.png'], size=(16, 40))
  deep = write(raw / 'a/seq_2/data', ['1.png', '2.jpg', '3.png', '4.png'])
  write(raw / 'short', ['1.png', '2.png'], camera=None)
  assert run(raw, tmp_path) == 0
  names = ['a/seq_2/data/2', 'a/seq_2/data/3', 'seq_10/2']
  assert ids(tmp_path) == names
  found = examples(tmp_path)
  assert_triplets(found[:2], deep)
  assert_triplets(found[2:], wide)


def test_images_in_the_root_are_one_sequence(tmp_path):
  images = write(tmp_path / 'raw', ['8.png', '9.png', '10.png'])
  assert run(tmp_path / 'raw', tmp_path) == 0
  assert ids(tmp_path) == ['9']
  assert_triplets(examples(tmp_path), images)


def test_the_closest_camera_counts(tmp_path):
  raw = tmp_path / 'raw'
  names = ['1.png', '2.png', '3.png']
  own = (20, 21, 9, 8)
  write(raw / 'a/x', names, camera=None)
  write(raw / 'a/y', names, camera=own)
  write(raw / 'b', names, camera=None)
  write(raw / 'a', [], camera=(10, 11, 4, 5))
  write(raw, [])
  assert run(raw, tmp_path) == 0
  found = {e['image_id']: tuple(e['intrinsics']) for e in examples(tmp_path)}
  assert found == {'a/x/2': (10, 11, 4, 5), 'a/y/2': own, 'b/2': CAMERA}


@pytest.mark.parametrize('zipped', [False, True])
def test_exported_sequences(tmp_path, zipped):
  raw, tree = tmp_path / 'raw', tmp_path / 'tree'
  export.export_frames(raw, 2, SIZE, zipped=zipped)
  export.export_frames(tree, 2, SIZE)
  assert (raw / 'frames.zip').exists() == zipped
  assert run(raw, tmp_path) == 0
  found = examples(tmp_path)
  assert len(found) == 2
  for example, folder in zip(found, ('seq_00', 'seq_01'), strict=True):
    assert example['image_id'] == f'{folder}/000001'
    images = [pixels(path) for path in sorted(tree.glob(f'{folder}/*.png'))]
    text = (tree / folder / 'intrinsics.txt').read_text()
    camera = [float(word) for word in text.split()]
    assert_triplets([example], images, camera)


def test_size_resizes_images_and_camera(tmp_path):
  raw = tmp_path / 'raw'
  images = write(raw, ['1.png', '2.png', '3.png'])
  assert run(raw, tmp_path, '--size=8x24') == 0
  small = [
    np.asarray(Image.fromarray(i).resize((24, 8), Image.Resampling.BICUBIC))
    for i in images
  ]
  fx, fy, cx, cy = CAMERA
  scaled = (fx * 0.75, fy / 2, (cx + 0.5) * 0.75 - 0.5, (cy + 0.5) / 2 - 0.5)
  assert_triplets(examples(tmp_path), small, scaled)


def test_a_list_makes_a_validation_split(tmp_path):
  raw = tmp_path / 'raw'
  write(raw / 'a', [f'{number}.png' for number in range(5)])
  (tmp_path / 'train.txt').write_text('a/1\na/2\n')
  (tmp_path / 'val.txt').write_text('a/3.png\n')
  flags = [f'--list=train={tmp_path}/train.txt']
  flags += [f'--list=validation={tmp_path}/val.txt']
  assert run(raw, tmp_path, *flags) == 0
  assert ids(tmp_path) == ['a/1', 'a/2']
  assert ids(tmp_path, 'validation') == ['a/3']


@pytest.mark.parametrize(
  ('harm', 'message'),
  [
    (
      lambda raw: (raw / 'a/intrinsics.txt').unlink(),
      r'the images in (.*/raw/a) have no camera: expected \1/intrinsics.txt, '
      r'or \S*/raw/intrinsics.txt for all, with one line',
    ),
    (
      lambda raw: (raw / 'a/intrinsics.txt').write_text('1 2 3\n'),
      "raw/a/intrinsics.txt is no camera: expected one line 'fx fy cx cy'",
    ),
    (
      lambda raw: [(raw / f'a/{n}.png').unlink() for n in (3, 2)],
      r'no folder in .*/raw has 3 consecutive images: .*/raw/a has 2',
    ),
    (lambda raw: shutil.rmtree(raw / 'a'), 'no images in .*/raw: expected a'),
    (
      lambda raw: shutil.copy(raw / 'a/1.png', raw / 'a/1.jpg'),
      r"a/1.(png|jpg) and .*a/1.(png|jpg) are two files for 'a/1'",
    ),
    (
      lambda raw: write(raw / 'a', ['2.png'], size=(15, 32)),
      r'a/2.png is 15x32 but .*a/1.png is 16x32',
    ),
    (
      lambda raw: (raw / 'a/2.png').write_bytes(b'x'),
      'a/2.png cannot be decoded: not an image',
    ),
  ],
)
def test_a_broken_tree_is_one_sentence(tmp_path, capsys, harm, message):
  raw = tmp_path / 'raw'
  write(raw / 'a', [f'{number}.png' for number in range(4)])
  (raw / 'b').mkdir()
  (raw / 'b/notes.txt').write_text('x')
  harm(raw)
  assert run(raw, tmp_path) == 2
  assert_refused(capsys, tmp_path, message)


def test_the_camera_of_images_in_the_root_is_expected_there(tmp_path, capsys):
  write(tmp_path / 'raw', ['1.png', '2.png', '3.png'], camera=None)
  assert run(tmp_path / 'raw', tmp_path) == 2
  message = r'(\S+/raw) have no camera: expected \1/intrinsics.txt with one'
  assert_refused(capsys, tmp_path, message)


@pytest.mark.parametrize(
  'text',
  [
    '30 31 15.5 7.25',
    '\ufeff3e1\t31  15.5 7.25\r\n\r\n',
    '30 0 15.5\n0 31 7.25\n0 0 1\n',
    '\n30.0 0.0 15.5\r\n\n0 31 7.25\n0 0 1.0',
  ],
)
def test_a_camera_is_read(text):
  camera = layout.read_camera(text.encode(), 'x')
  assert camera == (CAMERA, 0.0)


@pytest.mark.parametrize(
  'text',
  [
    '',
    '30 31 15.5',
    '30 31 15.5 7.25 0',
    'fx fy cx cy',
    '30 31 nan 7.25',
    'inf 31 15.5 7.25',
    '30 -31 15.5 7.25',
    '30 0 15.5\n0 31 7.25',
    '30 0 15.5\n0 31 7.25\n0 0 1\n0 0 0',
    '30 0 15.5 0\n0 31 7.25 0\n0 0 1 0',
    '30 2 15.5\n0 31 7.25\n0 0 1',
    '30 0 15.5\n0 31 7.25\n0 0 0',
    '30 0 0\n0 31 0\n15.5 7.25 1',
    '30\n31\n15.5\n7.25',
    '\udcff 31 15.5 7.25',
  ],
)
def test_something_else_is_no_camera(text):
  data = text.encode(errors='surrogateescape')
  with pytest.raises(errors.UserError) as info:
    layout.read_camera(data, 'a/intrinsics.txt')
  assert str(info.value) == (
    "a/intrinsics.txt is no camera: expected one line 'fx fy cx cy' in pixels, "
    "or the matrix 'fx 0 cx', '0 fy cy', '0 0 1' on three lines"
  )


def test_fractions_of_the_size_are_no_pixels():
  message = 'x has the focal lengths 0.58 and 1.92, which are no pixels'
  with pytest.raises(errors.UserError, match=re.escape(message)):
    layout.read_camera(b'0.58 1.92 0.5 0.5', 'x')


def test_dummy_data_builds(tmp_path):
  assert run(DUMMIES, tmp_path) == 0
  assert ids(tmp_path) == ['seq_00/000001', 'seq_01/000001']


def test_dummy_data_is_what_the_command_in_the_readme_gives(tmp_path):
  readme = (DUMMIES.parent / 'README.md').read_text()
  (command,) = re.findall(r'python -m data_prep\.streets\.export (.+)', readme)
  name, target, *flags = command.split()
  assert target == 'data_prep/frames/dummy_data'
  assert export.main([name, str(tmp_path / 'new'), *flags]) == 0
  names = [
    sorted(path.relative_to(root) for path in root.rglob('*.*'))
    for root in (DUMMIES, tmp_path / 'new')
  ]
  assert names[0] == names[1]
  for path in names[0]:
    new, old = (root / path for root in (tmp_path / 'new', DUMMIES))
    if path.suffix == '.txt':
      assert new.read_text() == old.read_text()
    else:  # The same pixels; how they are packed is up to a library.
      np.testing.assert_array_equal(pixels(new), pixels(old))
