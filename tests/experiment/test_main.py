"""The command line: one clear line and exit 2 for whatever is wrong."""

from __future__ import annotations

import pathlib
import sys

import jax
import pytest

from jaxseg_da import main
from tests import support

SOURCE = f'{support.ROOT}/configs/source_only.py'
DACS = f'{support.ROOT}/configs/dacs.py'

# ml_collections 1.1 loads config files with what Python 3.12 renamed.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
  """Runs a command in this process; returns its one line on stderr."""
  compiled = []

  def listen(name, seconds, **kw):
    if name == '/jax/core/compile/backend_compile_duration':
      compiled.append(seconds)

  def call(*arguments, config=DACS, workdir=True, building=''):
    argv = ['main', f'--config={config}']
    argv += [f'--workdir={tmp_path / "run"}'] if workdir else []
    # Eight devices here: a batch of eight is what fits.
    argv += ['--config.batch_size=8'] if str(config).startswith(DACS) else []
    sys.modules.pop('config_config', None)  # of the config file before
    code = main.main([*argv, *arguments])
    out, err = capsys.readouterr()
    assert code == 2 and not out.replace(building, '')
    assert err.startswith('error: ') and err.count('\n') == 1
    assert 'Traceback' not in err and len(err) < 600
    assert not compiled
    return err

  monkeypatch.setattr(main.signal, 'signal', lambda *_: None)
  jax.monitoring.register_event_duration_secs_listener(listen)
  yield call
  jax.monitoring.clear_event_listeners()


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    (['--config.stages.dacs.method=x'], ['method', "'x'", 'dacs', 'oracle']),
    (['--mode=dance'], ['--mode', "'dance'", 'run', 'evaluate', 'predict']),
    (['--config.lernrate=3'], ['lernrate']),
    (['--config.data.sorce=x'], ['sorce', 'source']),
    (['--learning_rate=3'], ['learning_rate']),
    (['leftover'], ["'leftover'"]),
    (['--config.batch_size=-8'], ['config.batch_size=-8', 'from 1 to']),
    (['--config.batch_size=0'], ['config.batch_size=0', 'from 1 to']),
    (['--config.batch_size=12'], ['12', '8 devices', '8 or 16']),
    (['--config.batch_size=3'], ['3', 'nearest valid: 8']),
    (['--config.batch_size=many'], ['batch_size', 'many']),
    (['--config.batch_size=4.5'], ['batch_size', '4.5']),
    (['--config.control=perhaps'], ['control', 'perhaps']),
    (['--config.data.source_size=32'], ['config.data.source_size']),
    (['--config.data.source_size=(a,b)'], ['source_size']),
    (["--config.data.source_size=('a','b')"], ['config.data.source_size']),
    (['--config.optim.main.groups=(1,2)'], ['config.optim.main.groups']),
    (
      ['--config.data.source_crop=(512,512)'],
      ['source_crop=(512, 512)', 'source_size=(96, 192)'],
    ),
    (["--config.pipeline=('source_only','later')"], ["'later'", 'dacs']),
    (['--config.pipeline=()'], ['config.pipeline']),
    (['--config.stages.dacs.init_from=later'], ['init_from', "'later'"]),
    (['--config.stages.dacs.optim=critic'], ['optim', "'critic'", 'main']),
    (['--config.stages.dacs.steps=0'], ['config.stages.dacs.steps']),
    (['--config.stages.dacs.steps=-5'], ['config.stages.dacs.steps']),
    (['--config.stages.dacs.role=boss'], ['role', "'boss'", 'reference']),
    (
      [
        '--config.stages.source_only.role=reference',
        '--config.stages.dacs.role=reference',
      ],
      ['config.pipeline', 'main'],
    ),
    (['--config.backend=jit'], ['config.backend', "'jit'", 'shard_map']),
    (['--config.bn=groups:3'], ['config.bn', 'groups', '8 devices']),
    (['--config.bn=none'], ['config.bn', 'per_device']),
    (['--config.scale_rule=cubic'], ['config.scale_rule', 'sqrt']),
    (['--config.scale_reference_batch=0'], ['config.scale_reference_batch=0']),
    (['--config.steps_scale=0'], ['config.steps_scale=0']),
    (['--config.steps_scale=nan'], ['config.steps_scale=nan']),
    (['--config.steps_scale=inf'], ['config.steps_scale=inf']),
    (['--config.seed=-1'], ['config.seed=-1']),
    (['--config.model.name=vit'], ['config.model.name', "'vit'", 'street']),
    (['--config.optim.main.name=lamb'], ["'lamb'", 'adamw']),
    (['--config.optim.main.schedule=sine'], ["'sine'", 'poly']),
    (['--config.data.resize=magic'], ['config.data.resize', 'pil_bicubic']),
    (['--config.evaluate.mode=half'], ['config.evaluate.mode', 'sliding']),
    (['--config.evaluate.scales=(0.0,)'], ['config.evaluate.scales']),
    (['--config.dacs.weight_mode=x'], ['config.dacs.weight_mode']),
    # Values that cannot be meant; each was accepted once.
    (['--config.optim.main.learning_rate=-0.1'], ['learning_rate=-0.1']),
    (['--config.optim.main.learning_rate=nan'], ['learning_rate=nan']),
    (['--config.optim.main.momentum=5'], ['momentum=5', '0 and below 1']),
    (['--config.optim.main.b1=2'], ['b1=2']),
    (['--config.optim.main.b2=1'], ['b2=1']),
    (['--config.model.aux_weight=nan'], ['model.aux_weight=nan']),
    (['--config.model.compute_dtype=float64'], ['JAX_ENABLE_X64']),
    (['--config.model.width=10000000'], ['model.width', '4096']),
    (['--config.batch_size=1000000000000'], ['batch_size', '65536']),
    (['--config.data.num_classes=7'], ['data.num_classes', '19']),
    (['--config.dacs.ema_decay=1.5'], ['dacs.ema_decay=1.5', '0 to 1']),
    (['--config.dacs.threshold=96.8'], ['dacs.threshold=96.8', '0 to 1']),
    (['--config.dacs.jitter=-0.1'], ['dacs.jitter=-0.1']),
    (['--config.data.target_crop=(32,32)'], ['target_crop', 'source_crop']),
    (['--config.data.source_size=(1000000,1000000)'], ['data.source_size']),
    (['--config.method=nope'], ['config.method', "'nope'", 'dacs']),
    (
      ["--config.pipeline=('source_only',)"],
      ['config.method', "'dacs'", 'source_only'],
    ),
    (['--config.lse.beta=0.5'], ['config.lse.beta', 'no stage', 'dacs']),
    (
      [
        "--config.pipeline=('source_only',)",
        '--config.method=source_only',
        '--config.dacs.threshold=0.5',
      ],
      ['config.dacs.threshold', 'no stage'],
    ),
    (['--config.stages.dacs.steps=1e20'], ['stages.dacs.steps', '1e20']),
    (['--config.stages.dacs.steps=10000000000'], ['stages.dacs.steps']),
    (['--config.steps_scale=1e300'], ['steps_scale']),
    (['--config.seed=1180591620717411303424'], ['config.seed', '4294967295']),
    *(
      ([f'--config.evaluate.size={value}'], ['evaluate.size'])
      for value in (
        '(32,)',
        '(1,2,3)',
        '(-32,-32)',
        '(0,32)',
        '(1000000,32)',
        '32',
      )
    ),
    *(
      ([f'--config.evaluate.scales={value}'], ['evaluate.scales'])
      for value in ('(1e9,)', '(inf,)', '(1e-9,)', '1.0', '()')
    ),
  ],
)
def test_what_is_wrong_is_named(refused, flags, said):
  message = refused(*flags)
  assert all(part in message for part in said), message


@pytest.mark.parametrize(
  ('name', 'flags', 'said'),
  [
    ('lse', '--config.lse.window=(-1,-1)', 'config.lse.window'),
    ('lse', '--config.lse.window=(97,192)', 'does not fit'),
    ('lse', '--config.lse.patches=0', 'config.lse.patches=0'),
    ('lse', '--config.lse.gamma=-1', 'config.lse.gamma=-1'),
    ('lse', '--config.lse.epochs=0', 'config.lse.epochs=0'),
    ('lse', '--config.lse.portion_stop=0.1', 'config.lse.portion_stop=0.1'),
    ('cbst', '--config.cbst.scale=0', 'config.cbst.scale=0'),
    ('cbst', '--config.cbst.target_portion=(0.2,-1,0.5)', 'target_portion'),
    ('cbst', '--config.cbst.target_portion=(0.2,0.05,0)', 'target_portion'),
  ],
)
def test_values_of_methods_are_refused(refused, name, flags, said):
  config = f'{support.ROOT}/configs/{name}.py'
  assert said in refused('--config.batch_size=8', flags, config=config)


def test_what_cannot_fit_into_memory_is_refused(refused):
  """A batch whose pixels and logits alone need more than there is."""
  size = f'--config.data_dir={support.data_dir()}'
  large = ['source_size', 'target_size']
  message = refused(
    '--config.batch_size=65536',
    *(f'--config.data.{key}=(2048,2048)' for key in large),
    size,
  )
  assert 'GiB per device' in message and 'config.batch_size=65536' in message


def test_more_images_than_there_are_is_refused(refused):
  message = refused(
    '--config.evaluate.limit=9',
    f'--config.data_dir={support.data_dir()}',
    config=f'{DACS}:streets,size=32x64',
  )
  assert 'config.evaluate.limit=9' in message and 'the 8 images' in message


def test_no_rate_is_meant():
  """How one sees what statistics alone do."""
  argv = ['main', f'--config={DACS}', '--workdir=x']
  sys.modules.pop('config_config', None)
  config, _, _ = main.parse([*argv, '--config.optim.main.learning_rate=0'])
  assert config.optim.main.learning_rate == 0


def test_explain_shows_keys_and_pipeline_and_runs_nothing(tmp_path, capsys):
  argv = [
    'main',
    f'--config={support.ROOT}/configs/lse.py:streets,size=32x64',
    '--config.batch_size=8',
    '--config.lse.gamma=2.5',
    f'--config.data_dir={tmp_path}',
  ]
  for mode in ('--mode=explain', '--help'):
    sys.modules.pop('config_config', None)
    assert main.main([*argv, mode]) == main.DONE
    out = capsys.readouterr().out
    assert '* lse.gamma = 2.5' in out
    assert 'focal exponent' in out and 'a finite number from 0 on' in out
    assert '2 round_1: lse from source_only, as many steps as its host' in out
    assert 'control (control): source_only from source_only' in out
    assert 'streets/city-32x64:train: not there yet' in out
    assert 'M parameters' in out and 'dacs.threshold' not in out
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('argument', 'said'),
  [
    ('nowhere', ["benchmark 'nowhere'", 'gta5_to_cityscapes', 'streets']),
    ('streets,size=96', ["'96'", 'HxW']),
    ('streets,sise=9x9', ["'sise'", 'size']),
    ('streets,preset=harder', ["'harder'", 'hard']),
    ('streets,fast', ["'fast'", 'key=value']),
  ],
)
def test_the_argument_of_a_config_is_checked(refused, argument, said):
  message = refused(config=f'{DACS}:{argument}')
  assert all(part in message for part in said), message


def test_a_config_file_that_is_missing_or_broken_is_named(refused, tmp_path):
  missing = tmp_path / 'missing.py'
  assert str(missing) in refused(config=missing)
  for name, text, said in (
    ('syntax', 'def get_config(:\n', 'line 1'),
    ('name', 'def get_config():\n  return nothing\n', 'name.py:2'),
    ('none', 'x = 1\n', 'get_config'),
    ('type', 'def get_config():\n  return 3\n', 'get_config'),
    (
      'value',
      'from jaxseg_da import config\n'
      'def get_config():\n'
      '  c = config.base_config()\n'
      "  c.batch_size = 'eight'\n"
      '  return c\n',
      'value.py:4: TypeError',
    ),
    (
      'extra',
      'from jaxseg_da import config\n'
      'def get_config():\n'
      '  c = config.base_config()\n'
      '  c.batch_sise = 8\n'
      '  return c\n',
      'batch_size',
    ),
  ):
    path = tmp_path / f'{name}.py'
    path.write_text(text)
    message = refused(config=path)
    assert str(path) in message or name == 'extra', message
    assert said in message, message


def test_flags_that_are_missing_or_in_the_wrong_order(refused, capsys):
  assert '--workdir' in refused(workdir=False)
  assert main.main(['main', '--workdir=x']) == 2
  assert '--config is required' in capsys.readouterr().err
  order = ['main', '--config.seed=1', f'--config={DACS}', '--workdir=x']
  assert main.main(order) == 2
  err = capsys.readouterr().err
  assert '--config' in err and err.count('\n') == 1


def test_data_that_is_missing_is_named_with_its_command(refused, tmp_path):
  message = refused(
    '--config.batch_size=8',
    f'--config.data_dir={tmp_path / "none"}',
    config=f'{SOURCE}:gta5_to_cityscapes',
  )
  assert str(tmp_path / 'none/gta5') in message
  assert 'python -m data_prep.build gta5' in message
  here = f'--config.data_dir={support.data_dir()}'
  message = refused(here, '--config.data.source=nope')
  assert "unknown dataset 'nope'" in message and 'streets' in message
  message = refused(
    here,
    '--config.data.source=streets/moon',
    building=f'building streets/moon in {support.data_dir()}\n',
  )
  assert 'moon' in message
  message = refused(here, '--config.data.source=streets/gta-32x64:night')
  assert "'night'" in message and 'validation' in message


def test_weights_that_are_missing_are_named(refused, tmp_path):
  message = refused(
    f'--config.init.weights={tmp_path / "none.pth"}',
    f'--config.data_dir={support.data_dir()}',
    config=f'{DACS}:streets,size=32x64',
  )
  assert 'config.init.weights' in message and 'none.pth' in message


def test_a_workdir_that_is_a_file_is_named(refused, tmp_path):
  (tmp_path / 'run').write_text('')
  assert str(tmp_path / 'run') in refused()


@pytest.mark.parametrize('which', ('latest', '-1', '7', 'best', ''))
def test_a_checkpoint_that_does_not_exist(refused, tmp_path, which):
  message = refused('--mode=evaluate', f'--config.evaluate.checkpoint={which}')
  assert 'checkpoint' in message
  assert not list(tmp_path.glob('run/stages/*')), 'nothing is left behind'


def test_predict_needs_its_paths(refused):
  assert 'config.predict.input' in refused('--mode=predict')


def test_help_explains(capsys):
  with pytest.raises(SystemExit) as exit_info:
    main.main(['main', '--help'])
  assert exit_info.value.code == 0
  out = capsys.readouterr().out
  assert '--config=configs/METHOD.py' in out and '--workdir' in out


@pytest.mark.parametrize(
  ('flags', 'devices', 'said'),
  [
    ([f'--config={DACS}:nowhere', '--workdir=x'], 1, "'nowhere'"),
    (
      [f'--config={DACS}', '--workdir=x', '--config.batch_size=6'],
      4,
      '4 or 8',
    ),
    ([f'--config={DACS}', '--workdir=x', 'surplus'], 1, "'surplus'"),
  ],
)
def test_the_process_exits_with_2(flags, devices, said, tmp_path):
  _, err = support.run(flags, expected=2, devices=devices)
  assert said in err and err.count('\n') == 1
  assert not pathlib.Path('x').exists()


def test_a_run_needs_no_tensorflow_and_no_torch(tmp_path):
  """The whole pipeline, evaluation and report, in a process of its own."""
  script = tmp_path / 'script.py'
  script.write_text(
    'import sys\n'
    'from jaxseg_da import main\n'
    'code = main.main(sys.argv)\n'
    "found = {'tensorflow', 'torch', 'keras'} & set(sys.modules)\n"
    'assert not found, found\n'
    "assert 'orbax.checkpoint' in sys.modules, 'the run did not happen'\n"
    'sys.exit(code)\n'
  )
  flags = support.flags(
    tmp_path / 'run',
    '--config.stages.source_only.steps=2',
    '--config.tensorboard=True',
    config='source_only',
  )
  process = support.subprocess.Popen(
    [sys.executable, script, *flags],
    env=support.environment(),
    cwd=support.ROOT,
    stdout=support.subprocess.PIPE,
    stderr=support.subprocess.PIPE,
    text=True,
  )
  code, out, err = support.finish(process)
  assert code == 0, err
  assert (tmp_path / 'run/report.html').exists()
  assert list(tmp_path.glob('run/tensorboard/events*'))
  assert 'mIoU-19' in out
