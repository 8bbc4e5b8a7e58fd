"""MaxSquare against numbers of its reference implementation."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import config as config_lib
from jaxseg_da.classes import labels
from jaxseg_da.config import pairs
from jaxseg_da.evaluation import metrics
from jaxseg_da.losses import maxsquare as losses
from jaxseg_da.methods import maxsquare
from jaxseg_da.training import optim
from tests.parity import blocks, harness

SINGLE = {'rtol': 2e-5, 'atol': 1e-7}  # the reference computed in float32
# Weights of the reference are float32 where everything else is float64.
WEIGHTED = {'rtol': 1e-6, 'atol': 1e-12}
RATIO = 0.2  # of `multi_guidance`, which does not say
LOSS_INPUTS = {'logits', 'num_classes', 'ratio', 'kind'}
# Field of a summary, which has percent, for each array of `metrics`.
FIELDS = {
  'pixel_acc': 'pixel_accuracy',
  'miou': 'miou',
  'miou16': 'miou_16',
  'miou13': 'miou_13',
  'miou16_from19': 'miou_16',
  'miou13_from19': 'miou_13',
}


@pytest.mark.parametrize('path', harness.cases('maxsquare'))
def test_parity(path):
  harness.run(path, CHECKS)


def _cases(arrays):
  """Arrays called `cN_NAME`, by case; a name may hold a number: `ratio0.5`."""
  result: dict[str, dict[str, np.ndarray]] = {}
  for name, value in arrays.items():
    case, _, key = name.partition('_')
    result.setdefault(case, {})[key] = value
  assert result, 'there is no array'
  return result


def _mean(loss):
  total, count = loss
  return total / jnp.maximum(count, 1)


def _losses(arrays):
  for case, a in _cases(arrays).items():
    logits, ratio = jnp.asarray(a['logits']), float(a['ratio'])
    assert logits.shape[-1] == a['num_classes']
    functions = {
      'maxsquare': losses.maxsquare,
      'soft_ce_entropy': losses.mean_entropy,
      'iw_maxsquare': functools.partial(losses.iw_maxsquare, ratio=ratio),
      'iw_soft_ce_entropy': functools.partial(losses.iw_entropy, ratio=ratio),
    }
    for name in set(a):
      if name.startswith('iw_maxsquare_ratio'):
        other = float(name.removeprefix('iw_maxsquare_ratio'))
        functions[name] = functools.partial(losses.iw_maxsquare, ratio=other)
    expected = set(a) - LOSS_INPUTS
    found = _values(logits, functions, expected)
    assert expected <= set(found), expected
    for name in expected - {'argmax'}:
      tolerance = WEIGHTED if name.startswith('iw_') else blocks.CLOSE
      if logits.dtype == jnp.float32:
        tolerance = SINGLE
      double = name.endswith('_grad')
      assert found[name].dtype == (np.float64 if double else a[name].dtype)
      blocks.close(found[name], a[name], f'{case} {name}', tolerance)
    if 'argmax' in a:
      np.testing.assert_array_equal(found['argmax'], a['argmax'], case)


def _values(logits, functions: Mapping, wanted):
  """Values, wanted gradients `NAME_grad`, and the predicted classes."""

  @jax.jit
  def compute(x):
    p = jax.nn.softmax(x)
    # Below any probability, so that every pixel has its label.
    result = {'argmax': losses.confident_labels([p], 0.0)}
    for name, function in functions.items():
      loss = lambda x, f=function: _mean(f(jax.nn.softmax(x)))
      result[name] = loss(x)
      if f'{name}_grad' in wanted:
        result[f'{name}_grad'] = jax.grad(loss)(harness.wide(x))
    return result

  return compute(logits)


def _multi_guidance(arrays):
  for case, a in _cases(arrays).items():
    recipe = maxsquare.Recipe(
      network=None,
      aux_weight=float(a['lambda_seg']),
      loss='iw',
      weight=float(a['lambda_target']),
      ratio=RATIO,
      per='image',
      multi=True,
      threshold=float(a['threshold']),
    )
    main, aux = (jnp.asarray(a[f'logits_{n}']) for n in ('main', 'aux'))
    labelled, values, gradients = _guided(recipe, main, aux)
    ignored = a['pseudo_label'] == -1
    expected = np.where(ignored, labels.IGNORE, a['pseudo_label'])
    np.testing.assert_array_equal(
      losses.confident_labels(
        [jax.nn.softmax(x) for x in (main, aux)], recipe.threshold
      ),
      expected,
      case,
    )
    assert labelled == np.sum(~ignored), case
    for name, tolerance in (('main', WEIGHTED), ('aux', blocks.CLOSE)):
      value = a[f'loss_{name}']
      if np.isnan(value):  # without a pseudo-label: 0 here
        assert name == 'aux' and ignored.all(), case
        value = np.zeros(())
      blocks.close(values[name], value, f'{case} {name}', tolerance)
      gradient = a[f'grad_{name}']
      blocks.close(gradients[name], gradient, f'{case} {name}', tolerance)


def _guided(recipe, main, aux):
  """Labelled pixels, weighted losses and gradients, by classifier."""

  def loss(logits):
    found, logged = maxsquare.target_terms(
      recipe, {'logits': logits['main'], 'aux_logits': logits['aux']}, 'batch'
    )
    values = {
      name: found[term].weight * _mean((found[term].total, found[term].count))
      for name, term in (('main', 'iw'), ('aux', 'guidance'))
    }
    return sum(values.values()), (logged['labelled_aux'].total, values)

  run = jax.vmap(jax.value_and_grad(loss, has_aux=True), axis_name='batch')
  (_, (labelled, values)), gradients = jax.tree.map(
    lambda x: x[0], jax.jit(run)({'main': main[None], 'aux': aux[None]})
  )
  return labelled, values, gradients


def _metrics(arrays):
  for case, a in _cases(arrays).items():
    size = len(a['confusion'])
    counts = metrics.confusion(a['gt'], a['pred'], size)
    np.testing.assert_array_equal(counts, a['confusion'], case)
    blocks.close(metrics.iou(counts), a['iou'], case)
    names = [str(i) for i in range(size)]
    summary = metrics.summary(counts, names, _subsets(size))
    expected = set(a) - {'gt', 'pred', 'confusion', 'iou'}
    assert expected and expected <= set(FIELDS)
    for name in expected:
      value = summary[FIELDS[name]]
      value = np.nan if value is None else value / 100
      blocks.close(value, a[name], f'{case} {name}')


def _subsets(size: int):
  """The papers' class sets as positions among `size` classes."""
  if size == 19:
    return labels.SUBSETS
  whole = labels.SUBSETS[16]
  positions = [whole.index(train_id) for train_id in labels.SUBSETS[13]]
  return {16: range(16), 13: positions} if size == 16 else {}


def _schedule(arrays):
  factors = {rule: factor for rule, factor, _ in pairs.TRAINED_NORM_GROUPS}
  settings = config_lib.optimizer(
    learning_rate=float(arrays['base_lr']), power=float(arrays['power'])
  )
  rate = optim.schedule(settings, int(arrays['max_iter']))
  rates = np.stack([rate(t) for t in arrays['iteration']])
  for name, rule in (('lr_group0', r'.'), ('lr_group1', r'classifier/')):
    blocks.close(factors[rule] * rates, arrays[name], name)


CHECKS = {
  'losses_f32': _losses,
  'losses_f64': _losses,
  'metrics': _metrics,
  'multi_guidance': _multi_guidance,
  'schedule': _schedule,
}
