"""CCDA against numbers of the reference implementation."""

from __future__ import annotations

import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da.classes import hierarchy, labels
from jaxseg_da.evaluation import metrics
from jaxseg_da.losses import distillation, maxsquare
from jaxseg_da.models import deeplab_v3, grow
from tests.parity import blocks, harness

HEAD = {'rtol': 1e-7, 'atol': 1e-12}
TIGHT = 1e-9  # float64 on float64 arrays
SINGLE = {'rtol': 2e-5, 'atol': 1e-7}  # the reference computed in float32


@pytest.mark.parametrize('path', harness.cases('ccda'))
def test_parity(path):
  harness.run(path, CHECKS)


def _mean(loss):
  total, count = loss
  return total / count


# Tensors of the head and their places, beside the kind of each.
MODULES = {
  **{f'map_convs_{i}': f'branch{i}' for i in range(4)},
  **{f'conv2d_list_{i}': f'conv{i}' for i in range(4)},
  'map_bn': 'branches_bn',
  'global_pooling_conv': 'pooled',
  'global_pooling_bn': 'pooled_bn',
  'red_conv': 'logits',
  'red_conv_pool': 'pooled_logits',
  'red_bn': 'logits_bn',
}
LEAVES = {
  'bias': ('params', 'bias'),
  'running_mean': ('batch_stats', 'mean'),
  'running_var': ('batch_stats', 'var'),
  'welford_count': ('batch_stats', 'all_count'),
  'welford_mean': ('batch_stats', 'all_mean'),
  'welford_msquare': ('batch_stats', 'all_square'),
}


def _place(name, value):
  """Collection, module and leaf of a tensor such as `red_bn_running_mean`."""
  kinds = '|'.join(('weight', *LEAVES))
  module, kind = re.fullmatch(rf'(\w+?)_({kinds})', name).groups()
  weight = ('params', 'kernel' if np.ndim(value) == 4 else 'scale')
  collection, leaf = LEAVES.get(kind, weight)
  return collection, MODULES[module], leaf


def _variables(tensors):
  variables = {'params': {}, 'batch_stats': {}}
  for name, value in tensors.items():
    collection, module, leaf = _place(name, value)
    variables[collection].setdefault(module, {})[leaf] = value
  return variables


def _below(arrays, prefix):
  return {
    n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)
  }


def _head(arrays):
  for case, a in blocks.cases(arrays, 'c').items():
    params = _variables(_below(a, 'param_'))['params']
    head = deeplab_v3.Head(
      params['logits']['kernel'].shape[-1],
      params['branch0']['kernel'].shape[-1],
      blocks.DOUBLE,
    )

    @jax.jit
    def train(stats, x, cotangent, head=head, params=params):
      def forward(x):
        variables = {'params': params, 'batch_stats': stats}
        return head.apply(variables, x, True, mutable=['batch_stats'])

      y, pull, stats = jax.vjp(forward, x, has_aux=True)
      return y, pull(cotangent)[0], stats['batch_stats']

    x = jnp.asarray(a['train0_in'], jnp.float64)
    wanted = head.init(jax.random.key(0), x, False)
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    assert shapes(wanted['params']) == shapes(params)
    stats, last = wanted['batch_stats'], 'train2'
    for call in ('train0', 'train1', last):
      x = jnp.asarray(a[f'{call}_in'], jnp.float64)
      direction = jnp.asarray(a[f'{last}_cotangent'], jnp.float64)
      y, gradient, stats = train(stats, x, direction)
      step = 3 if call == last else 6
      what = f'{case} {call}'
      blocks.close(y[:, ::step, ::step], a[f'{call}_out'], what, HEAD)
    gradient = gradient[:, ::3, ::3]
    harness.close(gradient, a[f'{last}_in_grad'], TIGHT, f'{case} grad')
    _statistics(case, stats, _below(a, 'buffer_after3_'))
    y = jax.jit(head.apply, static_argnums=2)(
      {'params': params, 'batch_stats': stats},
      jnp.asarray(a['eval_in'], jnp.float64),
      False,
    )
    blocks.close(y[:, ::3, ::3], a['eval_out'], f'{case} eval', HEAD)


def _statistics(case, stats, buffers):
  checked = 0
  for name, expected in buffers.items():
    # Of the counters only the number of pooled values is kept.
    if name.endswith('_num_batches_tracked'):
      continue
    what = f'{case} {name}'
    if name.endswith('_welford_var'):
      pooled = stats['pooled_bn']
      value = pooled['all_square'] / pooled['all_count']
    else:
      _, module, leaf = _place(name, expected)
      value, checked = stats[module][leaf], checked + 1
    blocks.close(value, expected, what, HEAD)
  assert checked == len(jax.tree.leaves(stats))


KD = ('kdc', 'kdc_fine', 'kdc_coarse', 'mib')


def _distillation(arrays):
  for case, a in blocks.cases(arrays, 'c').items():
    old = jnp.asarray(a['old_logits'])
    children = _children(a['parent_of_child'], old.shape[-1])

    @jax.jit
    def losses(new, old=old, children=children):
      whole = distillation.coarse_to_fine(new, old, children)
      parts = distillation.coarse_to_fine_parts(new, old, children)
      merged = distillation.merged_background(new, old, children)
      values = map(_mean, (whole, *parts, merged))
      return dict(zip(KD, values, strict=True))

    values, gradients = jax.jit(
      lambda new, f=losses: (f(new), jax.jacrev(f)(new))
    )(jnp.asarray(a['new_logits']))
    # One case has no number for MiB.
    assert {'kdc', 'kdc_fine', 'kdc_coarse'} <= set(a), case
    for name in KD:
      if name in a:
        blocks.close(values[name], a[name], f'{case} {name}')
      if f'{name}_grad' in a:
        blocks.close(gradients[name], a[f'{name}_grad'], f'{case} {name}_grad')
    # Distances between outputs belong to no published run.
    known = {'name', 'parent_of_child', 'new_logits', 'old_logits', *KD}
    known |= {f'{name}_grad' for name in KD}
    assert all(n in known or n.startswith('dist_') for n in a), case


def _children(parents, count):
  return [np.flatnonzero(parents == p).tolist() for p in range(count)]


DATASETS = {
  'cityscapes': ('gta5_to_cityscapes', labels.CITYSCAPES_ID_TO_TRAIN_ID),
  'gta_for_cityscapes': ('gta5_to_cityscapes', labels.GTA5_ID_TO_TRAIN_ID),
  'idd': ('gta5_to_idd', labels.IDD_ID_TO_TRAIN_ID),
  'gta_for_idd': ('gta5_to_idd', labels.GTA5_ID_TO_TRAIN_ID),
}


def _labels(arrays):
  """Labels as the files hold them, 255 as -1."""
  names = [n.removesuffix('_raw') for n in arrays if n.endswith('_raw')]
  assert names
  for name in names:
    tree, table = DATASETS[name]
    tree, raw = hierarchy.PUBLISHED[tree], arrays[f'{name}_raw']
    train = table[raw.astype(np.uint8)]
    finest = tree.table(len(tree.steps) - 1)
    expected = {'train': np.where(finest[train] == 255, 255, train)}
    for step in range(len(tree.steps)):
      for rule in ('train', 'eval'):
        mapped = tree.table(step, training=rule == 'train')[train]
        expected[f'step{step}_{rule}set'] = mapped
    if name == 'idd':
      expected['flat17'] = finest[train]
    for what, value in expected.items():
      value = np.where(value == 255, -1, value.astype(np.int32))
      found = arrays[f'{name}_{what}']
      np.testing.assert_array_equal(value, found, f'{name} {what}')


def _metrics(arrays):
  confusion = jax.jit(metrics.confusion, static_argnums=2)
  for case, a in blocks.cases(arrays, 'c').items():
    num_classes = len(a['iou'])
    counts = confusion(a['gt'], a['pred'], num_classes)
    np.testing.assert_array_equal(counts, a['confusion'], case)
    hits = np.diagonal(counts).astype(np.float64)
    miou = metrics.mean_iou(counts)
    with np.errstate(invalid='ignore'):
      values = {
        'iou': metrics.iou(counts),
        'recall': hits / np.sum(counts, axis=1),
        'precision': hits / np.sum(counts, axis=0),
        'miou_percent': np.nan if miou is None else 100 * miou,
      }
    for name, value in values.items():
      blocks.close(value, a[name], f'{case} {name}', SINGLE)


def _msiw(arrays):
  def loss(logits, ratio):
    probabilities = jax.nn.softmax(logits)
    return _mean(maxsquare.iw_maxsquare(probabilities, ratio, per='batch'))

  @jax.jit
  def find(logits, ratio):
    return loss(logits, ratio), jax.grad(loss)(harness.wide(logits), ratio)

  for case, a in blocks.cases(arrays, 'c').items():
    for kind, tolerance in (('f64', blocks.CLOSE), ('f32', SINGLE)):
      dtype = {'f64': 'float64', 'f32': 'float32'}[kind]
      logits = jnp.asarray(a['logits'], dtype)
      found = _below(arrays, f'{kind}_{case}_')
      value, slope = find(logits, float(a['ratio']))
      assert (value.dtype, slope.dtype) == (logits.dtype, np.float64)
      blocks.close(value, found.pop('loss'), f'{case} {kind}', tolerance)
      blocks.close(slope, found.pop('grad'), f'{case} {kind} grad', tolerance)
      for name, expected in found.items():
        ratio = float(name.removeprefix('loss_ratio'))
        value, _ = find(logits, ratio)
        blocks.close(value, expected, f'{case} {name}', tolerance)


TREES = {'cs': 'gta5_to_cityscapes', 'idd': 'gta5_to_idd'}
HEADS = {
  'DeepLabV3': types.SimpleNamespace(name='deeplabv3'),
  'DeepLabV2': types.SimpleNamespace(name='deeplabv2', aspp_branches=4),
  'DeepLabV2MSIW': types.SimpleNamespace(name='deeplabv2', aspp_branches=2),
}


def _weight_init(arrays):
  for case, a in blocks.cases(arrays, 'c').items():
    model, parents = HEADS[str(a['head'])], a['parent_of_child']
    tree = hierarchy.PUBLISHED[TREES[str(a['benchmark'])]]
    assert tree.parents(int(a['step']) + 1) == tuple(parents)
    old = _class_wise(_below(a, 'old_'))
    for rule, shift in (('c2f', True), ('plain', False)):
      new = _class_wise(_below(a, f'new_{rule}_'))
      actual = grow.grow(old, parents, model, shift)
      close = functools.partial(
        blocks.close, what=f'{case} {rule}', tolerance=SINGLE
      )
      jax.tree.map(close, actual, new)


def _class_wise(tensors):
  tensors = {
    n: v for n, v in tensors.items() if not n.endswith('num_batches_tracked')
  }
  return {k: {'classifier': v} for k, v in _variables(tensors).items()}


CHECKS = {
  'head_v3': _head,
  'kd': _distillation,
  'labels': _labels,
  'metrics': _metrics,
  'msiw': _msiw,
  'weight_init': _weight_init,
}
