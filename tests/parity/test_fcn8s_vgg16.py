"""FCN-8s against numbers of the reference implementation."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da.losses import segmentation
from jaxseg_da.models import base, fcn8s, import_weights
from tests.parity import blocks, harness

SET = 'fcn8s_vgg16'
SINGLE = 1e-5  # the reference computed in float32


def check_fcn8s_small(arrays):
  tensors = harness.wide(_tensors(arrays))
  width = lambda layer: len(tensors[f'{layer}.bias'])
  module = fcn8s.FCN8s(
    width('score_fr'),
    [width(f'conv{block}_1') for block in range(1, 6)],
    width('fc6'),
    blocks.DOUBLE,
  )
  network = base.from_linen(module, dropout=True)
  cases = [n.removeprefix('logits_') for n in arrays if n.startswith('logits_')]
  assert cases
  for case in cases:
    x = jnp.asarray(harness.wide(arrays[f'x_{case}']))
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    variables, report = import_weights.load_into(shapes, tensors)
    loaded = len(tensors) - len(fcn8s.UPSCORES)
    assert report.startswith(f'loaded {loaded}/{loaded} tensors')
    outputs, _ = jax.jit(network.apply, static_argnums=2)(variables, x, False)
    harness.close(outputs['logits'], arrays[f'logits_{case}'], SINGLE, case)
    sizes = _sizes(module, variables, x)
    np.testing.assert_array_equal(sizes, arrays[f'sizes_{case}'])
    if f'grad_x_{case}' in arrays:
      slope = jax.jit(jax.grad(_energy), static_argnums=1)
      gradient = slope(x, network, variables)
      assert gradient.dtype == np.float64
      harness.close(gradient, arrays[f'grad_x_{case}'], SINGLE, f'{case} grad')
  kinds = ('x', 'logits', 'sizes', 'grad_x')
  inputs = {f'{kind}_{case}' for kind in kinds for case in cases}
  assert len(set(arrays) - inputs) == len(tensors)


def check_bilinear_kernels(arrays):
  for name, expected in arrays.items():
    match = re.fullmatch(r'k(\d+)(_offdiag)?', name)
    assert match, name
    size = int(match[1])
    if match[2]:
      # What an impulse in one channel leaves in another.
      actual = fcn8s.upscore(jnp.eye(1, 2)[None, None], size)[0, ..., 1]
    else:
      actual = fcn8s.bilinear_kernel(size)
    harness.close(actual, expected, 1e-6, name)


def check_per_pixel_ce(arrays):
  suffix = '_per_pixel_ce_valid_rowmajor'
  cases = [n.removesuffix(suffix) for n in arrays if n.endswith(suffix)]
  assert cases and len(arrays) == 3 * len(cases)
  for case in cases:
    loss, valid = jax.jit(segmentation.per_pixel_cross_entropy)(
      jnp.asarray(arrays[f'{case}_logits'], jnp.float32),
      jnp.asarray(arrays[f'{case}_labels'], jnp.int32),
    )
    actual = np.asarray(loss)[np.asarray(valid)]
    harness.close(actual, arrays[f'{case}{suffix}'], SINGLE, case)


CHECKS = {
  'fcn8s_small': check_fcn8s_small,
  'bilinear_kernels': check_bilinear_kernels,
  'per_pixel_ce': check_per_pixel_ce,
}


@pytest.mark.parametrize('path', harness.cases(SET))
def test_fcn8s_vgg16(path):
  harness.run(path, CHECKS)


def _tensors(arrays):
  """The file's weights as a published checkpoint would hold them."""
  tensors = {}
  for name, value in arrays.items():
    layer, _, kind = name.partition('_kernel_')
    if kind == 'diag':
      classes = len(arrays['score_fr_b'])
      channels = np.eye(classes, dtype=np.float32)[:, :, None, None]
      tensors[f'{layer}.weight'] = channels * value.astype(np.float32)
    elif name.endswith('_w'):
      layer = name.removesuffix('_w')
      tensors[f'{layer}.weight'] = value.transpose(3, 2, 0, 1)
      tensors[f'{layer}.bias'] = arrays[f'{layer}_b']
  return tensors


def _sizes(module, variables, x):
  """Heights and widths from `pool1` to the last upsampling."""
  seen = jax.eval_shape(
    lambda: module.apply(
      {'params': variables['params']},
      x,
      False,
      capture_intermediates=True,
      mutable=['intermediates'],
    )[1]['intermediates']
  )
  output = lambda *path: jax.tree.leaves(_at(seen, path)['__call__'])
  head = {name: output('classifier', name)[0] for name in ('fc6', 'score_fr')}
  upscore = lambda tensor: jax.eval_shape(lambda t: fcn8s.upscore(t, 4), tensor)
  half = upscore(head['score_fr'])
  rows = [*output('backbone'), head['fc6'], half, upscore(half)]
  return [row.shape[1:3] for row in (*rows, *output('classifier'))]


def _at(tree, path):
  for key in path:
    tree = tree[key]
  return tree


def _energy(x, network, variables):
  outputs, _ = network.apply(variables, x, False)
  return 0.5 * jnp.mean(jnp.square(outputs['logits']))
