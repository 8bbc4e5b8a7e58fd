from __future__ import annotations

import dataclasses
import io
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from data_prep import check, items, raw
from data_prep.checks import sample, survey
from data_prep.gta5 import layout as gta5
from data_prep.streets import export
from tests import support
from tests.data_prep.check import damage


@pytest.mark.parametrize(
  ('name', 'summary'),
  [
    ('gta5', '4 pairs'),
    ('synthia', '4 pairs'),
    (
      'cityscapes',
      '4 pairs in train, 4 pairs in validation, 4 images in test (unlabelled)',
    ),
    ('idd', '4 pairs in train, 4 pairs in validation'),
    ('frames', '4 images (unlabelled)'),
  ],
)
def test_what_is_right_is_called_right(exported, run, name, summary):
  assert run(name, exported / name, '--expect=any') == (
    0,
    f'looks right: {summary}',
  )
  assert len(run.out.splitlines()) <= 45


@pytest.mark.parametrize(
  ('name', 'verdict'),
  [
    ('gta5', '4 of 24 966 pairs; first missing id 5'),
    ('synthia', '4 of 9 400 pairs; first missing id 4'),
    (
      'cityscapes',
      '4 of 2 975 images in train, 4 of 500 images in validation, '
      '4 of 1 525 images in test',
    ),
    ('idd', '4 of 6 993 images in train, 4 of 981 images in validation'),
  ],
)
def test_a_part_of_the_official_data_is_incomplete(
  exported, run, name, verdict
):
  assert run(name, exported / name) == (2, verdict)


def official_zip(path, ids, pairs=2, size=(1052, 1914)):
  """GTA5 of empty files, but for the first and last pairs."""
  image, label = io.BytesIO(), io.BytesIO()
  Image.new('RGB', size[::-1]).save(image, 'png')
  ids_ = np.full(size, 7, np.uint8)
  ids_[: size[0] // 3] = 11
  ids_[:, : size[1] // 5] = 21
  Image.fromarray(ids_).save(label, 'png')
  seen = {*ids[:pairs], *ids[-pairs:]}
  with zipfile.ZipFile(path, 'w') as archive:
    for number in ids:
      for folder, data in (('images', image), ('labels', label)):
        content = data.getvalue() if number in seen else b''
        archive.writestr(f'{folder}/{number:05d}.png', content)


GAPS = ((2154, 2158), (4634, 4637), (7115, 7119), (9683, 9688), (12050, 12054))


@pytest.mark.parametrize(
  ('missing', 'code', 'verdict'),
  [
    (GAPS, 2, '24 941 of 24 966 pairs; first missing id 2154'),
    ([(15188, 15188)], 0, 'looks right: 24 965 pairs'),
  ],
)
def test_the_official_count(tmp_path, run, missing, code, verdict):
  gone = {i for a, b in missing for i in range(a, b + 1)}
  ids = [i for i in range(1, 24967) if i not in gone]
  official_zip(tmp_path / '01_images.zip', ids)
  assert run('gta5', tmp_path, '--sample=2') == (code, verdict)
  known_bad = '15188, 17705' if code else '17705'
  assert re.search(rf'^known bad +{known_bad} \(image and', run.out, re.M)
  if code:
    assert '25: 2154-2158, 4634-4637, 7115-7119, 9683-9688, 12050-' in run.out


def test_an_empty_folder(tmp_path, run):
  code, verdict = run('gta5', tmp_path)
  assert code == 2
  assert verdict.startswith(f'no GTA5 images in {tmp_path}: expected images/')


def small_gta5(**more):
  """GTA5 as if the exported tree were all of it."""
  facts = {'ids': range(1, damage.COUNT + 1), 'sizes': (damage.SIZE,)} | more
  return dataclasses.replace(
    gta5.LAYOUT,
    official=dataclasses.replace(gta5.LAYOUT.official, **facts),
  )


@pytest.mark.parametrize(
  ('facts', 'expected'),
  [
    ({}, ''),
    ({'sizes': ((1052, 1914),)}, 'images are 16x32, not 1052x1914: a resized'),
    (
      {'ids': range(1, 4)},
      '1 image that GTA5 does not have, first 00004: its ids are 1 to 3',
    ),
  ],
)
def test_what_only_the_official_download_is(
  exported, run, monkeypatch, facts, expected
):
  monkeypatch.setattr(gta5, 'LAYOUT', small_gta5(**facts))
  code, verdict = run('gta5', exported / 'gta5')
  assert code == (2 if expected else 0)
  assert verdict.startswith(expected or 'looks right: 4 pairs')
  assert run('gta5', exported / 'gta5', '--expect=any')[0] == 0


def test_known_bad_frames_and_single_classes_are_told(tree, run, tmp_path):
  root = tree('gta5')
  for folder in ('images', 'labels'):
    (root / folder / '00004.png').rename(root / folder / '15188.png')
  Image.new('P', (32, 15)).save(root / 'labels/15188.png')
  damage.blank(root / 'labels/00002.png')
  page = tmp_path / 'page.html'
  assert run('gta5', root, '--expect=any', f'--html={page}')[0] == 0
  reason = 'image and label have different sizes'
  assert f'known bad       15188 ({reason})' in run.out
  assert 'one class only  00002 (the whole label is one class' in run.out
  assert f'<li>15188: {reason}</li>' in page.read_text()


def test_sample_and_all(tree, run):
  root = tree('gta5')
  damage.cut(root / 'images/00003.png')
  Image.new('P', (32, 15)).save(root / 'labels/00002.png')
  assert run('gta5', root, '--expect=any', '--sample=2')[0] == 0
  assert '2 labels' in run.out
  code, verdict = run('gta5', root, '--expect=any', '--sample=2', '--all')
  assert code == 2
  assert 'labels/00002.png is 15x32' in verdict
  assert verdict.endswith('(1 of 4 looked at)')
  code, verdict = run('gta5', root, '--expect=any', '--sample=9')
  assert 'images/00003.png cannot be decoded' in verdict


@pytest.mark.parametrize(
  ('sizes', 'count', 'expected'),
  [
    ((100, 10), 20, (10, 10)),
    ((100, 2), 20, (18, 2)),
    ((100, 100, 100), 2, (1, 1, 1)),
    ((3,), 20, (3,)),
  ],
)
def test_splits_share_the_sample(sizes, count, expected):
  splits = {
    f's{i}': [items.Item(f's{i}', raw.Entry('', '', False, 0, 0))] * size
    for i, size in enumerate(sizes)
  }
  chosen = [item.image_id for item in sample.choose(splits, count)]
  assert tuple(chosen.count(name) for name in splits) == expected


def test_a_sample_holds_both_ends():
  assert sample.evenly(range(100), 4) == [0, 33, 66, 99]
  assert sample.evenly(range(2), 4) == [0, 1]
  assert sample.evenly([], 4) == []


def test_ranges():
  assert [*survey.ranges([1, 3, 4, 5, 9])] == ['1', '3-5', '9']
  assert [*survey.ranges([])] == []


def test_nothing_is_written_to_the_raw_data(exported, run, tmp_path):
  def snapshot():
    return {
      (str(p), p.stat().st_mtime_ns, p.stat().st_size)
      for p in exported.rglob('*')
    }

  before = snapshot()
  for name in ('gta5', 'cityscapes'):
    run(name, exported / name, f'--html={tmp_path / "page.html"}', '--all')
  assert snapshot() == before


def test_zips(tmp_path, run):
  export.export_gta5(tmp_path / 'raw', damage.COUNT, damage.SIZE, zipped=True)
  assert damage.find(tmp_path / 'raw', '*.png') == []
  assert run('gta5', tmp_path / 'raw', '--expect=any') == (
    0,
    'looks right: 4 pairs',
  )


def test_stray_files_are_counted(tree, run):
  root = tree('gta5')
  (root / 'labels/._00001.png').write_bytes(b'x')
  (root / 'Thumbs.db').write_bytes(b'x')
  (root / 'notes.txt').write_bytes(b'x')
  for number in (10, 11):
    (root / f'backup_{number}.jpg').write_bytes(b'x')
  assert run('gta5', root, '--expect=any')[0] == 0
  assert 'other files  notes.txt, *.jpg (2)\n' in run.out


def test_names_of_other_encodings(tree, run):
  root = tree('gta5')
  with open(os.fsencode(root / 'images') + b'/caf\xe9.txt', 'wb'):
    pass
  assert run('gta5', root, '--expect=any')[0] == 0
  assert 'caf�.txt' in run.out


def test_it_starts_fast_without_tfds_and_jax(exported):
  program = (
    'import sys; from data_prep import check\n'
    f'assert check.main(["gta5", "--manual_dir={exported / "gta5"}", '
    '"--expect=any"]) == 0\n'
    'heavy = {"tensorflow_datasets", "tensorflow", "jax", "array_record"}\n'
    'assert not heavy & {*sys.modules}'
  )
  subprocess.run([sys.executable, '-c', program], check=True, cwd=support.ROOT)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['gta6', '--manual_dir={raw}'], "unknown data set 'gta6'; valid: city"),
    (['streets', '--manual_dir={raw}'], "unknown data set 'streets'"),
    (['gta5'], 'the following arguments are required: --manual_dir'),
    (['gta5', '--manual_dir=/nowhere'], '--manual_dir=/nowhere is no folder'),
    (['gta5', '--manual_dir={raw}', '--sample=0'], '--sample=0: expected a'),
    (['gta5', '--manual_dir={raw}', '--sample=x'], '--sample=x: expected a'),
    (['gta5', '--manual_dir={raw}', '--expect=all'], 'argument --expect: inva'),
    (
      ['gta5', '--manual_dir={raw}', '--html={raw}'],
      '--html={raw} is a folder',
    ),
    (
      ['gta5', '--manual_dir={raw}', '--html={raw}/no/page.html'],
      '--html={raw}/no/page.html: there is no folder {raw}/no',
    ),
  ],
)
def test_wrong_usage(exported, capsys, arguments, message):
  raw_dir = str(exported / 'gta5')
  assert check.main([a.replace('{raw}', raw_dir) for a in arguments]) == 2
  out, err = capsys.readouterr()
  assert out == ''
  assert err.count('\n') == 1
  assert err.startswith('error: ' + message.replace('{raw}', raw_dir))
