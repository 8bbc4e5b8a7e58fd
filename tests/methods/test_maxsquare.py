"""MaxSquare: what a step learns from, its variants and their constants."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import maxsquare as maxsquare_config
from jaxseg_da import errors, models
from jaxseg_da.experiment import assembly, checks, resolve
from jaxseg_da.losses import maxsquare as losses
from jaxseg_da.losses import segmentation
from jaxseg_da.methods import maxsquare
from jaxseg_da.training import optim, parallel
from tests import toys

LEVELS = ('logits', 'aux_logits')


def random_logits():
  rng = np.random.default_rng(3)
  return rng.normal(size=(3, 3, 4, 5)).astype(np.float32)


def recipe(**values):
  settings = {
    'network': None,
    'aux_weight': 0.1,
    'loss': 'maxsquare',
    'weight': 0.1,
    'ratio': 0.2,
    'per': 'image',
    'multi': False,
    'threshold': 0.95,
  }
  return maxsquare.Recipe(**settings | values)


def target_terms(settings, logits):
  """Terms and metrics on one device, and the gradient of the phase's loss."""

  def total(logits):
    found, logged = maxsquare.target_terms(settings, logits, 'batch')
    shares = [
      t.weight * t.total / jnp.maximum(t.count, 1) for t in found.values()
    ]
    return sum(shares), (found, logged)

  run = jax.vmap(jax.value_and_grad(total, has_aux=True), axis_name='batch')
  found = jax.jit(run)({name: x[None] for name, x in logits.items()})
  (_, (terms, logged)), gradients = jax.tree.map(lambda x: x[0], found)
  return terms, logged, gradients


def test_nothing_labelled_is_no_loss():
  logits = {name: random_logits() for name in LEVELS}
  settings = recipe(loss='hard', multi=True, threshold=1.0)
  terms, logged, gradients = target_terms(settings, logits)
  for name in ('hard', 'guidance'):
    assert (terms[name].total, terms[name].count) == (0, 0)
  for name in LEVELS:
    np.testing.assert_array_equal(gradients[name], 0)
  assert logged['labelled'].total == logged['labelled_aux'].total == 0
  assert logged['labelled'].count == 3 * 3 * 4
  assert 1 < logged['target_classes'].total < 5


def test_guidance_teaches_the_second_classifier_alone():
  with jax.enable_x64(True):
    x = random_logits().astype(np.float64)
    logits = {'logits': 6 * x, 'aux_logits': x[::-1]}
    terms, logged, gradients = target_terms(recipe(multi=True), logits)
    assert set(terms) == {'maxsquare', 'guidance'}
    assert terms['guidance'].weight == pytest.approx(0.01)
    assert 0 < logged['labelled_aux'].total < logged['labelled_aux'].count
    alone = target_terms(recipe(), logits)[2]
    np.testing.assert_array_equal(gradients['logits'], alone['logits'])
    # Cross-entropy of what is labelled: softmax less one-hot, over the count.
    p = [jax.nn.softmax(logits[name]) for name in LEVELS]
    labels = losses.confident_labels(p, 0.95)
    valid = segmentation.valid_pixels(labels, 5)
    expected = (p[1] - jax.nn.one_hot(labels, 5)) * valid[..., None]
    np.testing.assert_allclose(
      gradients['aux_logits'], 0.01 * expected / valid.sum(), atol=1e-14
    )


def built(dtype: str = 'float32', **settings):
  """A stage of toys without mirroring."""
  config = toys.config('maxsquare')
  config.augment.flip = False
  config.model.compute_dtype = dtype
  config.maxsquare.update(settings)
  if config.maxsquare.multi:
    config.model.update(name='deeplabv2', aux_head=True)
  return assembly.build(resolve.resolve(config), 'maxsquare')


def test_the_batch_form_on_eight_devices_equals_one():
  with jax.enable_x64(True):
    stage = built('float64', loss='iw', per='batch')
    state = jax.device_get(toys.to_float64(assembly.initial_state(stage)))
    results = [
      toys.run_steps(
        stage, state, [toys.batch(0)], parallel.BACKENDS['pmap'](devices)
      )
      for devices in (jax.devices()[:1], jax.devices()[:8])
    ]
    (one, (first,)), (many, (second,)) = results
  deviation, where = toys.worst(many, one)
  assert deviation < 1e-9, where
  for name in first:
    np.testing.assert_allclose(first[name], second[name], rtol=1e-6)
  total = first['loss/source'] + 0.1 * first['loss/iw']
  np.testing.assert_allclose(first['loss'], total, rtol=1e-6)
  assert first['loss/iw'] < 0 < first['loss/source']
  assert 1 <= first['target_classes'] <= 19


@pytest.mark.parametrize('name', maxsquare_config.VARIANTS)
def test_variants_trace(name):
  multi = name == 'multi'
  stage = built(loss='iw' if multi else name, multi=multi)
  state = jax.eval_shape(lambda: assembly.initial_state(stage))
  data = toys.domains_of(stage, toys.batch(0))
  step = jax.vmap(
    lambda _, *xs: stage.step(*xs), (0, None, None, None), axis_name='batch'
  )
  found = jax.eval_shape(step, jnp.zeros(1), state, data, stage.key)[1]
  aux = {'loss/source_aux', 'loss/guidance', 'labelled_aux'}
  expected = {'loss/source', f'loss/{"iw" if multi else name}'} | (
    aux if multi else set()
  )
  logged = {n for n in found if n.startswith(('loss/', 'labelled'))}
  assert logged - {'labelled'} == expected
  assert ('labelled' in logged) == (name == 'hard')
  assert 'target_classes' in found


def test_guidance_needs_a_second_classifier():
  for model in ('street', 'deeplabv2'):
    config = toys.config('maxsquare')
    config.model.name, config.maxsquare.multi = model, True
    with pytest.raises(errors.UserError, match=r'model\.aux_head to True'):
      assembly.build(resolve.resolve(config), 'maxsquare')


def test_the_choices_are_those_of_the_method():
  config = toys.config('maxsquare')
  for key, choices in (('loss', maxsquare.LOSSES), ('per', losses.COUNTED)):
    for value in choices:
      config.maxsquare[key] = value
      checks.validate(config, 1)
    config.maxsquare[key] = 'other'
    with pytest.raises(errors.UserError, match=rf'maxsquare.{key}') as caught:
      checks.validate(config, 1)
    assert all(value in str(caught.value) for value in choices)
    config.maxsquare[key] = choices[0]


def test_verdict():
  say = maxsquare.verdict
  assert say([]) is None and say([{'loss': 1.0}]) is None
  assert say([{'target_classes': 1.0}, {'target_classes': 4.0}]) is None
  found = say([{'target_classes': 1.01}, {'target_classes': 1.03}])
  assert '1.02 classes' in found and 'maxsquare.weight' in found


@pytest.mark.parametrize(
  ('variant', 'loss', 'weight', 'size'),
  [
    ('maxsquare', 'maxsquare', 0.1, (512, 1024)),
    ('iw', 'iw', 0.1, (512, 1024)),
    ('multi', 'iw', 0.09, (640, 1280)),
    ('entropy', 'entropy', 0.1, (512, 1024)),
    ('iw_entropy', 'iw_entropy', 0.1, (512, 1024)),
    ('hard', 'hard', 0.1, (512, 1024)),
  ],
)
def test_published_constants(variant, loss, weight, size):
  config = maxsquare_config.get_config(f'gta5_to_cityscapes,variant={variant}')
  settings, data = config.maxsquare, config.data
  assert (settings.loss, settings.weight) == (loss, weight)
  assert (settings.ratio, settings.threshold) == (0.2, 0.95)
  assert settings.per == 'image'
  multi = variant == 'multi'
  assert settings.multi == config.model.aux_head == multi
  assert (config.model.aux_weight, config.model.aspp_branches) == (0.1, 2)
  assert data.target_size == config.evaluate.size == size
  assert data.source_size == (720, 1280)
  assert config.augment.flip and config.evaluate.flip
  assert config.augment.blur_probability == 0.5
  assert config.augment.blur_sigma == (1.0, 1.0)
  assert config.batch_size == 1
  assert [
    (stage, config.stages[stage].steps, config.stages[stage].optim)
    for stage in config.pipeline
  ] == [('source_only', 80_000, 'main'), ('maxsquare', 29_750, 'maxsquare')]
  for name, horizon in (('main', 200_000), ('maxsquare', 29_760)):
    optimizer = config.optim[name]
    assert (optimizer.learning_rate, optimizer.power) == (2.5e-4, 0.9)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 5e-4)
    assert optimizer.horizon_steps == horizon
  assert config.evaluate.every_steps == 2975


def test_normalisation_is_trained_but_for_the_stem():
  config = maxsquare_config.get_config('gta5_to_cityscapes')
  config.model.preset = 'reduced'
  network = models.build(config.model, 19)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  shapes = jax.eval_shape(network.init, jax.random.key(0), image)
  table = optim.group_table(
    config.optim.maxsquare, {'segmenter': shapes['params']}
  )
  frozen = {path for path, group in table if group.frozen}
  stem = 'segmenter/backbone/bn1'
  assert frozen == {f'{stem}/scale', f'{stem}/bias'}
  found = collections.Counter((g.learning_rate, g.repeats) for _, g in table)
  # The stem's convolution; four blocks of three convolutions, each with scale
  # and shift, and four shortcuts alike; four branches with bias.
  expected = {(0, 1): 2, (1, 1): 1, (1, 3): 12 * 3, (1, 4): 4 * 3, (10, 1): 8}
  assert found == expected


def test_variants_of_streets():
  config = maxsquare_config.get_config('streets,variant=hard')
  assert config.maxsquare.loss == 'hard' and config.control
  assert [config.stages[n].steps for n in config.pipeline] == [500, 500]
  assert config.stages.maxsquare.init_from == 'source_only'
  small = maxsquare_config.get_config(
    'gta5_to_cityscapes,variant=multi,size=64x128'
  )
  assert small.data.target_size == small.evaluate.size == (64, 128)
  with pytest.raises(errors.UserError, match='iw_entropy'):
    maxsquare_config.get_config('streets,variant=double')
