"""Two processes with four devices each are one process with eight."""

from __future__ import annotations

import pathlib
import signal
import sys

import numpy as np
import pytest

from tests import support

pytestmark = pytest.mark.slow
BACKENDS = ('pmap', 'shard_map')


def flags(workdir: pathlib.Path, backend: str, *more: str) -> list[str]:
  """Two stages with a batch of eight, evaluated in between."""
  return support.flags(
    workdir,
    '--config.stages.source_only.steps=4',
    '--config.stages.dacs.steps=4',
    '--config.checkpoint.every_steps=2',
    '--config.evaluate.every_steps=2',
    '--config.batch_size=8',
    # Three rows for two processes, eight images: one batch has filling.
    '--config.evaluate.batch_size=3',
    '--config.optim.main.name=sgd',
    '--config.optim.main.learning_rate=0.05',
    f'--config.backend={backend}',
    *more,
  )


def deviations(a: pathlib.Path, b: pathlib.Path) -> dict[str, float]:
  """Stage -> largest deviation of a leaf, relative to its norm."""
  states = support.last_states(a), support.last_states(b)
  assert states[0].keys() == states[1].keys() and states[0]
  found = {}
  for stage, leaves in states[1].items():
    assert states[0][stage].keys() == leaves.keys()
    found[stage] = max(
      np.linalg.norm(np.float64(states[0][stage][name]) - np.float64(value))
      / max(np.linalg.norm(np.float64(value)), 1e-6)
      for name, value in leaves.items()
    )
  return found


def assert_close(a: pathlib.Path, b: pathlib.Path, tolerance: float) -> None:
  """Parameters, metrics and results of two runs."""
  found = deviations(a, b)
  print(f'deviations: {found}', file=sys.stderr)
  assert max(found.values()) <= tolerance
  first, second = support.metrics(a), support.metrics(b)
  assert [(r['stage'], r['step']) for r in first] == [
    (r['stage'], r['step']) for r in second
  ]
  for x, y in zip(first, second, strict=True):
    assert x.keys() == y.keys()
    for name in x:
      if isinstance(x[name], float):
        limit = 0.5 if name.startswith('eval/') else 1e-4
        assert x[name] == pytest.approx(y[name], rel=1e-4, abs=limit)
  one, two = support.results(a), support.results(b)
  for s, t in zip(one['stages'], two['stages'], strict=True):
    for key in ('evaluation', 'source_evaluation'):
      assert s[key]['images'] == t[key]['images'] == support.LIMIT
      if max(found.values()) == 0:
        assert s[key] == t[key]


@pytest.fixture(scope='module', params=BACKENDS)
def pair(request, tmp_path_factory):
  """Work directories of one process, of two, and the backend."""
  root = tmp_path_factory.mktemp(request.param)
  one, two = root / 'one', root / 'two'
  support.run(flags(one, request.param), devices=8)
  found = support.run_processes(flags(two, request.param))
  return one, two, request.param, found


def test_two_processes_equal_one(pair):
  one, two, _, _ = pair
  assert_close(two, one, 1e-5)


def test_only_the_first_process_writes_and_prints(pair):
  _, two, _, ((out, err), (other_out, other_err)) = pair
  assert out.count('report: ') == 1 and 'mIoU-19' in out
  # Gloo's threads print, too, and tear each other's lines.
  for text in ('mIoU', 'report', 'stage source_only'):
    assert text not in other_out + other_err
  assert 'Traceback' not in err + other_err
  lines = [(r['stage'], r['step']) for r in support.metrics(two) if 'loss' in r]
  assert lines == [
    (stage, step) for stage in ('source_only', 'dacs') for step in (1, 2, 3, 4)
  ]
  assert (two / 'images/example_00.png').is_file()
  assert not list(two.rglob('.*.tmp'))


def test_a_finished_run_is_finished_for_both(pair):
  _, two, backend, _ = pair
  found = support.run_processes(flags(two, backend))
  assert 'is finished' in found[0][1] and not found[1][0]


def test_evaluation_by_two_processes(pair):
  """Integer counts: the same checkpoint gives the same record."""
  one, _, backend, _ = pair
  expected = support.results(one)['evaluation']
  name = one / 'evaluation_last.json'
  support.run_processes(flags(one, backend, '--mode=evaluate'))
  assert support.timeless(support.read_json(name)) == expected


def test_sigterm_to_one_stops_both_and_another_number_resumes(pair, tmp_path):
  _, _, backend, _ = pair
  steps = ('--config.stages.source_only.steps=60',)
  workdir = tmp_path / 'run'
  arguments = flags(
    workdir, backend, *steps, '--config.evaluate.every_steps=1000'
  )
  processes = support.start_processes(arguments)
  support.wait_for_step(processes[0], workdir, 'source_only', 3)
  processes[1].send_signal(signal.SIGTERM)
  found = [support.finish(process) for process in processes]
  assert [code for code, _, _ in found] == [75, 75], found
  assert 'preempted: stage source_only saved at step' in found[0][2]
  saved = support.checkpoints(workdir)['00_source_only'][-1]
  assert 3 <= saved < 60
  support.run(arguments, devices=8)
  reference = tmp_path / 'reference'
  again = [a.replace(str(workdir), str(reference)) for a in arguments]
  support.run(again, devices=8)
  found = deviations(workdir, reference)
  assert max(found.values()) < 1e-3
  lines = [r['step'] for r in support.metrics(workdir) if 'loss' in r]
  assert lines == [*range(1, 61), *range(1, 5)]


def test_the_cache_serves_two_processes(tmp_path):
  """Both take the baseline, whoever looks first."""
  cache = f'--config.cache_dir={tmp_path / "cache"}'
  a, b = tmp_path / 'a', tmp_path / 'b'
  support.run_processes(flags(a, 'pmap', cache))
  found = support.run_processes(
    flags(b, 'pmap', cache, '--config.dacs.threshold=0.5')
  )
  assert found[0][1].count('stage source_only: taken from') == 1
  assert support.results(a)['stages'][0] == support.results(b)['stages'][0]


def one_step(folder: pathlib.Path, *arguments: str) -> list[dict]:
  """The arrays of one step in one process and in two, eight devices each."""
  module = 'tests.one_step'
  one, two = folder / 'one.npz', folder / 'two.npz'
  support.run([str(one), *arguments], devices=8, module=module)
  support.run_processes([str(two), *arguments], module=module)
  return [dict(np.load(path)) for path in (one, two)]


def deviation(actual: np.ndarray, expected: np.ndarray) -> float:
  """Relative to the expected norm, with a floor for what is zero."""
  difference = np.linalg.norm(np.float64(actual) - np.float64(expected))
  return difference / max(np.linalg.norm(np.float64(expected)), 1e-12)


@pytest.mark.parametrize('backend', BACKENDS)
def test_one_step_in_float64(backend, tmp_path):
  one, two = one_step(tmp_path, backend, 'dacs', 'float64')
  assert one.keys() == two.keys() and len(one) > 50
  found = {k: deviation(two[k], v) for k, v in one.items() if 'state' in k}
  assert max(found.values()) < 1e-9, max(found, key=found.get)


@pytest.mark.parametrize('backend', BACKENDS)
def test_first_gradients_in_float32(backend, tmp_path):
  one, two = one_step(tmp_path, backend, 'dacs', 'float32')
  kernels = {k: v for k, v in one.items() if 'update' in k and v.ndim > 1}
  assert len(kernels) > 5
  found = {k: deviation(two[k], v) for k, v in kernels.items()}
  assert max(found.values()) < 1e-4, max(found, key=found.get)
