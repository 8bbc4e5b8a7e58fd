"""CCDA's config: published constants, chains of stages, and whole runs."""

from __future__ import annotations

import collections
import json

import jax
import numpy as np
import pytest

from configs import ccda as ccda_config
from jaxseg_da import errors, main, models, modes
from jaxseg_da.drawing import html_pieces
from jaxseg_da.evaluation import tables
from jaxseg_da.experiment import cache, checks, resolve
from jaxseg_da.training import optim
from tests import support

# ml_collections loads config files through a method that Python deprecates.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)

CITYSCAPES, IDD = 'gta5_to_cityscapes', 'gta5_to_idd'
# Two steps: sky stays, the others are split.
MINE = """
steps:
  - - {name: all but sky, train_ids: [0, 1, 2, 8, 11, 13], colour: [9, 8, 7]}
    - {name: sky, train_ids: [10]}
  - - {name: flat, train_ids: [0, 1]}
    - {name: sky, train_ids: [10]}
    - {name: upright, train_ids: [2, 8, 11, 13], colour: [1, 2, 3]}
"""


def load(arg: str = ''):
  return ccda_config.get_config(arg).lock()


@pytest.fixture
def mine(tmp_path):
  """A user's tree."""
  path = tmp_path / 'mine.yaml'
  path.write_text(MINE)
  return path


@pytest.mark.parametrize('pair', (CITYSCAPES, IDD))
def test_published_constants(pair):
  config, idd = load(pair), pair == IDD
  data, settings = config.data, config.ccda
  assert settings.hierarchy == pair
  assert (settings.uda_weight, settings.ratio) == (0.1, 0.2)
  assert settings.uda_skip_steps == 100
  assert settings.kd_weight == 10
  assert settings.kd_refined_weight == (1 if idd else 10)
  assert config.batch_size == config.scale_reference_batch == (1 if idd else 2)

  assert data.source_size == (720, 1280)
  size = (720, 1280) if idd else (640, 1280)
  assert data.target_size == config.evaluate.size == size
  assert (data.resize, data.target_resize) == ('cv_area', '')
  assert data.source_crop == data.target_crop == (0, 0)
  assert data.normalization == 'caffe_bgr'
  assert data.source == 'gta5:all[:96%]'
  train = 'idd:train[:99%]' if idd else 'cityscapes:train[:83%]+train_extra'
  assert data.target == train
  assert config.augment.flip and config.augment.blur_probability == 1
  native = (1914, 1920 if idd else 2048)
  assert config.augment.blur_sigma == pytest.approx(
    [5 * 1280 / width for width in native]
  )

  assert config.model.name == 'deeplabv3' and config.model.preset == 'full'
  assert config.model.layers == (3, 4, 23, 3)
  stages = [config.stages[name] for name in config.pipeline]
  assert [(s.steps, s.optim) for s in stages] == [
    (50_000, 'main'),
    *[(25_000, 'refine')] * 3,
  ]
  for name, rate in (('main', 2.5e-4), ('refine', 1e-4)):
    optimizer = config.optim[name]
    assert (optimizer.name, optimizer.learning_rate) == ('sgd', rate)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 1e-4)
    assert (optimizer.schedule, optimizer.power) == ('poly', 0.9)
    assert optimizer.horizon_steps == (250_000 if idd else 125_000)
    assert optimizer.warmup_steps == 0 and optimizer.grad_clip == 0
    assert optimizer.multiplicity == 'reference'
  assert (config.evaluate.every_steps, config.evaluate.labels) == (
    2500,
    'input',
  )
  assert not config.control


def test_options_of_the_published_pairs():
  every = load(f'{CITYSCAPES},split=all')
  assert every.data.source == 'gta5:all'
  assert every.data.target == 'cityscapes:train'
  small = load(f'{CITYSCAPES},size=64x128,model=deeplabv2')
  assert small.data.source_size == small.data.target_size == (64, 128)
  assert small.evaluate.size == (64, 128)
  assert small.augment.blur_sigma == pytest.approx(
    [5 * 128 / width for width in (1914, 2048)]
  )
  assert (small.model.name, small.model.aspp_branches) == ('deeplabv2', 4)
  assert load(f'{CITYSCAPES},hierarchy={IDD}').ccda.hierarchy == IDD


@pytest.mark.parametrize('name', ccda_config.NETWORKS)
def test_all_is_trained_but_for_the_normalisation_of_the_stem(name):
  config = load(f'{CITYSCAPES},model={name}')
  config.model.preset = 'reduced'
  network = models.build(config.model, 7)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  shapes = jax.eval_shape(network.init, jax.random.key(0), image)
  # Four branches with bias; or four without, three more convolutions, and
  # scale and shift of three normalisations.
  head = 8 if name == 'deeplabv2' else 4 + 3 + 6
  for block in (config.optim.main, config.optim.refine):
    table = optim.group_table(block, {'segmenter': shapes['params']})
    stem = 'segmenter/backbone/bn1'
    frozen = {path for path, group in table if group.frozen}
    assert frozen == {f'{stem}/scale', f'{stem}/bias'}
    assert {g.weight_decay for _, g in table if not g.frozen} == {1}
    fast = {path for path, group in table if group.learning_rate == 10}
    assert all(path.startswith('segmenter/classifier/') for path in fast)
    found = collections.Counter((g.learning_rate, g.repeats) for _, g in table)
    # The stem's convolution; four blocks of three convolutions, each with
    # scale and shift, and four shortcuts alike.
    expected = {(0, 1): 2, (1, 1): 1, (1, 3): 36, (1, 4): 12, (10, 1): head}
    assert found == expected


def numbered(what, *levels):
  return [f'{what}_{level}' for level in levels]


# By variant: stages of the roles main and control.
CHAINS = {
  'ccda': (
    ['msiw_0', *numbered('ccda', 1, 2, 3)],
    numbered('source_only', 0, 1, 2, 3),
  ),
  'skdc': (
    ['source_only_0', *numbered('skdc', 1, 2, 3)],
    numbered('source_only', 1, 2, 3),
  ),
  'mib': (
    ['source_only_0', *numbered('mib', 1, 2, 3)],
    numbered('source_only', 1, 2, 3),
  ),
  'msiw': (
    numbered('msiw', 0, 1, 2, 3),
    numbered('source_only', 0, 1, 2, 3),
  ),
  'source_only': (numbered('source_only', 0, 1, 2, 3), []),
}


def of_role(config, role):
  return [n for n in config.pipeline if config.stages[n].role == role]


def check_stages(config):
  """Every stage does what its name says, and starts where it should."""
  checks.validate(config, 1)
  for name in config.pipeline:
    stage, (what, _, level) = config.stages[name], name.rpartition('_')
    level = int(level)
    assert stage.method == ('ccda' if what == 'ccda' else f'ccda_{what}')
    assert (stage.level, stage.updates_of) == (level, ())
    assert stage.optim == ('refine' if level else 'main')
    first = {'ccda': 'msiw_0', 'msiw': 'msiw_0'}.get(what, 'source_only_0')
    before = first if level == 1 else f'{what}_{level - 1}'
    assert stage.init_from == (before if level else '')
    # Controls make as many updates as what they control for.
    alike = [n for n in config.pipeline if n.endswith(f'_{level}')]
    assert {config.stages[n].steps for n in alike} == {stage.steps}


@pytest.mark.parametrize('pair', ('streets', IDD))
@pytest.mark.parametrize('variant', CHAINS)
def test_chains(variant, pair):
  config = load(f'{pair},variant={variant}')
  assert config.method == ('ccda' if variant == 'ccda' else f'ccda_{variant}')
  assert config.control == (pair == 'streets')
  config.control = True
  resolved = resolve.resolve(config)
  chain, controls = CHAINS[variant]
  assert list(resolved.pipeline) == chain + controls
  assert of_role(resolved, 'main') == chain
  assert of_role(resolved, 'control') == controls
  check_stages(resolved)
  config.control = False
  assert list(resolve.resolve(config).pipeline) == chain


@pytest.mark.parametrize('variant', CHAINS)
def test_all_baselines_in_one_run(variant):
  resolved = resolve.resolve(load(f'streets,variant={variant},baselines=all'))
  chain, controls = CHAINS[variant]
  assert of_role(resolved, 'main') == chain
  assert sorted(of_role(resolved, 'control')) == controls
  shared = [*chain, *controls]
  references = [
    *numbered('msiw', 0, 1, 2, 3),
    *numbered('skdc', 1, 2, 3),
  ]
  assert of_role(resolved, 'reference') == [
    name for name in references if name not in shared
  ]
  assert {*numbered('source_only', 0, 1, 2, 3)} < {*resolved.pipeline}
  check_stages(resolved)


def test_steps_are_those_of_the_tree(mine):
  config = load(f'streets,hierarchy={mine}')
  assert config.pipeline == ('msiw_0', 'ccda_1')
  assert config.ccda.hierarchy == str(mine)
  config = load(f'{IDD},variant=skdc,hierarchy={mine},baselines=all')
  assert config.pipeline == ('source_only_0', 'skdc_1', 'msiw_0', 'msiw_1')


def test_steps_scale_reaches_the_late_start():
  config = load('streets')
  config.steps_scale = 0.1
  resolved = resolve.resolve(config)
  assert config.ccda.uda_skip_steps == 100
  assert resolved.ccda.uda_skip_steps == 10
  for name in resolved.pipeline:
    steps = config.stages[name].steps
    assert resolved.stages[name].steps == round(steps / 10)


def test_streets():
  config = load()
  assert (config.pair, config.ccda.hierarchy) == ('streets', CITYSCAPES)
  first, later = ccda_config.STREET_STEPS
  stages = [config.stages[name] for name in config.pipeline]
  assert [s.steps for s in stages] == [first, later, later, later]
  assert 0 < config.ccda.uda_skip_steps < first
  # Two blocks, so that one can be changed without the other.
  config.optim.refine.learning_rate = 0.5
  assert config.optim.main.learning_rate < 0.5
  assert config.optim.refine.groups == config.optim.main.groups


@pytest.mark.parametrize(
  ('arg', 'said'),
  [
    ('streets,variant=lse', ["'lse'", 'skdc', 'mib']),
    ('streets,baselines=some', ["'some'", 'all']),
    (f'{CITYSCAPES},model=fcn8s', ["'fcn8s'", 'deeplabv3']),
    (f'{CITYSCAPES},split=half', ["'half'", 'released']),
    ('streets,hierarchy=mine', ["'mine'", CITYSCAPES, 'FILE.yaml']),
    ('streets,hierarchy=no.yaml', ['no.yaml', 'cannot be read']),
    ('streets,fast=1', ["'fast'", 'size']),
  ],
)
def test_options_that_are_wrong(arg, said):
  with pytest.raises(errors.UserError) as caught:
    load(arg)
  assert all(part in str(caught.value) for part in said), caught.value


def test_a_tree_that_is_none_is_explained(mine):
  mine.write_text(MINE.replace('[0, 1]}', '[0]}'))
  with pytest.raises(errors.UserError, match='step 1 loses train id 1'):
    load(f'streets,hierarchy={mine}')


def flags(workdir, mine, variant, *more):
  """A run of the tiny network, two steps per stage."""
  found = support.flags(
    workdir,
    '--config.stages.source_only_0.steps=2',
    '--config.stages.source_only_1.steps=2',
    f'--config.cache_dir={mine.parent}/cache',
    '--config.optim.refine.warmup_steps=0',
    '--config.batch_size=8',
    '--config.control=True',
    *more,
    config='ccda',
  )
  found[0] += f',variant={variant},hierarchy={mine}'
  return ['main', *found]


def shared(workdir, mine, variant):
  """Where a run of a variant keeps the stages that others may use, too."""
  config, workdir, _ = main.parse(
    flags(workdir, mine, variant, f'--config.stages.{variant}_1.steps=2')
  )
  run = modes.open_run(config, workdir)
  entry = lambda name: cache.entry(run.config, name, run.data_dir, run.steps)
  assert entry(f'{variant}_1') is None
  return [entry(f'source_only_{level}') for level in (0, 1)]


@pytest.mark.slow
def test_runs_of_two_steps(tmp_path, mine, capfd):
  work = tmp_path / 'skdc'
  command = flags(work, mine, 'skdc', '--config.stages.skdc_1.steps=2')
  assert main.main(command) == main.DONE
  out, err = capfd.readouterr()
  found = json.loads((work / 'results.json').read_text())
  roles = {s['name']: s['role'] for s in found['stages']}
  assert roles == {
    'source_only_0': 'main',
    'skdc_1': 'main',
    'source_only_1': 'control',
  }
  assert found['method'] == 'ccda_skdc'
  coarse, fine = found['steps']
  assert [coarse['step'], fine['step']] == [0, 1]
  assert [*coarse['iou']] == ['all but sky', 'sky']
  assert [*fine['iou']] == ['flat', 'sky', 'upright']
  assert (coarse['kept'], fine['kept']) == ([], ['sky'])
  assert coarse['colours'] == {'all but sky': [9, 8, 7], 'sky': [70, 130, 180]}
  assert [*fine['colours']] == [*fine['iou']]
  assert fine['colours']['upright'] == [1, 2, 3]
  by_name = {s['name']: s['evaluation'] for s in found['stages']}
  assert found['evaluation'] == fine == by_name['skdc_1']
  control = found['control']
  assert control == by_name['source_only_1']
  assert (control['step'], [*control['iou']]) == (1, [*fine['iou']])
  for record in by_name.values():
    assert (record['num_classes'], record['images']) == (
      len(record['iou']),
      support.LIMIT,
    )
  # The first step has no control, and the last one's is not its own.
  gain = tables.gain(fine, [control])
  assert gain == pytest.approx(fine['miou'] - control['miou'])
  assert tables.gain(coarse, [control]) is None
  rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
  assert rows['skdc_1'].split()[-1] == f'{gain:+.2f}'
  report = (work / 'report.html').read_text()
  assert '<h2>Steps</h2>' in report
  assert html_pieces.gain(gain) in report
  assert 'all but sky' in report and 'upright' in report
  tree = work / 'stages' / '00_source_only_0' / 'artifacts' / 'hierarchy.png'
  assert tree.exists()

  assert main.main(command) == main.DONE
  assert f'{work} is finished' in capfd.readouterr().err

  # Other variants share the first step and the control, in whatever role.
  entries = shared(work, mine, 'skdc')
  assert sorted(entries) == sorted((tmp_path / 'cache').iterdir())
  assert shared(tmp_path / 'mib', mine, 'mib') == entries
  other = tmp_path / 'source_only'
  command = flags(other, mine, 'source_only', '--config.report.images=0')
  assert main.main(command) == main.DONE
  err = capfd.readouterr().err
  assert err.count(': taken from ') == 2
  again = json.loads((other / 'results.json').read_text())
  assert [s['role'] for s in again['stages']] == ['main', 'main']
  assert again['steps'] == [coarse, control] and again['control'] is None
  assert (other / tree.relative_to(work)).exists()


def test_an_edited_tree_is_another_run(mine, tmp_path):
  """Neither baselines nor a resumed run may come from the tree before."""

  def facts():
    config = resolve.resolve(load(f'streets,variant=skdc,hierarchy={mine}'))
    steps = lambda name: config.stages[name].steps
    key = cache.fingerprint(config, 'source_only_0', tmp_path, steps)
    return config.to_dict(), key

  before, key = facts()
  mine.write_text(MINE + '# A comment changes nothing.')
  assert facts() == (before, key)
  mine.write_text(MINE.replace(', 13]', ']'))
  after, other = facts()
  assert checks.differences(before, after) == ['ccda.digest']
  assert key != other
  assert resolve.resolve(load()).ccda.digest == ''


def test_only_options_that_count_are_taken():
  for option in ('model=deeplabv2', 'split=all'):
    with pytest.raises(errors.UserError, match='unknown option of streets'):
      load(f'streets,{option}')
