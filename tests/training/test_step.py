"""The step: N devices equal one; compiled once, donated, reduced once."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import config as config_lib
from jaxseg_da.experiment import assembly, resolve
from jaxseg_da.losses import terms
from jaxseg_da.training import contract, optim, parallel, train
from jaxseg_da.training import step as step_lib
from tests import toys

BACKENDS = sorted(parallel.BACKENDS)
# One network, a teacher, two phases, statistics alone.
FAST = ('source_only', 'dacs', 'adversarial', 'adabn')
METHODS = (
  'source_only',
  'dacs',
  'adabn',
  'lse',
  'cbst',
  'adversarial',
  'cdga',
  'maxsquare',
  'ccda',
)


def devices(count: int):
  return jax.devices()[:count]


def make_backend(name: str, count: int):
  return parallel.BACKENDS[name](devices(count))


def started(method: str, dtype: str = 'float32', **values):
  """A stage and its initial state, on the host."""
  config = resolve.resolve(toys.config(method, **values))
  config.model.compute_dtype = dtype
  stage = assembly.build(config, method)
  state = jax.device_get(assembly.initial_state(stage))
  if dtype == 'float64':
    state = jax.device_get(toys.to_float64(state))
  return stage, state


def adversarial():
  """AdaptSegNet in small: a segmenter and a discriminator, two phases.

  The discriminator sees the outputs that the first phase carried; both phases
  differentiate at the parameters from before the iteration.
  """
  segmenter = toys.linear_network(19)
  critic = toys.linear_network(1)

  def bce(logits, real: float):
    values = jax.nn.softplus(logits) - real * logits
    return terms.Term(jnp.sum(values), jnp.asarray(values.size, values.dtype))

  def generate(variables, context):
    probabilities = {}
    for name in ('source', 'target'):
      images = context.batch[name]['image']
      out, _ = segmenter.apply(variables['segmenter'], images, True)
      probabilities[name] = jax.nn.softmax(out['logits'])
    fooled, _ = critic.apply(variables['D'], probabilities['target'], True)
    labels = context.batch['source']['label']
    valid = labels < 19
    picked = jnp.take_along_axis(
      jnp.log(probabilities['source']),
      jnp.where(valid, labels, 0)[..., None],
      -1,
    )[..., 0]
    return contract.Output(
      terms={
        'source': terms.Term(-jnp.sum(picked * valid), jnp.sum(valid)),
        'adversarial': bce(fooled['logits'], 1.0)._replace(weight=0.01),
      },
      carry={'probabilities': probabilities},
    )

  def discriminate(variables, context):
    result = {}
    for name, real in (('source', 1.0), ('target', 0.0)):
      inputs = context.carry['probabilities'][name]
      out, _ = critic.apply(variables['D'], inputs, True)
      result[name] = bce(out['logits'], real)._replace(weight=0.5)
    return contract.Output(terms={f'D_{k}': v for k, v in result.items()})

  return contract.Method(
    name='toy',
    domains={
      'source': contract.Domain('x', True),
      'target': contract.Domain('y', False),
    },
    networks={'segmenter': segmenter, 'D': critic},
    phases=(
      contract.Phase('G', ('segmenter',), generate),
      contract.Phase('D', ('D',), discriminate, optimizer='critic'),
    ),
  )


def adversarial_stage():
  """The toy as a stage, with an optimizer of its own per phase."""
  config = resolve.resolve(toys.config())
  stage = assembly.build(config, 'source_only')
  method = adversarial()
  method = dataclasses.replace(
    method,
    networks={
      'segmenter': method.networks['segmenter'],
      'D': dataclasses.replace(
        method.networks['D'],
        init=lambda key, images: toys.linear_network(1).init(
          key, jnp.zeros((1, 8, 8, 19))
        ),
      ),
    },
  )
  settings = {
    'G': config_lib.optimizer(name='sgd', learning_rate=0.1),
    'D': config_lib.optimizer(name='adam', learning_rate=0.01),
  }
  optimizers, schedules = {}, {}
  key = jax.random.key(0)
  for phase in method.phases:
    params = {
      n: method.networks[n].init(key, jnp.zeros((1, 8, 8, 3)))['params']
      for n in phase.train
    }
    optimizers[phase.name] = optim.make(settings[phase.name], params, 4)
    schedules[phase.name] = optim.schedule(settings[phase.name], 4)
  prepare = stage.step.keywords['prepare']
  step = step_lib.make(method, optimizers, schedules, prepare)
  stage = dataclasses.replace(
    stage,
    method=method,
    optimizers=optimizers,
    schedules=schedules,
    step=step,
  )
  return stage, jax.device_get(assembly.initial_state(stage))


def rows(seed: int, size: int = 8):
  return toys.batch(seed, size)


class Ran(NamedTuple):
  """A state before and after two steps, and what the steps logged."""

  before: Any
  after: Any
  metrics: list


@functools.cache
def ran(method: str, name: str, count: int) -> Ran:
  """Two steps in float64 on a backend with so many devices; run once."""
  with jax.enable_x64(True):
    stage, state = started(method, 'float64')
    data = [rows(0), rows(1)]
    return Ran(
      state, *toys.run_steps(stage, state, data, make_backend(name, count))
    )


def together(names) -> list:
  """Parameters whose tests share what has run: they go to one worker."""
  return [
    pytest.param(n, marks=pytest.mark.xdist_group(f'step of {n}'))
    for n in names
  ]


def on_both(names) -> list:
  """(method, backend); methods beyond `FAST` go to the slow suite."""
  return [
    pytest.param(
      method,
      name,
      marks=[
        pytest.mark.xdist_group(f'step of {method}'),
        *([] if method in FAST else [pytest.mark.slow]),
      ],
    )
    for method in names
    for name in BACKENDS
  ]


@pytest.mark.parametrize(('method', 'name'), on_both(METHODS))
def test_eight_devices_equal_one_in_float64(method, name):
  one, many = ran(method, 'pmap', 1), ran(method, name, 8)
  deviation, where = toys.worst(many.after, one.after)
  assert deviation < 1e-9, where
  moved, _ = toys.worst(one.after.params, one.before.params)
  stats, _ = toys.worst(one.after.batch_stats, one.before.batch_stats)
  assert stats > 1e-3 and (moved > 1e-4 or method == 'adabn')


@pytest.mark.xdist_group('step of dacs')
@pytest.mark.parametrize('count', (2, pytest.param(4, marks=pytest.mark.slow)))
def test_two_and_four_devices_equal_one_in_float64(count):
  one, many = ran('dacs', 'pmap', 1), ran('dacs', 'pmap', count)
  deviation, where = toys.worst(many.after, one.after)
  assert deviation < 1e-9, where


@functools.cache
def first_update(method: str, name: str, count: int):
  """SGD without decay: the first update is the gradient times the rate."""
  stage, state = started(method)
  stage.config.optim.main.weight_decay = 0.0
  stage = assembly.build(stage.config, method)
  out, _ = toys.run_steps(stage, state, [rows(0)], make_backend(name, count))
  return jax.tree.map(jnp.subtract, out.params, state.params)


@pytest.mark.parametrize(
  'method',
  [*together(['source_only']), pytest.param('dacs', marks=pytest.mark.slow)],
)
@pytest.mark.parametrize('name', BACKENDS)
def test_first_gradient_agrees_in_float32(method, name):
  updates = {
    8: first_update(method, name, 8),
    1: first_update(method, 'pmap', 1),
  }
  pairs = zip(*(jax.tree.leaves(updates[n]) for n in (8, 1)), strict=True)
  kernels = [(a, b) for a, b in pairs if a.ndim > 1]
  assert len(kernels) > 5
  for a, b in kernels:
    assert toys.worst(a, b)[0] < 1e-4


@pytest.mark.parametrize(
  ('method', 'name'), [p for p in on_both(METHODS) if p.values[1] != 'pmap']
)
def test_backends_agree(method, name):
  """The trap this guards: shard_map's checks multiply gradients by N."""
  a, b = ran(method, 'pmap', 8), ran(method, name, 8)
  assert toys.worst(a.after, b.after)[0] == 0
  for x, y in zip(a.metrics, b.metrics, strict=True):
    assert x == y


@pytest.mark.xdist_group('step of source_only')
def test_backends_agree_in_float32():
  """Also on one device and on four."""
  stage, state = started('source_only')
  data = [rows(0), rows(1)]
  for count in (1, 4):
    (a, first), (b, second) = (
      toys.run_steps(stage, state, data, make_backend(name, count))
      for name in ('pmap', 'shard_map')
    )
    assert toys.worst(a, b)[0] == 0
    for x, y in zip(first, second, strict=True):
      assert x == y


def test_two_networks_and_phases_on_one_and_eight_devices():
  with jax.enable_x64(True):
    stage, state = adversarial_stage()
    state = jax.device_get(toys.to_float64(state))
    prepare = functools.partial(
      stage.step.keywords['prepare'].func,
      **{**stage.step.keywords['prepare'].keywords, 'dtype': jnp.float64},
    )
    step = functools.partial(
      stage.step.func, **{**stage.step.keywords, 'prepare': prepare}
    )
    stage = dataclasses.replace(stage, step=step)
    data = [rows(0), rows(1)]
    one, metrics = toys.run_steps(stage, state, data, make_backend('pmap', 1))
    many, _ = toys.run_steps(stage, state, data, make_backend('shard_map', 8))
    assert toys.worst(many, one)[0] < 1e-9
    assert set(one.opt_state) == {'G', 'D'}
    assert {'G/loss', 'D/loss', 'D/learning_rate'} <= set(metrics[0])
    for name in ('segmenter', 'D'):
      assert toys.worst(one.params[name], state.params[name])[0] > 1e-4


def test_old_and_updated_parameters():
  """`at` decides which parameters a later phase sees."""
  network = toys.linear_network(19)
  seen = {}

  def first(variables, context):
    value = jnp.sum(variables['a']['params']['classifier'])
    return contract.Output(terms={'a': terms.Term(value, 1.0)})

  def second(variables, context):
    a = variables['a']['params']['classifier']
    b = variables['b']['params']['classifier']
    value = jnp.sum(jax.lax.stop_gradient(a) * b)
    return contract.Output(terms={'b': terms.Term(value, 1.0)})

  settings = config_lib.optimizer(
    name='sgd', learning_rate=1.0, momentum=0.0, schedule='constant'
  )
  for at in ('old', 'updated'):
    phases = (
      contract.Phase('one', ('a',), first),
      contract.Phase('two', ('b',), second, at=at),
    )
    method = contract.Method('toy', {}, {'a': network, 'b': network}, phases)
    params = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))['params']
    optimizers = {
      phase.name: optim.make(settings, {phase.train[0]: params}, 4)
      for phase in phases
    }
    schedules = dict.fromkeys(optimizers, lambda step: 1.0)
    step = step_lib.make(method, optimizers, schedules, lambda b, k: b)
    state = train.train_state_lib.TrainState(
      step=jnp.zeros((), jnp.int32),
      params={'a': params, 'b': params},
      batch_stats={'a': {}, 'b': {}},
      opt_state={
        p.name: optimizers[p.name].init({p.train[0]: params}) for p in phases
      },
      extra={},
    )
    run = jax.vmap(step, axis_name='batch', in_axes=(None, 0, None))
    state, _ = run(state, {'x': jnp.zeros((1, 2))}, jax.random.key(0))
    seen[at] = params['classifier'] - state.params['b']['classifier'][0]
    before = params['classifier']
  np.testing.assert_allclose(seen['old'], before, atol=1e-6)
  np.testing.assert_allclose(seen['updated'], before - 1.0, atol=1e-6)


def test_uneven_valid_pixels_are_weighted_by_pixels():
  """Device 0 has 1 valid row, device 1 all: the mean is over pixels."""
  data = rows(3, 2)
  data['source']['label'][0, 1:] = 255
  data['source']['label'][1] %= 19
  data['source']['label'][0, :1] = 3
  stage, state = started('source_only', batch_size=2)
  _, two = toys.run_steps(stage, state, [data], make_backend('pmap', 2))
  _, one = toys.run_steps(stage, state, [data], make_backend('pmap', 1))
  np.testing.assert_allclose(two[0]['loss'], one[0]['loss'], rtol=1e-5)


@functools.cache
def with_bn(bn: str):
  """The state after a step of DACS on four devices under a rule."""
  stage, state = started('dacs', bn=bn)
  return toys.run_steps(stage, state, [rows(0)], make_backend('pmap', 4))[0]


@pytest.mark.xdist_group('step of dacs')
@pytest.mark.parametrize(
  'bn',
  (
    'per_device',
    pytest.param('groups:2', marks=pytest.mark.slow),
    'groups:4',
  ),
)
def test_bn_rules_keep_the_state_equal(bn):
  """Statistics differ between devices and end up averaged."""
  out, reference = with_bn(bn), with_bn('sync')
  deviation, _ = toys.worst(out.batch_stats, reference.batch_stats)
  if bn == 'groups:4':
    assert deviation < 1e-6
  else:
    assert 1e-6 < deviation < 0.5
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(out.params))


def all_reduces(stage, state, count: int) -> list[str]:
  """The result types of the compiled step's all-reduces."""
  backend = make_backend('pmap', count)
  data = backend.shard(toys.domains_of(stage, rows(0)))
  step = backend.compile(stage.step)
  lowered = step.lower(
    backend.replicate(state), data, backend.replicate(stage.key)
  )
  text = lowered.compile().as_text()
  return re.findall(r'= (.*?) all-reduce(?:-start)?\(', text)


@pytest.mark.parametrize('method', ('source_only', 'dacs'))
def test_every_trainable_leaf_is_reduced_once(method):
  """One all-reduce holds all gradients, statistics and scalars."""
  stage, state = started(method, bn='per_device')
  reduces = all_reduces(stage, state, 4)
  arrays = [re.findall(r'[a-z]+\d*\[[\d,]*\]', line) for line in reduces]
  leaves = jax.tree.leaves(state.params)
  large = [a for a in arrays if len(a) >= len(leaves)]
  assert len(large) == 1
  # What has to be known before: counts of valid pixels, and DACS's q.
  rest = [x for a in arrays if a not in large for x in a]
  assert all(re.fullmatch(r'[a-z]+\d+\[\]', x) for x in rest), rest
  assert len(arrays) <= {'source_only': 2, 'dacs': 3}[method]
  kernels = sorted(x.size for x in leaves if x.ndim > 1)
  shapes = [re.search(r'\[([\d,]*)\]', x)[1] for x in large[0]]
  sizes = [int(np.prod([int(n) for n in s.split(',') if n])) for s in shapes]
  for size in set(kernels):
    assert sizes.count(size) >= kernels.count(size)


def test_step_is_compiled_once_and_donates():
  stage, state = started('dacs')
  backend = make_backend('pmap', 2)
  step = backend.compile(stage.step)
  state, key = backend.replicate(state), backend.replicate(stage.key)
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **kw: (
      compiled.append(name)
      if name == '/jax/core/compile/backend_compile_duration'
      else None
    )
  )
  try:
    counts = []
    for seed in range(4):
      data = backend.shard(rows(seed))
      old = state
      with jax.transfer_guard('disallow'):
        state, metrics = step(state, data, key)
      jax.block_until_ready(metrics)
      counts.append(len(compiled))
  finally:
    jax.monitoring.clear_event_listeners()
  assert counts[0] >= 1
  assert counts[-1] == counts[0]
  assert jax.tree.leaves(old.params)[0].is_deleted()


@pytest.mark.xdist_group('step of dacs')
def test_batch_order_within_the_global_batch_decides_the_keys():
  """Draws follow the example's global index, not its device."""
  a, b = ran('dacs', 'pmap', 8), ran('dacs', 'pmap', 2)
  assert toys.worst(a.after.params, b.after.params)[0] < 1e-9
  with jax.enable_x64(True):
    stage, state = started('dacs', 'float64')
    stage.config.seed = 1
    data, backend = [rows(0), rows(1)], make_backend('pmap', 2)
    other, _ = toys.run_steps(stage, state, data, backend)
  assert toys.worst(other.params, b.after.params)[0] > 1e-3
