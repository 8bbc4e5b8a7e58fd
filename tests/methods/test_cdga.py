"""CDGA: the base it contains, who learns from what, options and pictures."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cdga as cdga_config
from jaxseg_da import errors, main, methods
from jaxseg_da.experiment import assembly
from jaxseg_da.methods import cdga
from jaxseg_da.methods.cdga import pictures
from jaxseg_da.models import discriminator
from jaxseg_da.training import contract, optim
from jaxseg_da.training import step as step_lib
from tests import support, toys
from tests.methods import test_adversarial

pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)
PLAIN = {
  'cdga__consistency_weight': 0.0,
  'cdga__orthogonality_weight': 0.0,
  'cdga__class_weight': 0.0,
}
SHARED = ('segmenter', 'discriminator')


def started(**settings):
  return test_adversarial.started('cdga', **settings)


def with_networks_of(state, other):
  """A state that starts from the networks of another method's."""
  params = {**state.params, **{n: other.params[n] for n in SHARED}}
  return state.replace(params=params)


@functools.cache
def adaptsegnet_in_double_precision():
  with jax.enable_x64(True):
    stage, state = test_adversarial.started(model__compute_dtype='float64')
    state = jax.device_get(toys.to_float64(state))
    return state, test_adversarial.run(stage, state, 2)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
  'settings',
  [
    {'cdga__groups': 1, **PLAIN},
    # In the warm-up the shaping terms weigh nothing, whatever K is.
    {'cdga__warmup_steps': 9, 'cdga__adv_reduction': 'sum'},
  ],
  ids=['one group', 'warm-up'],
)
def test_one_group_and_the_warm_up_are_adaptsegnet(settings):
  """Section 7: the same update of both networks, in double precision."""
  state, expected = adaptsegnet_in_double_precision()
  with jax.enable_x64(True):
    ours, mine = started(model__compute_dtype='float64', **settings)
    mine = jax.device_get(toys.to_float64(mine))
    mine = with_networks_of(mine, state)
    found, metrics = test_adversarial.run(ours, mine, 2)
  for name in SHARED:
    assert toys.worst(found.params[name], expected.params[name])[0] < 1e-12
    assert toys.worst(expected.params[name], state.params[name])[0] > 1e-5
  assert metrics['loss/orthogonality'] >= 0


def phase_gradients(stage, state, phase: str):
  """Norms of a phase's gradients with respect to *all* networks."""
  found = {}

  def differentiate(params, context):
    for p in stage.method.phases:

      def total(params, p=p, context=context):
        variables = {
          name: {'params': params[name], 'batch_stats': state.batch_stats[name]}
          for name in params
        }
        output = p.loss(variables, context)
        terms = output.terms.values()
        return sum(t.weight * t.total / t.count for t in terms), output

      grads, output = jax.grad(total, has_aux=True)(params)
      context = context._replace(
        carry=jax.lax.stop_gradient({**context.carry, **output.carry})
      )
      found[p.name] = grads
    return found[phase]

  def whole(params, batch, key):
    keys = step_lib._keys(state.step, batch, key, 'batch')
    context = contract.Context(
      stage.step.keywords['prepare'](batch, keys),
      state.extra,
      {},
      state.step,
      keys,
      'batch',
    )
    return differentiate(params, context)

  data = toys.domains_of(stage, toys.batch(0, test_adversarial.SIZE))
  run = jax.jit(
    jax.vmap(
      lambda _, *xs: whole(*xs), (0, None, None, None), axis_name='batch'
    )
  )
  grads = run(jnp.zeros(1), state.params, data, stage.key)
  return {name: float(optim.optax.tree.norm(g)) for name, g in grads.items()}


def test_who_hears_of_which_loss():
  """Section 7, routing: D's loss reaches D alone; G and C learn together."""
  stage, state = started()
  norms = phase_gradients(stage, state, 'discriminator')
  assert norms['segmenter'] == norms['grouping'] == 0 < norms['discriminator']
  trained = {p.name: p.train for p in stage.method.phases}
  assert trained == {
    'segmenter': ('segmenter', 'grouping'),
    'discriminator': ('discriminator',),
  }


def test_one_step_logs_groups():
  stage, state = started()
  after, metrics = test_adversarial.run(stage, state)
  for name in state.params:
    assert toys.worst(after.params[name], state.params[name])[0] > 1e-6
  for domain in ('source', 'target'):
    masses = [metrics[f'group_mass_{domain}/{k}'] for k in range(3)]
    np.testing.assert_allclose(sum(masses), 1, rtol=1e-5)
  assert 0 <= metrics['loss/orthogonality'] <= 2 * 3


@pytest.mark.parametrize(
  'settings',
  [
    {'group_input': 'logits'},
    {'group_input': 'features', 'kernel': 3},
    {'discriminator': 'per_group'},
    {'adv_reduction': 'sum', 'warmup_steps': 3},
    {'q_normalisation': 'pixels', 'co_distance': 'l1'},
    {'orth_domains': 'source', 'cl_form': 'positive_only'},
    {'orth_domains': 'target', 'cl_target': 'soft'},
  ],
  ids=lambda s: '-'.join(map(str, s.values())),
)
def test_options_make_a_step(settings):
  stage, state = started(**{f'cdga__{k}': v for k, v in settings.items()})
  metrics = test_adversarial.traced(stage, state)
  assert 'loss/consistency' in metrics and 'loss/classes' in metrics


def test_a_second_classifier_keeps_its_plain_alignment():
  stage, state = started(model__name='deeplabv2', model__aux_head=True)
  metrics = test_adversarial.traced(stage, state)
  assert {'loss/adversarial', 'loss/adversarial_aux'} < set(metrics)


def test_maps_of_the_network_are_too_small_for_a_discriminator():
  with pytest.raises(errors.UserError, match='at least 32'):
    stage, state = started(cdga__resolution='logits')
    test_adversarial.traced(stage, state)


def test_bad_options_are_named():
  with pytest.raises(errors.UserError, match=r'cdga.kernel=2 must be odd'):
    started(cdga__kernel=2)
  with pytest.raises(errors.UserError, match=r'group_input=features.*fcn8s'):
    started(cdga__group_input='features', model__name='fcn8s')


def test_discriminators_of_their_own_judge_their_own_group():
  critic = discriminator.network(5, width=2)
  ours = cdga.per_group(critic, 3)
  images = jnp.zeros((1, 32, 32, 3))
  variables = ours.init(jax.random.key(0), images)
  maps = jax.random.uniform(jax.random.key(1), (6, 32, 64, 5))
  found = ours.apply(variables, maps, True)[0]['logits']
  assert found.shape == (6, 1, 2, 1)
  for k in range(3):
    mine = jax.tree.map(lambda x, k=k: x[k], variables)
    alone = critic.apply(mine, maps[2 * k : 2 * k + 2], True)[0]['logits']
    np.testing.assert_allclose(found[2 * k : 2 * k + 2], alone, rtol=1e-5)
  first, second = (
    jax.tree.map(lambda x, k=k: x[k], variables['params']) for k in (0, 1)
  )
  assert toys.worst(first, second)[0] > 0.1


def test_group_colours_differ():
  colours = pictures.colours(8).astype(int)
  distances = np.abs(colours[:, None] - colours).sum(-1)
  assert distances[~np.eye(8, dtype=bool)].min() > 40


@pytest.mark.slow
def test_a_run_shows_its_groups(tmp_path):
  flags = support.flags(
    tmp_path,
    '--config.batch_size=8',
    '--config.steps_scale=0.004',
    '--config.adversarial.discriminator_width=4',
    '--config.cdga.groups=3',
    config='cdga',
  )
  assert main.main(['main', *flags]) == main.DONE
  folder = tmp_path / 'stages' / '02_cdga' / 'artifacts'
  found = json.loads((folder / 'groups.json').read_text())
  for domain in ('source', 'target'):
    masses = np.array(found[domain]['masses'])
    classes = np.array(found[domain]['classes'])
    assert classes.shape == (3, 19)
    np.testing.assert_allclose(masses.sum(), 1, atol=1e-5)
    np.testing.assert_allclose(classes.sum(-1), 1, atol=1e-3)
  report = (tmp_path / 'report.html').read_text()
  assert report.count('data:image/png') >= 3
  names = [
    s['name']
    for s in json.loads((tmp_path / 'results.json').read_text())['stages']
  ]
  assert names == ['source_only', 'base', 'cdga']


def test_constants_of_the_published_pairs():
  config = cdga_config.get_config('gta5_to_cityscapes')
  assert config.model.aux_head and config.stages.cdga.steps == 150_000
  c = config.cdga
  assert (c.groups, c.weight, c.tau) == (8, 1e-3, 0.05)
  weights = c.consistency_weight, c.orthogonality_weight, c.class_weight
  assert weights == (1e-3, 1e-3, 1e-4)
  assert config.data.source_size == (720, 1280)
  assert config.data.target_size == (512, 1024)
  method = methods.make(config, config.stages.cdga)
  params = {
    n: jax.eval_shape(
      method.networks[n].init,
      jax.random.key(0),
      jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32),
    )['params']
    for n in ('segmenter', 'grouping')
  }
  rates = {
    path.partition('/')[0]: group.learning_rate
    for path, group in optim.group_table(config.optim.main, params)
    if not group.frozen
  }
  assert rates['grouping'] == 10
  assert assembly.build(config, 'cdga').steps == 150_000
