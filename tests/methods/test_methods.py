"""Methods against hand-computed values; their rules over devices: test_step."""

from __future__ import annotations

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import config as config_lib
from jaxseg_da import errors, methods
from jaxseg_da.experiment import assembly, resolve
from jaxseg_da.losses import terms
from jaxseg_da.methods import adabn, dacs, source_only, supervised
from jaxseg_da.models import base as models_base
from jaxseg_da.ops import rng
from jaxseg_da.training import contract, parallel
from tests import toys


def context(batch, extra=None, step: int = 0, size: int = 2):
  return contract.Context(
    batch=batch,
    extra=extra or {},
    carry={},
    step=jnp.asarray(step),
    keys=rng.Keys(jax.random.key(0), np.arange(size)),
    axis_name='batch',
  )


def over_one_device(function, *arguments):
  """Runs code that uses the axis `batch` on one device."""
  in_axes = (0, *[None] * len(arguments))
  run = jax.vmap(lambda _, *xs: function(*xs), in_axes, axis_name='batch')
  out = run(jnp.zeros(1), *arguments)
  return jax.tree.map(lambda x: x[0], out)


def test_unknown_method_names_the_valid_ones():
  stage = config_lib.stage('dax', 1)
  with pytest.raises(errors.UserError, match=r"'dax'.*adabn, .*dacs, .*oracle"):
    methods.make(config_lib.base_config(), stage)


@pytest.mark.parametrize('name', sorted(methods.NAMES))
def test_every_method_builds(name):
  config = toys.config(name)
  method = methods.make(config, config.stages[name])
  assert method.name == name
  assert 'segmenter' in method.networks
  assert method.segmentation_updates(7) == (0 if name == 'adabn' else 7)


def test_only_the_oracle_reads_target_labels():
  for name in methods.NAMES:
    config = toys.config(name)
    domains = methods.make(config, config.stages[name]).domains
    for domain in domains.values():
      reads = domain.labelled and domain.spec.startswith('streets/city')
      assert reads == (name == 'oracle')
      assert ('train_labelled' in domain.spec) == (name == 'oracle')


@pytest.mark.parametrize(
  ('target', 'expected'),
  [
    ('streets/city:train', 'streets/city:train_labelled'),
    ('streets/city-32x64', 'streets/city-32x64:train_labelled'),
    ('cityscapes:train', 'cityscapes:train'),
    ('cityscapes', 'cityscapes:train'),
  ],
)
def test_oracle_split(target, expected):
  config = config_lib.base_config()
  config.data.target = target
  domain = source_only.oracle_domain(config)
  assert domain.spec == expected
  assert domain.labelled


def test_supervised_terms_weigh_the_auxiliary_classifier():
  """Uniform logits over 4 classes: log 4 per valid pixel."""
  outputs = {k: jnp.zeros((1, 2, 2, 4)) for k in ('logits', 'aux_logits')}
  labels = jnp.array([[[0, 1, 255], [3, 255, 255]]])
  found = supervised.loss_terms(outputs, labels, 0.1)
  assert set(found) == {'source', 'source_aux'}
  for name, weight in (('source', 1.0), ('source_aux', 0.1)):
    np.testing.assert_allclose(found[name].total, 3 * np.log(4), rtol=1e-6)
    assert found[name].count == 3
    assert found[name].weight == weight


def test_adabn_averages_batches():
  """Statistics of batches 2, 4 and 9 average to 5, whatever they started at."""
  stats = {'mean': jnp.array(-7.0)}
  for step, batch in enumerate((2.0, 4.0, 9.0)):
    moved = {'mean': stats['mean'] + adabn.MOMENTUM * (batch - stats['mean'])}
    stats = adabn.cumulative(stats, moved, jnp.asarray(step))
  np.testing.assert_allclose(stats['mean'], 5.0, rtol=1e-5)


def test_adabn_refuses_pooled_statistics():
  config = resolve.resolve(toys.config('adabn'))
  config.model.name = 'deeplabv3'
  with pytest.raises(errors.UserError, match='pooled BatchNorm of deeplabv3'):
    methods.make(config, config.stages.adabn)


def test_adabn_moves_statistics_and_nothing_else():
  config = resolve.resolve(toys.config('adabn'))
  stage = assembly.build(config, 'adabn')
  state = assembly.initial_state(stage)
  backend = parallel.PmapBackend(jax.devices()[:1])
  before = jax.device_get(state)
  after, metrics = toys.run_steps(stage, state, [toys.batch(0)], backend)
  assert toys.worst(after.params, before.params)[0] == 0
  assert toys.worst(after.batch_stats, before.batch_stats)[0] > 0.1
  assert metrics == [{}]


def recipe(**values) -> dacs.Recipe:
  """A teacher that is sure of class 1 on bright pixels, else undecided."""

  def apply(variables, images, train, keys=None):
    bright = images[..., :1] > 0
    sure = jnp.where(bright, 50.0, 0.0)
    logits = sure * jnp.array([0.0, 1.0, 0.0])
    return {'logits': logits}, {'seen': variables['batch_stats']['seen'] + 1}

  settings = methods.base_config('dacs').dacs.to_dict()
  settings.update(jitter_probability=0.0, blur_probability=0.0)
  settings.update(values)
  return dacs.Recipe(
    network=models_base.Network(lambda key, images: {}, apply),
    num_classes=3,
    aux_weight=0.1,
    normalization='unit',
    **settings,
  )


def mixing_context():
  """Two images: the source has classes 0 and 2, the target is half bright."""
  image = -jnp.ones((2, 4, 4, 3))
  bright = image.at[:, :2].set(1.0)
  label = jnp.zeros((2, 4, 4), jnp.int32).at[:, :, 2:].set(2)
  batch = {
    'source': {'image': 0.5 * jnp.ones((2, 4, 4, 3)), 'label': label},
    'target': {'image': bright, 'label': jnp.full((2, 4, 4), 255)},
  }
  teacher = {'params': {}, 'batch_stats': {'seen': jnp.zeros(())}}
  return context(batch, {'teacher': teacher})


def test_dacs_weighs_the_target_by_the_share_of_confident_pixels():
  labels, weights, stats = over_one_device(
    functools.partial(dacs.pseudo_label, recipe()), mixing_context()
  )
  assert (labels[:, :2] == 1).all()
  np.testing.assert_allclose(weights, 0.5)
  assert stats['seen'] == 1


def test_dacs_pastes_one_of_two_source_classes():
  found = mixing_context()
  (images, labels, weights), _ = over_one_device(
    functools.partial(dacs.mixed_batch, recipe()), found
  )
  for i in range(2):
    pasted = np.isclose(images[i, ..., 0], 0.5)
    assert pasted.sum() == 8
    assert pasted[:, :2].all() or pasted[:, 2:].all()
    source = found.batch['source']['label'][i]
    np.testing.assert_array_equal(labels[i][pasted], source[pasted])
    np.testing.assert_array_equal(weights[i][pasted], 1.0)
    rest = ~pasted & (np.arange(4)[:, None] < 2)
    np.testing.assert_array_equal(labels[i][rest], 1)
    np.testing.assert_allclose(weights[i][~pasted], 0.5)


def test_dacs_augments_images_only():
  plain, _ = over_one_device(
    functools.partial(dacs.mixed_batch, recipe()), mixing_context()
  )
  strong = recipe(jitter_probability=1.0, blur_probability=1.0)
  found, _ = over_one_device(
    functools.partial(dacs.mixed_batch, strong), mixing_context()
  )
  assert np.abs(found[0] - plain[0]).max() > 0.05
  np.testing.assert_array_equal(found[1], plain[1])
  np.testing.assert_array_equal(found[2], plain[2])


def test_dacs_teacher_copies_first_and_then_follows():
  params = lambda value: {'params': {'w': jnp.array([value])}}
  extra = {'teacher': {**params(1.0), 'batch_stats': {}}}
  carry = {'averaged': {'teacher_stats': {'seen': jnp.ones(())}}}
  variables = {'segmenter': params(3.0)}
  update = functools.partial(dacs.post_update, ema_decay=0.99)
  first = update(extra, variables, carry, jnp.asarray(0))
  assert first['teacher']['params']['w'] == 3.0
  later = update(extra, variables, carry, jnp.asarray(999))
  np.testing.assert_allclose(later['teacher']['params']['w'], 1.02, rtol=1e-6)
  assert later['teacher']['batch_stats']['seen'] == 1


def test_networks_are_adopted_by_name():
  config = resolve.resolve(toys.config('dacs'))
  stage = assembly.build(config, 'dacs')
  fresh = assembly.initial_state(stage)
  previous = fresh.replace(
    params=jax.tree.map(lambda x: x + 1, fresh.params), step=jnp.asarray(9)
  )
  state = assembly.initial_state(stage, previous)
  assert toys.worst(state.params, previous.params)[0] == 0
  teacher = state.extra['teacher']['params']
  assert toys.worst(teacher, previous.params['segmenter'])[0] == 0
  assert state.step == 0


def test_a_grown_head_needs_an_adopt_of_its_own():
  config = resolve.resolve(toys.config())
  stage = assembly.build(config, 'source_only')
  fresh = assembly.initial_state(stage)
  smaller = fresh.replace(
    params={
      'segmenter': jax.tree.map(lambda x: x[..., :1], fresh.params['segmenter'])
    }
  )
  with pytest.raises(ValueError, match=r'segmenter.*changes shape'):
    contract.adopt_networks(smaller, fresh)


def test_default_extras_do_nothing():
  assert contract.no_extra({}, contract.NO_ARTIFACTS) == {}
  assert contract.keep_extra({'a': 1}, {}, {}, 0) == {'a': 1}
  assert contract.Artifacts({'x': pathlib.Path('y')}, 3).steps == 3
  assert terms.Term(1.0, 2.0).weight == 1.0
