"""Every config loads and is valid; derived values are what they say."""

from __future__ import annotations

import copy
import importlib
import pathlib
import re

import pytest

from jaxseg_da import config as config_lib
from jaxseg_da import errors, methods, models
from jaxseg_da.config import pairs, schema
from jaxseg_da.evaluation import evaluate
from jaxseg_da.experiment import assembly, checks, resolve, results
from jaxseg_da.training import checkpoint, optim, parallel

FILES = sorted(
  path.stem for path in pathlib.Path(__file__).parents[2].glob('configs/*.py')
)
# Their names say what they are, in every library.
KNOWN_CONSTANTS = ('learning_rate', 'b2', 'warmup_steps')
STREETS = (
  '',
  'streets',
  'streets,size=32x64',
  *(f'streets,preset={name}' for name in pairs.PRESETS),
)


def load(name: str, arg: str = '') -> config_lib.ConfigDict:
  """A config as main sees it: locked."""
  config = importlib.import_module(f'configs.{name}').get_config(arg)
  return config.lock()


def documented() -> list[tuple[str, str]]:
  """Each file with each argument that it takes."""
  return [
    (name, arg)
    for name in FILES
    for arg in (*STREETS, *(b for b in pairs.BENCHMARKS if b != 'streets'))
    if name != 'demo' or arg.startswith('streets')
  ]


def test_the_files_are_known():
  assert {'dacs', 'demo', 'source_only'} <= set(FILES)
  for name in FILES:
    doc = importlib.import_module(f'configs.{name}').__doc__
    assert f'--config=configs/{name}.py' in doc and '--workdir=' in doc


@pytest.mark.parametrize(('name', 'arg'), documented())
def test_every_config_is_valid(name, arg):
  config = load(name, arg)
  checks.validate_keys(config)
  resolved = resolve.resolve(config)
  checks.validate(resolved, 1)
  for stage in resolved.pipeline:
    built = assembly.build(resolved, stage)
    # Where the data decide, the number is not known yet.
    assert built.steps == (resolved.stages[stage].steps or 1)
    assert built.method.domains and built.method.phases
  again = config_lib.from_dict(config_lib.to_dict(resolved))
  assert config_lib.to_dict(again) == config_lib.to_dict(resolved)
  checks.validate_keys(again)


def test_the_demo_refuses_other_pairs():
  with pytest.raises(errors.UserError, match='gta5_to_cityscapes'):
    load('demo', 'gta5_to_cityscapes')


def every_key() -> list[tuple[str, schema.Key]]:
  """All keys of all methods."""
  config = methods.base_config(*methods.NAMES)
  found = schema.keys(config, methods.schema_of(config))
  return [(name, key) for name, _, key in found]


def test_every_key_is_explained():
  """Declared once: type, meaning, and what it may be; defaults are valid."""
  found = every_key()
  assert len(found) > 130
  for name, key in found:
    assert key is not None and key.meaning.strip(), name
    assert key.rule.text and key.rule.holds(key.default), name
    schema.check_value(name, key.default, key)
    # Only truth values and free paths cannot be wrong.
    free = isinstance(key.default, bool) or 'path' in key.rule.text
    assert key.rule.wrong or free, name


def test_modules_know_the_same_choices():
  """What people can use without configs lists what it takes once more."""
  choices = {name: {*key.rule.choices} for name, key in every_key()}
  for name, known in (
    ('backend', parallel.BACKENDS),
    ('model.name', models.NAMES),
    ('model.preset', models.PRESETS),
    ('model.compute_dtype', models.DTYPES),
    ('optim.main.name', optim.OPTIMIZERS),
    ('optim.main.schedule', optim.SCHEDULES),
    ('optim.main.multiplicity', optim.MULTIPLICITIES),
    ('optim.main.first_step', optim.FIRST_STEPS),
    ('evaluate.mode', evaluate.MODES),
    ('evaluate.upsample', evaluate.UPSAMPLED),
    ('evaluate.labels', evaluate.LABELS),
  ):
    assert choices[name] == {*known}, name


def test_every_bad_value_is_refused():
  """Each by a sentence that names key and value, and says what is valid."""
  tried = set()
  for name, key in every_key():
    for value in key.rule.wrong:
      if isinstance(key.default, int) and isinstance(value, float):
        continue  # another type
      with pytest.raises(errors.UserError, match=re.escape(name)) as info:
        schema.check_value(name, value, key)
      said = str(info.value)
      assert 'must be' in said or 'valid: ' in said
      tried.add(name)
  assert len(tried) > 110


def step_keys() -> set[str]:
  """Keys that count steps, by hand."""
  return {
    'log_every',
    'checkpoint.every_steps',
    'evaluate.every_steps',
    'optim.main.horizon_steps',
    'optim.main.decay_steps',
    'optim.main.warmup_steps',
    'stages.source_only.steps',
    'stages.dacs.steps',
    'ccda.uda_skip_steps',
  }


@pytest.mark.parametrize('factor', (0.01, 0.5, 3.0))
def test_steps_scale_reaches_exactly_the_step_keys(factor):
  config = load('dacs')
  config.control = False
  config.evaluate.every_steps = 50
  config.optim.main.horizon_steps = 1000
  config.steps_scale = factor
  before = dict(config_lib.leaves(config))
  after = dict(config_lib.leaves(resolve.resolve(config)))
  assert before.keys() == after.keys()
  for key, value in before.items():
    if key in step_keys() and value:
      assert after[key] == max(1, round(value * factor)), key
      assert after[key] != value
    else:
      assert after[key] == value, key
  assert (
    before['optim.main.decay_steps'] == after['optim.main.decay_steps'] == 0
  )
  assert dict(config_lib.leaves(config)) == before, 'the argument was changed'


@pytest.mark.parametrize(('rule', 'rate'), [('linear', 4.0), ('sqrt', 2.0)])
def test_scale_rule(rule, rate):
  config = load('dacs')
  config.batch_size, config.scale_rule = 16, rule
  resolved = resolve.resolve(config)
  assert resolved.optim.main.learning_rate == pytest.approx(
    config.optim.main.learning_rate * rate
  )
  assert resolved.dacs.ema_decay == pytest.approx(0.99**4)
  for name in ('source_only', 'dacs'):
    assert resolved.stages[name].steps == config.stages[name].steps // 4
  config.scale_rule = 'none'
  plain = resolve.resolve(config)
  assert plain.optim.main == config.optim.main
  assert plain.stages.dacs.steps == config.stages.dacs.steps


@pytest.mark.parametrize('name', ('dacs', 'demo'))
def test_the_control_makes_as_many_updates(name):
  config = load(name)
  config.stages.dacs.steps = 333
  resolved = resolve.resolve(config)
  assert 'control' not in config.pipeline
  at = resolved.pipeline.index('control')
  assert resolved.pipeline[at - 1] == 'dacs'
  control = resolved.stages.control
  assert (control.init_from, control.role) == ('source_only', 'control')
  updates = {
    stage: methods.make(resolved, resolved.stages[stage]).segmentation_updates(
      resolved.stages[stage].steps
    )
    for stage in ('dacs', 'control')
  }
  assert updates['dacs'] == updates['control'] == 333
  assert methods.make(resolved, control).name == 'source_only'


def test_the_control_of_a_run_from_scratch_starts_from_scratch():
  config = load('dacs', 'gta5_to_cityscapes')
  config.control = True
  resolved = resolve.resolve(config)
  assert resolved.pipeline == ('dacs', 'control')
  assert resolved.stages.control.init_from == ''
  assert resolved.stages.control.steps == resolved.stages.dacs.steps


def test_source_only_needs_no_control():
  config = load('source_only')
  config.control = True
  assert resolve.resolve(config).pipeline == ('source_only',)


def test_keys_that_may_change_on_resume():
  old = config_lib.to_dict(resolve.resolve(load('dacs')))
  new = copy.deepcopy(old)
  new['data_dir'] = '/elsewhere'
  new['log_every'] = 1
  new['distributed'] = True
  new['evaluate']['checkpoint'] = 'best'
  new['predict']['input'] = 'x'
  new['checkpoint']['every_steps'] = 7
  assert checks.differences(old, new) == []
  new['seed'] = 5
  new['dacs']['blur_sigma'] = [0.0, 1.0]
  new['optim']['main']['groups'][0][1] = 0.5
  del new['stages']['control']['steps']
  assert checks.differences(old, new) == [
    'dacs.blur_sigma',
    'optim.main.groups',
    'seed',
    'stages.control.steps',
  ]


def test_a_written_config_equals_itself(tmp_path):
  """Tuples become lists in JSON; that is no difference."""
  for name in FILES:
    new = config_lib.to_dict(resolve.resolve(load(name)))
    checkpoint.write_json(tmp_path / 'config.json', {'config': new})
    old = checkpoint.read_json(tmp_path / 'config.json')['config']
    assert checks.differences(old, new) == []


@pytest.mark.parametrize(
  ('key', 'value', 'said'),
  [
    ('data.source_size', ('a', 'b'), 'data.source_size'),
    ('optim.main.groups', (('x', 1.0),), 'optim.main.groups'),
    ('evaluate.scales', (True,), 'evaluate.scales'),
  ],
)
def test_types_inside_of_tuples(key, value, said):
  config = load('dacs')
  config.update_from_flattened_dict({key: value})
  with pytest.raises(errors.UserError, match=re.escape(said)):
    checks.validate_keys(config)


def test_labels_of_the_target_are_only_for_the_oracle():
  """What any method trains on, and what any stage is evaluated on."""
  seen = set()
  for name, arg in documented():
    config = resolve.resolve(load(name, arg))
    config.model.aux_head = False  # self-training refuses it
    config.model.name = 'street'  # adabn refuses DeepLab-V3
    with config.unlocked():
      methods.add_blocks(config, methods.NAMES)
    config.data.source_size = config.data.target_size  # DACS mixes them
    config.data.source_crop = config.data.target_crop
    config.lse.window = (16, 16)
    for method in methods.NAMES:
      block = config_lib.stage(method, 1)
      for domain in methods.make(config, block).domains.values():
        target = domain.spec.split(':')[0] == config.data.target.split(':')[0]
        assert (target and domain.labelled) == (method == 'oracle'), method
        hidden = domain.spec.endswith(':train_labelled')
        assert hidden == (method == 'oracle' and domain.spec[:7] == 'streets')
        seen.add((method, hidden))
    for spec in results.specs(config):
      assert spec.endswith(':validation')
  assert ('oracle', True) in seen and ('dacs', False) in seen


def test_a_config_file_takes_its_own_option():
  choices = ('a', 'b')
  take = lambda arg: pairs.take_option(arg, 'kind', choices)
  assert take('') == ('streets', 'a')
  assert take('streets,kind=b,size=64x64') == ('streets,size=64x64', 'b')
  with pytest.raises(errors.UserError, match=r'kind.*a, b'):
    take('streets,kind=c')
