"""AdaptSegNet, AdvEnt, MinEnt: who learns from what, and what is refused."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import adversarial as adversarial_config
from jaxseg_da import config as config_lib
from jaxseg_da import errors, methods
from jaxseg_da.experiment import assembly, resolve
from jaxseg_da.methods import adversarial
from jaxseg_da.training import parallel
from tests import toys

SIZE = 2  # images per domain


def started(method: str = 'adversarial', **settings):
  """A stage without mirroring, and its first state on the host."""
  config = toys.config(method)
  config.batch_size = config.scale_reference_batch = SIZE
  config.augment.flip = False
  for key, value in settings.items():
    block, _, name = key.rpartition('__')
    target = config
    for part in block.split('__') if block else ():
      target = target[part]
    target[name] = value
  stage = assembly.build(resolve.resolve(config), method)
  return stage, jax.device_get(assembly.initial_state(stage))


def run(stage, state, batches: int = 1):
  """The state after a few steps, and the metrics of the last one."""
  data = [toys.batch(seed, SIZE) for seed in range(batches)]
  backend = parallel.BACKENDS['pmap'](jax.devices()[:1])
  state, metrics = toys.run_steps(stage, state, data, backend)
  return state, metrics[-1]


@functools.cache
def one_step():
  stage, state = started()
  return state, *run(stage, state)


def test_one_step_moves_both_networks():
  before, after, metrics = one_step()
  for name in ('segmenter', 'discriminator'):
    assert toys.worst(after.params[name], before.params[name])[0] > 1e-5
  assert metrics['loss/adversarial'] > 0
  total = metrics['loss/source'] + 1e-3 * metrics['loss/adversarial']
  np.testing.assert_allclose(metrics['segmenter/loss'], total, rtol=1e-6)
  halves = (
    metrics['loss/discriminator_source'] + metrics['loss/discriminator_target']
  )
  np.testing.assert_allclose(metrics['discriminator/loss'], halves / 2, 1e-6)
  assert 1 <= metrics['target_classes'] <= 19
  for domain in ('source', 'target'):
    assert 0 <= metrics[f'discriminator_accuracy_{domain}'] <= 1


def test_networks_do_not_see_each_others_update_of_the_same_step():
  """With a discriminator that stands still the segmenter moves the same."""
  _, after, _ = one_step()
  stage, state = started(optim__discriminator__learning_rate=0.0)
  other, _ = run(stage, state)
  assert (
    toys.worst(other.params['discriminator'], state.params['discriminator'])[0]
    == 0
  )
  assert (
    toys.worst(other.params['segmenter'], after.params['segmenter'])[0] == 0
  )
  stage, state = started(adversarial__weight=0.0)
  other, _ = run(stage, state)
  assert (
    toys.worst(other.params['segmenter'], after.params['segmenter'])[0] > 1e-7
  )
  assert (
    toys.worst(other.params['discriminator'], after.params['discriminator'])[0]
    == 0
  )


def traced(stage, state):
  """The metrics of a step, as shapes: traced and not compiled."""
  data = toys.domains_of(stage, toys.batch(0, SIZE))
  step = jax.vmap(
    lambda _, *xs: stage.step(*xs), (0, None, None, None), axis_name='batch'
  )
  with jax.enable_x64(False):
    return jax.eval_shape(step, jnp.zeros(1), state, data, stage.key)[1]


def test_minent_plays_no_game():
  stage, state = started(adversarial__kind='minent')
  assert set(stage.method.networks) == {'segmenter'}
  metrics = traced(stage, state)
  assert 'loss/entropy' in metrics and 'loss/adversarial' not in metrics


@pytest.mark.parametrize('kind', ('adaptsegnet', 'advent', 'minent'))
def test_two_classifiers_have_two_discriminators(kind):
  stage, state = started(
    adversarial__kind=kind,
    model__name='deeplabv2',
    model__aux_head=True,
    adversarial__objective='least_squares',
  )
  metrics = traced(stage, state)
  term = 'entropy' if kind == 'minent' else 'adversarial'
  assert {f'loss/{term}', f'loss/{term}_aux', 'loss/source_aux'} < set(metrics)
  critics = {'discriminator', 'discriminator_aux'} & set(stage.method.networks)
  assert len(critics) == (0 if kind == 'minent' else 2)
  assert ('discriminator_aux_accuracy_target' in metrics) == (kind != 'minent')


def test_the_second_classifier_can_be_left_alone():
  stage, _ = started(
    model__name='deeplabv2', model__aux_head=True, adversarial__aux_weight=0.0
  )
  assert 'discriminator_aux' not in stage.method.networks


def test_images_that_a_discriminator_cannot_see_are_refused():
  with pytest.raises(errors.UserError, match=r'data.target_size.*at least 32'):
    started(data__target_size=(24, 64))
  started(data__target_size=(24, 64), adversarial__kind='minent')


def test_an_unknown_kind_names_the_valid_ones():
  from jaxseg_da.experiment import checks

  config = toys.config('adversarial')
  config.adversarial.kind = 'gan'
  with pytest.raises(errors.UserError, match=r'adversarial.kind.*advent'):
    checks.validate(config, 1)


def record(classes=8.0, source=0.7, target=0.6):
  return {
    'target_classes': classes,
    'discriminator_accuracy_source': source,
    'discriminator_accuracy_target': target,
  }


def test_verdicts():
  say = adversarial.verdict
  assert say([]) is None
  assert say([record()]) is None
  assert say([record(), record(1.0, 1.0, 1.0)]) is None
  assert '1.02 classes' in say([record(1.01), record(1.03)])
  assert 'always right' in say([record(source=1.0, target=1.0)] * 3)
  assert say([record(source=1.0, target=0.0)]) is None
  assert say([{'target_classes': 5.0}]) is None  # MinEnt has no discriminator


@pytest.mark.parametrize(
  ('variant', 'kind', 'objective', 'branches', 'aux', 'weight', 'steps'),
  [
    ('multi', 'adaptsegnet', 'bce', 2, True, 1e-3, 150_000),
    ('single', 'adaptsegnet', 'bce', 2, False, 1e-3, 150_000),
    ('single_ls', 'adaptsegnet', 'least_squares', 2, False, 1e-2, 150_000),
    ('advent', 'advent', 'bce', 4, True, 1e-3, 120_000),
    ('minent', 'minent', 'bce', 4, True, 1e-3, 120_000),
  ],
)
def test_published_variants(
  variant, kind, objective, branches, aux, weight, steps
):
  config = adversarial_config.get_config(
    f'gta5_to_cityscapes,variant={variant}'
  )
  settings, model = config.adversarial, config.model
  assert (settings.kind, settings.objective) == (kind, objective)
  assert (model.aspp_branches, model.aux_head) == (branches, aux)
  assert (settings.weight, model.aux_weight) == (weight, 0.1)
  assert settings.aux_weight == (2e-4 if aux else 0)
  assert config.stages.adversarial.steps == steps
  critic = config.optim.discriminator
  assert (critic.name, critic.b1, critic.b2) == ('adam', 0.9, 0.99)
  assert (critic.learning_rate, critic.horizon_steps) == (1e-4, 250_000)
  assert config.optim.main.horizon_steps == 250_000
  method = methods.make(config, config.stages.adversarial)
  assert [p.name for p in method.phases] == ['segmenter', 'discriminator'][
    : 1 if variant == 'minent' else 2
  ]


def test_an_unknown_variant_names_the_valid_ones():
  with pytest.raises(errors.UserError, match='single_ls'):
    adversarial_config.get_config('streets,variant=double')


def test_a_discriminator_is_adopted_from_an_earlier_stage():
  stage, state = started()
  other = assembly.initial_state(stage, state)
  assert toys.worst(other.params, state.params)[0] == 0
  assert config_lib.stage('adversarial', 1).optim == 'main'
