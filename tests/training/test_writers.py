from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np

from jaxseg_da.training import writers


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
