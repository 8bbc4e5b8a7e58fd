"""Checkpoints come back exactly; half written ones do not count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.training import checkpoint, parallel, train_state


def state(value: float = 0.0) -> train_state.TrainState:
  return train_state.TrainState(
    step=jnp.asarray(3, jnp.int32),
    params={'segmenter': {'w': jnp.arange(6.0).reshape(2, 3) + value}},
    batch_stats={'segmenter': {'mean': jnp.ones(3, jnp.bfloat16)}},
    opt_state={'segmenter': ({'m': jnp.zeros(2)}, jnp.asarray(5, jnp.int32))},
    extra={'teacher': {'w': jnp.full((2,), 1 / 3)}},
  )


@pytest.fixture
def opened(tmp_path):
  found = checkpoint.Checkpoints(tmp_path / 'checkpoints', keep=2)
  yield found
  found.close()


def assert_same(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('name', sorted(parallel.BACKENDS))
def test_a_state_comes_back_on_another_number_of_devices(name, tmp_path):
  many = parallel.BACKENDS[name]()
  folder = tmp_path / 'x'
  writing = checkpoint.Checkpoints(folder, 2)
  assert (writing.latest(), writing.steps()) == (None, [])
  writing.save(3, many.to_global(many.replicate(state(1 / 7))), {'seconds': 1})
  writing.close()
  one = parallel.BACKENDS[name](jax.devices()[:1])
  reading = checkpoint.Checkpoints(folder, 2)
  assert (reading.latest(), reading.steps()) == (3, [3])
  assert reading.meta(3) == {'seconds': 1}
  like = one.abstract(jax.eval_shape(state))
  found = one.from_global(reading.restore(3, like))
  reading.close()
  assert isinstance(found, train_state.TrainState)
  assert_same(found, state(1 / 7))
  assert all(len(x.sharding.device_set) == 1 for x in jax.tree.leaves(found))


def test_the_newest_are_kept_and_a_step_is_written_once(opened, tmp_path):
  for step in (2, 4, 6):
    opened.save(step, state(step), {'step': step})
  opened.save(6, state(99.0), {'step': 99})
  opened.wait()
  assert opened.steps() == [4, 6]
  assert checkpoint.steps_in(tmp_path / 'checkpoints') == [4, 6]
  like = parallel.PmapBackend(jax.devices()[:1]).abstract(jax.eval_shape(state))
  assert_same(opened.restore(6, like), state(6))
  assert opened.meta(6) == {'step': 6}


def test_half_a_checkpoint_does_not_count(tmp_path):
  folder = tmp_path / 'checkpoints'
  writing = checkpoint.Checkpoints(folder, 2)
  writing.save(2, state(), {})
  writing.close()
  (folder / '5.orbax-checkpoint-tmp' / 'state').mkdir(parents=True)
  (folder / '5.orbax-checkpoint-tmp' / 'state' / 'x').write_text('torn')
  reading = checkpoint.Checkpoints(folder, 2)
  assert reading.latest() == 2
  assert checkpoint.steps_in(folder) == [2]
  reading.save(5, state(5), {'step': 5})
  reading.wait()
  assert reading.steps() == [2, 5]
  assert reading.meta(5) == {'step': 5}
  reading.close()


def test_another_structure_is_refused_in_one_sentence(opened):
  opened.save(1, state(), {})
  opened.wait()
  other = jax.eval_shape(state)
  other = other.replace(
    params={'D': {'v': jax.ShapeDtypeStruct((2, 3), jnp.float32)}}
  )
  like = parallel.PmapBackend(jax.devices()[:1]).abstract(other)
  with pytest.raises(errors.UserError, match='/1 cannot be restored') as found:
    opened.restore(1, like)
  assert '\n' not in str(found.value)


def test_a_missing_folder_stays_missing(tmp_path):
  assert checkpoint.steps_in(tmp_path / 'none') == []
  assert not (tmp_path / 'none').exists()


def test_json_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / 'a' / 'x.json'
  assert checkpoint.read_json(path) is None
  checkpoint.write_json(path, {'a': [1, None]})
  assert checkpoint.read_json(path) == {'a': [1, None]}

  def crash(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patched:
    patched.setattr(type(path), 'replace', crash)
    with pytest.raises(KeyboardInterrupt):
      checkpoint.write_json(path, {'a': 2})
  assert checkpoint.read_json(path) == {'a': [1, None]}
  checkpoint.write_json(path, {'a': 3})
  assert checkpoint.read_json(path) == {'a': 3}
  path.write_text('{"a": ')
  with pytest.raises(errors.UserError, match=r'x\.json is not valid JSON'):
    checkpoint.read_json(path)
  with pytest.raises(errors.UserError, match=r'x\.json'):
    checkpoint.read_json(path / 'below.json')
