"""Placement, the two backends, and sums over processes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.training import parallel
from jaxseg_da.training.step import AXIS

CASES = [(name, n) for name in sorted(parallel.BACKENDS) for n in (1, 8)]


def make(name: str, count: int) -> parallel.Backend:
  return parallel.BACKENDS[name](jax.devices()[:count])


def tree():
  return {
    'a': np.arange(6.0, dtype=np.float32).reshape(2, 3),
    'b': {'c': np.int32(7), 'd': np.array([True, False])},
  }


def assert_equal(actual, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)),
    actual,
    expected,
  )


def test_unknown_backends_are_named():
  with pytest.raises(errors.UserError, match=r"config.backend 'jit'.*shard"):
    parallel.backend('jit')
  assert isinstance(parallel.backend('pmap'), parallel.PmapBackend)


@pytest.mark.parametrize(('name', 'count'), CASES)
def test_replicated_values_are_whole_on_every_device(name, count):
  backend = make(name, count)
  placed = backend.replicate(tree())
  for leaf, value in zip(
    jax.tree.leaves(placed), jax.tree.leaves(tree()), strict=True
  ):
    assert leaf.shape == np.shape(value), 'not stacked'
    assert len(leaf.addressable_shards) == count
    for shard in leaf.addressable_shards:
      np.testing.assert_array_equal(shard.data, value)
  assert_equal(placed, tree())


@pytest.mark.parametrize(('name', 'count'), CASES)
def test_rows_are_split_in_order(name, count):
  backend = make(name, count)
  rows = np.arange(16 * 3, dtype=np.uint8).reshape(16, 3)
  placed = backend.shard({'x': {'image': rows}})['x']['image']
  assert placed.dtype == np.uint8
  shards = sorted(placed.addressable_shards, key=lambda s: s.device.id)
  assert len(shards) == count
  parts = [np.asarray(s.data).reshape(-1, 3) for s in shards]
  assert all(len(part) == 16 // count for part in parts)
  np.testing.assert_array_equal(np.concatenate(parts), rows)


@pytest.mark.parametrize(('name', 'count'), CASES)
def test_global_and_back_is_the_identity(name, count):
  backend = make(name, count)
  placed = backend.replicate({**tree(), 'key': jax.random.key(3)})
  there = backend.to_global(placed)
  back = backend.from_global(there)
  key = back.pop('key')
  np.testing.assert_array_equal(
    jax.random.key_data(key), jax.random.key_data(jax.random.key(3))
  )
  assert_equal(back, tree())
  for leaf in jax.tree.leaves(there):
    assert leaf.is_fully_replicated
    assert len(leaf.sharding.device_set) == count
  shapes = backend.abstract(jax.eval_shape(tree))
  for shape, value in zip(
    jax.tree.leaves(shapes), jax.tree.leaves(tree()), strict=True
  ):
    assert shape.shape == np.shape(value)
    assert len(shape.sharding.device_set) == count


def example_step(state, batch, key):
  """Sums over rows and devices, and draws by row."""
  index = jax.lax.axis_index(AXIS)
  total = jax.lax.psum(jnp.sum(batch['x'], 0), AXIS)
  noise = jax.random.uniform(key)
  return {'w': state['w'] + total}, {
    'noise': noise,
    'last': jax.lax.pmax(index, AXIS),
  }


@pytest.mark.parametrize(('name', 'count'), CASES)
def test_a_step_reduces_donates_and_transfers_nothing(name, count):
  backend = make(name, count)
  step = backend.compile(example_step)
  rows = np.arange(32, dtype=np.float32).reshape(16, 2)
  state = backend.replicate({'w': np.zeros(2, np.float32)})
  key = backend.replicate(jax.random.key(0))
  first = state
  for done in range(1, 4):
    with jax.transfer_guard('disallow'):
      state, metrics = step(state, backend.shard({'x': rows}), key)
    np.testing.assert_array_equal(state['w'], done * rows.sum(0))
  assert first['w'].is_deleted()
  assert int(metrics['last']) == count - 1
  assert float(metrics['noise']) == float(jax.random.uniform(jax.random.key(0)))


@pytest.mark.parametrize('name', sorted(parallel.BACKENDS))
def test_what_was_not_placed_is_caught(name):
  """The guard of the loop sees a key that nobody replicated."""
  backend = make(name, 8)
  step = backend.compile(example_step)
  state = backend.replicate({'w': np.zeros(2, np.float32)})
  batch = backend.shard({'x': np.ones((8, 2), np.float32)})
  key = jax.block_until_ready(jax.random.key(0))
  with (
    jax.transfer_guard('disallow'),
    pytest.raises(Exception, match=r'[Dd]isallowed'),
  ):
    step(state, batch, key)


@pytest.mark.parametrize('size', (1, 5, 8, 11))
def test_predictions_for_any_number_of_images(size):
  """Padding to the devices is cut off again."""
  weights = {'w': np.array([1.0, 2.0], np.float32)}

  def forward(weights, bias, images):
    return {'logits': images @ weights['w'] + bias}

  predict = parallel.compile_predictor(forward, weights, np.float32(3.0))
  images = np.random.default_rng(size).normal(size=(size, 4, 2))
  images = images.astype(np.float32)
  found = predict(images)['logits']
  assert found.shape == (size, 4)
  np.testing.assert_allclose(found, images @ [1.0, 2.0] + 3.0, rtol=1e-5)


def test_sums_over_processes_are_exact(monkeypatch):
  """Counts beyond 32 bits, which JAX's integers do not hold."""
  counts = np.array([0, 1, 2**31 - 1, 2**31, 2**33 + 5, 2**52 + 1], np.int64)
  np.testing.assert_array_equal(parallel.sum_over_processes(counts), counts)
  others = np.stack([counts, counts[::-1], counts])

  def allgather(halves):
    """Three processes; what goes over the wire are 32-bit integers."""
    assert halves.dtype == np.int32
    rows = [
      np.stack([row >> 31, row & 0x7FFFFFFF]).astype(np.int32) for row in others
    ]
    np.testing.assert_array_equal(halves, rows[0])
    return jnp.asarray(np.stack(rows))

  monkeypatch.setattr(jax, 'process_count', lambda: 3)
  monkeypatch.setattr(parallel.multihost_utils, 'process_allgather', allgather)
  found = parallel.sum_over_processes(counts)
  assert found.dtype == np.int64
  np.testing.assert_array_equal(found, others.sum(0))


def test_one_process_agrees_with_itself():
  assert parallel.agreed(True) is True
  assert parallel.agreed(False) is False
  parallel.barrier('alone')
