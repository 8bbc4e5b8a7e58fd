from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import items, layouts, official
from data_prep.checks import findings, verdicts
from jaxseg_da.classes import labels
from tests.data_prep.check import damage


def gta5_harms():
  """Name -> harm, and the verdict."""

  def lose(*paths):
    def harm(root):
      for path in paths:
        (root / path).unlink()

    return harm

  def other_size(root):
    Image.new('P', (32, 15)).save(root / 'labels/00002.png')

  def twice(root):
    (root / 'more/images').mkdir(parents=True)
    shutil.copy(root / 'images/00001.png', root / 'more/images')

  def no_labels(root):
    shutil.rmtree(root / 'labels')

  def packed(root):
    no_labels(root)
    (root / 'labels.rar').write_bytes(b'Rar!')

  def no_images(root):
    shutil.rmtree(root / 'images')

  def bad_zip(root):
    (root / '03_labels.zip').write_bytes(b'PK')

  return {
    'colours': (
      damage.every('labels/*.png', damage.to_mode('RGB')),
      r'labels look like colours: the palette was converted to RGB \(4 of 4 '
      r'looked at, first .*labels/00001\.png\)',
    ),
    'one in colours': (
      lambda root: damage.to_mode('RGB')(root / 'labels/00003.png'),
      r'labels look like colours: .* \(1 of 4 looked at, .*00003\.png\)',
    ),
    'grey': (
      damage.every('labels/*.png', damage.to_mode('L')),
      r'labels hold next to no class: 9\d\.\d % of their pixels are ignored, '
      r'most of them of value 90;',
    ),
    'train ids': (
      damage.every('labels/*.png', damage.to_train_ids),
      'labels look like train ids, not like the original ones of GTA5: ',
    ),
    'road and wall': (
      damage.every('labels/*.png', damage.swapped(7, 12)),
      r'labels have 1\.\d % road where 36\.9 % is usual and [34]\d\.\d % wall '
      r'where 0\.7 % is usual: their ids look swapped',
    ),
    'blank': (
      damage.every('labels/*.png', damage.blank),
      'labels hold next to no class: 100.0 % .* of value 0;',
    ),
    'cut image': (
      lambda root: damage.cut(root / 'images/00004.png'),
      r'.*images/00004\.png cannot be decoded: .*truncated',
    ),
    'cut label': (
      lambda root: damage.cut(root / 'labels/00001.png'),
      r'.*labels/00001\.png cannot be decoded: .*truncated',
    ),
    'no image files': (
      damage.every('images/*.png', lambda path: path.write_text('hello')),
      r'.*images/00001\.png cannot be decoded: not an image \(4 such files\)',
    ),
    'size': (
      other_size,
      r'.*labels/00002\.png is 15x32 but its image .*images/00002\.png is 16x32'
      r' \(1 of 4 looked at\)',
    ),
    'label missing': (
      lose('labels/00002.png'),
      r'.*images/00002\.png has no label: expected labels/00002\.png \(1 of ',
    ),
    'image missing': (
      lose('images/00002.png', 'images/00004.png'),
      r'2 labels without image, first labels/00002\.png',
    ),
    'no labels': (
      no_labels,
      r'only images: 4 images of unsplit, no label; expected labels/00001\.png',
    ),
    'packed': (
      packed,
      r'only images: .*; .*/labels\.rar cannot be read in place: extract it',
    ),
    'no images': (
      no_images,
      r'no GTA5 images in .*: expected images/00001\.png and so on',
    ),
    'twice': (twice, r'.*images/00001\.png and .* are two files for '),
    'bad zip': (bad_zip, r'.*03_labels\.zip is no readable zip'),
  }


HARMS = gta5_harms()


@pytest.mark.parametrize('name', HARMS)
def test_verdicts_about_gta5(tree, run, name):
  harm, expected = HARMS[name]
  root = tree('gta5')
  harm(root)
  code, verdict = run('gta5', root, '--expect=any')
  assert code == 2
  assert re.match(expected, verdict), verdict


def test_halves_of_pairs_are_told(tree, run):
  root = tree('gta5')
  (root / 'labels/00002.png').unlink()
  (root / 'images/00003.png').unlink()
  assert run('gta5', root) == (
    2,
    '2 of 24 966 pairs; first missing id 2 (1 image and 1 label alone)',
  )


def write_shallow(path):
  """What Pillow makes of 16 bits per channel."""
  damage.to_mode('RGB')(path)


def write_low_bytes(path):
  with Image.open(path) as image:
    size = image.size
  pixels = np.zeros((*size[::-1], 3), np.uint8)
  pixels[..., 0], pixels[..., 1] = 3, 200
  Image.fromarray(pixels).save(path)


def write_colours(path):
  with Image.open(path) as image:
    size = image.size
  Image.new('RGB', size, (128, 64, 128)).save(path)


def write_mapped(path):
  train_ids = labels.SYNTHIA_ID_TO_TRAIN_ID[damage.synthia_ids(path)]
  train_ids[0, 0] = 255
  Image.fromarray(train_ids).save(path)


@pytest.mark.parametrize(
  ('change', 'expected'),
  [
    (write_shallow, 'SYNTHIA labels look 8-bit: the 16-bit files were'),
    (write_low_bytes, 'SYNTHIA labels look 8-bit'),
    (damage.blank, 'SYNTHIA labels look 8-bit'),
    (write_colours, 'labels look like colours: files for the eye'),
    (write_mapped, 'labels look like train ids, not .* SYNTHIA'),
  ],
)
def test_verdicts_about_synthia(tree, run, change, expected):
  root = tree('synthia')
  damage.every('GT/LABELS/*.png', change)(root)
  code, verdict = run('synthia', root, '--expect=any')
  assert code == 2
  assert re.match(expected, verdict), verdict


def test_an_8_bit_copy_of_the_classes_of_synthia_is_right(tree, run):
  root = tree('synthia')
  damage.every(
    'GT/LABELS/*.png',
    lambda path: Image.fromarray(damage.synthia_ids(path)).save(path),
  )(root)
  assert run('synthia', root, '--expect=any') == (0, 'looks right: 4 pairs')


def test_verdicts_about_cityscapes(tree, run):
  root = tree('cityscapes')
  for path in damage.find(root / 'gtFine/train', '*.png'):
    path.unlink()
  code, verdict = run('cityscapes', root, '--expect=any')
  assert code == 0
  assert verdict.startswith(
    'looks right: 4 images in train (unlabelled, as a target may be), 4 pairs '
  )
  made = root / 'gtFine/train/streets/streets_000001_000019_gtFine_label'
  pathlib.Path(f'{made}TrainIds.png').write_bytes(b'')
  code, verdict = run('cityscapes', root, '--expect=any')
  assert code == 2
  assert re.match(
    '4 images of train without label but with files like .*_labelTrainIds.png, '
    'made by a tool: .* expected gtFine/train/streets/streets_000000_000019_'
    'gtFine_labelIds.png',
    verdict,
  )


def test_renamed_train_ids_of_cityscapes(tree, run):
  root = tree('cityscapes')
  damage.every('*_labelIds.png', damage.to_train_ids)(root)
  code, verdict = run('cityscapes', root, '--expect=any')
  assert code == 2
  assert verdict.startswith('labels look like train ids, not ')


def test_what_a_build_would_refuse(tree, run):
  root = tree('cityscapes')
  damage.find(root, 'train/*/*_disparity.png')[1].unlink()
  code, verdict = run('cityscapes', root, '--expect=any')
  assert code == 2
  assert re.match(
    r'.*leftImg8bit\.png has no depth \(1 of the 4 images of train', verdict
  )


@pytest.mark.parametrize(
  ('pattern', 'expected'),
  [
    ('train/*/*_disparity.png', 'cannot be decoded'),
    ('val/*/*_camera.json', 'cannot be decoded'),
    ('val/*/*_rightImg8bit.png', 'cannot be decoded'),
  ],
)
def test_every_kind_of_file_is_read(tree, run, pattern, expected):
  root = tree('cityscapes')
  broken = damage.find(root, pattern)[0]
  damage.cut(broken)
  code, verdict = run('cityscapes', root, '--expect=any')
  assert code == 2
  assert verdict.startswith(f'{broken} {expected}')


def test_a_view_of_another_size(tree, run):
  root = tree('cityscapes')
  view = damage.find(root, '*_rightImg8bit.png')[0]
  Image.new('RGB', (32, 15)).save(view)
  code, verdict = run('cityscapes', root, '--expect=any')
  assert code == 2
  assert verdict.startswith(f'{view} is 15x32 but its image ')


def scale_polygons(factor):
  def change(path):
    annotation = json.loads(path.read_text())
    annotation['imgHeight'] *= factor
    annotation['imgWidth'] *= 2
    for thing in annotation['objects']:
      thing['polygon'] = [[2 * x, factor * y] for x, y in thing['polygon']]
    path.write_text(json.dumps(annotation))

  return change


def test_outlines_of_another_scale_are_right(tree, run):
  root = tree('idd')
  damage.every('*_polygons.json', scale_polygons(2))(root)
  assert run('idd', root, '--expect=any')[0] == 0
  assert '8 labels of another scale' in run.out
  damage.every('*_polygons.json', scale_polygons(3))(root)
  code, verdict = run('idd', root, '--expect=any')
  assert code == 2
  assert re.match(r'.*_polygons\.json is 96x128 but its image .*16x32', verdict)


def test_sizes_far_behind_the_start_of_a_file(tree, run):
  root = tree('idd')
  pad = ' ' * (1 << 16)
  damage.every('*.json', lambda path: path.write_text(pad + path.read_text()))(
    root
  )
  assert run('idd', root, '--expect=any')[0] == 0


def test_level_3_ids_of_idd(tree, run):
  root = tree('idd')

  def rename(path):
    name = path.name.replace('polygons.json', 'labellevel3Ids.png')
    path.rename(path.with_name(name))

  damage.every('train/*/*_polygons.json', rename)(root)
  code, verdict = run('idd', root, '--expect=any')
  assert code == 2
  assert re.match(
    '4 images of train without label but with files like .*_labellevel3Ids.png,'
    ' made by a tool: .* expected gtFine/train/.*_gtFine_polygons.json',
    verdict,
  )


def test_a_new_data_set_needs_only_its_layout(exported):
  """The rules work for a layout that nothing else has heard of."""

  def find_pairs(data):
    ids = data.find(r'labels/(\d{5})\.png')
    return {
      'train': [
        items.Item(name, image, f'labels/{name}.png', ids.get(name))
        for name, image in data.find(r'images/(\d{5})\.png').items()
      ]
    }

  layout = layouts.Layout(
    name='new',
    find=find_pairs,
    to_train_id=labels.GTA5_ID_TO_TRAIN_ID,
    official=official.Official(ids=range(1, 6)),
  )

  def judge(**more):
    found = findings.gather(
      dataclasses.replace(layout, **more),
      exported / 'gta5',
      count=9,
      measure_all=False,
      official=True,
      progress=io.StringIO(),
    )
    return verdicts.judge(found)

  assert judge() == ('4 of 5 pairs; first missing id 5', False)
  good = judge(official=official.Official())
  assert good == ('looks right: 4 pairs', True)
  short = judge(official=official.Official(), expected={'train': 6})
  assert short == ('4 of 6 images in train', False)
