"""One step of the adversarial methods against numbers of their references."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg_da import config as config_lib
from jaxseg_da import methods, models
from jaxseg_da.losses import entropy
from jaxseg_da.methods import adversarial, supervised
from jaxseg_da.models import base, discriminator
from jaxseg_da.training import optim, parallel, train_state
from jaxseg_da.training import step as step_lib
from tests.parity import blocks

LEVELS = (1, 2)
HEADS = {1: 'aux_logits', 2: 'logits'}
CRITICS = {k: adversarial.LEVELS[head] for k, head in HEADS.items()}
DOMAINS = {'src': 'source', 'trg': 'target'}


def check(arrays, *, kind, objective='bce'):
  """One step of the method, with leaf logits in place of the segmenter."""
  leaves = [f'{d}_logits{k}' for d in DOMAINS for k in LEVELS]
  critics = {n: _critic_params(arrays, f'D{k}') for k, n in CRITICS.items()}
  params = {'segmenter': {name: arrays[name] for name in leaves}, **critics}
  sizes = {d: tuple(arrays[f'{d}_size'].tolist()) for d in DOMAINS}
  channels, width = arrays['D1_kernel0'].shape[2:]

  config = methods.base_config('adversarial')
  config.model.update(
    aux_head=True,
    aux_weight=float(arrays['lambda_seg']),
    compute_dtype='float64',
  )
  config.data.update(
    num_classes=channels, source_size=sizes['src'], target_size=sizes['trg']
  )
  config.adversarial.update(
    kind=kind,
    objective=objective,
    weight=float(arrays['lambda_adv2']),
    aux_weight=float(arrays['lambda_adv1']),
    discriminator_width=width,
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(supervised, 'segmenter', lambda config: _leaf_segmenter())
    method = adversarial.make(config, config_lib.stage('adversarial', 1))

  settings, horizon = config.optim.discriminator, int(arrays['max_iter'])
  # The papers' constants; Adam's first update does not depend on them.
  assert (settings.b1, settings.b2) == (0.9, 0.99)
  optimizers = {
    'segmenter': _recording(optax.set_to_zero()),
    'discriminator': _recording(optim.make(settings, critics, horizon)),
  }
  rates = dict.fromkeys(optimizers, optim.schedule(settings, horizon))
  state = _started(method, params, optimizers, int(arrays['iteration']))
  batch = {
    domain: {'image': np.zeros((len(arrays['labels']), *sizes[d], 1 + i))}
    for i, (d, domain) in enumerate(DOMAINS.items())
  }
  batch['source']['label'] = arrays['labels']
  backend = parallel.PmapBackend(jax.devices()[:1])
  step = step_lib.make(method, optimizers, rates, lambda batch, keys: batch)
  after, values = jax.device_get(
    backend.compile(step)(
      backend.replicate(state),
      backend.shard(batch),
      backend.replicate(jax.random.key(0)),
    )
  )
  _check_losses(arrays, values)
  gradients, _ = after.opt_state['segmenter']
  for name in leaves:
    gradient = gradients['segmenter'][name]
    blocks.close_in_scale(gradient, arrays[f'grad_{name}'], f'grad_{name}')
  gradients, _ = after.opt_state['discriminator']
  _check_layers(arrays, 'grad', gradients)
  _check_layers(arrays, 'after', after.params)
  see = entropy.weighted_self_information if kind == 'advent' else lambda p: p
  _check_critics(arrays, method, params, see)


def _critic_params(arrays, name):
  return {
    f'conv{j}': {
      leaf: arrays[f'{name}_{leaf}{j}'] for leaf in ('kernel', 'bias')
    }
    for j in range(discriminator.DEPTH)
  }


def _leaf_segmenter():
  """Its parameters are its outputs; domains differ in the images' channels."""

  def apply(variables, images, train, keys=None):
    domain = tuple(DOMAINS)[images.shape[-1] - 1]
    outputs = {
      head: variables['params'][f'{domain}_logits{k}']
      for k, head in HEADS.items()
    }
    return outputs, variables['batch_stats']

  return base.Network(lambda key, images: {}, apply)


def _recording(optimizer):
  """Keeps the gradients beside the optimizer's state."""

  def update(gradients, state, params):
    updates, inner = optimizer.update(gradients, state[1], params)
    return updates, (gradients, inner)

  init = lambda params: (params, optimizer.init(params))
  return optax.GradientTransformation(init, update)


def _started(method, params, optimizers, iteration):
  """The state at `iteration`; moments of optimizers are still empty."""
  opt_state = {
    phase.name: optimizers[phase.name].init({n: params[n] for n in phase.train})
    for phase in method.phases
  }
  counts = lambda node: isinstance(node, optax.ScaleByScheduleState)
  opt_state = jax.tree.map(
    lambda n: n._replace(count=n.count + iteration) if counts(n) else n,
    opt_state,
    is_leaf=counts,
  )
  return train_state.TrainState(
    step=jnp.asarray(iteration),
    params=params,
    batch_stats={name: {} for name in params},
    opt_state=opt_state,
    extra={},
  )


def _check_losses(arrays, values):
  """What the step logs, its terms and their sums."""
  expected, total = {}, 0
  for k, suffix, seg in ((1, '_aux', arrays['lambda_seg']), (2, '', 1)):
    main, fooled = arrays[f'loss_seg{k}'], arrays[f'loss_adv{k}']
    expected[f'loss/source{suffix}'] = main
    expected[f'loss/adversarial{suffix}'] = fooled
    total += seg * main + arrays[f'lambda_adv{k}'] * fooled
    halves = [values[f'loss/{CRITICS[k]}_{d}'] / 2 for d in DOMAINS.values()]
    blocks.close_in_scale(sum(halves), arrays[f'loss_D{k}'], f'loss_D{k}')
  expected['segmenter/loss'] = total
  expected['discriminator/loss'] = arrays['loss_D1'] + arrays['loss_D2']
  expected['discriminator/learning_rate'] = arrays['lr_D']
  for name, value in expected.items():
    blocks.close_in_scale(values[name], value, name)


def _check_layers(arrays, what, networks):
  """Compares every layer of both discriminators that the file holds."""
  checked = set()
  for name, expected in arrays.items():
    match = re.fullmatch(rf'D(\d)_{what}_(kernel|bias)(\d)', name)
    if match:
      k, leaf, j = match.groups()
      actual = networks[CRITICS[int(k)]][f'conv{j}'][leaf]
      blocks.close_in_scale(actual, expected, name)
      checked.add(int(k))
  assert checked == set(LEVELS), what


def _check_critics(arrays, method, params, see):
  """The outputs on the target, of which the step only has the loss."""
  for k, name in CRITICS.items():
    size = tuple(arrays['trg_size'].tolist())
    logits = models.upsample(jnp.asarray(arrays[f'trg_logits{k}']), size)
    maps = see(jax.nn.softmax(logits))
    variables = {'params': params[name], 'batch_stats': {}}
    out = adversarial.judge(method.networks[name], variables, maps)
    blocks.close_in_scale(out, arrays[f'trg_D{k}_out'], f'D{k} output')
