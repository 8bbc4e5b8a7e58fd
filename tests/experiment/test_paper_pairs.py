"""The published pairs: their constants, and a run from raw tree to report."""

from __future__ import annotations

import collections
import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import dacs as dacs_config
from configs import lse as lse_config
from configs import source_only as source_config
from data_prep import prepare
from data_prep.streets import export
from jaxseg_da import config as config_lib
from jaxseg_da import models
from jaxseg_da.data import sources, transforms
from jaxseg_da.evaluation import metrics
from jaxseg_da.experiment import assembly, checks, resolve
from jaxseg_da.models import import_weights
from jaxseg_da.ops import normalize, resize
from jaxseg_da.training import checkpoint, optim

CONFIGS = {'source_only': source_config, 'dacs': dacs_config}
PAIR = 'gta5_to_cityscapes'
NATIVE = (64, 128)
# Stops where SIGTERM would be noticed: after the second step.
STOP = """
import itertools, sys
from jaxseg_da import main
asked = itertools.count(1)
main._Signal = lambda: lambda: next(asked) >= 2
sys.exit(main.main())
"""


def shapes(model):
  """Variables of a model, by network, as shapes."""
  network = models.build(model, 19)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  return jax.eval_shape(network.init, jax.random.key(0), image)


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize(
  ('model', 'expected'),
  [
    # 104 convolutions and as many normalisations; two heads of 4 branches.
    ({}, {(0, 1): 208, (1, 1): 1, (1, 3): 99, (1, 4): 4, (10, 1): 8}),
    (
      {'aux_head': True},
      {(0, 1): 208, (1, 1): 1, (1, 3): 99, (1, 4): 4, (10, 1): 16},
    ),
    (
      {'preset': 'reduced'},
      {(0, 1): 34, (1, 1): 1, (1, 3): 12, (1, 4): 4, (10, 1): 8},
    ),
  ],
)
def test_optimizer_groups_fit_the_names_of_the_network(name, model, expected):
  config = CONFIGS[name].get_config(PAIR)
  config.model.update(model)
  params = {'segmenter': shapes(config.model)['params']}
  table = optim.group_table(config.optim.main, params)
  assert (
    collections.Counter((g.learning_rate, g.repeats) for _, g in table)
    == expected
  )
  for path, group in table:
    assert group.frozen == path.endswith(
      ('/scale', 'bn/bias', 'bn1/bias', 'bn2/bias', 'bn3/bias')
    )
    assert (group.learning_rate == 10) == ('classifier/' in path)
    assert group.frozen or group.weight_decay == 1


def test_constants_of_the_published_pairs():
  source = source_config.get_config(PAIR)
  assert source.data.source == 'gta5:all'
  assert source.data.target == 'cityscapes:train'
  assert (source.data.source_size, source.data.target_size) == (
    (720, 1280),
    (512, 1024),
  )
  assert source.evaluate.size == (512, 1024)
  assert source.data.source_crop == source.data.target_crop == (0, 0)
  assert source.batch_size == 1
  rate = optim.schedule(source.optim.main, source.stages.source_only.steps)
  np.testing.assert_allclose(rate(0), 2.5e-4)
  # Half-way through 250 000, though the run stops at 150 000: 0.5 ** 0.9.
  np.testing.assert_allclose(rate(125_000), 2.5e-4 * 0.5358867, rtol=1e-6)

  synthia = source_config.get_config('synthia_to_cityscapes')
  assert synthia.data.source_size == (760, 1280)
  mixed = dacs_config.get_config('synthia_to_cityscapes')
  assert mixed.data.source_size == (720, 1280)
  assert mixed.data.source_crop == mixed.data.target_crop == (512, 512)
  assert mixed.data.resize == 'pil_bicubic'
  assert mixed.data.target_resize == 'pil_bilinear'
  assert mixed.batch_size == 2

  evaluated = {
    name: module.get_config(PAIR).evaluate.upsample
    for name, module in {**CONFIGS, 'lse': lse_config}.items()
  }
  assert evaluated == {
    'source_only': 'logits',
    'dacs': 'logits',
    'lse': 'probabilities',
  }
  assert lse_config.get_config().evaluate.upsample == 'logits'


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('size', [(64, 128), (600, 700)])
def test_another_size_is_a_valid_config(name, size):
  config = CONFIGS[name].get_config(f'{PAIR},size={size[0]}x{size[1]}')
  assert config.data.source_size == config.data.target_size == size
  assert config.evaluate.size == size
  if name == 'dacs':
    crop = {(64, 128): (64, 128), (600, 700): (512, 512)}[size]
    assert config.data.source_crop == config.data.target_crop == crop
  checks.validate(resolve.resolve(config), 1)


def test_scaled_steps_keep_the_paper_in_proportion():
  config = dacs_config.get_config(PAIR)
  config.steps_scale = 2e-5
  resolved = resolve.resolve(config)
  assert resolved.stages.dacs.steps == 5
  assert resolved.optim.main.horizon_steps == 5
  assert resolved.data.source_size == (720, 1280)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Exported trees, built; runs and compiled programs go beside them."""
  root = tmp_path_factory.mktemp('paper')
  # Targets come without labels to train on: nobody may look for them.
  raw, hidden = root / 'raw', {'train_labels': False}
  export.export_gta5(raw / 'gta5', 3, NATIVE)
  export.export_synthia(raw / 'synthia', 3, NATIVE)
  export.export_cityscapes(raw / 'cityscapes', 2, 2, NATIVE, **hidden)
  export.export_idd(raw / 'idd', 2, 2, NATIVE, **hidden)
  for name in ('gta5', 'synthia', 'cityscapes', 'idd'):
    raw = root / 'raw' / name
    prepare.build(name, root / 'data', manual_dir=raw, num_workers=1)
  return root


def run(folder, name, *more, workdir='', code=None, pair=PAIR, steps=True):
  """A command on one device in a process of its own."""
  command = [sys.executable, '-m', 'jaxseg_da.main']
  if code:
    command = [sys.executable, '-c', code]
  command += [
    f'--config=configs/{name}.py:{pair},size=32x64',
    f'--workdir={folder / (workdir or name)}',
    f'--config.data_dir={folder / "data"}',
    *([f'--config.stages.{name}.steps=3'] if steps else []),
    '--config.batch_size=1',
    '--config.model.preset=reduced',
    '--config.log_every=1',
    '--config.report.images=1',
    *more,
  ]
  environment = os.environ | {
    'JAX_NUM_CPU_DEVICES': '1',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0',
    'JAX_PLATFORMS': 'cpu',
  }
  return subprocess.run(
    command,
    capture_output=True,
    text=True,
    check=False,
    env=environment,
    cwd=pathlib.Path(__file__).parents[2],
    timeout=600,  # a machine may be busy
  )


@functools.cache
def finished(folder, name):
  """The uninterrupted run of a config, once."""
  done = run(folder, name)
  assert done.returncode == 0, done.stderr
  return done


def last_state(folder, workdir, name):
  """Stage and state of a finished run, on one device."""
  written = json.loads((folder / workdir / 'config.json').read_text())
  stage = assembly.build(config_lib.from_dict(written['config']), name)
  one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one),
    jax.eval_shape(lambda: assembly.initial_state(stage)),
  )
  path = folder / workdir / 'stages' / f'00_{name}' / 'checkpoints'
  checkpoints = checkpoint.Checkpoints(path, keep=2)
  state = checkpoints.restore(checkpoints.latest(), like)
  checkpoints.close()
  return stage, jax.device_get(state)


def flat(variables):
  """Leaves by path, such as `params/backbone/conv1/kernel`."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(dict(variables))
  name = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
  return {name(path): leaf for path, leaf in leaves}


def losses(folder, workdir):
  lines = (folder / workdir / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  return [(r['step'], r['loss']) for r in records if 'loss' in r]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['source_only', 'dacs'])
def test_from_raw_tree_to_report(folder, name):
  done = finished(folder, name)
  assert done.stderr.count('config.init.weights is unset') == 1
  assert 'prefetch_buffer_size' not in done.stderr
  assert [step for step, _ in losses(folder, name)] == [1, 2, 3]
  page = (folder / name / 'report.html').read_text()
  assert name in page and '<svg' in page
  found = json.loads((folder / name / 'results.json').read_text())
  assert found['benchmark'] == PAIR and found['method'] == name
  assert found['stages'][0]['steps'] == 3
  record = found['evaluation']
  assert record['images'] == 2 and record['input_size'] == [32, 64]

  # Every labelled pixel of the original counts, not of the resized image.
  stage, state = last_state(folder, name, name)
  data, variables = stage.config.data, state.variables()['segmenter']
  mode = data.target_resize or data.resize
  counts = np.zeros((19, 19), int)
  for example in sources.open_dataset('cityscapes:validation', folder / 'data'):
    assert example['label'].shape == (*NATIVE, 1)
    image = transforms.resize(example['image'], (32, 64), mode)
    outputs, _ = stage.method.networks['segmenter'].apply(
      variables, normalize.normalize(image[None], 'caffe_bgr'), False
    )
    predicted = resize.align_corners(outputs['logits'], NATIVE).argmax(-1)
    label = example['label'][None, ..., 0]
    counts += np.asarray(metrics.confusion(label, predicted, 19))
  assert record['pixel_accuracy'] == pytest.approx(
    100 * np.trace(counts) / counts.sum(), abs=0.02
  )


@pytest.mark.slow
@pytest.mark.parametrize('pair', ['synthia_to_cityscapes', 'gta5_to_idd'])
def test_other_pairs_from_raw_tree_to_report(folder, pair):
  done = run(folder, 'source_only', workdir=pair, pair=pair)
  assert done.returncode == 0, done.stderr
  found = json.loads((folder / pair / 'results.json').read_text())
  assert found['benchmark'] == pair
  assert found['evaluation']['images'] == 2


@pytest.mark.slow
def test_rounds_of_cbst_on_exported_trees(folder):
  stages = ('source_only', 'round_1', 'round_2')
  done = run(
    folder,
    'cbst',
    f'--config.pipeline={stages}',
    *(f'--config.stages.{stage}.steps=3' for stage in stages),
    steps=False,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads((folder / 'cbst/results.json').read_text())
  assert [stage['steps'] for stage in found['stages']] == [3, 3, 3]
  assert found['evaluation']['images'] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'pair', 'phases'),
  [
    ('adversarial', PAIR, 2),
    ('adversarial', f'{PAIR},variant=minent', 1),
    ('cdga', PAIR, 2),
  ],
)
def test_alignment_on_exported_trees(folder, name, pair, phases):
  workdir = f'{name}_{phases}'
  done = run(folder, name, workdir=workdir, pair=pair)
  assert done.returncode == 0, done.stderr
  found = json.loads((folder / workdir / 'results.json').read_text())
  assert found['benchmark'] == PAIR and found['stages'][0]['steps'] == 3
  assert found['evaluation']['images'] == 2
  text = (folder / workdir / 'metrics.jsonl').read_text()
  record = json.loads(text.splitlines()[0])
  # Both classifiers are aligned, each by a discriminator of its own.
  assert ('discriminator_aux_accuracy_target' in record) == (phases == 2)
  pictures = folder / workdir / 'stages/00_cdga/artifacts/groups.png'
  assert pictures.exists() == (name == 'cdga')


@pytest.mark.slow
def test_resume_equals_an_uninterrupted_run(folder):
  finished(folder, 'dacs')
  stopped = run(folder, 'dacs', workdir='resumed', code=STOP)
  assert stopped.returncode == 75, stopped.stderr
  assert 'preempted' in stopped.stderr
  assert not (folder / 'resumed/results.json').exists()
  again = run(folder, 'dacs', workdir='resumed')
  assert again.returncode == 0, again.stderr
  assert losses(folder, 'resumed') == losses(folder, 'dacs')
  jax.tree.map(
    np.testing.assert_array_equal,
    last_state(folder, 'resumed', 'dacs')[1],
    last_state(folder, 'dacs', 'dacs')[1],
  )


@pytest.mark.slow
def test_published_weights_and_bfloat16(folder):
  """Weights come in whole; what is frozen stays, what is not moves."""
  config = source_config.get_config(PAIR)
  config.model.preset = 'reduced'
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: rng.uniform(0.5, 1.5, x.shape).astype(x.dtype),
    shapes(config.model),
  )
  tensors = import_weights.to_torch_names(variables)
  np.savez(folder / 'published.npz', **tensors)
  done = run(
    folder,
    'source_only',
    f'--config.init.weights={folder / "published.npz"}',
    '--config.model.compute_dtype=bfloat16',
    workdir='weights',
  )
  assert done.returncode == 0, done.stderr
  assert f'loaded {len(tensors)}/{len(tensors)} tensors' in done.stderr
  assert 'is unset' not in done.stderr
  stage, state = last_state(folder, 'weights', 'source_only')
  dtypes = {x.dtype for x in jax.tree.leaves(state.variables())}
  assert dtypes == {np.dtype('float32')}
  params = {'segmenter': state.params['segmenter']}
  before = flat(variables)
  after = flat(state.variables()['segmenter'])
  for path, group in optim.group_table(stage.config.optim.main, params):
    path = path.replace('segmenter', 'params', 1)
    same = np.array_equal(before[path], after[path])
    assert same == group.frozen, path
  for path in before:
    if path.startswith('batch_stats'):
      assert not np.array_equal(before[path], after[path]), path
