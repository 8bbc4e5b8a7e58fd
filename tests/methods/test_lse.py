"""LSE: what a round selects, and what it takes over."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from jaxseg_da import config as config_lib
from jaxseg_da import errors
from jaxseg_da.data import selection
from jaxseg_da.experiment import assembly, checks, resolve
from jaxseg_da.methods import lse
from jaxseg_da.methods.lse import host_pass
from jaxseg_da.training import contract, optim, parallel
from tests import support, toys

pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)


class Images:
  """Random images, and a mark on every use of a label."""

  labelled = False

  def __init__(self, count: int):
    rng = np.random.default_rng(5)
    self._images = rng.integers(0, 256, (count, *toys.SIZE, 3), np.uint8)

  def __len__(self) -> int:
    return len(self._images)

  def read(self, index, features):
    assert {*features} <= {'image', 'image_id'}
    return {'image': self._images[index], 'image_id': f'image {index}'}


def started(**values):
  """A config with two rounds, and a source-only stage with its state."""
  config = toys.config('source_only')
  with config.unlocked():
    for name in ('round_1', 'round_2'):
      config.stages[name] = config_lib.stage('lse', 0, 'source_only')
  config.pipeline = ('source_only', 'round_1', 'round_2')
  config.method = 'lse'
  config.lse.update(portion_start=1.9, portion_increment=3.8, portion_stop=9.5)
  config.lse.update(values)
  config = resolve.resolve(config)
  stage = assembly.build(config, 'source_only')
  state = assembly.initial_state(stage)
  # Fresh classifiers find all classes equally likely; this one does not.
  rng = np.random.default_rng(6)
  noisy = lambda x: x + rng.normal(0, 0.3, x.shape).astype(x.dtype)
  return config, stage, state.replace(params=jax.tree.map(noisy, state.params))


def context(folder, config, stage, state, name='round_1', count=30):
  images, said = Images(count), []
  found = contract.StageContext(
    config,
    name,
    folder,
    state,
    functools.partial(assembly.predictor, stage, state),
    lambda spec: images,
    said.append,
  )
  return found, said


def arrays(path):
  with np.load(path) as found:
    return dict(found)


def test_a_round_selects_more_than_the_one_before(tmp_path):
  config, stage, state = started()
  sizes = []
  for name in ('round_1', 'round_2'):
    ctx, said = context(tmp_path / name, config, stage, state, name)
    artifacts = host_pass.run(ctx)
    assert not said
    found = arrays(artifacts.files['examples'])
    images = {*found['index'].tolist()}
    sizes.append(len(images))
    # Four windows of each image, inside it, and two epochs in batches of 8.
    assert len(found['index']) == 4 * len(images)
    assert (found['corner'] >= 0).all()
    assert (found['corner'] <= [n // 2 for n in toys.SIZE]).all()
    assert artifacts.steps == len(images)
    summary = json.loads((tmp_path / name / 'selection.json').read_text())
    assert len(summary['images']) == len(images)
  assert 0 < sizes[0] < sizes[1]


def test_the_pass_agrees_with_its_definition(tmp_path):
  """Selection and thresholds from whole maps, image by image."""
  config, stage, state = started()
  ctx, _ = context(tmp_path, config, stage, state)
  artifacts = host_pass.run(ctx)
  images = ctx.open_dataset('')
  predict = assembly.predictor(
    stage,
    state,
    lambda forward, x: host_pass._probabilities(
      forward(x)['logits'], toys.SIZE
    ),
  )
  maps = [
    np.asarray(predict(images.read(i, ['image'])['image'][None]))[0]
    for i in range(len(images))
  ]
  kappa = np.full((len(maps), 19), np.nan)
  for i, p in enumerate(maps):
    for c in {*p.argmax(-1).ravel().tolist()}:
      kappa[i, c] = p.max(-1)[p.argmax(-1) == c].mean()
  expected = selection.select(
    kappa, 1.9, [f'{i:08d}' for i in range(len(maps))]
  )
  found = arrays(artifacts.files['examples'])['index'][::4]
  np.testing.assert_array_equal(found, expected.indices)
  thresholds = arrays(artifacts.files['thresholds'])['thresholds']
  for c, image in enumerate(expected.threshold_images):
    if image is None:
      assert thresholds[c] == 1
      continue
    p = maps[image].astype(np.float64)
    h = -(p * np.log(p + 1e-12)).sum(-1)
    mine = h[p.argmax(-1) == c]
    span = mine.max() - mine.min()
    mean = ((mine - mine.min()) / span).mean() if span else np.nan
    # The network's float32 entropies differ little within a class.
    np.testing.assert_allclose(thresholds[c], mean, atol=1e-3)


def test_an_interrupted_pass_predicts_only_what_is_missing(
  tmp_path, monkeypatch
):
  monkeypatch.setattr('jaxseg_da.methods.predictions.PART', 8)
  config, stage, state = started()
  whole, _ = context(tmp_path / 'whole', config, stage, state)
  expected = host_pass.run(whole)
  calls = []

  def limited(function, allowed):
    predict = assembly.predictor(stage, state, function)

    def call(images):
      calls.append(len(images))
      if len(calls) > allowed:
        raise KeyboardInterrupt
      return predict(images)

    return call

  ctx, _ = context(tmp_path / 'cut', config, stage, state)
  allowed = -(-16 // jax.device_count())
  cut = functools.partial(limited, allowed=allowed)
  with pytest.raises(KeyboardInterrupt):
    host_pass.run(dataclasses.replace(ctx, predictor=cut))
  calls.clear()
  count = functools.partial(limited, allowed=10**6)
  found = host_pass.run(dataclasses.replace(ctx, predictor=count))
  assert sum(calls) < 30
  assert found.steps == expected.steps
  assert_same_artifacts(tmp_path / 'cut', tmp_path / 'whole')


def assert_same_artifacts(a, b):
  for name in ('examples', 'thresholds'):
    one, other = arrays(a / f'{name}.npz'), arrays(b / f'{name}.npz')
    assert one.keys() == other.keys()
    for key in one:
      np.testing.assert_array_equal(one[key], other[key])


@pytest.fixture(scope='module')
def on_one_device(tmp_path_factory):
  """Artefacts of a process with one device."""
  folder = tmp_path_factory.mktemp('one')
  support.run([str(folder)], module='tests.one_selection')
  return folder


@pytest.mark.slow
def test_eight_devices_select_what_one_does(on_one_device, tmp_path):
  support.run([str(tmp_path)], module='tests.one_selection', devices=8)
  assert_same_artifacts(tmp_path, on_one_device)


@pytest.mark.slow
def test_two_processes_select_what_one_does(on_one_device, tmp_path):
  support.run_processes([str(tmp_path)], module='tests.one_selection')
  assert_same_artifacts(tmp_path, on_one_device)


def test_few_images_select_one_per_class_and_say_so(tmp_path):
  config, stage, state = started(portion_start=0.1)
  ctx, said = context(tmp_path, config, stage, state, count=3)
  artifacts = host_pass.run(ctx)
  assert 'would select none of the 3 images' in said[0]
  assert artifacts.steps >= 1


def test_released_visits_are_one_more(tmp_path):
  config, stage, state = started(visits='released')
  counts = []
  for name in ('round_1', 'round_2'):
    ctx, _ = context(tmp_path / name, config, stage, state, name)
    found = arrays(host_pass.run(ctx).files['examples'])['index'][::4]
    images = json.loads((tmp_path / name / 'selection.json').read_text())
    counts.append(len(found))
    assert len(found) == len(images['images']) + 1
  first = arrays(tmp_path / 'round_1/examples.npz')['index']
  assert first[0] == first[4]


def test_more_rounds_than_portions_are_refused():
  """Before the first one runs."""
  config, _, _ = started()
  assert host_pass.portion(config, 'round_1') == 1.9
  with pytest.raises(errors.UserError, match='has 2 rounds, but config'):
    started(portion_stop=1.9)


@pytest.mark.parametrize('name', ['adam', 'sgd'])
def test_the_optimizer_survives_a_round_and_its_schedule_does_not(name):
  config = toys.config('lse')
  config.optim.main.update(name=name, schedule='poly', multiplicity='none')
  stage = assembly.build(resolve.resolve(config), 'lse')
  state = jax.device_get(assembly.initial_state(stage))
  batches = [toys.batch(seed) for seed in range(2)]
  backend = parallel.backend('pmap')
  trained, metrics = toys.run_steps(stage, state, batches, backend)
  assert metrics[1]['learning_rate'] < metrics[0]['learning_rate']
  fresh = assembly.initial_state(stage)
  state = jax.device_get(lse.adopt(trained, fresh))
  _, restarted = toys.run_steps(stage, state, batches[:1], backend)
  assert restarted[0]['learning_rate'] == metrics[0]['learning_rate']
  counts = [
    (np.asarray(a), np.asarray(b))
    for a, b in zip(
      jax.tree.leaves(state.opt_state),
      jax.tree.leaves(trained.opt_state),
      strict=True,
    )
  ]
  different = [a.size for a, b in counts if not np.array_equal(a, b)]
  assert different and {*different} == {1}  # Only the schedules' counts.
  # From another method nothing but the networks is taken.
  other = dataclasses.replace(trained, opt_state={'segmenter': {}})
  untouched = lse.adopt(other, fresh).opt_state
  assert jax.tree.all(jax.tree.map(np.array_equal, untouched, fresh.opt_state))


def test_the_labeller_is_the_model_of_the_rounds_start():
  config = toys.config('lse')
  stage = assembly.build(resolve.resolve(config), 'lse')
  state = jax.device_get(assembly.initial_state(stage))
  trained, _ = toys.run_steps(
    stage, state, [toys.batch(0)], parallel.backend('pmap')
  )
  same = jax.tree.map(
    np.array_equal,
    trained.extra['labeller']['params'],
    state.params['segmenter'],
  )
  assert jax.tree.all(same)
  moved = jax.tree.map(
    np.array_equal, trained.params['segmenter'], state.params['segmenter']
  )
  assert not jax.tree.all(moved)


@pytest.mark.parametrize(
  ('values', 'missing', 'labelled'),
  [
    ({}, set(), 1.0),
    ({'focal': 'none'}, {'focal'}, 1.0),
    ({'focal': 'batch'}, set(), 1.0),
    ({'enlarge': False}, set(), 1.0),
  ],
)
def test_ablations(values, missing, labelled):
  config = toys.config('lse')
  config.lse.update(values)
  stage = assembly.build(resolve.resolve(config), 'lse')
  _, metrics = toys.run_steps(
    stage,
    assembly.initial_state(stage),
    [toys.batch(0)],
    parallel.backend('pmap'),
  )
  terms = {f'loss/{name}' for name in ('source', 'target', 'focal')}
  assert terms - {*metrics[0]} == {f'loss/{name}' for name in missing}
  # Thresholds are 1 here: only the least certain pixel of a class goes.
  assert 0.5 < metrics[0]['labelled'] <= labelled


@pytest.mark.parametrize(
  'arg', ['', 'gta5_to_cityscapes', 'synthia_to_cityscapes,model=deeplabv2']
)
def test_configs(arg):
  import importlib.util

  path = support.ROOT / 'configs/lse.py'
  spec = importlib.util.spec_from_file_location('lse_config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(arg)
  checks.validate(resolve.resolve(config), 1)
  rounds = [n for n in config.pipeline if config.stages[n].method == 'lse']
  assert len(rounds) == (7 if arg else 4)
  if arg.startswith('synthia'):
    assert config.lse.skip_classes == (9, 14, 16)
  if 'deeplab' in arg:
    assert config.lse.focal == 'batch'
  elif arg:
    params = {'segmenter': {'fc6': {'kernel': 0, 'bias': 0}}}
    rates = dict(optim.group_table(config.optim.main, params))
    assert rates['segmenter/fc6/bias'].learning_rate == 2
    assert config.optim.main.learning_rate == 1e-6
