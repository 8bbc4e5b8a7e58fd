"""Comparisons and pieces of networks that parity checks share."""

from __future__ import annotations

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da.models import layers, resnet
from tests.parity import harness

CLOSE = {'rtol': 1e-9, 'atol': 1e-12}  # float64 on float64 arrays
DOUBLE = layers.Options(jnp.float64, jnp.float64)

_LEAVES = {
  'weight': ('params', 'scale'),
  'bias': ('params', 'bias'),
  'running_mean': ('batch_stats', 'mean'),
  'running_var': ('batch_stats', 'var'),
}
_MODULES = {'downsample_0': 'downsample_conv', 'downsample_1': 'downsample_bn'}


def close(actual, expected, what, tolerance=None):
  """Asserts equal shapes, and values within `tolerance`, `CLOSE` if None."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  assert actual.shape == expected.shape, (what, actual.shape, expected.shape)
  np.testing.assert_allclose(
    actual, expected, **(tolerance or CLOSE), err_msg=what
  )


def close_in_scale(actual, expected, what):
  """As `close`, but the digits of an array of tiny values count as well."""
  close(actual, expected, what)
  harness.close(actual, expected, CLOSE['rtol'], what)


def cases(arrays: Mapping, prefix: str) -> dict[str, dict[str, np.ndarray]]:
  """Arrays called `PREFIXn_NAME`, by case `PREFIXn`; there is at least one."""
  result: dict[str, dict[str, np.ndarray]] = {}
  for name, value in arrays.items():
    match = re.fullmatch(rf'({prefix}\d+)_(\w+)', name)
    if match:
      result.setdefault(match[1], {})[match[2]] = value
  assert result, f'no array is called {prefix}0_*'
  return result


def trajectory(optimizer, start, gradients) -> list[jax.Array]:
  """The parameter after each step of an optimizer on given gradients."""
  params = jnp.asarray(start)
  state = optimizer.init(params)
  update, result = jax.jit(optimizer.update), []
  for gradient in gradients:
    change, state = update(jnp.asarray(gradient), state, params)
    params = params + change
    result.append(params)
  return result


def bottleneck_variables(tensors: Mapping[str, np.ndarray]) -> dict:
  """Variables of a `resnet.Bottleneck` from `conv1_weight`, `bn1_bias`, ...

  Kernels are `[h, w, in, out]`.
  """
  variables: dict[str, dict] = {'params': {}, 'batch_stats': {}}
  for name, value in tensors.items():
    if name.endswith('num_batches_tracked'):
      continue
    kinds = '|'.join(_LEAVES)
    match = re.fullmatch(rf'(\w+\d)_({kinds})', name)
    assert match, name
    module, kind = match.groups()
    collection, leaf = _LEAVES[kind]
    if value.ndim == 4:
      leaf = 'kernel'
    module = _MODULES.get(module, module)
    variables[collection].setdefault(module, {})[leaf] = jnp.asarray(value)
  return variables


def bottleneck(variables: Mapping, stride: int, dilation: int):
  """The block that variables belong to; all of them have a place in it."""
  params = variables['params']
  module = resnet.Bottleneck(
    params['conv2']['kernel'].shape[-1],
    stride,
    dilation,
    'downsample_conv' in params,
    DOUBLE,
  )
  channels = params['conv1']['kernel'].shape[2]
  sample = jax.ShapeDtypeStruct((1, 8, 8, channels), jnp.float64)
  wanted = jax.eval_shape(
    lambda key, x: module.init(key, x, False), jax.random.key(0), sample
  )
  shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)
  assert shapes(wanted) == shapes(variables)
  return module
