"""CCDA: what steps hand down, and what they learn from."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import config as config_lib
from jaxseg_da import errors, models
from jaxseg_da.classes import hierarchy
from jaxseg_da.experiment import assembly, checks, resolve
from jaxseg_da.losses import distillation
from jaxseg_da.methods import ccda
from jaxseg_da.ops import rng
from jaxseg_da.training import contract, parallel
from tests import toys

TREE = hierarchy.GTA5_TO_CITYSCAPES
# By method: the terms of a step after the first.
TERMS = {
  'ccda': {'source', 'maxsquare', 'definitive', 'refined'},
  'ccda_skdc': {'source', 'definitive', 'refined'},
  'ccda_mib': {'source', 'merged'},
  'ccda_msiw': {'source', 'maxsquare'},
  'ccda_source_only': {'source'},
}
SHIFTED = ('ccda', 'ccda_skdc')
# All of them differ, and none is 1.
WEIGHTS = {'uda_weight': 0.3, 'kd_weight': 7.0, 'kd_refined_weight': 3.0}
IMAGES = 2


def config_of(methods, dtype='float32', model='street'):
  """A stage `level_T` per method, each from the one before."""
  config = toys.config(methods[-1])
  config.augment.flip = False
  config.model.update(compute_dtype=dtype, name=model)
  config.ccda.update(WEIGHTS)
  with config.unlocked():
    config.stages = config_lib.ConfigDict()
    for t, method in enumerate(methods):
      before = f'level_{t - 1}' if t else ''
      stage = config_lib.stage(method, 4, init_from=before, level=t)
      config.stages[f'level_{t}'] = stage
  config.pipeline = tuple(config.stages)
  return resolve.resolve(config)


def built(method, level, *more):
  """The stage of a method that continues what was trained on the source."""
  config = config_of(('ccda_source_only',) * level + (method,), *more)
  return assembly.build(config, f'level_{level}')


@functools.cache
def trained(level, *more):
  """The state of source training after a level, on the host."""
  state = trained(level - 1, *more) if level else None
  stage = built('ccda_source_only', level, *more)
  return disturbed(assembly.initial_state(stage, state), level)


def started(method, level, *more):
  """A stage, and a state of it that has left its initial one."""
  stage = built(method, level, *more)
  state = assembly.initial_state(stage, trained(level - 1, *more))
  return stage, disturbed(state, 10 + level)


def disturbed(state, seed):
  """As if trained: biases and statistics are not all alike, nor are logits."""
  random = np.random.default_rng(seed)

  def leaf(path, x):
    if x.ndim == 1:
      return x + random.uniform(0, 0.5, x.shape).astype(x.dtype)
    if 'logits' in jax.tree_util.keystr(path):
      return x + random.normal(0, 1, x.shape).astype(x.dtype)
    return x

  moved = jax.tree_util.tree_map_with_path(
    leaf, jax.device_get((state.params, state.batch_stats))
  )
  state = state.replace(params=moved[0], batch_stats=moved[1])
  return jax.device_get(state)


def leaves(tree):
  """`NETWORK/.../TENSOR` -> array."""
  found, _ = jax.tree_util.tree_flatten_with_path(tree)
  name = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
  return {name(path): np.asarray(x) for path, x in found}


def shapes(tree):
  return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize('level', (1, 2))
@pytest.mark.parametrize('method', TERMS)
def test_a_step_starts_from_the_network_before(method, level):
  before = trained(level - 1)
  state = assembly.initial_state(built(method, level), before)
  parents = np.array(TREE.parents(level))
  lowered = np.log(np.bincount(parents))[parents]
  old, new = (leaves((s.params, s.batch_stats)) for s in (before, state))
  grown = {name for name in new if 'classifier/logits/' in name}
  assert {name.rpartition('/')[2] for name in grown} == {'kernel', 'bias'}
  for name, value in new.items():
    expected = old[name][..., parents] if name in grown else old[name]
    if name in grown and name.endswith('bias') and method in SHIFTED:
      expected = expected - lowered.astype(np.float32)
    np.testing.assert_array_equal(value, expected, name)
  if method in ('ccda', 'ccda_skdc', 'ccda_mib'):
    assert set(state.extra) == {'teacher'}
    teacher = before.variables()['segmenter']
    assert shapes(state.extra['teacher']) == shapes(teacher)
    assert toys.worst(state.extra['teacher'], teacher)[0] == 0
  else:
    assert state.extra == {}


@pytest.mark.parametrize('method', TERMS)
def test_a_state_to_restore_into_has_the_same_form(method):
  for level in (0, 1, 2):
    stage = built(method, level)
    fresh = jax.eval_shape(lambda s=stage: assembly.initial_state(s))
    assert ('teacher' in fresh.extra) == (
      level > 0 and method in ('ccda', 'ccda_skdc', 'ccda_mib')
    )
    if level:
      adopted = jax.eval_shape(
        functools.partial(assembly.initial_state, stage), trained(level - 1)
      )
      assert shapes(fresh) == shapes(adopted)


def test_no_two_leaves_share_memory():
  """The state is donated: a buffer that is in it twice would be an error."""
  before = jax.device_put(trained(0))
  state = assembly.initial_state(built('ccda', 1), before)
  own = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
  assert len({*own}) == len(own)
  teacher = jax.tree.leaves(state.extra)
  assert not {x.unsafe_buffer_pointer() for x in teacher} & {
    x.unsafe_buffer_pointer() for x in jax.tree.leaves(before)
  }


@pytest.mark.parametrize('level', (1, 2))
def test_a_grown_network_says_what_its_teacher_does(level):
  """Sums over children are the parent's; then the loss is the entropy."""
  with jax.enable_x64(True):
    before = trained(level - 1, 'float64')
    old = built('ccda_source_only', level - 1, 'float64')
    stage = built('ccda', level, 'float64')
    state = assembly.initial_state(stage, before)
    recipe = stage.method.phases[0].loss.keywords['recipe']
    images = jnp.asarray(np.random.default_rng(5).normal(size=(1, 32, 32, 3)))

    @jax.jit
    def run(before, state, images):
      coarse, fine = (
        s.method.forward(x.variables(), x.extra, images)['logits']
        for s, x in ((old, before), (stage, state))
      )
      fine = models.upsample(fine, images.shape[1:3])
      sums = distillation.log_parents(fine, TREE.children(level))
      coarse = models.upsample(coarse, images.shape[1:3])
      found = ccda.distil(recipe, state.extra['teacher'], images, fine)
      return jax.nn.softmax(coarse), sums, found

    p, sums, found = jax.device_get(run(before, state, images))
    assert np.ptp(p, axis=(0, 1, 2)).max() > 0.01
    np.testing.assert_allclose(np.exp(sums), p, rtol=1e-10)
    total = sum(term.total / term.count for term in found.values())
    entropy = -np.sum(p * np.log(p), axis=-1).mean()
    np.testing.assert_allclose(total, entropy, rtol=1e-10)


def phase(stage, batch_stats, params, extra, data, step):
  """Terms and metrics of one device, and the loss that it differentiates."""
  (phase,) = stage.method.phases
  keys = rng.Keys(stage.key, jnp.arange(IMAGES))
  images = stage.step.keywords['prepare'](data, keys)
  context = contract.Context(images, extra, {}, step, keys, 'batch')
  variables = {'segmenter': {'params': params, 'batch_stats': batch_stats}}
  output = phase.loss(variables, context)
  shares = [
    term.weight * term.total / jnp.maximum(term.count, 1)
    for term in output.terms.values()
  ]
  return sum(shares), (output.terms, output.metrics)


def arguments(stage, state, data, step=0):
  """What `phase` takes after the stage, for one device."""
  return (
    state.batch_stats['segmenter'],
    state.params['segmenter'],
    state.extra,
    toys.domains_of(stage, data),
    jnp.asarray(step),
  )


def on_one_device(function, stage):
  """The function of arguments as above, compiled."""
  mapped = jax.vmap(
    lambda _, *args: function(stage, *args),
    axis_name='batch',
    in_axes=(0, *[None] * 5),
  )
  first = jax.jit(lambda *args: mapped(jnp.zeros(1), *args))
  return lambda *args: jax.tree.map(lambda x: np.asarray(x)[0], first(*args))


@functools.cache
def forward(classes, train_mode):
  """The toy network's probabilities at the images' size, on one device."""
  model = config_of(['ccda'], 'float64').model
  network = models.build(model, classes)

  def run(variables, images):
    outputs, _ = network.apply(variables, images, train_mode)
    return jax.nn.softmax(models.upsample(outputs['logits'], toys.SIZE))

  return jax.jit(run)


def by_hand(method, stage, state, data):
  """The mean of each term, in NumPy; the one definitive class is sky."""
  step = 2
  table = np.full(256, 255)
  for i, c in enumerate(TREE.steps[step]):
    if c.name != 'sky':
      table[[*c.train_ids]] = i
  prepare = stage.step.keywords['prepare']
  images = prepare(data, rng.Keys(stage.key, jnp.arange(IMAGES)))
  variables = state.variables()['segmenter']
  p = {
    name: np.asarray(forward(14, True)(variables, images[name]['image']))
    for name in ('source', 'target')
  }
  known = table[data['source']['label'][..., 0]]
  valid = known < 255
  assert 0 < valid.sum() < (data['source']['label'] < 255).sum()
  picked = np.take_along_axis(p['source'][valid], known[valid][:, None], -1)
  found = {'source': -np.log(picked).mean()}

  squares = (p['target'] ** 2).mean(-1)
  predicted = p['target'].argmax(-1)
  counts = np.bincount(predicted.ravel(), minlength=14)
  assert (counts > 0).sum() > 2
  sizes = np.maximum(counts**0.2 * predicted.size**0.8, 1)
  found['maxsquare'] = -(squares / sizes[predicted]).sum() / IMAGES

  if 'teacher' in state.extra:
    name = 'target' if method == 'ccda' else 'source'
    run = forward(7, False)
    taught = np.asarray(run(state.extra['teacher'], images[name]['image']))
    children = TREE.children(step)
    sums = [p[name][..., list(group)].sum(-1) for group in children]
    each = -(taught * np.log(np.stack(sums, -1))).mean((0, 1, 2))
    found['definitive'], found['refined'] = each[4], np.delete(each, 4).sum()
    kept = np.stack([taught[..., 4], 1 - taught[..., 4]], -1)
    merged = np.stack([sums[4], 1 - sums[4]], -1)
    found['merged'] = -(kept * np.log(merged)).sum(-1).mean()
  return {name: found[name] for name in TERMS[method]}


@pytest.mark.parametrize('method', TERMS)
def test_terms_of_a_later_step(method):
  """On which images, in which mode, of which labels, with which weight."""
  with jax.enable_x64(True):
    stage, state = started(method, 2, 'float64')
    data = toys.batch(1, IMAGES)
    assert set(stage.method.domains) == (
      {'source', 'target'} if 'maxsquare' in TERMS[method] else {'source'}
    )
    run = on_one_device(phase, stage)
    total, (terms, metrics) = run(*arguments(stage, state, data))
    expected = by_hand(method, stage, state, data)
  assert set(terms) == TERMS[method]
  weights = {
    'source': 1.0,
    'maxsquare': 0.3,
    'definitive': 7.0,
    'refined': 3.0,
    'merged': 7.0,
  }
  for name, term in terms.items():
    assert term.weight == pytest.approx(weights[name])
    np.testing.assert_allclose(
      term.total / term.count, expected[name], rtol=1e-9, err_msg=name
    )
  np.testing.assert_allclose(
    total, sum(weights[name] * expected[name] for name in terms), rtol=1e-9
  )
  assert set(metrics) == (
    {'target_classes'} if 'maxsquare' in TERMS[method] else set()
  )


def test_gradient_of_the_whole_loss():
  with jax.enable_x64(True):
    stage, state = started('ccda', 2, 'float64')
    differentiate = jax.value_and_grad(phase, argnums=(2, 3), has_aux=True)
    run = on_one_device(differentiate, stage)
    data = toys.batch(1, IMAGES)
    stats, params, *rest = arguments(stage, state, data)
    _, (slopes, still) = run(stats, params, *rest)
    assert not any(np.any(x) for x in jax.tree.leaves(still))
    assert len(jax.tree.leaves(still)) > 10

    flat, tree = jax.tree.flatten(params)
    names = list(leaves(params))
    h = 1e-6
    for name in (
      'backbone/stem1/conv/kernel',
      'backbone/block0/unit2/bn/scale',
      'classifier/coarse/bn/bias',
      'classifier/logits/kernel',
      'classifier/logits/bias',
    ):
      at = names.index(name)
      slope = jax.tree.leaves(slopes)[at]
      direction = np.random.default_rng(at).normal(size=slope.shape)
      low, high = (
        run(
          stats,
          tree.unflatten(
            [x + t * direction if i == at else x for i, x in enumerate(flat)]
          ),
          *rest,
        )[0][0]
        for t in (-h, h)
      )
      expected = (high - low) / (2 * h)
      assert abs(expected) > 1e-4, name
      np.testing.assert_allclose(
        np.sum(slope * direction), expected, rtol=1e-5, err_msg=name
      )

    data['source']['label'][:] = TREE.steps[2][8].train_ids[0]  # sky
    (_, (terms, _)), (slopes, _) = run(*arguments(stage, state, data))
  assert terms['source'].total == terms['source'].count == 0
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(slopes))


@functools.cache
def backend(name, count):
  return parallel.BACKENDS[name](jax.devices()[:count])


@pytest.mark.parametrize(('method', 'level'), [('ccda', 2), ('ccda_skdc', 1)])
def test_eight_devices_equal_one_and_the_teacher_stays(method, level):
  with jax.enable_x64(True):
    stage, state = started(method, level, 'float64')
    state = toys.to_float64(state)
    data = [toys.batch(0), toys.batch(1)]
    one, metrics = toys.run_steps(stage, state, data, backend('pmap', 1))
    for name in parallel.BACKENDS:
      many, _ = toys.run_steps(stage, state, data, backend(name, 8))
      deviation, where = toys.worst(many, one)
      assert deviation < 1e-9, (name, where)
  assert toys.worst(one.extra, state.extra)[0] == 0
  assert toys.worst(one.params, state.params)[0] > 1e-4
  weights = {'source': 1.0, 'definitive': 7.0, 'refined': 3.0}
  if method == 'ccda':
    weights['maxsquare'] = 0.3  # from the first iteration on
  assert {n for n in metrics[0] if n.startswith('loss/')} == {
    f'loss/{name}' for name in weights
  }
  for found in metrics:
    total = sum(w * found[f'loss/{name}'] for name, w in weights.items())
    np.testing.assert_allclose(found['loss'], total, rtol=1e-6)
    assert found['loss/refined'] > 0
    # At level 1 every class is split.
    assert (found['loss/definitive'] > 0) == (level == 2)


def test_adaptation_starts_late_at_the_first_level():
  """The released code leaves out one iteration more than its option says."""
  config = config_of(['ccda_msiw'])
  config.ccda.uda_skip_steps = 1
  stage = assembly.build(config, 'level_0')
  state = trained(0)
  run = on_one_device(phase, stage)
  for step, weight in enumerate((0, 0, 0.3, 0.3)):
    data = toys.batch(step, IMAGES)
    total, (terms, _) = run(*arguments(stage, state, data, step))
    source, squares = (
      terms[name].total / terms[name].count for name in ('source', 'maxsquare')
    )
    assert squares < 0 < source
    np.testing.assert_allclose(total, source + weight * squares, rtol=1e-6)


@pytest.mark.parametrize('method', TERMS)
def test_the_first_level_has_no_teacher(method):
  stage = built(method, 0)
  state = jax.eval_shape(lambda: assembly.initial_state(stage))
  data = toys.domains_of(stage, toys.batch(0))
  step = jax.vmap(
    lambda _, *xs: stage.step(*xs), (0, None, None, None), axis_name='batch'
  )
  found = jax.eval_shape(step, jnp.zeros(1), state, data, stage.key)[1]
  terms = TERMS[method] & {'source', 'maxsquare'}
  assert {name for name in found if name.startswith('loss/')} == {
    f'loss/{name}' for name in terms
  }


@pytest.mark.slow
@pytest.mark.parametrize('name', ('deeplabv2', 'deeplabv3'))
def test_a_step_of_the_published_networks(name):
  stage, state = started('ccda', 1, 'float32', name)
  data = toys.batch(0, 1)
  after, (metrics,) = toys.run_steps(stage, state, [data], backend('pmap', 1))
  assert np.isfinite(metrics['loss']) and metrics['loss/refined'] > 0
  assert toys.worst(after.extra, state.extra)[0] == 0
  moved = leaves(jax.tree.map(lambda a, b: a - b, after.params, state.params))
  for name, change in moved.items():
    assert np.all(np.isfinite(change)), name
    if 'logits/kernel' in name or 'classifier/conv' in name:
      assert np.any(change), name


@pytest.mark.parametrize(
  ('level', 'init_from', 'said'),
  [
    (4, 'level_2', 'level 4, but gta5_to_cityscapes has the steps 0 to 3'),
    (-1, '', 'level -1, but gta5_to_cityscapes has the steps 0 to 3'),
    (0, 'level_0', "ccda at level 0 starts afresh; its init_from is 'level_0'"),
    (1, '', "at level 1 must start from one at level 0; its init_from is ''"),
    (1, 'level_1', "start from one at level 0; its init_from is 'level_1'"),
    (3, 'level_1', "start from one at level 2; its init_from is 'level_1'"),
    (1, 'plain', "start from one at level 0; its init_from is 'plain'"),
  ],
)
def test_a_stage_at_the_wrong_place(level, init_from, said):
  config = config_of(['ccda_msiw', 'ccda', 'ccda'])
  plain = config_lib.stage('source_only', 1)
  with config.unlocked():
    config.stages.plain = plain
    config.stages.it = config_lib.stage('ccda', 1, init_from, level=level)
  with pytest.raises(errors.UserError) as caught:
    assembly.build(config, 'it')
  assert said in str(caught.value)


def test_a_model_that_cannot_grow_is_refused_before_training():
  config = config_of(['ccda_msiw', 'ccda'], 'float32', 'fcn8s')
  with pytest.raises(errors.UserError, match=r"'fcn8s'; valid: .*deeplabv3"):
    assembly.build(config, 'level_1')


def test_a_stage_from_one_that_is_not_there():
  config = config_of(['ccda_msiw', 'ccda'])
  config.stages.level_1.init_from = 'level_7'
  with pytest.raises(errors.UserError, match=r"level_1\.init_from='level_7'"):
    checks.validate(config, 1)


def test_a_tree_over_classes_that_the_data_have_not():
  config = config_of(['ccda'])
  config.data.num_classes = 16
  with pytest.raises(errors.UserError) as caught:
    assembly.build(config, 'level_0')
  assert str(caught.value) == (
    "config.ccda.hierarchy='gta5_to_cityscapes' has train id 16 in "
    "'moving object', but config.data.num_classes is 16"
  )


def test_classes():
  found = built('ccda', 2).method.classes
  assert found.names == TREE.names(2) and found.names[8] == 'sky'
  assert (found.step, found.kept) == (2, ('sky',)) and not found.subsets
  assert found.colours.dtype == np.uint8
  assert found.colours[[3, 8]].tolist() == [[152, 130, 154], [0, 130, 180]]
  # Evaluation counts sky, though training does not.
  assert found.table[10] == 8
  assert (found.table[3], found.table[4], found.table[255]) == (3, 3, 255)
  assert np.all(found.table[:19] < 14) and np.all(found.table[19:] == 255)
  assert found.train_ids == (0, 1, 2, -1, 5, -1, *range(8, 13), -1, -1, -1)


def test_verdict():
  say = ccda.verdict
  assert say([]) is None and say([{'loss': 1.0}]) is None
  assert say([{'target_classes': 1.0}, {'target_classes': 2.0}]) is None
  found = say([{'target_classes': 1.01}, {'target_classes': 1.03}])
  assert '1.02 classes' in found and 'config.ccda.uda_weight' in found
