from __future__ import annotations

import json
import pathlib
import re
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from jaxseg_da import errors
from jaxseg_da.training import optim

FIXTURES = pathlib.Path(__file__).parents[1] / 'fixtures' / 'deeplabv2'
DEEPLAB_GROUPS = (
  (r'bn\d?/(scale|bias)$', 0, 0),
  (r'classifier/', 10, 1),
  (r'.', 1, 1),
)


def _config(**values):
  defaults = {
    'name': 'sgd',
    'learning_rate': 0.1,
    'momentum': 0.9,
    'b1': 0.9,
    'b2': 0.999,
    'weight_decay': 0.0,
    'schedule': 'constant',
    'power': 0.9,
    'decay_steps': 0,
    'decay_rate': 0.1,
    'horizon_steps': 0,
    'warmup_steps': 0,
    'grad_clip': 0.0,
    'groups': ((r'.', 1.0, 1.0),),
    'multiplicity': 'none',
    'first_step': 'fresh',
  }
  return ml_collections.ConfigDict(defaults | values)


def _params(dtype=jnp.float32):
  return {
    'segmenter': {
      'backbone': {
        'layer1_0': {
          'conv1': {'kernel': jnp.array([1.0, -2.0], dtype)},
          'bn1': {'scale': jnp.ones(2, dtype), 'bias': jnp.zeros(2, dtype)},
        },
      },
      'classifier': {
        'conv0': {'kernel': jnp.array([0.5], dtype)},
      },
    }
  }


def _leaves(tree):
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
    for path, leaf in flat
  }


BACKBONE = 'segmenter/backbone/layer1_0/conv1/kernel'
SCALE = 'segmenter/backbone/layer1_0/bn1/scale'
CLASSIFIER = 'segmenter/classifier/conv0/kernel'


def _step(config, params, gradients, steps=1, horizon=10):
  optimizer = optim.make(config, params, horizon)
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  for _ in range(steps):
    updates, state = update(gradients, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def test_poly():
  schedule = optim.poly(2.0, 100, 0.5)
  rates = [float(schedule(t)) for t in (0, 19, 75, 100, 150)]
  np.testing.assert_allclose(rates, [2, 1.8, 1, 0, 0], rtol=1e-6)


def test_schedules():
  poly = _config(schedule='poly', power=1.0)
  assert float(optim.schedule(poly, 10)(5)) == pytest.approx(0.05)
  poly.horizon_steps = 20  # wins over the stage's steps
  assert float(optim.schedule(poly, 10)(5)) == pytest.approx(0.075)
  poly.warmup_steps = 10
  rates = [float(optim.schedule(poly, 10)(t)) for t in (0, 5, 10, 15)]
  assert rates == pytest.approx([0, 0.5 * 0.075, 0.05, 0.025])
  step = _config(schedule='step', decay_steps=3, decay_rate=0.5)
  rates = [float(optim.schedule(step, 10)(t)) for t in (0, 2, 3, 5, 6)]
  assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])
  assert float(optim.schedule(_config(), 10)(7)) == pytest.approx(0.1)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'name': 'lars'}, "optimizer 'lars'; valid: adam, adamw, sgd"),
    ({'schedule': 'poli'}, "schedule 'poli'.*Did you mean 'poly'"),
    ({'schedule': 'step'}, 'decay_steps'),
    ({'multiplicity': 'torch'}, "multiplicity 'torch'.*none, reference"),
    ({'multiplicity': 'reference', 'name': 'adam'}, 'not for adam'),
    ({'first_step': 'x', 'name': 'sgd'}, "first step 'x'.*fresh, recursive"),
    ({'groups': (('(', 1, 1),)}, r"'\(' is no regular expression"),
    (
      {'groups': (('backbone/', 1, 1),)},
      "matches the parameter 'segmenter/classifier/conv0/kernel'",
    ),
  ],
)
def test_errors_name_the_cause(values, message):
  with pytest.raises(errors.UserError, match=message):
    optim.make(_config(**values), _params(), 10)


def test_poly_needs_a_horizon():
  with pytest.raises(errors.UserError, match='positive, not 0'):
    optim.schedule(_config(schedule='poly'), 0)


def _trajectories():
  for path in sorted(FIXTURES.glob('*_sgd_duplicates.npz')):
    with np.load(path) as arrays:
      yield {name: arrays[name] for name in arrays.files}


def test_repeated_sgd_follows_the_reference():
  checked = 0
  with jax.enable_x64(True):
    for arrays in _trajectories():
      rate = optim.poly(
        float(arrays['base_lr']),
        int(arrays['max_iter']),
        float(arrays['power']),
      )
      for name in arrays:
        match = re.fullmatch(r'k(\d+)/trajectory', name)
        if not match:
          continue
        optimizer = optim.repeated_sgd(
          rate,
          float(arrays['momentum']),
          float(arrays['weight_decay']),
          int(match[1]),
        )
        p = jnp.asarray(arrays['p0'])
        state = optimizer.init(p)
        update = jax.jit(optimizer.update)
        for gradient, expected in zip(
          arrays['grads'], arrays[name], strict=True
        ):
          updates, state = update(jnp.asarray(gradient), state, p)
          p = optax.apply_updates(p, updates)
          np.testing.assert_allclose(p, expected, rtol=1e-12, atol=1e-15)
          checked += 1
  assert checked


@pytest.mark.parametrize('first_step', optim.FIRST_STEPS)
def test_first_step_by_hand(first_step):
  # d = 1, lr = 0.1, momentum 0.5: fresh moves by 1 twice, else by 1 and 1.5;
  # both then continue from the last buffer.
  optimizer = optim.repeated_sgd(0.1, 0.5, 0.0, 2, first_step)
  p = jnp.zeros(1)
  updates, state = optimizer.update(jnp.ones(1), optimizer.init(p), p)
  first, buffer = (2, 1) if first_step == 'fresh' else (2.5, 1.5)
  np.testing.assert_allclose(updates, [-0.1 * first], rtol=1e-6)
  updates, _ = optimizer.update(jnp.ones(1), state, p)
  third = 0.5 * buffer + 1
  fourth = 0.5 * third + 1
  np.testing.assert_allclose(updates, [-0.1 * (third + fourth)], rtol=1e-6)


def test_weight_decay_of_repeats_sees_the_moved_parameter():
  optimizer = optim.repeated_sgd(0.5, 0.0, 0.2, 2)
  p = jnp.ones(1)
  updates, _ = optimizer.update(jnp.zeros(1), optimizer.init(p), p)
  np.testing.assert_allclose(p + updates, [0.9**2], rtol=1e-6)
  with pytest.raises(ValueError, match='needs params'):
    optimizer.update(jnp.zeros(1), optimizer.init(p))
  with pytest.raises(errors.UserError, match='fresh, recursive'):
    optim.repeated_sgd(0.1, 0.9, 0.0, 2, 'old')


def test_one_repeat_is_plain_sgd():
  params = _params()
  gradients = jax.tree.map(lambda p: 0.3 * p + 0.1, params)
  config = _config(weight_decay=0.01, schedule='poly')
  new, _ = _step(config, params, gradients, steps=4)
  stock = optax.chain(
    optax.add_decayed_weights(0.01),
    optax.sgd(optim.poly(0.1, 10, 0.9), momentum=0.9),
  )
  state = stock.init(params)
  for _ in range(4):
    updates, state = stock.update(gradients, state, params)
    params = optax.apply_updates(params, updates)
  for name, expected in _leaves(params).items():
    np.testing.assert_allclose(_leaves(new)[name], expected, rtol=1e-6)


def test_groups():
  params = _params()
  gradients = jax.tree.map(jnp.ones_like, params)
  config = _config(
    groups=((r'bn1/', 0, 0), ('classifier/', 10, 0), ('.', 1, 2)),
    weight_decay=0.5,
  )
  new, state = _step(config, params, gradients)
  new, old = _leaves(new), _leaves(params)
  # d = gradient + 2 * 0.5 * p; the classifier has no decay.
  np.testing.assert_allclose(
    new[BACKBONE], old[BACKBONE] - 0.1 * (1 + old[BACKBONE]), rtol=1e-6
  )
  np.testing.assert_allclose(new[CLASSIFIER], old[CLASSIFIER] - 1, rtol=1e-6)
  np.testing.assert_array_equal(new[SCALE], old[SCALE])
  # Momentum for what is trained, nothing but counters for what is not.
  buffers = [x for x in jax.tree.leaves(state) if x.ndim]
  assert sorted(x.shape for x in buffers) == [(1,), (2,)]
  table = dict(optim.group_table(config, params))
  assert list(table) == list(old)
  assert table[SCALE].frozen and not table[BACKBONE].frozen
  assert table[CLASSIFIER] == optim.Group('classifier/', 10, 0, 1)
  mask = _leaves(optim.trainable_mask(config, params))
  assert {name for name, trained in mask.items() if trained} == {
    BACKBONE,
    CLASSIFIER,
  }


def test_clipping_leaves_frozen_gradients_out():
  params = _params()
  gradients = jax.tree.map(jnp.zeros_like, params)
  layer = gradients['segmenter']['backbone']['layer1_0']
  layer['conv1']['kernel'] = jnp.array([3.0, 0.0])
  layer['bn1']['scale'] = jnp.full(2, jnp.inf)
  gradients['segmenter']['classifier']['conv0']['kernel'] = jnp.array([4.0])
  config = _config(grad_clip=1.0, groups=((r'bn1/', 0, 0), ('.', 1, 1)))
  new, _ = _step(config, params, gradients)
  moved = {k: v - _leaves(params)[k] for k, v in _leaves(new).items()}
  np.testing.assert_allclose(moved[BACKBONE], [-0.06, 0], atol=1e-7)
  np.testing.assert_allclose(moved[CLASSIFIER], [-0.08], atol=1e-7)
  np.testing.assert_array_equal(moved[SCALE], 0)


def test_adam_couples_weight_decay_and_adamw_does_not():
  params = _params()
  gradients = jax.tree.map(jnp.ones_like, params)
  new, _ = _step(_config(name='adamw', weight_decay=0.5), params, gradients)
  # Adam's first step is the sign of what it sees.
  old = _leaves(params)[BACKBONE]
  np.testing.assert_allclose(
    _leaves(new)[BACKBONE], old - 0.1 * (1 + 0.5 * old), rtol=1e-5
  )
  new, _ = _step(_config(name='adam', weight_decay=2.0), params, gradients)
  expected = old - 0.1 * np.sign(1 + 2 * old)
  np.testing.assert_allclose(_leaves(new)[BACKBONE], expected, rtol=1e-5)


@pytest.mark.parametrize('name', optim.OPTIMIZERS)
def test_precision_and_shapes_without_values(name):
  with jax.enable_x64(True):
    for dtype in (jnp.float32, jnp.float64):
      params = _params(dtype)
      config = _config(name=name, groups=DEEPLAB_GROUPS, schedule='poly')
      shapes = jax.eval_shape(lambda p=params: p)
      optimizer = optim.make(config, shapes, 10)
      state = jax.eval_shape(optimizer.init, shapes)
      updates, after = jax.eval_shape(optimizer.update, shapes, state, shapes)
      assert updates == shapes
      assert after == state


def _path(name, value):
  """The parameter path of a published tensor name."""
  name = re.sub(
    r'^layer([56])\.conv2d_list\.(\d)', r'classifier\1/conv\2', name
  )
  name = re.sub(r'\.downsample\.0\.', '/downsample_conv/', name)
  name = re.sub(r'^layer(\d)\.(\d+)', r'backbone/layer\1_\2', name)
  name = re.sub(r'^conv1', 'backbone/conv1', name).replace('.', '/')
  leaf = 'kernel' if name.endswith('weight') else 'bias'
  return ('segmenter/' + name.rpartition('/')[0] + '/' + leaf, value)


def test_reference_multiplicity_of_every_published_parameter():
  models = json.loads((FIXTURES / 'param_multiplicity.json').read_text())
  assert models
  for groups in models.values():
    rates = {'group0_lr1x': 1, 'group1_lr10x': 10}
    expected = {}
    for group, names in groups.items():
      for name, repeats in names.items():
        path, rate = _path(name, rates[group])
        expected[path] = (rate, repeats)
    params = {}
    for path in expected:
      node = params
      *parents, leaf = path.split('/')
      for parent in parents:
        node = node.setdefault(parent, {})
      node[leaf] = jax.ShapeDtypeStruct((1,), jnp.float32)
    config = _config(
      multiplicity='reference',
      groups=((r'bn\d?/', 0, 0), (r'classifier\d/', 10, 1), ('.', 1, 1)),
    )
    table = optim.group_table(config, params)
    found = {path: (row.learning_rate, row.repeats) for path, row in table}
    assert found == expected
    assert {k for _, k in found.values()} == {1, 3, 4}


def _normalisations():
  """Paths of scales and shifts, each with how often the scripts list it."""
  backbone = {
    'bn1': 1,
    **{f'layer3_{i}/bn{k}': 3 for i in (0, 22) for k in (1, 2, 3)},
    'layer3_0/downsample_bn': 4,
  }
  names = {f'segmenter/backbone/{name}': k for name, k in backbone.items()}
  names |= {'segmenter/classifier/bn1': 1, 'teacher/bn3': 1}
  return {
    f'{name}/{leaf}': k
    for name, k in names.items()
    for leaf in ('scale', 'bias')
  }


@pytest.mark.parametrize('rate', (0, 1, 10))
def test_reference_multiplicity_of_normalisation(rate):
  listed = _normalisations()
  params = dict.fromkeys(listed, jax.ShapeDtypeStruct((1,), jnp.float32))
  for multiplicity in optim.MULTIPLICITIES:
    config = _config(multiplicity=multiplicity, groups=(('.', rate, 1),))
    found = {k: g.repeats for k, g in optim.group_table(config, params)}
    if rate and multiplicity == 'reference':
      assert found == listed
    else:  # what is not trained is not repeated, either
      assert found == dict.fromkeys(listed, 1)


def test_trained_normalisation_moves_as_often_as_it_is_listed():
  params = _params()
  config = _config(multiplicity='reference')
  new, _ = _step(config, params, jax.tree.map(jnp.ones_like, params))
  moved = {k: v - _leaves(params)[k] for k, v in _leaves(new).items()}
  np.testing.assert_allclose(moved[SCALE], -0.3, rtol=1e-6)
  np.testing.assert_allclose(moved[CLASSIFIER], -0.1, rtol=1e-6)


def test_multiplicity_reaches_the_update():
  params = _params()
  gradients = jax.tree.map(jnp.ones_like, params)
  config = _config(multiplicity='reference', groups=DEEPLAB_GROUPS)
  new, _ = _step(config, params, gradients)
  moved = {k: v - _leaves(params)[k] for k, v in _leaves(new).items()}
  np.testing.assert_allclose(moved[BACKBONE], -0.3, rtol=1e-6)
  np.testing.assert_allclose(moved[CLASSIFIER], -1, rtol=1e-6)


def test_several_networks_and_any_config_object():
  params = {'a': {'kernel': jnp.ones(1)}, 'b': {'kernel': jnp.ones(1)}}
  config = types.SimpleNamespace(**_config().to_dict())
  config.groups = [['^a/', 1, 1], ['^b/', 0.5, 1]]  # as JSON returns them
  new, _ = _step(config, params, params)
  np.testing.assert_allclose(new['a']['kernel'], [0.9], rtol=1e-6)
  np.testing.assert_allclose(new['b']['kernel'], [0.95], rtol=1e-6)


@pytest.mark.parametrize(
  ('first_step', 'moved'), [('fresh', -0.3), ('recursive', -0.425)]
)
def test_first_step_reaches_the_update(first_step, moved):
  """Three repeats with momentum 0.5: buffers 1, 1, 1 or 1, 1.5, 1.75."""
  params = _params()
  config = _config(
    multiplicity='reference',
    groups=DEEPLAB_GROUPS,
    momentum=0.5,
    first_step=first_step,
  )
  new, _ = _step(config, params, jax.tree.map(jnp.ones_like, params))
  difference = _leaves(new)[BACKBONE] - _leaves(params)[BACKBONE]
  np.testing.assert_allclose(difference, moved, rtol=1e-6)
