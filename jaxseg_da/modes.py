"""What `main --mode` dispatches to.

Run, evaluate, predict, benchmark, explain.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Callable

import jax

from jaxseg_da import config as config_lib
from jaxseg_da import errors
from jaxseg_da.benchmark import input as input_benchmark
from jaxseg_da.benchmark import record as record_lib
from jaxseg_da.benchmark import tables
from jaxseg_da.evaluation import predict as predict_lib
from jaxseg_da.experiment import (
  assembly,
  checks,
  pictures,
  pipeline,
  resolve,
  results,
)
from jaxseg_da.experiment import explain as explain_lib
from jaxseg_da.experiment.run import Run, say
from jaxseg_da.report import page as report
from jaxseg_da.training import checkpoint, parallel, train, writers


def open_run(
  config, workdir: pathlib.Path, stop: Callable[[], bool] = lambda: False
) -> Run:
  """Resolves and checks a config, and ties it to its work directory.

  Raises:
    UserError: the config is invalid, or the work directory was made with
      another one; the keys are named.
  """
  config = resolve.resolve(config)
  checks.validate(config, jax.device_count())
  written = checkpoint.read_json(workdir / 'config.json')
  new = config_lib.to_dict(config)
  if written is not None:
    keys = checks.differences(written['config'], new)
    if keys:
      raise errors.UserError(
        f'{workdir} was made with another config; it differs in: '
        f'{", ".join(keys)}. Use another --workdir, or the old values.'
      )
  return Run(
    config=config,
    workdir=workdir,
    backend=parallel.backend(config.backend),
    writer=writers.MultiWriter(()),  # `run` writes, the other modes do not
    stop=stop,
  )


def run(config, workdir: pathlib.Path, stop: Callable[[], bool]) -> None:
  """Runs or resumes the pipeline; ends with results.json and report.html."""
  opened = open_run(config, workdir, stop)
  if checkpoint.read_json(workdir / 'results.json') is not None:
    say(f'{workdir} is finished; see {workdir / "report.html"}')
    return
  pipeline.check_data(opened)
  with contextlib.closing(_writer(opened)) as opened.writer:
    if jax.process_index() == 0:
      record = {'config': config_lib.to_dict(opened.config), 'argv': sys.argv}
      checkpoint.write_json(workdir / 'config.json', record)
      opened.writer.write_config(record['config'])
    found = pipeline.run_all(opened)
  pictures.write(opened)
  if jax.process_index() == 0:
    checkpoint.write_json(workdir / 'results.json', found)
    page = report.write(workdir)
    print(results.table(found))
    print(f'report: {page}')
  parallel.barrier('results')


def _writer(run: Run) -> writers.MultiWriter:
  """The run's metric sinks.

  Raises:
    UserError: the work directory cannot be made.
  """
  try:
    return writers.create(
      run.workdir, jax.process_index(), run.config.tensorboard
    )
  except OSError as error:
    raise errors.UserError(
      f'--workdir={run.workdir} cannot be written: {error.strerror}'
    ) from error


def _main_stage(run: Run) -> str:
  """The stage that evaluate and predict take: the last one that is not a
  baseline."""
  return [
    name
    for name in run.config.pipeline
    if run.config.stages[name].role == 'main'
  ][-1]


def restored(run: Run, which: str):
  """The main stage and its state at `last`, `best` or a step.

  Raises:
    UserError: there is no such checkpoint.
  """
  name = _main_stage(run)
  if which == 'best':
    return run.stage(name), results.restore_best(run, name)
  if which != 'last' and not which.isdigit():
    raise errors.UserError(
      f'checkpoint {which!r} is none of last, best, or a step'
    )
  step = None if which == 'last' else int(which)
  return run.stage(name), run.restore(name, step)


def evaluate(config, workdir: pathlib.Path, stop: Callable[[], bool]) -> None:
  """Evaluates a checkpoint; writes evaluation_WHICH.json and prints it."""
  opened = open_run(config, workdir, stop)
  which = opened.config.evaluate.checkpoint
  stage, state = restored(opened, which)
  found = results.evaluate(
    opened, stage, state, results.specs(opened.config)[0]
  )
  if jax.process_index() == 0:
    path = workdir / f'evaluation_{which}.json'
    checkpoint.write_json(path, found)
    print(results.class_table(found))
    print(f'written: {path}')


def predict(config, workdir: pathlib.Path, stop: Callable[[], bool]) -> None:
  """Writes predictions for a file, a folder or a glob of images."""
  opened = open_run(config, workdir, stop)
  settings = opened.config.predict
  for key in ('input', 'output'):
    if not settings[key]:
      raise errors.UserError(f'config.predict.{key} is required')
  stage, state = restored(opened, settings.checkpoint)
  predict_lib.run(
    assembly.predictor(stage, state),
    settings.input,
    settings.output,
    settings.format,
    tuple(opened.config.evaluate.size),
    resize=results.target_resize(opened.config),
    options=opened.config.evaluate,
    classes=stage.method.classes,
  )


def benchmark(config, workdir: pathlib.Path, stop: Callable[[], bool]) -> None:
  """Measures the input pipeline; adds a line to benchmark.jsonl.

  Raises:
    UserError: what is asked for is not built, or WORKDIR cannot be written.
    Diverged: a step gave what is not finite; its record says so, too.
  """
  opened = open_run(config, workdir, stop)
  if not opened.config.benchmark.input_only:
    raise errors.UserError(
      '--mode=benchmark measures the input pipeline alone so far: add '
      '--config.benchmark.input_only=true'
    )
  path = workdir / 'benchmark.jsonl'
  if jax.process_index() == 0:
    record_lib.append(path, [])  # better now than after the measurement
  record = input_benchmark.measure(opened, _main_stage(opened))
  record_lib.finish(record)
  if jax.process_index() == 0:
    record_lib.append(path, [record])
    print(tables.input_table(record))
    print(f'written: {path}')
  if record['status'] != 'ok':
    raise train.Diverged(record['error'])


def explain(config, workdir: pathlib.Path, stop: Callable[[], bool]) -> None:
  """Prints keys and pipeline of a config as it would run; touches nothing."""
  del workdir, stop
  config = resolve.resolve(config)
  checks.validate(config, jax.device_count())
  print(explain_lib.text(config))
