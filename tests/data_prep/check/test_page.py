from __future__ import annotations

import base64
import io
import pathlib
import re

import numpy as np
from PIL import Image

from data_prep import check
from jaxseg_da.classes import labels
from tests.data_prep.check import damage
from tests.report import test_report


def pictures(text):
  """Captions and pixels of the pictures on a page."""
  found = re.findall(
    r'<img src="data:image/jpeg;base64,([^"]+)" width="(\d+)" height="(\d+)" '
    r'alt="[^"]+"><figcaption>([^<]+)</figcaption>',
    text,
  )
  return [
    (caption, np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))))
    for data, _, _, caption in found
  ]


def test_page(exported, run, tmp_path):
  path = tmp_path / 'page.html'
  root = exported / 'cityscapes'
  assert run('cityscapes', root, f'--html={path}')[0] == 2
  text = path.read_text()
  page = test_report.Page(text)
  assert '4 of 2 975 images in train' in text
  assert page.rows[1] == ['train', '4', '4', '2 975']
  rows = {row[0]: row[1:] for row in page.rows}
  assert rows['class'] == ['here', 'Cityscapes train']
  assert rows['road'][1] == '36.90'
  assert text.count('<h3>') == 12
  # One file: no address of another one.
  assert not re.search(r'(?:src|href)="(?!data:)', text)
  assert 'url(' not in text
  shown = pictures(text)
  assert len(shown) == text.count('<img') == 12 * 6 - 4
  captions = [caption for caption, _ in shown[:6]]
  assert captions == [
    'image',
    'label',
    'depth (disparity)',
    'right camera',
    'frame before',
    'frame after',
  ]


def test_pictures_show_what_they_say(exported, run, tmp_path):
  path = tmp_path / 'page.html'
  run('synthia', exported / 'synthia', '--expect=any', f'--html={path}')
  (_, image), (_, label), (name, depth), *_ = pictures(path.read_text())
  assert name == 'depth (metric)'
  assert image.shape == label.shape == depth.shape == (*damage.SIZE, 3)
  root = exported / 'synthia/RAND_CITYSCAPES'
  original = np.asarray(Image.open(root / 'RGB/0000000.png')).astype(int)
  assert np.abs(image - original).mean() < 12
  # Road at the bottom is violet in labels, and nearer than what is above.
  ids = damage.synthia_ids(root / 'GT/LABELS/0000000.png')
  road = labels.SYNTHIA_ID_TO_TRAIN_ID[ids] == 0
  assert road.any()
  mean = label[road].mean(axis=0)
  assert mean[1] < mean[0] and mean[1] < mean[2]
  assert depth[-2:].mean() > depth[4:8].mean() + 30


def test_a_page_without_pictures(tree, tmp_path, run):
  root = tree('gta5') / 'a <b> folder'
  root.mkdir()
  path = tmp_path / 'page.html'
  assert run('gta5', root, f'--html={path}')[0] == 2
  text = path.read_text()
  test_report.Page(text)
  assert 'a &lt;b&gt; folder: expected images/00001.png' in text
  assert '<img' not in text


def test_broken_files_are_on_the_page(tree, tmp_path, run):
  root = tree('gta5')
  for number in (1, 2, 3, 4):
    damage.cut(root / f'images/0000{number}.png')
  (root / 'labels/00001.png').write_bytes(b'')
  path = tmp_path / 'page.html'
  assert run('gta5', root, '--expect=any', f'--html={path}')[0] == 2
  text = path.read_text()
  assert text.count('cannot be decoded') >= 5
  assert 'nothing of it can be read' in text
  assert [caption for caption, _ in pictures(text)] == ['label'] * 3


def test_a_page_that_cannot_be_written(exported, tmp_path, capsys, monkeypatch):
  path = tmp_path / 'page.html'
  path.write_text('before')

  def full(self, target):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(pathlib.Path, 'replace', full)
  arguments = ['gta5', f'--manual_dir={exported / "gta5"}', f'--html={path}']
  assert check.main(arguments) == 2
  assert capsys.readouterr().err == (
    f'error: --html={path} cannot be written: No space left on device\n'
  )
  assert path.read_text() == 'before'
  assert [*tmp_path.iterdir()] == [path]
