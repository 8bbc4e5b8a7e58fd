"""Crashes, preemption, divergence and broken data lose nothing."""

from __future__ import annotations

import json
import pathlib
import random
import shutil
import signal
import time

import numpy as np
import pytest

from jaxseg_da.data import pipeline as data_pipeline
from jaxseg_da.data import sources
from jaxseg_da.experiment import assembly, results, run
from jaxseg_da.training import checkpoint, parallel, writers
from tests import support, toys

STEPS = 10
# Two stages; checkpoints and evaluations fall on different steps.
RUN = (
  f'--config.stages.source_only.steps={STEPS}',
  f'--config.stages.dacs.steps={STEPS}',
  '--config.checkpoint.every_steps=3',
  '--config.evaluate.every_steps=4',
  '--config.evaluate.limit=4',
)
STAGES = ['00_source_only', '01_dacs']


def scratch_run(tmp_path_factory, name: str) -> pathlib.Path:
  return tmp_path_factory.mktemp('faults') / name


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  """A run that nothing happened to."""
  workdir = scratch_run(tmp_path_factory, 'run')
  out, err = support.run(support.flags(workdir, *RUN))
  assert 'report: ' in out and 'Traceback' not in err
  return workdir


def steps_of(workdir: pathlib.Path, stage: str) -> list[int]:
  """Steps of the training lines, in the order of the file."""
  return [
    r['step']
    for r in support.metrics(workdir)
    if r['stage'] == stage and 'loss' in r
  ]


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(uninterrupted):
  for stage in ('source_only', 'dacs'):
    assert steps_of(uninterrupted, stage) == list(range(1, STEPS + 1))
    evaluated = [
      r['step']
      for r in support.metrics(uninterrupted)
      if r['stage'] == stage and 'eval/miou' in r
    ]
    assert evaluated == [4, 8, STEPS]
  assert support.checkpoints(uninterrupted) == {
    name: [9, 10] for name in STAGES
  }
  found = support.results(uninterrupted)
  assert found['evaluation']['images'] == 4
  assert [s['segmentation_updates'] for s in found['stages']] == [STEPS] * 2
  for name in ('config.json', 'report.html', 'images/example_00.png'):
    assert (uninterrupted / name).is_file()


@pytest.mark.slow
@pytest.mark.parametrize('stage', ('source_only', 'dacs'))
def test_kill_at_a_random_step(stage, uninterrupted, tmp_path, capsys):
  """SIGKILL, twice in one run; the third attempt ends like the first."""
  seed = time.time_ns() % 2**32
  rng = random.Random(seed)
  first, second = sorted(rng.sample(range(1, STEPS), 2))
  with capsys.disabled():
    print(f'\nkill in {stage} at {first} and {second} (seed {seed})')
  flags = support.flags(tmp_path / 'run', *RUN)
  for step in (first, second):
    process = support.start(flags)
    support.wait_for_step(process, tmp_path / 'run', stage, step)
    time.sleep(rng.uniform(0, 0.1))
    support.kill(process)
    assert not (tmp_path / 'run/results.json').exists()
  support.run(flags)
  support.assert_same_run(tmp_path / 'run', uninterrupted)


@pytest.mark.slow
def test_kill_while_a_checkpoint_is_written(uninterrupted, tmp_path):
  """Half a checkpoint is there when the process dies."""
  flags = support.flags(tmp_path / 'run', *RUN)
  folder = tmp_path / 'run/stages/00_source_only/checkpoints'
  process, deadline = support.start(flags), time.monotonic() + 120
  half = []
  while not half and time.monotonic() < deadline:
    assert process.poll() is None, process.communicate()
    half = list(folder.glob('*tmp*'))
  support.kill(process)
  assert half, 'no checkpoint was ever being written'
  # The kill may have come just too late; then a torn one is made up.
  left = [path for path in half if path.exists()]
  if not left:
    name = half[0].name.replace(half[0].name.split('.')[0], '6', 1)
    (folder / name / 'state').mkdir(parents=True)
  support.run(flags)
  support.assert_same_run(tmp_path / 'run', uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize(('stage', 'step'), [('source_only', 2), ('dacs', 5)])
def test_preemption_saves_and_resumes(stage, step, uninterrupted, tmp_path):
  flags = support.flags(tmp_path / 'run', *RUN)
  process = support.start(flags)
  support.wait_for_step(process, tmp_path / 'run', stage, step)
  process.send_signal(signal.SIGTERM)
  code, _, err = support.finish(process)
  assert code == 75, err
  last = err.strip().splitlines()[-1]
  assert last.startswith('preempted: ') and stage in last
  assert 'the same command resumes' in last and 'Traceback' not in err
  folder = next(name for name in STAGES if name.endswith(stage))
  saved = support.checkpoints(tmp_path / 'run')[folder]
  assert saved[-1] >= step
  assert steps_of(tmp_path / 'run', stage)[-1] == saved[-1]
  _, err = support.run(flags)
  assert f'{stage} {saved[-1] + 1}/{STEPS}' in err or saved[-1] == STEPS
  # The checkpoint that was forced is one more; `keep` has dropped the oldest.
  support.assert_same_run(tmp_path / 'run', uninterrupted)


@pytest.mark.slow
def test_a_finished_run_says_so(uninterrupted):
  before = {
    path: path.stat().st_mtime_ns
    for path in uninterrupted.rglob('*')
    if path.is_file()
  }
  out, err = support.run(support.flags(uninterrupted, *RUN))
  assert not out and 'is finished' in err and 'report.html' in err
  after = {
    path: path.stat().st_mtime_ns
    for path in uninterrupted.rglob('*')
    if path.is_file()
  }
  assert before == after


@pytest.mark.slow
def test_another_config_is_refused(uninterrupted):
  flags = support.flags(
    uninterrupted, *RUN, '--config.seed=7', '--config.dacs.threshold=0.5'
  )
  _, err = support.run(flags, expected=2)
  assert 'seed' in err and 'dacs.threshold' in err
  assert str(uninterrupted) in err and err.count('\n') == 1
  assert 'batch_size' not in err


@pytest.mark.slow
def test_evaluate_and_predict_on_a_finished_run(uninterrupted, tmp_path):
  work = tmp_path / 'run'
  shutil.copytree(uninterrupted, work)
  before = (work / 'metrics.jsonl').read_bytes()
  evaluate = support.flags(work, *RUN, '--mode=evaluate')
  whole = json.loads((work / 'results.json').read_text())
  read = lambda name: json.loads((work / f'evaluation_{name}.json').read_text())

  out, _ = support.run(evaluate)
  assert read('last') == whole['evaluation']
  assert 'road' in out and 'evaluation_last.json' in out

  support.run([*evaluate, '--config.evaluate.checkpoint=best'])
  best = whole['best']
  assert read('best') == {k: best[k] for k in read('best')}
  assert best['miou'] >= whole['evaluation']['miou']
  assert best['selected_on_target_labels']

  support.run([*evaluate, '--config.evaluate.checkpoint=9'])
  assert read('9')['images'] == 4
  for which in ('8', 'newest'):
    _, err = support.run(
      [*evaluate, f'--config.evaluate.checkpoint={which}'], expected=2
    )
    assert which in err and err.count('\n') == 1

  images = tmp_path / 'images'
  images.mkdir()
  shutil.copy(next(work.glob('images/*.png')), images / 'street.png')
  predict = support.flags(
    work,
    *RUN,
    '--mode=predict',
    f'--config.predict.input={images}',
    f'--config.predict.output={tmp_path / "out"}',
  )
  support.run(predict)
  assert len(list((tmp_path / 'out').rglob('*.png'))) == 3
  _, err = support.run(
    [*predict, f'--config.predict.input={tmp_path}/none'], expected=2
  )
  assert 'none' in err and err.count('\n') == 1
  assert (work / 'metrics.jsonl').read_bytes() == before


@pytest.mark.slow
def test_a_broken_record_is_named_and_nothing_is_lost(tmp_path):
  data = tmp_path / 'data'
  shutil.copytree(support.data_dir(), data)
  file = next(data.glob('streets/gta-32x64/*/*-train.array_record*'))
  whole = file.read_bytes()
  # The image that the fifth step reads loses its signature and its header.
  source = sources.open_dataset('streets/gta-32x64:train', data)
  domain = data_pipeline.Domain(source)
  rows = data_pipeline._Order(domain, 'source', seed=0, stage='source_only')
  record = int(rows._order[4])
  at = whole.index(source._records[record]['image'])
  broken = bytearray(whole)
  broken[at : at + 64] = bytes(64)
  flags = support.flags(
    tmp_path / 'run',
    '--config.stages.source_only.steps=6',
    '--config.checkpoint.every_steps=1',
    '--config.batch_size=1',
    config='source_only',
    data=data,
  )
  reference = [f.replace(str(tmp_path / 'run'), f'{tmp_path}/b') for f in flags]
  support.run(reference)

  file.write_bytes(broken)
  _, err = support.run(flags, expected=2)
  line = err.strip().splitlines()[-1]
  assert line.startswith(
    f'error: streets/gta-32x64:train: record {record} of split train is corrupt'
  )
  assert str(file) in line and 'Traceback' not in err
  done = steps_of(tmp_path / 'run', 'source_only')
  saved = support.checkpoints(tmp_path / 'run').get('00_source_only', [])
  assert done == [1, 2, 3, 4] and saved[-1] == 4

  file.write_bytes(whole)
  support.run(flags)
  support.assert_same_run(tmp_path / 'run', tmp_path / 'b')


@pytest.mark.slow
def test_divergence_stops_and_keeps_the_last_good_checkpoint(tmp_path):
  flags = support.flags(
    tmp_path / 'run',
    '--config.stages.source_only.steps=30',
    '--config.checkpoint.every_steps=1',
    '--config.evaluate.every_steps=2',
    '--config.evaluate.limit=2',
    '--config.log_every=1000',
    '--config.optim.main.name=sgd',
    '--config.optim.main.learning_rate=1e30',
    config='source_only',
  )
  _, err = support.run(flags, expected=3)
  line = err.strip().splitlines()[-1]
  assert line.startswith('diverged: stage source_only diverged at step ')
  assert 'norm' in line or 'loss' in line
  assert 'last good checkpoint' in line and 'Traceback' not in err
  for folder in (tmp_path / 'run').glob('stages/*/**/checkpoints'):
    for step in folder.iterdir():
      state = support.state_in(step)
      assert all(np.isfinite(x).all() for x in state.values()), step
  assert not (tmp_path / 'run/results.json').exists()
  _, again = support.run(flags, expected=3)
  assert again.strip().splitlines()[-1] == line


@pytest.mark.slow
def test_a_cached_baseline_is_taken_and_another_is_not(tmp_path):
  cache = f'--config.cache_dir={tmp_path / "cache"}'
  limit = '--config.evaluate.limit=2'
  short = ('--config.stages.source_only.steps=3', limit, cache)
  a, b, c, d = (tmp_path / name for name in 'abcd')
  support.run(support.flags(a, *short, config='source_only'))
  more = (*short, '--config.stages.dacs.steps=2')
  _, err = support.run(support.flags(b, *more))
  assert err.count('taken from') == 1 and 'stage source_only: taken' in err
  first, second = support.results(a), support.results(b)
  assert first['method'] != second['method']
  assert first['stages'][0] == second['stages'][0]
  lines = [r for r in support.metrics(b) if r['stage'] == 'source_only']
  assert lines == support.metrics(a)
  states = support.last_states(a), support.last_states(b)
  for name, value in states[0]['00_source_only'].items():
    np.testing.assert_array_equal(states[1]['00_source_only'][name], value)

  rate = '--config.optim.main.learning_rate=0.001'
  _, err = support.run(support.flags(c, *short, rate, config='source_only'))
  assert 'taken from' not in err
  assert support.results(c)['evaluation'] != first['evaluation']

  # The same spec, other data behind it.
  data = tmp_path / 'data'
  for name in ('gta', 'city'):
    support.build_streets(data, f'{name}-32x64', 6)
  flags = support.flags(d, *short, config='source_only', data=data)
  _, err = support.run(flags)
  assert 'taken from' not in err


def a_run(workdir: pathlib.Path, **values) -> run.Run:
  """A run that writes metrics and nothing else happens in."""
  config = toys.config(**values)
  config.evaluate.every_steps = 2
  writer = writers.create(workdir, 0, tensorboard=False)
  backend = parallel.PmapBackend()
  return run.Run(config, workdir, backend, writer, lambda: False)


def evaluation(miou: float) -> dict:
  return {'miou': miou, 'miou_16': 1.0, 'miou_13': None, 'pixel_accuracy': 2.0}


def test_evaluations_at_the_step_that_resumed_are_written_once(tmp_path):
  """Killed between an evaluation and what follows it."""
  opened = a_run(tmp_path)
  stage = assembly.build(opened.config, 'source_only')
  for step in (2, 2, 4, 4, 2):
    results._log(opened, stage, step, evaluation(1.0))
  opened.writer.close()
  steps = [r['step'] for r in writers.read_jsonl(tmp_path / 'metrics.jsonl')]
  assert steps == [2, 4]


def test_the_best_record_and_its_checkpoint_belong_together(tmp_path):
  """Also where a resumed run passes an earlier step again."""
  opened = a_run(tmp_path)
  stage = assembly.build(opened.config, 'source_only')
  folder = tmp_path / 'stages/00_source_only/best'
  for step, miou, best in (
    (2, 3.0, 2),
    (4, 2.0, 2),
    (6, 5.0, 6),
    (2, 3.0, 6),  # resumed
    (4, 5.0, 6),
    (6, 5.0, 6),
    (8, 5.0, 8),
    (10, 4.0, 8),
  ):
    state = opened.backend.replicate({'step': np.float32(step)})
    found = results._keep_best(opened, stage, state, step, evaluation(miou))
    assert found['step'] == best
    assert checkpoint.steps_in(folder / 'checkpoints') == [best]
    kept = support.state_in(folder / 'checkpoints' / str(best))
    assert list(kept.values()) == [best]
  opened.writer.close()
