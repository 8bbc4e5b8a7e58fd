"""Adversarial and entropy methods against numbers of their references."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import config as config_lib
from jaxseg_da.evaluation import metrics
from jaxseg_da.losses import entropy, segmentation
from jaxseg_da.models import aspp, initializers, layers
from jaxseg_da.ops import pooling, resize
from jaxseg_da.training import optim
from tests.parity import adversarial_step, blocks, harness

SINGLE = {'rtol': 2e-5, 'atol': 1e-7}  # the reference computed in float32
STORED_SINGLE = {'rtol': 1e-6, 'atol': 1e-12}
# The papers' constants, which are not in the files.
RATES = {'lr_seg_1x': 2.5e-4, 'lr_seg_10x': 2.5e-3, 'lr_disc': 1e-4}
HORIZON = 250_000


@pytest.mark.parametrize('path', harness.cases('adversarial'))
def test_parity(path):
  harness.run(path, CHECKS)


def _mean(loss):
  total, count = loss
  return total / jnp.maximum(count, 1)


def _blocks(arrays):
  for case, a in blocks.cases(arrays, 'b').items():
    below = lambda prefix, a=a: {
      n.removeprefix(prefix): v for n, v in a.items() if n.startswith(prefix)
    }
    variables = blocks.bottleneck_variables(below('p_'))
    module = blocks.bottleneck(variables, int(a['stride']), int(a['dilation']))
    x = jnp.asarray(a['in'])
    y = jax.jit(lambda v, x, m=module: m.apply(v, x, False))(variables, x)
    blocks.close(y, a['out_eval'], f'{case} eval')
    y, moved = jax.jit(
      lambda v, x, m=module: m.apply(v, x, True, mutable=['batch_stats'])
    )(variables, x)
    blocks.close(y, a['out_train'], f'{case} train')
    after = blocks.bottleneck_variables(below('after_'))['batch_stats']
    close = functools.partial(blocks.close, what=f'{case} statistics')
    jax.tree.map(close, moved['batch_stats'], after)

  params = {
    f'conv{j}': {
      leaf: jnp.asarray(arrays[f'cls_{leaf}{j}']) for leaf in ('kernel', 'bias')
    }
    for j in range(len(aspp.DILATIONS))
  }
  for name, branches in (('two', 2), ('four', 4)):
    expected = arrays[f'cls_out_{name}_branches']
    head = aspp.ASPP(expected.shape[-1], branches, blocks.DOUBLE)
    y = jax.jit(head.apply)({'params': params}, jnp.asarray(arrays['cls_in']))
    blocks.close(y, expected, f'{name} branches')


def _cross_entropy(arrays):
  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(logits, labels):
    total, count = segmentation.cross_entropy(logits, labels)
    return _mean((total, count)), count

  for case, a in blocks.cases(arrays, 'c').items():
    logits, labels = jnp.asarray(a['logits']), jnp.asarray(a['labels'])
    (value, count), gradient = loss(logits, labels)
    if np.isnan(a['loss']):  # a step makes 0 of it
      assert (value, count) == (0, 0), case
    else:
      blocks.close(value, a['loss'], case)
    blocks.close(gradient, a['grad'], case)


def _entropy(arrays):
  @jax.jit
  def find(logits):
    loss = lambda x: _mean(entropy.entropy_loss(jax.nn.softmax(x)))
    probabilities = jax.nn.softmax(logits)
    information = entropy.weighted_self_information(probabilities)
    return information, loss(logits), jax.grad(loss)(harness.wide(logits))

  for case, a in blocks.cases(arrays, 'c').items():
    for name, tolerance in (('f64', blocks.CLOSE), ('f32', SINGLE)):
      information, value, gradient = find(
        jnp.asarray(a['logits'], {'f64': 'float64', 'f32': 'float32'}[name])
      )
      for what, actual in (
        ('weighted_self_information', information),
        ('entropy_loss', value),
        ('entropy_loss_grad', gradient),
      ):
        expected = a[f'{name}_{what}']
        double = actual is gradient
        assert actual.dtype == (np.float64 if double else expected.dtype)
        blocks.close(actual, expected, f'{case} {name} {what}', tolerance)


def _metrics_schedule(arrays):
  num_classes = len(arrays['iou'])
  counts = metrics.confusion(arrays['gt'], arrays['pred'], num_classes)
  np.testing.assert_array_equal(counts, arrays['hist'])
  blocks.close(metrics.iou(counts), arrays['iou'], 'iou')
  blocks.close(metrics.mean_iou(counts), arrays['miou'], 'miou')
  for name, first in RATES.items():
    config = config_lib.optimizer(learning_rate=first)
    rate = optim.schedule(config, HORIZON)
    rates = [rate(t) for t in arrays['iteration']]
    blocks.close(rates, arrays[name], name)


def _resize_pool_stem(arrays):
  for case, a in blocks.cases(arrays, 'up').items():
    y = resize.align_corners(jnp.asarray(a['in']), a['out'].shape[1:3])
    blocks.close(y, a['out'], case, STORED_SINGLE)
  for case, a in blocks.cases(arrays, 'pool').items():
    blocks.close(pooling.max_pool_ceil(jnp.asarray(a['in'])), a['out'], case)
  kernel = jnp.asarray(arrays['stem_kernel'])
  stem = layers.Conv(
    features=kernel.shape[-1],
    size=len(kernel),
    init=initializers.he,
    stride=2,
    options=blocks.DOUBLE,
  )
  for case, a in blocks.cases(arrays, 'stem').items():
    y = stem.apply({'params': {'kernel': kernel}}, jnp.asarray(a['in']))
    blocks.close(y, a['out'], case)


def _sgd_multiplicity(arrays):
  schedule = optim.poly(
    float(arrays['lr0']), int(arrays['max_iter']), float(arrays['power'])
  )
  for case, a in blocks.cases(arrays, 'm').items():
    for name, first_step in (
      ('trajectory', 'fresh'),
      ('trajectory_first_step_accumulates', 'recursive'),
    ):
      optimizer = optim.repeated_sgd(
        schedule,
        float(arrays['momentum']),
        float(arrays['weight_decay']),
        int(case.removeprefix('m')),
        first_step,
      )
      steps = blocks.trajectory(optimizer, a['p0'], a['grads'])
      blocks.close(np.stack(steps), a[name], f'{case} {name}')


CHECKS = {
  'blocks': _blocks,
  'cross_entropy': _cross_entropy,
  'entropy': _entropy,
  'iteration_adaptseg_bce': functools.partial(
    adversarial_step.check, kind='adaptsegnet'
  ),
  'iteration_adaptseg_ls': functools.partial(
    adversarial_step.check, kind='adaptsegnet', objective='least_squares'
  ),
  'iteration_advent': functools.partial(adversarial_step.check, kind='advent'),
  'metrics_schedule': _metrics_schedule,
  'resize_pool_stem': _resize_pool_stem,
  'sgd_multiplicity': _sgd_multiplicity,
}
