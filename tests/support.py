"""Runs the command line on a tiny street world, in a process of its own."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from data_prep import layouts, prepare
from jaxseg_da.training import writers
from tests import scratch

ROOT = pathlib.Path(__file__).parents[1]
SIZE = 'size=32x64'
LIMIT = 8  # Images per split.
# What may differ between two runs that made the same numbers.
TIMES = ('seconds', 'git', 'images_per_second', 'compile_seconds', 'device')
_CRASH = """
import os, signal, sys
from jaxseg_da import main
from jaxseg_da.training import train

def live(what):
  if what.endswith(os.environ['DIES_BEFORE']):
    os.kill(os.getpid(), signal.SIGKILL)

def save(loop, stage, state, step, seconds, then=train.save):
  loop.checkpoints.wait()  # The one before is there.
  live(f'{stage.name}/{step}')
  then(loop, stage, state, step, seconds)

train.save = save
"""


@functools.cache
def data_dir() -> pathlib.Path:
  """Both domains of the street world, 32x64, a few images per split."""
  root = scratch.folder('data')
  with scratch.alone('data'):
    if not (root / 'whole').exists():
      for name in ('gta', 'city'):
        build_streets(root, f'{name}-32x64', LIMIT)
      (root / 'whole').touch()
  return root


def build_streets(root: pathlib.Path, config: str, limit: int) -> None:
  """Prepares `limit` images per split of a street domain."""
  options = layouts.Options(limit=limit)
  prepare.build('streets', root, config=config, options=options, num_workers=1)


def flags(
  workdir: pathlib.Path,
  *more: str,
  config: str = 'dacs',
  data: pathlib.Path | None = None,
) -> list[str]:
  """Flags of a run with the smallest network; later flags win.

  Args:
    workdir: of the run; its cache of baselines lies inside.
    *more: further flags.
    config: a file in `configs/`.
    data: folder of prepared data, `data_dir()` by default.
  """
  path = config if '/' in config else f'{ROOT}/configs/{config}.py'
  return [
    f'--config={path}:streets,{SIZE}',
    f'--workdir={workdir}',
    f'--config.data_dir={data or data_dir()}',
    f'--config.cache_dir={workdir}/cache',
    '--config.model.preset=reduced',
    '--config.model.width=64',
    '--config.optim.main.warmup_steps=0',
    '--config.control=False',
    '--config.tensorboard=False',
    '--config.log_every=1',
    '--config.report.images=1',
    *more,
  ]


def environment(devices: int = 1, **more: str) -> dict[str, str]:
  """Environment of a child: few devices, quick and shared compilation."""
  return os.environ | {
    'PYTHONPATH': str(ROOT),
    'JAX_PLATFORMS': 'cpu',
    'JAX_NUM_CPU_DEVICES': str(devices),
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    'JAX_COMPILATION_CACHE_DIR': str(scratch.folder(f'compiled_{devices}')),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    **more,
  }


def start(
  arguments: list[str], module: str = 'jaxseg_da.main', **env
) -> subprocess.Popen:
  """Starts the real command line, or another module."""
  return subprocess.Popen(
    [sys.executable, '-m', module, *arguments],
    env=environment(**env),
    cwd=ROOT,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process: subprocess.Popen, timeout: float = 240):
  """Exit code, stdout and stderr; a process that hangs is killed."""
  try:
    out, err = map(_quiet, process.communicate(timeout=timeout))
  except subprocess.TimeoutExpired:
    process.kill()
    out, err = process.communicate()
    raise AssertionError(f'hangs:\n{out}\n{err}') from None
  return process.returncode, out, err


def _quiet(text: str) -> str:
  """Without what the collectives' library prints."""
  lines = text.splitlines(keepends=True)
  return ''.join(line for line in lines if not line.startswith('[Gloo]'))


def run(arguments: list[str], expected: int = 0, **env) -> tuple[str, str]:
  """Runs the real command line; returns stdout and stderr."""
  code, out, err = finish(start(arguments, **env))
  assert code == expected, f'exit {code}, not {expected}:\n{out}\n{err}'
  return out, err


def run_processes(
  arguments: list[str],
  expected: int = 0,
  count: int = 2,
  devices: int = 4,
  **more,
) -> list[tuple[str, str]]:
  """Runs one command in several processes that know each other."""
  processes = start_processes(arguments, count, devices, **more)
  found = [finish(process) for process in processes]
  codes = [code for code, _, _ in found]
  assert codes == [expected] * count, f'exits {codes}: {found}'
  return [(out, err) for _, out, err in found]


def start_processes(
  arguments: list[str], count: int = 2, devices: int = 4, **more
):
  """Starts one command in several processes that know each other."""
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  return [
    start(
      arguments,
      devices=devices,
      JAX_COORDINATOR_ADDRESS=f'localhost:{port}',
      JAX_NUM_PROCESSES=str(count),
      JAX_PROCESS_ID=str(index),
      **more,
    )
    for index in range(count)
  ]


def wait_for_step(
  process: subprocess.Popen, workdir: pathlib.Path, stage: str, step: int
) -> None:
  """Returns as soon as metrics.jsonl has reached `step` of `stage`."""
  deadline = time.monotonic() + 180
  while time.monotonic() < deadline:
    for record in writers.read_jsonl(workdir / 'metrics.jsonl'):
      if record['stage'] == stage and record['step'] >= step:
        return
    assert process.poll() is None, process.communicate()
    time.sleep(0.005)
  process.kill()
  raise AssertionError(f'{stage} never reached step {step}')


def kill(process: subprocess.Popen) -> None:
  """Kills a process as a crash does; it has no chance to tidy up."""
  process.send_signal(signal.SIGKILL)
  process.communicate()


def crashing(more: str = '') -> str:
  """The command line as Python code that can die as in a crash.

  It does when it is about to save the checkpoint that the environment variable
  DIES_BEFORE names, as STAGE/STEP.

  Args:
    more: code that runs first; it may call `live(what)` where the process is to
      die as well, if DIES_BEFORE is how `what` ends.
  """
  return f'{_CRASH}{more}\nsys.exit(main.main())'


def results(workdir: pathlib.Path) -> dict:
  """results.json without times."""
  return timeless(json.loads((workdir / 'results.json').read_text()))


def timeless(value):
  """A JSON value without what differs from run to run."""
  if isinstance(value, dict):
    return {k: timeless(v) for k, v in value.items() if k not in TIMES}
  if isinstance(value, list):
    return [timeless(v) for v in value]
  return value


def metrics(workdir: pathlib.Path) -> list[dict]:
  """metrics.jsonl without times, in order."""
  return timeless(writers.read_jsonl(workdir / 'metrics.jsonl'))


def checkpoints(workdir: pathlib.Path) -> dict[str, list[int]]:
  """Stage folder -> steps with a whole checkpoint."""
  return {
    folder.parent.name: sorted(
      int(path.name) for path in folder.iterdir() if path.name.isdigit()
    )
    for folder in sorted(workdir.glob('stages/*/checkpoints'))
  }


def state(workdir: pathlib.Path, stage: str, step: int) -> dict:
  """Leaf path -> array of a checkpoint, on the host."""
  return state_in(workdir / 'stages' / stage / 'checkpoints' / str(step))


def state_in(checkpoint: pathlib.Path) -> dict:
  """Leaf path -> array of the checkpoint in a folder."""
  folder = checkpoint / 'state'
  handler = ocp.PyTreeCheckpointHandler()
  with ocp.Checkpointer(handler) as reader:
    tree = reader.metadata(folder.absolute()).item_metadata.tree
    arguments = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree
    )
    found = reader.restore(
      folder.absolute(), ocp.args.PyTreeRestore(restore_args=arguments)
    )
  leaves, _ = jax.tree_util.tree_flatten_with_path(found)
  return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}


def last_states(workdir: pathlib.Path) -> dict[str, dict]:
  """Stage folder -> the newest checkpoint."""
  return {
    stage: state(workdir, stage, steps[-1])
    for stage, steps in checkpoints(workdir).items()
  }


def assert_same_run(actual: pathlib.Path, expected: pathlib.Path) -> None:
  """Parameters to the last bit, every metric once, the same results."""
  assert checkpoints(actual) == checkpoints(expected)
  a, b = last_states(actual), last_states(expected)
  for stage in b:
    assert a[stage].keys() == b[stage].keys()
    for name, value in b[stage].items():
      np.testing.assert_array_equal(a[stage][name], value, f'{stage} {name}')
  assert metrics(actual) == metrics(expected)
  assert results(actual) == results(expected)


def read_json(path: pathlib.Path):
  """A JSON file's value."""
  return json.loads(path.read_text())
