"""CBST: thresholds of a round, and what its step learns from."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cbst as config_file
from jaxseg_da import config as config_lib
from jaxseg_da import errors, methods
from jaxseg_da.classes.labels import IGNORE
from jaxseg_da.data import pseudo_labels
from jaxseg_da.experiment import assembly, checks, resolve
from jaxseg_da.losses import regularised, segmentation
from jaxseg_da.methods import cbst
from jaxseg_da.methods.cbst import host_pass
from jaxseg_da.models import base as models_base
from jaxseg_da.ops import rng, scale_crop
from jaxseg_da.training import contract
from tests import toys

COUNT = 30


class Images:
  """Random images, and a mark on every use of a label."""

  labelled = False

  def __init__(self):
    generator = np.random.default_rng(5)
    shape = (COUNT, *toys.SIZE, 3)
    self.images = generator.integers(0, 256, shape, np.uint8)

  def __len__(self) -> int:
    return COUNT

  def read(self, index, features):
    assert {*features} == {'image'}
    return {'image': self.images[index]}


def settings(**values):
  """A config with two rounds after a source-only stage."""
  config = toys.config('cbst')
  with config.unlocked():
    config.stages.source_only = config_lib.stage('source_only', 4)
    for name in ('round_1', 'round_2'):
      config.stages[name] = config_lib.stage('cbst', 0, 'source_only')
  config.pipeline = ('source_only', 'round_1', 'round_2')
  config.cbst.update(values)
  return resolve.resolve(config)


@functools.cache
def origin():
  """The stage that rounds start from, and a state."""
  stage = assembly.build(settings(), 'source_only')
  state = assembly.initial_state(stage)
  # Fresh classifiers find all classes equally likely; this one does not.
  noise = np.random.default_rng(6)
  noisy = lambda x: x + noise.normal(0, 0.3, x.shape).astype(x.dtype)
  return stage, state.replace(params=jax.tree.map(noisy, state.params))


PREDICTORS = []  # The pass's own program; all tests here need the same one.


def predictor(function, calls=None, allowed: int = 10**6):
  if not PREDICTORS:
    PREDICTORS.append(assembly.predictor(*origin(), function))

  def call(images):
    if calls is not None:
      calls.append(len(images))
      if len(calls) > allowed:
        raise KeyboardInterrupt
    return PREDICTORS[0](images)

  return call


def context(folder, config, name='round_1', **limits):
  return contract.StageContext(
    config,
    name,
    folder,
    origin()[1],
    functools.partial(predictor, **limits),
    lambda spec: Images(),
    lambda text: None,
  )


def arrays(path):
  with np.load(path) as found:
    return dict(found)


@functools.cache
def maps():
  """Probabilities of all images, in one batch."""
  whole = lambda forward, x: host_pass.probabilities(forward, x, 0.9, True)
  predict = assembly.predictor(*origin(), whole)
  return np.asarray(predict(Images().images))


@pytest.mark.parametrize('policy', pseudo_labels.POLICIES)
def test_the_pass_agrees_with_its_definition(tmp_path, monkeypatch, policy):
  monkeypatch.setattr(host_pass, 'PART', 20)
  config = settings(policy=policy, mine_share=0.03)
  found = host_pass.run(context(tmp_path, config)).files
  found = arrays(found[host_pass.THRESHOLDS])
  lists, counts = pseudo_labels.merge(
    [pseudo_labels.confidences(p.argmax(-1), p.max(-1), 19) for p in maps()]
  )
  expected = pseudo_labels.thresholds(lists, 0.2, policy)
  assert (expected < 1).sum() > 3  # The toy predicts several classes.
  np.testing.assert_allclose(found['thresholds'], expected, rtol=1e-5)
  share = counts / counts.sum()
  np.testing.assert_array_equal(found['mine'], share < 0.03)
  assert found['mine'].any() and not found['mine'].all()
  assert not (tmp_path / 'confidence').exists()
  summary = json.loads((tmp_path / 'selection.json').read_text())
  assert summary['portion'] == 0.2 and len(summary['classes']) == 19


def test_rounds_trust_more_pixels_and_draw_other_source_images(tmp_path):
  config = settings(source_portion=(0.3, 0.1, 0.35))
  rows, thresholds = [], []
  for name in ('round_1', 'round_2'):
    artifacts = host_pass.run(context(tmp_path / name, config, name))
    rows.append(arrays(artifacts.files[host_pass.SOURCE])['index'])
    found = arrays(artifacts.files[host_pass.THRESHOLDS])
    thresholds.append(found['thresholds'])
    # Two epochs of 30 target images, eight to a step.
    assert artifacts.steps == 8
  assert [len(r) for r in rows] == [9, 10]
  assert len({*rows[1]}) == 10 and {*rows[0]} - {*rows[1]}
  assert np.all(thresholds[1] <= thresholds[0])
  assert np.any(thresholds[1] < thresholds[0])
  assert host_pass.portion(config, 'round_2', 'target') == 0.25


def test_an_interrupted_pass_predicts_only_what_is_missing(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(host_pass, 'PART', 8)
  config, calls = settings(), []
  expected = host_pass.run(context(tmp_path / 'whole', config)).files
  allowed = -(-16 // jax.device_count())
  cut = tmp_path / 'cut'
  with pytest.raises(KeyboardInterrupt):
    host_pass.run(context(cut, config, calls=calls, allowed=allowed))
  assert not (cut / 'thresholds.npz').exists()
  calls.clear()
  found = host_pass.run(context(cut, config, calls=calls)).files
  assert 0 < sum(calls) < COUNT
  for name in (host_pass.SOURCE, host_pass.THRESHOLDS):
    a, b = arrays(found[name]), arrays(expected[name])
    assert a.keys() == b.keys()
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])
  calls.clear()
  host_pass.run(context(cut, config, calls=calls))
  assert not calls  # What is done is not done again.


# From here on the network is none: an image is the logarithm of probabilities.
P = np.array(
  [
    [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]],
    [[0.4, 0.4, 0.2], [0.6, 0.4, 0.0], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]],
  ]
)
SIZE = P.shape[:2]
# A hair less, for the logarithm may round.
THRESHOLDS = np.array([0.6, 0.6, 1.0]) - 1e-9
LABELS = [[0, IGNORE, 1, IGNORE], [IGNORE, 0, 1, IGNORE]]


def identity_network(seen=None):
  def apply(variables, images, train, keys=None):
    if seen is not None:
      seen.append(train)
    return {'logits': images * variables['params']}, {'mean': images.sum()}

  return models_base.Network(lambda key, images: {}, apply)


def recipe(**values):
  config = methods.base_config('cbst').cbst
  known = {k: config[k] for k in cbst.Recipe._fields if k in config}
  known.update(crop=SIZE, scale=1.0, flip=False, mining=0.0)
  known.update({'network': identity_network(), **values})
  return cbst.Recipe(num_classes=3, **known)


def step_context(p=P, thresholds=THRESHOLDS, source=1, size=2):
  with np.errstate(divide='ignore'):
    image = np.maximum(np.log(np.stack([p] * size)), -100)
  return contract.Context(
    batch={
      'source': {
        'image': jnp.asarray(image),
        'label': jnp.full((size, *SIZE), source),
      },
      'target': {'image': jnp.asarray(image)},
    },
    extra={
      'labeller': {'params': jnp.ones(())},
      'thresholds': jnp.asarray(thresholds),
      'mine': jnp.zeros(3, bool),
    },
    carry={},
    step=jnp.zeros((), jnp.int32),
    keys=rng.Keys(jax.random.key(0), jnp.arange(size)),
    axis_name='batch',
  )


@pytest.fixture
def unscaled(monkeypatch):
  monkeypatch.setattr(scale_crop, 'TENTHS', (10, 10))
  with jax.enable_x64(True):
    yield


@functools.cache
def program(function, **values):
  """A function of context and recipe, compiled once per recipe."""
  here = step_context()

  def run(batch, extra, index):
    keys = here.keys._replace(index=index)
    changed = here._replace(batch=batch, extra=extra, keys=keys)
    return function(changed, recipe(**values))

  return jax.jit(run)


def losses(context, recipe):
  variables = {'segmenter': {'params': jnp.ones(())}}
  return cbst.loss(variables, context, recipe=recipe)


def examples(context, recipe):
  return cbst.target_examples(recipe, context)


def run(function, context, **values):
  compiled = program(function, **values)
  return compiled(context.batch, context.extra, context.keys.index)


def test_labels_of_given_probabilities(unscaled):
  image, label = run(examples, step_context())
  assert label.dtype == jnp.int32
  np.testing.assert_array_equal(label, [LABELS] * 2)
  np.testing.assert_allclose(jax.nn.softmax(image), [P] * 2, atol=1e-12)


def test_one_mean_over_the_pixels_of_both_domains(unscaled):
  found = run(losses, step_context())
  term = found.terms['labels']
  expected = -2 * (np.log(P[..., 1]).sum() + np.log([0.7, 0.8, 0.6, 0.6]).sum())
  np.testing.assert_allclose(term.total, expected, rtol=1e-12)
  assert (term.count, term.weight) == (2 * (8 + 4), 1)
  share = found.metrics['labelled']
  assert share.total / share.count == 0.5
  assert found.metrics['loss/target'].count == 8


@pytest.mark.parametrize('regulariser', cbst.REGULARISERS)
def test_a_target_without_labels(unscaled, regulariser):
  """Only the source counts, and gradients are finite."""
  here = step_context(thresholds=np.ones(3))
  found = run(losses, here, regulariser=regulariser)
  term = found.terms['labels']
  np.testing.assert_allclose(term.total, -2 * np.log(P[..., 1]).sum())
  assert term.count == 16 and found.metrics['labelled'].total == 0
  if regulariser == 'mrkld':
    assert found.terms['uniform'].total == found.terms['uniform'].count == 0


def test_a_target_of_a_single_class(unscaled):
  """Classes that are never predicted have threshold 1 and no pixel."""
  p = np.full((*SIZE, 3), [0.8, 0.15, 0.05])
  p[0, 0] = [0.5, 0.3, 0.2]
  parts = pseudo_labels.confidences(p.argmax(-1), p.max(-1), 3, every=1)
  thresholds = pseudo_labels.thresholds(parts.lists, 0.5)
  assert thresholds[1] == thresholds[2] == 1
  here = step_context(p, thresholds.astype(np.float64) - 1e-6)
  _, label = run(examples, here)
  expected = np.zeros(SIZE)
  expected[0, 0] = IGNORE
  np.testing.assert_array_equal(label, [expected] * 2)


def test_mrkld(unscaled):
  term = run(losses, step_context(), regulariser='mrkld').terms['uniform']
  kept = np.array(LABELS) != IGNORE
  with np.errstate(divide='ignore'):
    logs = np.maximum(np.log(P), -100)
  np.testing.assert_allclose(term.total, -2 * logs[kept].mean(-1).sum())
  assert term.count == 8
  np.testing.assert_allclose(term.weight, 0.01)
  assert cbst.EFFECTIVE['paper'](0.1) == 0.1


def test_lrent(unscaled):
  found = run(losses, step_context(), regulariser='lrent')
  soft, keep = pseudo_labels.soft_labels(jnp.asarray(P), THRESHOLDS, 0.25)
  soft = jnp.where(keep[..., None], soft, 0)
  logits = jnp.maximum(jnp.log(P), -100)[None]
  total, count = regularised.soft_cross_entropy(logits, soft[None])
  part = found.metrics['loss/target']
  np.testing.assert_allclose(part.total, 2 * total, rtol=1e-9)
  assert part.count == 2 * count == 2 * keep.sum()
  source, _ = segmentation.cross_entropy(logits, jnp.ones((1, *SIZE), int))
  term = found.terms['labels']
  np.testing.assert_allclose(term.total, 2 * (source + total), rtol=1e-9)


def test_rare_classes_are_mined(monkeypatch):
  """Windows of one pixel: each shows the only pixel of the rare class."""
  monkeypatch.setattr(scale_crop, 'TENTHS', (10, 10))
  p = np.full((*SIZE, 3), [0.8, 0.15, 0.05])
  p[1, 2] = [0.1, 0.1, 0.8]
  here = step_context(p, np.full(3, 0.5), size=20)
  mined = lambda *mine: run(
    examples,
    here._replace(extra={**here.extra, 'mine': jnp.array(mine)}),
    crop=(1, 1),
    mining=1.0,
  )
  assert np.all(mined(False, True, True).label == 2)
  # A class that is not shown: windows are anywhere.
  assert np.sum(mined(False, True, False).label == 0) > 10


@pytest.mark.parametrize('frozen', [False, True])
def test_frozen_statistics(frozen):
  seen = []
  values = recipe(frozen_bn=frozen, network=identity_network(seen))
  found = jax.eval_shape(lambda: losses(step_context(), values))
  assert seen == [False, not frozen]  # The labeller, then the student.
  assert bool(found.batch_stats) == (not frozen)


def test_a_round_starts_from_the_pass(tmp_path):
  config = settings()
  artifacts = host_pass.run(context(tmp_path, config))
  method = methods.make(config, config.stages.round_1)
  variables = {'segmenter': {'params': jnp.arange(3.0)}}
  extra = method.init_extra(variables, artifacts)
  found = arrays(artifacts.files[host_pass.THRESHOLDS])
  np.testing.assert_array_equal(extra['thresholds'], found['thresholds'])
  np.testing.assert_array_equal(extra['mine'], found['mine'])
  np.testing.assert_array_equal(extra['labeller']['params'], [0, 1, 2])
  assert method.domains['source'].rows in artifacts.files


def test_what_it_cannot_do_is_said(tmp_path):
  config = settings()
  here = context(tmp_path, config)
  values = {f: getattr(here, f) for f in contract.StageContext.__annotations__}
  with pytest.raises(errors.UserError, match=r'round_1\.init_from is empty'):
    host_pass.run(contract.StageContext(**{**values, 'previous': None}))
  config.data.target_size = (0, 0)
  with pytest.raises(errors.UserError, match=r'target_size is \(0, 0\)'):
    host_pass.run(here)
  config.model.aux_head = True
  with pytest.raises(errors.UserError, match='aux_head is True'):
    methods.make(config, config.stages.round_1)


@pytest.mark.parametrize(
  'arg', ['', 'gta5_to_cityscapes', 'synthia_to_cityscapes,size=64x128']
)
def test_configs(arg):
  config = resolve.resolve(config_file.get_config(arg))
  checks.validate(config, 1)
  rounds = config.pipeline[1:4]
  assert rounds == ('round_1', 'round_2', 'round_3')
  portions = [host_pass.portion(config, name, 'target') for name in rounds]
  np.testing.assert_allclose(portions, [0.2, 0.25, 0.3])
  if arg:
    assert config.optim.cbst.learning_rate == 5e-5
    assert config.optim.main.learning_rate == 2.5e-4
    size = (32, 64) if 'size' in arg else (512, 1024)
    assert tuple(config.cbst.crop) == size
    assert config.model.aspp_branches == 4 and config.cbst.frozen_bn
  for key in ('policy', 'regulariser', 'mrkld_effective'):
    config = config_file.get_config(arg)
    config.cbst[key] = 'other'
    with pytest.raises(errors.UserError, match=rf'config\.cbst\.{key}'):
      checks.validate(config, 1)
