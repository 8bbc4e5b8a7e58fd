"""Reports of runs whose classes grow: steps, and who is compared with whom."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxseg_da.classes import hierarchy
from jaxseg_da.drawing import visual
from jaxseg_da.experiment import pictures
from jaxseg_da.report import page as report
from jaxseg_da.report import steps as report_steps
from tests.report import test_report

TREE = hierarchy.GTA5_TO_CITYSCAPES


def evaluation(step, miou, tree=TREE):
  """A record; the first class is 10 points better, the last one unseen."""
  names = tree.names(step)
  ious = dict.fromkeys(names, miou)
  return {
    'split': 'streets/city:validation',
    'images': 100,
    'num_classes': len(names),
    'miou': miou,
    'miou_16': None,
    'miou_13': None,
    'iou': {**ious, names[0]: miou + 10, names[-1]: None},
    'pixel_accuracy': 88.0,
    'step': step,
    'kept': [names[i] for i in tree.ignored(step)],
    'colours': dict(zip(names, tree.colours(step).tolist(), strict=True)),
  }


def results():
  control = [evaluation(t, 60.0 - 10 * t) for t in range(4)]
  main = [evaluation(t, 61.0 - 8 * t) for t in range(4)]
  stages = [
    *(
      test_report.stage(f'source_{t}', 'control', control[t]) for t in range(3)
    ),
    *(test_report.stage(f'ccda_{t}', 'main', main[t]) for t in range(4)),
  ]
  return {
    'method': 'ccda',
    'benchmark': 'streets',
    'stages': stages,
    'evaluation': main[-1],
    'best': None,
    'control': control[2],
    'steps': main,
  }


def page(folder, found):
  (folder / 'results.json').write_text(json.dumps(found))
  text = report.write(folder).read_text()
  return text, test_report.Page(text).rows


def rows_below(rows, head):
  """The rows between a table's first and the next one's."""
  start = next(i for i, row in enumerate(rows) if row == head)
  size = next(
    i
    for i, row in enumerate([*rows[start + 1 :], ['end']])
    if row[0] in ('stage', 'class', 'end') or row[1:] in (['IoU'], head[1:])
  )
  return rows[start + 1 : start + 1 + size]


def test_steps_against_the_control_of_the_same_classes(tmp_path):
  _, rows = page(tmp_path, results())
  head = ['step', 'classes', 'mIoU', 'pixel acc.', 'vs control']
  assert rows_below(rows, head) == [
    ['step 0', '3', '61.0', '88.0', '▲ +1.0'],
    ['step 1', '7', '53.0', '88.0', '▲ +3.0'],
    ['step 2', '14', '45.0', '88.0', '▲ +5.0'],
    ['step 3', '19', '37.0', '88.0', '–'],
  ]


def test_stages_say_how_many_classes_they_have(tmp_path):
  _, rows = page(tmp_path, results())
  assert rows[0][4:] == [
    'classes', 'mIoU', 'mIoU-16', 'mIoU-13', 'pixel acc.', 'vs control',
  ]  # fmt: skip
  assert rows[1][0] == 'source_0 control'
  assert rows[1][4:] == ['3', '60.0', '–', '–', '88.0', '–']
  assert rows[5][4:] == ['7', '53.0', '–', '–', '88.0', '▲ +3.0']
  assert rows[7][4:] == ['19', '37.0', '–', '–', '88.0', '–']


def test_the_last_step_has_no_comparable_control(tmp_path):
  """Nothing is said about 19 classes against 14."""
  found = results()
  text, rows = page(tmp_path, found)
  assert 'points over the control' not in text
  assert rows_below(rows, ['class', 'result'])[0] == ['road', '47.0']
  last = evaluation(3, 30.0)
  found['stages'].insert(3, test_report.stage('source_3', 'control', last))
  text, rows = page(tmp_path, found)
  assert '<b>+7.0</b><span>points over the control' in text
  classes = rows_below(rows, ['class', 'control', 'result', 'difference'])
  assert classes[0] == ['road', '40.0', '47.0', '▲ +7.0']
  assert classes[-1] == ['mean', '30.0', '37.0', '▲ +7.0']


def test_each_step_has_its_classes_and_colours(tmp_path):
  text, rows = page(tmp_path, results())
  assert rows_below(rows, ['step 0', 'IoU']) == [
    ['background', '71.0'],
    ['static object', '61.0'],
    ['moving object', '–'],
    ['mean', '61.0'],
  ]
  section = text.split('<h2>Steps</h2>')[1].split('<h2>')[0]
  tables = section.split('<div class="steps">')[1].split('<table>')[1:]
  assert len(tables) == 4
  for t, table in enumerate(tables):
    for (name, _, colour), line in zip(
      TREE.steps[t], table.split('<tr>')[2:], strict=False
    ):
      red, green, blue = colour
      assert f'rgb({red},{green},{blue})' in line and name in line
  # Sky as the authors show it, also among the classes of the result.
  assert 'rgb(0,130,180)' in text.split('<h2>Classes</h2>')[1]
  assert 'rgb(70,130,180)' not in text


@pytest.mark.parametrize('name', hierarchy.PUBLISHED)
def test_kept_classes_are_marked(name):
  tree = hierarchy.PUBLISHED[name]
  steps = [evaluation(t, 50.0, tree) for t in range(4)]
  text = report_steps.section(steps, [])
  assert 'vs control' not in text
  rows = test_report.Page(text).rows
  for t in range(4):
    marked = [
      row[0].removesuffix(' kept')
      for row in rows_below(rows, [f'step {t}', 'IoU'])
      if row[0].endswith(' kept')
    ]
    assert marked == [tree.names(t)[i] for i in tree.ignored(t)]


def test_a_child_called_like_its_parent_is_not_kept():
  steps = (
    (hierarchy.StepClass('<road>', (0, 1), (1, 1, 1)),),
    (
      hierarchy.StepClass('<road>', (0,), (2, 2, 2)),
      hierarchy.StepClass('kerb', (1,), (3, 3, 3)),
    ),
  )
  tree = hierarchy.Hierarchy(steps)
  text = report_steps.section([evaluation(t, 5.0, tree) for t in (0, 1)], [])
  assert '<small>kept</small>' not in text
  assert '&lt;road&gt;' in text and '<road>' not in text


def test_without_steps_there_is_no_section():
  assert report_steps.section(None, []) == ''


def test_the_same_picture_of_several_stages_is_shown_once(tmp_path):
  for name, shade in (('00_a', 1), ('01_b', 1), ('02_c', 2)):
    folder = tmp_path / 'stages' / name / 'artifacts'
    folder.mkdir(parents=True)
    pixels = np.full((2, 2, 3), shade, np.uint8)
    (folder / 'tree.png').write_bytes(visual.encode_png(pixels))
  text, _ = page(tmp_path, results())
  shown = text.split('<h2>Pictures</h2>')[1]
  assert shown.count('<img') == 2
  assert 'a: tree<' in shown and 'c: tree<' in shown


def test_pictures_of_steps_have_legends_of_their_own(tmp_path):
  pictures.save(tmp_path / 'images', [np.zeros((2, 2, 3), np.uint8)])
  found = results()
  text, _ = page(tmp_path, found)
  shown = text.split('<h2>Pictures</h2>')[1].split('</section>')[0]
  assert '<img' in shown and 'legend' not in shown
  text, _ = page(tmp_path, {**found, 'steps': None})
  assert '<h2>Steps</h2>' not in text
  shown = text.split('<h2>Pictures</h2>')[1].split('</section>')[0]
  assert shown.count('<li>') == 19
