from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from jaxseg_da import errors
from jaxseg_da.models import discriminator, layers

DOUBLE = layers.Options(jnp.float64, jnp.float64)


def _images(*size, channels=3, dtype=jnp.float32):
  return jax.ShapeDtypeStruct((2, *size, channels), dtype)


def _started(channels=3, width=2, size=(32, 64)):
  """A small network in float64, its variables, and maps for it."""
  network = discriminator.network(channels, width, DOUBLE)
  variables = network.init(jax.random.key(0), _images(*size))
  rng = np.random.default_rng(0)
  return network, variables, rng.normal(size=(2, *size, channels))


def _layer(x, kernel, bias):
  x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
  windows = np.lib.stride_tricks.sliding_window_view(x, (4, 4), (1, 2))
  return np.einsum('bhwcij,ijco->bhwo', windows[:, ::2, ::2], kernel) + bias


@pytest.mark.parametrize(
  ('size', 'expected'),
  [
    ((32, 32), (1, 1)),
    ((63, 64), (1, 2)),
    ((96, 192), (3, 6)),
    ((512, 1024), (16, 32)),
    ((720, 1280), (22, 40)),
  ],
)
def test_sizes(size, expected):
  network = discriminator.network(19)
  variables = jax.eval_shape(network.init, jax.random.key(0), _images(*size))
  outputs, stats = jax.eval_shape(
    lambda v, x: network.apply(v, x, True),
    variables,
    _images(*size, channels=19),
  )
  assert {k: v.shape for k, v in outputs.items()} == {
    'logits': (2, *expected, 1)
  }
  assert stats == {}
  # 4x4 kernels with bias: 19-64-128-256-512-1 channels.
  counts = [16 * 19 + 1, 16 * 64 + 1, 16 * 128 + 1, 16 * 256 + 1]
  weights = sum(n * (64 << i) for i, n in enumerate(counts)) + 16 * 512 + 1
  assert sum(x.size for x in jax.tree.leaves(variables)) == weights


@pytest.mark.parametrize('size', [(31, 64), (64, 31), (24, 24)])
def test_too_small(size):
  network = discriminator.network(3, width=2)
  key = jax.random.key(0)
  message = r'at least 32 x 32 pixels, not {} x {} \(H x W\)'.format(*size)
  with pytest.raises(errors.UserError, match=message):
    network.init(key, _images(*size))
  variables = jax.eval_shape(network.init, key, _images(32, 32))
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(
      lambda v, x: network.apply(v, x, True), variables, _images(*size)
    )


def test_values_against_numpy():
  with jax.enable_x64(True):
    network, variables, maps = _started(size=(33, 70))
    assert sorted(variables['params']) == [f'conv{i}' for i in range(5)]
    x = maps
    for i in range(5):
      x = np.where(x < 0, 0.2 * x, x) if i else x
      layer = variables['params'][f'conv{i}']
      x = _layer(x, layer['kernel'], layer['bias'])
    outputs, _ = jax.jit(network.apply, static_argnums=2)(variables, maps, True)
    np.testing.assert_allclose(outputs['logits'], x, rtol=1e-9)
    # Images of a batch do not meet, and training changes nothing.
    alone, _ = network.apply(variables, maps[1:], False)
    np.testing.assert_allclose(alone['logits'], x[1:], rtol=1e-9)


def test_gradient():
  with jax.enable_x64(True):
    network, variables, maps = _started(channels=2, width=1, size=(32, 32))

    def loss(params, maps):
      outputs, _ = network.apply({'params': params}, maps, True)
      return jnp.sum(jnp.square(outputs['logits']))

    inputs = variables['params'], maps
    # Steps so small that hardly any activation changes its sign.
    test_util.check_grads(jax.jit(loss), inputs, 1, ['rev'], eps=1e-7)


def test_initial_values():
  network = discriminator.network(5, width=16)
  params = network.init(jax.random.key(0), _images(64, 64))['params']
  again = network.init(jax.random.key(0), _images(32, 96))['params']
  jax.tree.map(np.testing.assert_array_equal, params, again)
  channels = [5, 16, 32, 64, 128, 1]
  for i, (fan, features) in enumerate(itertools.pairwise(channels)):
    kernel, bias = (params[f'conv{i}'][leaf] for leaf in ('kernel', 'bias'))
    assert kernel.shape == (4, 4, fan, features)
    assert bias.shape == (features,)
    bound = 1 / np.sqrt(16 * fan)
    # Uniform: bounded, close to the bounds, and of the right spread.
    assert 0.98 * bound < np.max(kernel) <= bound
    assert -0.98 * bound > np.min(kernel) >= -bound
    spread = 5 / np.sqrt(kernel.size)
    assert abs(np.mean(kernel)) < spread * bound
    assert abs(np.std(kernel) / bound - 1 / np.sqrt(3)) < spread
    assert np.all(np.abs(bias) <= bound) and np.all(bias != 0)
    assert features == 1 or np.min(bias) < 0 < np.max(bias)
  first = {float(x.ravel()[0]) for x in jax.tree.leaves(params)}
  assert len(first) == 10  # no two share their values


@pytest.mark.parametrize(
  ('dtype', 'expected'),
  [
    (jnp.bfloat16, jnp.float32),
    (jnp.float32, jnp.float32),
    (jnp.float64, jnp.float64),
  ],
)
def test_logits_are_float32_at_least(dtype, expected):
  with jax.enable_x64(True):
    options = layers.Options(dtype, jnp.promote_types(dtype, jnp.float32))
    network = discriminator.network(4, 2, options)
    init = functools.partial(network.init, jax.random.key(0), _images(32, 32))
    variables = jax.eval_shape(init)
    outputs, _ = jax.eval_shape(
      lambda v, x: network.apply(v, x, True),
      variables,
      _images(32, 32, channels=4),
    )
    assert outputs['logits'].dtype == expected
    assert all(x.dtype == expected for x in jax.tree.leaves(variables))
