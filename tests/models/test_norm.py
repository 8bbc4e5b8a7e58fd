from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxseg_da.models import base, layers, norm, street


def _images(shape, seed=0, dtype=np.float32):
  return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def _batch_norm(x, variables, train, **options):
  module = norm.BatchNorm(**options)
  return module.apply(
    variables, x, train, mutable=['batch_stats'] if train else False
  )


def test_batch_norm_by_hand():
  x = jnp.asarray([[1.0], [2.0], [6.0]])
  variables = {
    'params': {'scale': jnp.asarray([2.0]), 'bias': jnp.asarray([0.5])},
    'batch_stats': {'mean': jnp.asarray([10.0]), 'var': jnp.asarray([4.0])},
  }
  y, updated = _batch_norm(x, variables, True)
  # Mean 3; biased variance 14 / 3, unbiased 7.
  expected = 2 * (np.asarray([-2, -1, 3]) / np.sqrt(14 / 3 + 1e-5)) + 0.5
  np.testing.assert_allclose(y[:, 0], expected, rtol=1e-6)
  stats = updated['batch_stats']
  np.testing.assert_allclose(stats['mean'], [0.9 * 10 + 0.1 * 3], rtol=1e-6)
  np.testing.assert_allclose(stats['var'], [0.9 * 4 + 0.1 * 7], rtol=1e-6)
  y = _batch_norm(x, variables, False)
  expected = 2 * (np.asarray([-9, -8, -4]) / np.sqrt(4 + 1e-5)) + 0.5
  np.testing.assert_allclose(y[:, 0], expected, rtol=1e-6)


def test_batch_norm_keeps_digits_of_a_large_mean():
  noise = _images((64, 8), dtype=np.float64)
  mean, variance, count = norm.moments(jnp.asarray(noise + 3e3, jnp.float32))
  assert count == 64
  np.testing.assert_allclose(mean, noise.mean(0) + 3e3, rtol=1e-6)
  np.testing.assert_allclose(variance, noise.var(0), rtol=2e-3)


def test_index_groups():
  assert norm.index_groups(4, 2) == ((0, 1), (2, 3))
  assert norm.index_groups(4, 4) == ((0, 1, 2, 3),)
  with pytest.raises(ValueError, match='do not divide 4 devices'):
    norm.index_groups(4, 3)


def _step(network, axis=None):
  """Gradient of a mean of squares, outputs and new statistics."""

  def step(variables, images, targets, count):
    def loss(params):
      outputs, stats = network.apply(
        {**variables, 'params': params}, images, True
      )
      error = jnp.square(outputs['logits'] - targets)
      return jnp.sum(error) / count, (outputs['logits'], stats)

    grads, (logits, stats) = jax.grad(loss, has_aux=True)(variables['params'])
    if axis:
      grads = jax.lax.psum(grads, axis)
      stats = jax.tree.map(lambda x: x[None], stats)
    return grads, logits, stats

  return step


def _relative(actual, expected, tolerance):
  def check(a, b):
    error = np.linalg.norm(np.asarray(a) - np.asarray(b))
    assert error <= tolerance * np.linalg.norm(b) + 1e-12, error

  jax.tree.map(check, actual, expected)


def _parallel(backend, step, devices):
  spec = PartitionSpec
  if backend == 'pmap':

    def run(variables, images, targets, count):
      split = lambda x: x.reshape(devices, -1, *x.shape[1:])
      mapped = jax.pmap(
        step,
        'batch',
        in_axes=(None, 0, 0, None),
        devices=jax.devices()[:devices],
      )
      grads, logits, stats = mapped(
        variables, split(images), split(targets), count
      )
      first = lambda tree: jax.tree.map(lambda x: x[0], tree)
      flat = logits.reshape(-1, *logits.shape[2:])
      return first(grads), flat, jax.tree.map(lambda x: x[:, 0], stats)

    return run
  mesh = Mesh(jax.devices()[:devices], ('batch',))
  return jax.jit(
    jax.shard_map(
      step,
      mesh=mesh,
      in_specs=(spec(), spec('batch'), spec('batch'), spec()),
      out_specs=(spec(), spec('batch'), spec('batch')),
      check_vma=False,
    )
  )


def _wide(**options):
  """A tiny network in float64."""
  wide = layers.Options(jnp.float64, jnp.float64, **options)
  return base.from_linen(street.Street(3, 4, (1,), wide))


@pytest.fixture
def problem():
  with jax.enable_x64(True):
    images = jnp.asarray(_images((8, 16, 24, 3), dtype=np.float64))
    targets = jnp.asarray(_images((8, 4, 6, 3), 1, np.float64))
    variables = _wide().init(jax.random.key(0), images)
    yield variables, images, targets, jnp.asarray(float(targets.size))


@pytest.mark.parametrize('backend', ['pmap', 'shard_map'])
def test_synchronised_norm_equals_one_device(backend, problem):
  expected = jax.jit(_step(_wide()))(*problem)
  run = _parallel(backend, _step(_wide(bn_axis='batch'), 'batch'), 8)
  grads, logits, stats = run(*problem)
  _relative(grads, expected[0], 1e-9)
  _relative(logits, expected[1], 1e-9)
  for device in range(8):
    one = jax.tree.map(lambda x, d=device: x[d], stats)
    _relative(one, expected[2], 1e-9)


def test_norm_groups_equal_one_device_per_group(problem):
  variables, images, targets, count = problem
  step = jax.jit(_step(_wide()))
  halves = [
    step(variables, images[i : i + 4], targets[i : i + 4], count)
    for i in (0, 4)
  ]
  assert not np.allclose(
    halves[0][2]['backbone']['stem1']['bn']['mean'],
    halves[1][2]['backbone']['stem1']['bn']['mean'],
    rtol=1e-3,
  )
  network = _wide(bn_axis='batch', bn_group=2)
  run = _parallel('shard_map', _step(network, 'batch'), 4)
  grads, logits, stats = run(*problem)
  _relative(grads, jax.tree.map(jnp.add, halves[0][0], halves[1][0]), 1e-9)
  _relative(logits, jnp.concatenate([h[1] for h in halves]), 1e-9)
  for device in range(4):
    one = jax.tree.map(lambda x, d=device: x[d], stats)
    _relative(one, halves[device // 2][2], 1e-9)
