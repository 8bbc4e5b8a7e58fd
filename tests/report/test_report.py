from __future__ import annotations

import base64
import html.parser
import json
import re

import numpy as np
import pytest

from jaxseg_da.classes import labels as label_tables
from jaxseg_da.drawing import visual
from jaxseg_da.experiment import pictures
from jaxseg_da.report import page as report

VOID = {'meta', 'img', 'br', 'hr', 'input', 'link'}


class Page(html.parser.HTMLParser):
  """Checks that tags nest; collects attributes and the text of cells."""

  def __init__(self, text):
    super().__init__()
    self.open, self.attributes, self.rows, self._cell = [], [], [], False
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.attributes += [(tag, *pair) for pair in attrs]
    if tag not in VOID:
      self.open.append(tag)
    if tag == 'tr':
      self.rows.append([])
    if tag in ('td', 'th'):
      self.rows[-1].append('')

  def handle_startendtag(self, tag, attrs):
    self.attributes += [(tag, *pair) for pair in attrs]

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if any(tag in self.open for tag in ('td', 'th')):
      self.rows[-1][-1] += data


def evaluation(miou, road, train=None):
  ious = dict.fromkeys(label_tables.NAMES, miou)
  return {
    'task': 'segmentation',
    'split': 'streets/city:validation',
    'images': 100,
    'num_classes': 19,
    'miou': miou,
    'miou_16': miou + 1,
    'miou_13': miou + 2,
    'iou': {**ious, 'road': road, 'train': train},
    'pixel_accuracy': 88.0,
  }


def stage(name, role, found):
  return {
    'name': name,
    'role': role,
    'steps': 500,
    'segmentation_updates': 500,
    'seconds': 75.2,
    'evaluation': found,
  }


def results():
  control, final = evaluation(40.0, 90.0), evaluation(43.46, 88.0, 5.0)
  return {
    'method': 'dacs',
    'benchmark': 'streets',
    'seed': 0,
    'git': 'abc123',
    'jax': '0.10.2',
    'device': '1 x cpu',
    'stages': [
      stage('source_only', 'main', evaluation(38.0, 80.0)),
      stage('dacs', 'main', final),
      stage('control', 'control', control),
      stage('<oracle>', 'reference', None),
    ],
    'evaluation': final,
    'best': {**final, 'miou': 44.0, 'selected_on_target_labels': True},
    'control': control,
  }


@pytest.fixture
def workdir(tmp_path):
  (tmp_path / 'results.json').write_text(json.dumps(results()))
  (tmp_path / 'config.json').write_text(json.dumps({'config': {'x': '<y>'}}))
  lines = [
    {'stage': s, 'step': t, 'loss': 2.0 / t, 'grad_norm': 1.0}
    for s in ('source_only', 'dacs')
    for t in (1, 2, 4)
  ]
  lines.append({'stage': 'dacs', 'step': 4, 'eval/miou': 43.46})
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (tmp_path / 'metrics.jsonl').write_text(text + '{"stage": "da')
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (2, 8, 16, 3)).astype(np.uint8)
  pictures.save(tmp_path / 'images', noise)
  return tmp_path


def test_report_stands_alone(workdir):
  path = report.write(workdir)
  assert path == workdir / 'report.html'
  text = path.read_text()
  page = Page(text)
  for tag, name, value in page.attributes:
    assert name not in ('href', 'srcset'), (tag, value)
    if name == 'src':
      assert value.startswith('data:image/png;base64,')
  for word in ('http:', 'https:', '@import', 'url(', '<script', '<link'):
    assert word not in text
  assert not list(workdir.glob('*.tmp'))


def test_stages_with_gain_over_the_control(workdir):
  rows = Page(report.write(workdir).read_text()).rows
  assert rows[0] == [
    'stage', 'steps', 'seg. updates', 'time', 'mIoU', 'mIoU-16', 'mIoU-13',
    'pixel acc.', 'vs control',
  ]  # fmt: skip
  assert rows[1:5] == [
    ['source_only', '500', '500', '1:15', '38.0', '39.0', '40.0', '88.0',
     '▼ −2.0'],
    ['dacs', '500', '500', '1:15', '43.5', '44.5', '45.5', '88.0', '▲ +3.5'],
    ['control', '500', '500', '1:15', '40.0', '41.0', '42.0', '88.0',
     '–'],
    ['<oracle> reference', '500', '500', '1:15', '–', '–', '–', '–', '–'],
  ]  # fmt: skip


def test_classes_against_the_control(workdir):
  text = report.write(workdir).read_text()
  rows = {row[0]: row[1:] for row in Page(text).rows[5:]}
  assert rows['class'] == ['control', 'result', 'difference']
  assert rows['road'] == ['90.0', '88.0', '▼ −2.0']
  assert rows['sky'] == ['40.0', '43.5', '▲ +3.5']
  assert rows['train'] == ['–', '5.0', '–']
  assert rows['mean'] == ['40.0', '43.5', '▲ +3.5']
  assert len(rows) == 21
  assert 'background:rgb(128,64,128)' in text
  assert 'width:88.0%' in text
  assert 'selected on target labels' in text


def test_curves_have_a_line_per_stage(workdir):
  text = report.write(workdir).read_text()
  loss = re.search(r'<figure><figcaption>loss<.*?</figure>', text, re.S)[0]
  assert loss.count('<polyline') == 2
  assert '>dacs</li>' in loss
  assert 'more curves (1)' in text
  assert '<figcaption>eval/miou<' not in text  # one point per stage: a table
  with (workdir / 'metrics.jsonl').open('a') as file:
    file.write('\n{"stage": "dacs", "step": 8, "eval/miou": 44.0}\n')
  text = report.write(workdir).read_text()
  assert '<figcaption>eval/miou<' in text
  # The same stage looks the same in each chart.
  assert 'class="line s1"' in text.split('<figcaption>eval/miou<')[1]
  assert (
    'class="line s0"'
    not in text.split('<figcaption>eval/miou<')[1].split('</figure>')[0]
  )


def test_pictures_are_inside_and_texts_are_escaped(workdir):
  text = report.write(workdir).read_text()
  found = re.findall(r'base64,([^"]*)"', text)
  files = sorted((workdir / 'images').iterdir())
  assert [base64.b64decode(f) for f in found] == [f.read_bytes() for f in files]
  assert '&lt;oracle&gt;' in text
  assert '&lt;y&gt;' in text
  assert '<y>' not in text


def test_an_unfinished_run_has_a_report_too(tmp_path):
  text = report.write(tmp_path).read_text()
  Page(text)
  assert 'not finished' in text
  (tmp_path / 'metrics.jsonl').write_text(
    '{"stage": "a", "step": 1, "loss": null}\n'
    '{"stage": "a", "step": 2, "loss": 0.5}\n'
  )
  (tmp_path / 'images').mkdir()
  (tmp_path / 'images' / 'x.png').write_bytes(
    visual.encode_png(np.zeros((2, 2, 3), np.uint8))
  )
  text = report.write(tmp_path).read_text()
  Page(text)
  assert text.count('<polyline') == 1
  assert '<h2>Pictures</h2>' in text
  assert '<h2>Stages</h2>' not in text


def test_the_source_domain_has_a_column(workdir):
  found = results()
  found['stages'][0]['source_evaluation'] = evaluation(61.0, 90.0)
  (workdir / 'results.json').write_text(json.dumps(found))
  rows = Page(report.write(workdir).read_text()).rows
  assert [row[-1] for row in rows[:3]] == ['source mIoU', '61.0', '–']


def test_without_a_control(workdir):
  found = {**results(), 'control': None}
  found['stages'][2]['role'] = 'reference'
  (workdir / 'results.json').write_text(json.dumps(found))
  page = Page(report.write(workdir).read_text())
  assert page.rows[0][-1] == 'pixel acc.'
  assert ['road', '88.0'] in page.rows
