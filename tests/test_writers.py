from __future__ import annotations

import io
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import writers


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_strict_json_and_on_disk_at_once(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  writer = writers.JsonlWriter(path)
  writer.write_scalars(
    'dacs', np.int64(3), {'loss': jnp.float32(0.5), 'n': 2, 'x': np.nan}
  )
  # Read before close: a killed process must not lose the line.
  assert read(path) == [
    {'stage': 'dacs', 'step': 3, 'loss': 0.5, 'n': 2, 'x': None}
  ]
  writer.close()
  writer = writers.JsonlWriter(path)
  writer.write_scalars('dacs', 4, {})
  assert [r['step'] for r in read(path)] == [3, 4]
  writer.close()


def test_resume_drops_lines_after_the_restored_step(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  writer = writers.JsonlWriter(path)
  for stage, step in (('a', 10), ('a', 20), ('b', 10), ('b', 20), ('c', 10)):
    writer.write_scalars(stage, step, {})
  writer.truncate_after('b', 10)
  writer.write_scalars('b', 15, {})
  assert [(r['stage'], r['step']) for r in read(path)] == [
    ('a', 10),
    ('a', 20),
    ('b', 10),
    ('b', 15),
  ]
  writer.truncate_after('new', 0)
  assert len(read(path)) == 4
  writer.truncate_after('a', 0)
  assert read(path) == []
  writer.close()


def test_a_torn_last_line_is_dropped(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"stage": "a", "step": 1}\n{"stage": "a", "st')
  assert writers.read_jsonl(path) == [{'stage': 'a', 'step': 1}]
  writer = writers.JsonlWriter(path)
  writer.write_scalars('a', 2, {})
  writer.close()
  assert [r['step'] for r in read(path)] == [1, 2]
  assert writers.read_jsonl(tmp_path / 'missing.jsonl') == []


def test_replay_takes_the_place_of_older_lines(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  writer = writers.JsonlWriter(path)
  writer.write_scalars('a', 5, {})
  writer.write_scalars('b', 5, {'loss': 9})
  writer.replay('b', ['{"stage": "b", "step": 1, "loss": 2}'])
  assert writer.lines('b') == ['{"stage": "b", "step": 1, "loss": 2}']
  assert [r['stage'] for r in read(path)] == ['a', 'b']
  writer.close()


def test_only_process_zero_writes(tmp_path):
  other = writers.create(tmp_path / 'other', 1)
  other.write_scalars('a', 1, {'loss': 1.0})
  other.replay('a', ['{"step": 1}'])
  assert other.lines('a') == []
  other.close()
  assert not (tmp_path / 'other').exists()

  writer = writers.create(tmp_path / 'run', 0)
  writer.write_config({'seed': 0})
  writer.write_scalars('a', 1, {'loss': 1.0, 'bad': float('inf')})
  writer.write_images('a', 1, {'x': np.zeros((4, 4, 3), np.uint8)})
  writer.replay('b', ['{"stage": "b", "step": 7, "loss": 2.0}'])
  writer.truncate_after('b', 7)
  writer.flush()
  assert len(writer.lines('a')) == len(writer.lines('b')) == 1
  writer.close()
  events = list((tmp_path / 'run' / 'tensorboard').iterdir())
  assert len(events) == 1
  content = events[0].read_bytes()
  for tag in (b'a/loss', b'a/x', b'b/loss', b'config'):
    assert tag in content
  assert b'a/bad' not in content


def test_without_tensorboard(tmp_path):
  writers.create(tmp_path, 0, tensorboard=False).close()
  assert [p.name for p in tmp_path.iterdir()] == ['metrics.jsonl']


class Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_progress_rate_excludes_pauses_and_compilation():
  clock, stream = Clock(), io.StringIO()
  progress = writers.Progress(
    'dacs', 100, 200, 8, stream=stream, clock=clock, interval=5
  )
  clock.now += 60  # compilation
  progress.restart(101)
  clock.now += 10
  with progress.pause():
    clock.now += 1000
  assert progress.update(121, {'loss': 1.25}) == pytest.approx(16.0)
  assert stream.getvalue() == (
    'dacs 121/200  loss 1.2500  16.0 images/s  ETA 0:40\n'
  )
  clock.now += 1
  progress.update(122)  # too soon for another line
  assert stream.getvalue().count('\n') == 1
  progress.update(200)
  assert stream.getvalue().splitlines()[-1].startswith('dacs 200/200')
  progress.close()
  assert stream.getvalue().count('\n') == 2


def test_progress_shows_a_rate_below_one():
  clock, stream = Clock(), io.StringIO()
  progress = writers.Progress('a', 0, 3, stream=stream, clock=clock)
  clock.now += 160
  progress.update(2)
  assert stream.getvalue() == 'a 2/3  0.013 images/s  ETA 1:20\n'


def test_progress_rewrites_one_line_on_a_terminal():
  clock, stream = Clock(), Terminal()
  progress = writers.Progress('a', 0, 3, stream=stream, clock=clock)
  for step in (1, 2):
    clock.now += 1
    progress.update(step)
  progress.close()
  progress.close()
  text = stream.getvalue()
  assert text.count('\n') == 1
  assert text.count('\r') == 2


def test_progress_before_anything_was_done_and_when_silent():
  stream = io.StringIO()
  progress = writers.Progress('a', 5, 9, stream=stream, enabled=False)
  assert progress.update(5) == 0.0
  assert stream.getvalue() == ''


@pytest.mark.parametrize(
  ('seconds', 'text'), [(0, '0:00'), (59.6, '1:00'), (3725, '1:02:05')]
)
def test_duration(seconds, text):
  assert writers.duration(seconds) == text
