"""DeepLab-V2 against numbers of the reference implementation."""

from __future__ import annotations

import functools
import json
import re
import types
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import models
from jaxseg_da.models import base, deeplab, import_weights, resnet
from jaxseg_da.ops import pooling, resize
from jaxseg_da.training import optim
from tests.parity import blocks, harness

SET = 'deeplabv2'
VARIANTS = {
  'advent_multi': {'aspp_branches': 4, 'aux_head': True},
  'advent_single': {'aspp_branches': 4, 'aux_head': False},
  'adaptsegnet_multi': {'aspp_branches': 2, 'aux_head': True},
  'dacs': {'aspp_branches': 2, 'aux_head': False},
}
EVAL, BATCH_STATISTICS = 1e-4, 2e-3  # our float32, of which no slope is taken
STORED = 1e-6  # float64 on numbers that were computed so and stored in float32
TIGHT = 1e-9  # float64 on float64 numbers


def check_ops(arrays):
  groups = sorted({name.split('/')[0] for name in arrays})
  assert groups
  for group in groups:
    x = jnp.asarray(arrays[f'{group}/x'])
    outputs = [n for n in arrays if n.startswith(f'{group}/y')]
    assert outputs
    for name in outputs:
      expected = arrays[name]
      what = name.split('/')[1].partition('_')[2]
      if group.startswith('pool'):
        actual = pooling.max_pool_ceil(x)
      elif what == 'align_corners':
        actual = resize.align_corners(x, expected.shape[1:3])
      else:
        assert what == 'half_pixel', name
        actual = resize.half_pixel(x, expected.shape[1:3])
      harness.close(actual, expected, 1e-6, name)


def check_reduced_statedict(arrays):
  tensors, images = harness.wide((_below(arrays, 'sd'), arrays['input']))
  module = deeplab.DeepLab(
    num_classes=arrays['eval/logits2'].shape[-1],
    blocks=tuple(arrays['layers'].tolist()),
    planes=tuple(arrays['planes'].tolist()),
    stem=int(arrays['stem']),
    aspp_branches=4,
    aux_head='eval/logits1' in arrays,
    options=blocks.DOUBLE,
  )
  network = base.from_linen(module)
  variables, report = _load(network, images, tensors)
  used = [n for n in tensors if not n.endswith('num_batches_tracked')]
  assert report.startswith(f'loaded {len(used)}/{len(used)} tensors')
  outputs, same = jax.jit(network.apply, static_argnums=2)(
    variables, images, False
  )
  _heads(outputs, arrays, 'eval', STORED)
  jax.tree.map(np.testing.assert_array_equal, same, variables['batch_stats'])
  labels = arrays['labels']

  def loss(params):
    outputs, stats = network.apply(
      {'params': params, 'batch_stats': variables['batch_stats']},
      images,
      True,
    )
    main = _cross_entropy(outputs['logits'], labels)
    aux = _cross_entropy(outputs['aux_logits'], labels)
    return main + 0.1 * aux, (outputs, stats, main, aux)

  (total, (outputs, stats, main, aux)), gradients = jax.jit(
    jax.value_and_grad(loss, has_aux=True)
  )(variables['params'])
  for leaf in jax.tree.leaves((total, outputs, stats, gradients)):
    assert leaf.dtype == np.float64
  _heads(outputs, arrays, 'train', STORED)
  for name, value in (('loss_main', main), ('loss_aux', aux), ('loss', total)):
    harness.close(value, arrays[f'train/{name}'], TIGHT, name)
  named = import_weights.to_torch_names(
    {'params': gradients, 'batch_stats': stats}
  )
  checked = set(arrays['frozen_params'].tolist())
  for name, expected in _below(arrays, 'grad').items():
    harness.close(named[name], expected, STORED, f'grad/{name}')
    checked.add(name)
  for name, expected in _below(arrays, 'sd_after').items():
    if not name.endswith('num_batches_tracked'):
      harness.close(named[name], expected, STORED, f'sd_after/{name}')
      checked.add(name)
  assert checked == set(named)


def check_full_r101_formula_weights(arrays):
  images = jnp.asarray(arrays['input'])
  unknown = {n.split('/')[0] for n in arrays} - {'input', 'feat', *VARIANTS}
  assert not unknown, unknown
  for variant, options in VARIANTS.items():
    if not any(n.startswith(f'{variant}/') for n in arrays):
      continue
    logits = next(
      arrays[f'{variant}/{n}']
      for n in ('logits2', 'logits')
      if f'{variant}/{n}' in arrays
    )
    network = models.build(_full(**options), logits.shape[-1])
    tensors = _formula_weights(variant)
    variables, _ = _load(network, images, tensors)
    forward = jax.jit(network.apply, static_argnums=2)
    outputs, _ = forward(variables, images, False)
    _heads(outputs, arrays, variant, EVAL)
    if variant == 'advent_multi':
      _features(variables, images, arrays)
    if f'{variant}/train_mode_logits' in arrays:
      outputs, stats = forward(variables, images, True)
      harness.close(
        outputs['logits'],
        arrays[f'{variant}/train_mode_logits'],
        BATCH_STATISTICS,
        f'{variant}/train_mode_logits',
      )
      named = import_weights.to_torch_names({**variables, 'batch_stats': stats})
      after = _below(arrays, f'{variant}/after_one_train_forward')
      assert after
      for name, expected in after.items():
        harness.close(named[name], expected, BATCH_STATISTICS, name)


def check_sgd_duplicates(arrays):
  schedule = optim.poly(
    float(arrays['base_lr']), int(arrays['max_iter']), float(arrays['power'])
  )
  cases = [n for n in arrays if n.endswith('/trajectory')]
  assert cases
  for name in cases:
    optimizer = optim.repeated_sgd(
      schedule,
      float(arrays['momentum']),
      float(arrays['weight_decay']),
      int(name.split('/')[0].removeprefix('k')),
    )
    steps = blocks.trajectory(optimizer, arrays['p0'], arrays['grads'])
    for i, (params, expected) in enumerate(
      zip(steps, arrays[name], strict=True)
    ):
      harness.close(params, expected, 1e-12, f'{name}[{i}]')


CHECKS = {
  'ops': check_ops,
  'reduced_statedict': check_reduced_statedict,
  'full_r101_formula_weights': check_full_r101_formula_weights,
  'sgd_duplicates': check_sgd_duplicates,
}


@pytest.mark.parametrize('path', harness.cases(SET))
def test_deeplabv2(path):
  harness.run(path, CHECKS)


def test_param_multiplicity_of_every_tensor():
  config = types.SimpleNamespace(
    name='sgd', multiplicity='reference', groups=(('.*', 1, 1),)
  )
  for variant, groups in _json('param_multiplicity.json').items():
    expected = {name: k for g in groups.values() for name, k in g.items()}
    network = models.build(_full(**VARIANTS[variant]), 19)
    shapes = jax.eval_shape(
      network.init, jax.random.key(0), jnp.zeros((1, 65, 65, 3))
    )
    names = import_weights.published_names(shapes)
    table = optim.group_table(config, {'params': shapes['params']})
    actual = {names[path]: group.repeats for path, group in table}
    trained = {n: k for n, k in actual.items() if n in expected}
    assert trained == expected
    frozen = set(actual) - set(expected)
    assert frozen and all(re.search(r'\bbn\d|downsample\.1', n) for n in frozen)


def _below(arrays, prefix):
  return {
    n.removeprefix(f'{prefix}/'): a
    for n, a in arrays.items()
    if n.startswith(f'{prefix}/')
  }


def _heads(outputs, arrays, prefix, tolerance):
  """Compares every head that the file has under `prefix`."""
  names = {'logits': 'logits', 'logits1': 'aux_logits', 'logits2': 'logits'}
  found = [n for n in names if f'{prefix}/{n}' in arrays]
  assert {names[n] for n in found} == set(outputs) - {'features'}
  for name in found:
    what = f'{prefix}/{name}'
    harness.close(outputs[names[name]], arrays[what], tolerance, what)


def _features(variables, images, arrays):
  """Compares the backbone's activations, and leaves none unchecked."""
  network = base.from_linen(resnet.ResNet())
  inside = {k: v['backbone'] for k, v in variables.items()}
  features, _ = jax.jit(network.apply, static_argnums=2)(inside, images, False)
  features['maxpool'] = features.pop('pool')
  assert set(features) == {n.split('/')[0] for n in _below(arrays, 'feat')}
  for name, value in features.items():
    expected = _below(arrays, f'feat/{name}')
    shape = [expected['shape'].tolist()]
    # The file may state the reference's own order of axes.
    assert list(value.shape) in shape + [[s[0], *s[2:], s[1]] for s in shape], (
      name
    )
    few = expected['first4ch'].shape[-1]
    harness.close(value[..., :few], expected['first4ch'], EVAL, name)
    moments = [np.mean(value), np.std(value)]
    harness.close(moments, expected['mean_std'], EVAL, f'{name}/mean_std')


def _full(**options):
  return types.SimpleNamespace(
    name='deeplabv2',
    preset='full',
    layers=(3, 4, 23, 3),
    compute_dtype='float32',
    **options,
  )


def _load(network, images, tensors):
  """Variables with nothing but the file's tensors in them."""
  shapes = jax.eval_shape(network.init, jax.random.key(0), images)
  variables, report = import_weights.load_into(shapes, tensors)
  assert all(
    isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables)
  )
  return variables, report


def _cross_entropy(logits, labels):
  logits = models.upsample(logits, labels.shape[1:3])
  valid = labels != 255
  chosen = jnp.where(valid, labels, 0)[..., None].astype(jnp.int32)
  log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen, -1)[..., 0]
  return -jnp.sum(jnp.where(valid, log_p, 0)) / np.sum(valid)


def _json(name):
  path = harness.folder(SET) / name
  if not path.is_file():
    path = harness._LOCAL / SET / name
  return json.loads(path.read_text())


@functools.cache
def _formula(name, shape):
  """The value that the fixtures' README gives a tensor of this name."""
  z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
  if name.endswith('running_mean'):
    z = 0.1 * z
  elif name.endswith('running_var'):
    z = np.exp(0.2 * z)
  elif len(shape) >= 2:
    z = z * np.sqrt(2 / np.prod(shape[1:]))
  elif name.endswith('.weight'):
    z = 0.5 + 0.1 * z
  else:
    z = 0.1 * z
  return z.astype(np.float32)


def _formula_weights(variant):
  return {
    name: np.zeros(shape, np.int64)
    if name.endswith('num_batches_tracked')
    else _formula(name, tuple(shape))
    for name, shape, _ in _json('state_dict_shapes.json')[variant]
  }
