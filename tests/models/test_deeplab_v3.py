from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxseg_da import models
from jaxseg_da.models import deeplab_v3, import_weights, layers

DOUBLE = layers.Options(jnp.float64, jnp.float64)


def _model(**changes):
  values = {
    'name': 'deeplabv3',
    'preset': 'reduced',
    'layers': (3, 4, 23, 3),
    'compute_dtype': 'float32',
  }
  return types.SimpleNamespace(**{**values, **changes})


def _shapes(network, *size):
  images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), images)
  outputs, stats = jax.eval_shape(
    lambda v, x: network.apply(v, x, True), variables, images
  )
  return variables, outputs, stats


def _random(shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def _count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_sizes_and_parameters():
  network = models.build(_model(preset='full', layers=(1, 1, 1, 1)), 19)
  variables, outputs, stats = _shapes(network, 640, 1280)
  assert outputs['logits'].shape == (1, 81, 161, 19)
  assert outputs['features'].shape == (1, 81, 161, 2048)
  params = variables['params']
  # Branches and pooling; both classifiers; three normalisations.
  expected = (1 + 3 * 9 + 1) * 2048 * 256 + (1024 + 256) * 19
  expected += 2 * (1024 + 256 + 19)
  assert _count(params['classifier']) == expected
  same = lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype)
  assert jax.tree.all(jax.tree.map(same, stats, variables['batch_stats']))


def test_reduced_preset_is_an_eighth_as_wide():
  variables, outputs, _ = _shapes(models.build(_model(), 5), 32, 48)
  assert outputs['logits'].shape == (1, 5, 7, 5)
  head = variables['params']['classifier']
  assert head['branch3']['kernel'].shape == (3, 3, 256, 32)
  assert head['logits']['kernel'].shape == (1, 1, 128, 5)
  assert head['pooled_logits']['kernel'].shape == (1, 1, 32, 5)


def test_initial_values():
  head = deeplab_v3.Head(5, 8, layers.Options())
  x = jax.ShapeDtypeStruct((1, 5, 5, 16), jnp.float32)
  params = head.lazy_init(jax.random.key(0), x, False)['params']
  for module in params.values():
    if 'kernel' in module:
      kernel = module['kernel'].ravel()
      assert abs(kernel.std() - 0.01) < 5 * 0.01 / np.sqrt(2 * len(kernel))
    else:
      assert np.all(module['scale'] == 1) and not np.any(module['bias'])


@functools.partial(jax.jit, static_argnums=2)
def _pooled(variables, values, train=True):
  """Normalises values `[B]`; returns results and new variables."""
  x = jnp.asarray(values, jnp.float64).reshape(-1, 1, 1, 1)
  module = deeplab_v3.PooledBatchNorm(DOUBLE)
  y, moved = module.apply(variables, x, train, mutable=['batch_stats'])
  return y.ravel(), {**variables, **moved}


@pytest.fixture
def fresh():
  with jax.enable_x64(True):
    stats = {'mean': [0.0], 'var': [1.0], 'all_count': 0.0}
    stats |= {'all_mean': [0.0], 'all_square': [0.0]}
    params = {'scale': [2.0], 'bias': [0.5]}
    leaf = lambda x: isinstance(x, list)
    yield jax.tree.map(
      jnp.asarray, {'params': params, 'batch_stats': stats}, is_leaf=leaf
    )


def _check(variables, **expected):
  stats = {
    k: float(np.ravel(v)[0]) for k, v in variables['batch_stats'].items()
  }
  assert stats == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_pooled_norm_by_hand(fresh):
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12)
  norm = lambda x, mean, var: (
    2 * (np.asarray(x) - mean) / np.sqrt(var + 1e-5) + 0.5
  )
  fit = lambda variables, *x: _pooled(variables, np.asarray(x, np.float64))
  use = lambda variables, *x: _pooled(
    variables, np.asarray(x, np.float64), False
  )[0]
  # Nothing is known yet: one image is not normalised, two are, by 0 and 1.
  close(use(fresh, 4), [8.5])
  close(use(fresh, 4, 6), norm([4, 6], 0, 1))

  y, seen = fit(fresh, 4)
  close(y, [8.5])
  _check(seen, mean=0, var=1, all_count=1, all_mean=4, all_square=0)
  close(use(seen, 3), [6.5])

  # 4 and 6: mean 5, variance 1. They move the running ones, then these are
  # used.
  y, seen = fit(seen, 6)
  close(y, norm([6], 0.5, 1.0))
  _check(seen, mean=0.5, var=1, all_count=2, all_mean=5, all_square=2)

  # 4, 6, 1 and 3: mean 3.5, squares 13. Then 1 and 3 once more.
  y, seen = fit(seen, 1, 3)
  close(y, norm([1, 3], 2, 1))
  mean, var = 0.9 * 0.5 + 0.1 * 3.5, 0.9 * 1 + 0.1 * 13 / 4
  mean, var = 0.9 * mean + 0.1 * 2, 0.9 * var + 0.1 * 2
  _check(seen, mean=mean, var=var, all_count=4, all_mean=3.5, all_square=13)
  # Using the statistics does not move them.
  for values in ([7], [7, 8]):
    close(use(seen, *values), norm(values, mean, var))


def test_statistics_of_one_image_are_constants_for_its_gradient(fresh):
  slopes = jax.jit(jax.jacrev(_pooled, argnums=1, has_aux=True))
  _, seen = _pooled(fresh, np.array([1.0, 4.0]))
  slope, after = slopes(seen, np.array([3.0]))
  variance = after['batch_stats']['var'][0]
  np.testing.assert_allclose(slope, [[2 / np.sqrt(variance + 1e-5)]], rtol=1e-9)
  # Of several images, the common part has none.
  slope, _ = slopes(seen, np.array([1.0, 4.0]))
  assert np.abs(slope).min() > 1e-7
  np.testing.assert_allclose(np.sum(slope, axis=1), 0, atol=1e-12)


def _step(axis):
  """Gradients, logits and new statistics of a sum of squares."""
  head = deeplab_v3.Head(5, 8, DOUBLE._replace(bn_axis=axis))

  def step(variables, features, targets):
    def loss(params):
      logits, moved = head.apply(
        {**variables, 'params': params}, features, True, mutable=['batch_stats']
      )
      error = jnp.sum(jnp.square(logits - targets))
      return error, (logits, moved['batch_stats'])

    grads, (logits, stats) = jax.grad(loss, has_aux=True)(variables['params'])
    if axis:
      grads = jax.lax.psum(grads, axis)
      stats = jax.tree.map(lambda x: x[None], stats)
    return grads, logits, stats

  return step


def test_eight_devices_equal_one():
  with jax.enable_x64(True):
    features = jnp.asarray(_random((8, 5, 6, 4)))
    targets = jnp.asarray(_random((8, 5, 6, 5), 1))
    head = deeplab_v3.Head(5, 8, DOUBLE)
    variables = head.lazy_init(jax.random.key(0), features, False)
    # A history that the batch has to be merged with.
    pooled = variables['batch_stats']['pooled_bn']
    pooled['all_count'] += 3
    pooled['all_mean'] += 0.02
    pooled['all_square'] += 0.01
    expected = jax.jit(_step(None))(variables, features, targets)
    split, whole = PartitionSpec('batch'), PartitionSpec()
    grads, logits, stats = jax.jit(
      jax.shard_map(
        _step('batch'),
        mesh=Mesh(jax.devices()[:8], ('batch',)),
        in_specs=(whole, split, split),
        out_specs=(whole, split, split),
        check_vma=False,
      )
    )(variables, features, targets)

    def close(a, b):
      error = np.linalg.norm(np.asarray(a) - np.asarray(b))
      assert error <= 1e-9 * np.linalg.norm(b) + 1e-12, error

    jax.tree.map(close, (grads, logits), expected[:2])
    moved = stats['pooled_bn']['all_count']
    np.testing.assert_array_equal(moved, np.full(8, 11.0))
    for device in range(8):
      jax.tree.map(lambda x, y, d=device: close(x[d], y), stats, expected[2])


@pytest.mark.parametrize('with_head', [False, True])
def test_the_backbone_takes_published_weights(with_head):
  """Those of ImageNet, or of a DeepLab-V2 whose head is left out."""
  fill = lambda tree, x: jax.tree.map(lambda s: np.full(s.shape, x), tree)
  v2 = _model(name='deeplabv2', aspp_branches=4, aux_head=False)
  tensors = import_weights.to_torch_names(
    fill(_shapes(models.build(v2, 5), 32, 32)[0], 0.25)
  )
  if not with_head:
    tensors = {k: v for k, v in tensors.items() if not k.startswith('layer5')}
  variables = fill(_shapes(models.build(_model(), 5), 32, 32)[0], 0.5)
  loaded, report = import_weights.load_into(variables, tensors)
  assert 'classifier keeps its initial values' in report
  assert ('layer5: a head of DeepLab-V2' in report) == with_head
  for part in loaded.values():
    assert all(np.all(x == 0.25) for x in jax.tree.leaves(part['backbone']))
    assert all(np.all(x == 0.5) for x in jax.tree.leaves(part['classifier']))
