"""Losses of groups: gradients, and 8 devices that equal one."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import config as config_lib
from jaxseg_da.losses import grouping, terms
from jaxseg_da.models import grouping as network_lib
from jaxseg_da.models import layers
from jaxseg_da.training import contract, optim, parallel, train_state
from jaxseg_da.training import step as step_lib
from tests import group_maps as gm
from tests import toys


@pytest.fixture(autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


@gm.counts
def test_class_equivalence_leaves_the_source_alone(count):
  _, _, gradients = gm.compiled(count)(gm.maps(0), gm.maps(1))
  for name in gm.NAMES:
    source, target = gradients[name]
    assert all(np.any(x) for x in target)
    for x in source:
      assert np.any(x) != name.startswith('cl/')


def test_gradients_by_finite_differences():
  run, domains = (
    gm.compiled(1),
    (gm.maps(0), gm.maps(1)),
  )
  _, statistics, gradients = run(*domains)
  # Away from where the forms have kinks: equal maxima, R = tau, Q_S = Q_T.
  for (p, h), r in zip(domains, statistics['r'], strict=True):
    groups = (h[..., :, None] * p[..., None, :]).reshape(-1, gm.K * gm.U)
    first, second = np.sort(groups, axis=0)[[-1, -2]]
    assert np.min(first - second) > 1e-4
    assert np.abs(r - gm.TAU).min() > 1e-4
  present = statistics['r'][0] > gm.TAU
  assert 0 < present.sum() < present.size
  for q in (statistics['q'], statistics['q_pixels']):
    assert np.abs(np.subtract(*q)).min() > 1e-4
  rng, step = np.random.default_rng(0), 1e-6
  for domain, part, _ in itertools.product((0, 1), (0, 1), range(3)):
    way = rng.normal(size=domains[domain][part].shape)
    values = []
    for sign in (1, -1):
      moved = [list(x) for x in domains]
      moved[domain][part] = moved[domain][part] + sign * step * way
      values.append(run(*map(tuple, moved))[0])
    for name in gm.NAMES:
      if domain == 0 and name.startswith('cl/'):
        continue  # Labels matter, but have no gradient.
      slope = (values[0][name] - values[1][name]) / (2 * step)
      expected = np.sum(gradients[name][domain][part] * way)
      np.testing.assert_allclose(slope, expected, rtol=1e-5, err_msg=name)


@functools.cache
def without_devices():
  """The same without an axis, on the whole batch."""
  domains = gm.maps(0), gm.maps(1)
  gradients = jax.jacrev(lambda *x: gm.losses(*x)[0], (0, 1))
  return jax.jit(lambda *x: (*gm.losses(*x), gradients(*x)))(*domains)


@pytest.mark.parametrize('name', gm.BACKENDS)
def test_eight_devices_equal_one_and_none(name):
  domains = gm.maps(0), gm.maps(1)
  one, many = (
    gm.compiled(1)(*domains),
    gm.compiled(8, name)(*domains),
  )
  assert toys.worst(many, one)[0] < 1e-9
  assert toys.worst(many, without_devices())[0] < 1e-9


def toy_step():
  """Trains a segmenter and C by all three losses: the step, and its start."""
  options = layers.Options(jnp.float64, jnp.float64)
  networks = {
    'segmenter': toys.linear_network(gm.U),
    'C': network_lib.network(gm.U, gm.K, 5, 3, options),
  }

  def domain(variables, images):
    run = lambda k, x: networks[k].apply(variables[k], x, True)[0]['logits']
    p = jax.nn.softmax(run('segmenter', images))
    return p, jax.nn.softmax(run('C', p))

  def loss(variables, context):
    domains = [domain(variables, context.batch[k]) for k in gm.DOMAINS]
    values, _ = gm.losses(*domains, context.axis_name)
    weights = {'co/mass/l2sq': 30.0, 'orth/mass': 1.0, 'cl/bce/soft': 1.0}
    return contract.Output(
      terms={k: terms.Term(values[k], 1.0, w) for k, w in weights.items()}
    )

  method = contract.Method(
    'toy', {}, networks, (contract.Phase('all', ('segmenter', 'C'), loss),)
  )
  params = {k: gm.random_variables(n)['params'] for k, n in networks.items()}
  settings = config_lib.optimizer(name='sgd', learning_rate=1.0)
  optimizer = optim.make(settings, params, 4)
  schedule = optim.schedule(settings, 4)
  state = train_state.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats={k: {} for k in params},
    opt_state={'all': optimizer.init(params)},
    extra={},
  )
  optimizers, schedules = {'all': optimizer}, {'all': schedule}
  step = step_lib.make(method, optimizers, schedules, lambda batch, keys: batch)
  return step, jax.device_get(state)


@functools.cache
def stepped(count: int, name: str = 'pmap'):
  """Parameters and metrics after a step on the same global batch.

  Images come in equal pairs, far apart: every maximum is there twice.
  """
  backend = parallel.BACKENDS[name](jax.devices()[:count])
  step, start = toy_step()
  rng = np.random.default_rng(0)
  half = {k: rng.normal(size=(4, 4, 5, 3)) for k in gm.DOMAINS}
  batch = {k: np.concatenate([x, x]) for k, x in half.items()}
  state, key = map(backend.replicate, (start, jax.random.key(0)))
  state, metrics = backend.compile(step)(state, backend.shard(batch), key)
  moved = jax.tree.map(np.subtract, jax.device_get(state.params), start.params)
  return moved, jax.device_get(metrics)


@pytest.mark.parametrize('name', gm.BACKENDS)
def test_a_step_on_eight_devices_equals_one(name):
  one = stepped(1)
  deviation, where = toys.worst(stepped(8, name), one)
  assert deviation < 1e-9, where
  assert min(np.abs(x).max() for x in jax.tree.leaves(one)) > 1e-4


@pytest.mark.parametrize(
  ('dtype', 'expected'),
  (('bfloat16', 'float32'), ('float32', 'float32'), ('float64', 'float64')),
)
def test_dtypes(dtype, expected):
  domain = [jax.ShapeDtypeStruct((*gm.SHAPE, n), dtype) for n in (gm.U, gm.K)]
  results = jax.eval_shape(gm.losses, domain, domain)
  groups = jax.eval_shape(grouping.decompose, *domain)
  for x in jax.tree.leaves((results, groups)):
    assert x.dtype == expected
