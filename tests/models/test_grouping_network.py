"""The grouping network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.models import grouping as network_lib
from jaxseg_da.models import layers
from tests import group_maps as gm


@pytest.fixture(autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


def test_network_makes_its_own_sample():
  """All networks are initialised with the same images."""
  network = network_lib.network(19, 8)
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), images)
  assert jax.tree.map(lambda x: x.shape, variables) == {
    'params': {
      'conv1': {'kernel': (1, 1, 19, 64), 'bias': (64,)},
      'conv2': {'kernel': (1, 1, 64, 8), 'bias': (8,)},
    },
    'batch_stats': {},
  }


@pytest.mark.parametrize('kernel', (1, 3, 5))
def test_network_by_hand(kernel):
  options = layers.Options(jnp.float64, jnp.float64)
  network = network_lib.network(gm.U, gm.K, 6, kernel, options)
  variables = gm.random_variables(network)
  params = variables['params']
  x, _ = gm.maps(0)
  out, stats = network.apply(variables, x, True)
  assert stats == {} and out['logits'].dtype == jnp.float64

  def convolve(x, layer):
    border = kernel // 2
    x = np.pad(x, [(0, 0), (border, border), (border, border), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel,) * 2, (1, 2))
    product = np.einsum('bhwcij,ijco->bhwo', windows, layer['kernel'])
    return product + layer['bias']

  hidden = convolve(x, params['conv1'])
  hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
  expected = convolve(hidden, params['conv2'])
  np.testing.assert_allclose(out['logits'], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(('kernel', 'hidden'), ((1, 64), (3, 16)))
def test_groups_differ_from_the_start_and_are_not_saturated(kernel, hidden):
  """Regions of one certain class each, far from the border."""
  network = network_lib.network(19, 8, hidden, kernel)
  regions = np.tile(np.eye(19, dtype=np.float32)[:, None, None], (1, 5, 5, 1))
  sample = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  apply = jax.jit(lambda v: network.apply(v, regions, True)[0]['logits'])
  logits = np.stack(
    [
      apply(network.init(jax.random.key(seed), sample))[:, 2, 2]
      for seed in range(6)
    ]
  )
  assert 0.8 < np.square(logits).mean() < 1.25
  shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  assert 0.25 < shares.max(-1).mean() < 0.45
  # Classes go to different groups, and no group takes nearly all of one.
  assert all(len(set(s.argmax(-1))) >= 4 for s in shares)
  assert shares.max() < 0.95


def test_logits_are_float32_at_least():
  network = network_lib.network(
    gm.U, gm.K, options=layers.Options(jnp.bfloat16)
  )
  inputs = jax.ShapeDtypeStruct((2, 3, 4, gm.U), jnp.bfloat16)
  apply = lambda v, x: network.apply(v, x, True)
  out, _ = jax.eval_shape(apply, gm.random_variables(network), inputs)
  assert out['logits'].dtype == jnp.float32
  assert out['logits'].shape == (2, 3, 4, gm.K)


@pytest.mark.parametrize(
  ('sizes', 'message'),
  [
    ({'kernel': 2}, 'cdga.kernel is 2; it must be odd'),
    ({'kernel': 0}, 'cdga.kernel is 0; it must be positive'),
    ({'hidden': 0}, 'cdga.hidden is 0'),
    ({'groups': 0}, 'cdga.groups is 0'),
  ],
)
def test_impossible_sizes(sizes, message):
  with pytest.raises(errors.UserError, match=message):
    network_lib.network(**{'channels': gm.U, 'groups': gm.K, **sizes})
