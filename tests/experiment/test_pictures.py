"""What the pictures of a run show, in which colours."""

from __future__ import annotations

import types

import cv2
import numpy as np
import pytest

from jaxseg_da import config as config_lib
from jaxseg_da.classes import class_set, hierarchy, labels
from jaxseg_da.experiment import assembly, pictures

TREE = hierarchy.GTA5_TO_CITYSCAPES
WIDTH, HEIGHT = 32, 16
BAR, GAP = 24, 4


def classes_of(step):
  names = TREE.names(step)
  table = TREE.table(step)
  return class_set.Classes(
    names, TREE.colours(step), table, (-1,) * len(names), {}, step
  )


class Source(list):
  """Examples whose truth is a train id, by index."""

  def __init__(self, *train_ids):
    super().__init__(
      {
        'image': np.full((HEIGHT, WIDTH, 3), 20 * i, np.uint8),
        'label': np.full((HEIGHT, WIDTH, 1), train_id, np.uint8),
      }
      for i, train_id in enumerate(train_ids)
    )


def run_of(stages, source=(), workdir=None, images=2):
  """A run as pictures see it.

  Args:
    stages: name -> (role, method, classes).
    source: the validation split.
    workdir: where images go.
    images: wanted.
  """
  config = config_lib.base_config()
  config.report.images = images
  config.pipeline = tuple(stages)
  with config.unlocked():
    config.stages = config_lib.ConfigDict(
      {
        name: config_lib.stage(method, 1, role=role)
        for name, (role, method, _) in stages.items()
      }
    )
  stage = lambda name: types.SimpleNamespace(
    name=name, method=types.SimpleNamespace(classes=stages[name][2])
  )
  return types.SimpleNamespace(
    config=config,
    workdir=workdir,
    stage=stage,
    restore=lambda name: name,
    dataset=lambda spec: source,
  )


ALL = class_set.CITYSCAPES
PLAIN = {
  'warm': ('main', 'source_only', ALL),
  'other': ('main', 'source_only', ALL),
  'dacs': ('main', 'dacs', ALL),
  'control': ('control', 'source_only', ALL),
  'oracle': ('reference', 'supervised', ALL),
}
STEPS = {
  **{f's{t}': ('control', 'ccda_source_only', classes_of(t)) for t in (0, 1)},
  **{f'c{t}': ('main', 'ccda', classes_of(t)) for t in range(3)},
  'r2': ('reference', 'ccda', classes_of(2)),
}


@pytest.mark.parametrize(
  ('names', 'expected'),
  [
    ([*PLAIN], ('warm', 'dacs')),
    (['warm', 'control'], ('warm',)),
    (['dacs', 'oracle', 'control'], ('dacs',)),
  ],
)
def test_without_steps_the_source_only_and_the_main_stage(names, expected):
  rows = pictures.rows(run_of({name: PLAIN[name] for name in names}))
  assert [row.stages for row in rows] == [expected]
  assert rows[0].classes is ALL


def test_with_steps_a_row_each_beside_the_control_of_that_step():
  rows = pictures.rows(run_of(STEPS))
  assert [row.stages for row in rows] == [('s0', 'c0'), ('s1', 'c1'), ('c2',)]
  assert [row.classes.step for row in rows] == [0, 1, 2]


def predictor(answers):
  """Each stage says one class everywhere, at half the resolution."""

  def make(stage, state):
    assert state == stage.name
    scores = np.zeros(len(stage.method.classes.names), np.float32)
    scores[answers[stage.name]] = 1.0
    return lambda images: np.broadcast_to(
      scores, (len(images), HEIGHT // 2, WIDTH // 2, len(scores))
    )

  return make


def read(path):
  return cv2.imread(str(path))[..., ::-1]


def blocks(picture, top, count):
  """The images of a panel of native size that begins at row `top`."""
  rows = picture[top + BAR :][:192]
  width = 192 * WIDTH // HEIGHT
  return [rows[:, i * (width + GAP) :][:, :width] for i in range(count)]


def test_a_run_without_steps(monkeypatch, tmp_path):
  monkeypatch.setattr(assembly, 'predictor', predictor({'warm': 10, 'dacs': 0}))
  old = tmp_path / 'images' / 'example_07.png'
  old.parent.mkdir()
  old.write_bytes(b'')
  pictures.write(run_of(PLAIN, Source(0, 1, 255, 3), tmp_path))
  files = sorted((tmp_path / 'images').iterdir())
  assert [f.name for f in files] == ['example_00.png', 'example_01.png']
  truths = ((128, 64, 128), (0, 0, 0))
  for path, grey, truth in zip(files, (0, 40), truths, strict=True):
    picture = read(path)
    image, label, warm, dacs = blocks(picture, 0, 4)
    assert picture.shape == (192 + BAR, 4 * image.shape[1] + 3 * GAP, 3)
    assert (image == grey).all()
    assert (label == truth).all()
    assert (warm == (70, 130, 180)).all()
    assert (dacs == (128, 64, 128)).all()


def test_a_run_with_steps_is_painted_in_the_palette_of_each(
  monkeypatch, tmp_path
):
  answers = {'s0': 2, 'c0': 0, 's1': 6, 'c1': 4, 'c2': 8}
  monkeypatch.setattr(assembly, 'predictor', predictor(answers))
  road = labels.NAMES.index('road')
  pictures.write(run_of(STEPS, Source(road), tmp_path))
  (path,) = (tmp_path / 'images').iterdir()
  picture = read(path)
  top = 0
  for step, stages in enumerate((('s0', 'c0'), ('s1', 'c1'), ('c2',))):
    classes = classes_of(step)
    image, label, *found = blocks(picture, top, 2 + len(stages))
    assert (image == 0).all()
    assert (label == classes.colours[classes.table[road]]).all()
    for name, block in zip(stages, found, strict=True):
      assert (block == classes.colours[answers[name]]).all()
    # Below, names on their colours.
    top += BAR + 192 + 4
    rest = picture[top:].reshape(-1, 3)
    assert {*map(tuple, classes.colours)} <= {*map(tuple, rest)}
    legend = picture[top : top + BAR]
    for colour in classes.colours[:3]:
      assert (legend == colour).all(-1).sum() > 100 * BAR / 2
    below = picture[top:, :2]
    white = (below == 255).all((1, 2))
    if step < 2:
      top += white.argmax() + 12
      assert white[white.argmax() :][:12].all()
    else:
      assert not white.any()


def test_narrow_pictures_have_room_for_the_legend():
  classes = classes_of(0)
  image = np.zeros((8, 8, 3), np.uint8)
  label = np.full((8, 8), 13, np.uint8)
  row = pictures.Row(classes, ('a',))
  found = pictures.picture(image, label, [row], {'a': label * 0}, height=8)
  assert found.shape == (BAR + 8 + 4 + 3 * BAR, 116, 3)
  np.testing.assert_array_equal(found[BAR, 12], classes.colours[2])
  fields = found[BAR + 12 :: BAR, 0]
  np.testing.assert_array_equal(fields, classes.colours)


def test_a_prediction_that_is_missing_is_an_error():
  row = pictures.Row(ALL, ('a', 'b'))
  image = np.zeros((2, 2, 3), np.uint8)
  label = np.zeros((2, 2), np.uint8)
  with pytest.raises(KeyError, match='b'):
    pictures.picture(image, label, [row], {'a': label})


@pytest.mark.parametrize(
  ('total', 'count', 'expected'),
  [(10, 3, [0, 3, 6]), (2, 4, [0, 1]), (5, 0, [])],
)
def test_examples_are_spread_over_the_split(
  total, count, expected, monkeypatch, tmp_path
):
  monkeypatch.setattr(assembly, 'predictor', predictor({'warm': 0, 'dacs': 0}))
  source = Source(*[0] * total)
  pictures.write(run_of(PLAIN, source, tmp_path, images=count))
  files = sorted((tmp_path / 'images').iterdir())
  greys = [int(read(f)[BAR + 1, 0, 0]) for f in files]
  assert greys == [20 * i for i in expected]
