"""Runs the stages of a config in order; every stage resumes where it stopped.

A stage's folder `stages/NN_NAME` holds its checkpoints, artefacts and, once it
is finished, `done.json` with its evaluation. Baselines (`Method.shared`) are
cached by what they depend on, so that methods on one benchmark share them.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping

import jax
import numpy as np

from jaxseg_da import errors
from jaxseg_da.data import pipeline as data_pipeline
from jaxseg_da.data import sources
from jaxseg_da.experiment import assembly, cache, memory, results
from jaxseg_da.experiment.run import Run, say
from jaxseg_da.models import import_weights
from jaxseg_da.training import checkpoint, contract, parallel, train


def check_data(run: Run) -> None:
  """Opens every dataset that the run will read, before anything compiles.

  Raises:
    UserError: a dataset, split or weight file is missing, or a stage cannot
      fit into memory; names it.
  """
  for name in run.config.pipeline:
    stage = assembly.build(run.config, name)
    memory.check(stage)
    for domain in stage.method.domains.values():
      run.dataset(domain.spec)
  limit = run.config.evaluate.limit
  for spec in results.specs(run.config):
    images = len(run.dataset(spec))
    if limit > images:
      raise errors.UserError(
        f'config.evaluate.limit={limit} is more than the {images} images of '
        f'{spec}; 0 takes all'
      )
  weights = run.config.init.weights
  if weights and not pathlib.Path(weights).expanduser().is_file():
    raise errors.UserError(f'config.init.weights: no file {weights}')


def run_all(run: Run) -> dict:
  """Runs or resumes every stage; returns what results.json holds."""
  if run.config.pair != 'streets' and not run.config.init.weights:
    say(
      'warning: config.init.weights is unset, the backbone starts from random '
      'values; the papers start from resnet101COCO-41f33a49.pth (DACS), '
      'DeepLab_resnet_pretrained_init-f81d91e8.pth (AdaptSegNet), or '
      'resnet101-5d3b4d8f.pth (CCDA)'
    )
  for name in run.config.pipeline:
    if run.done(name) is None and not _from_cache(run, name):
      _run_stage(run, name)
      _to_cache(run, name)
    if run.stop() and run.done(run.config.pipeline[-1]) is None:
      raise train.Preempted(f'stage {name} is finished and saved')
  return results.collect(run)


def _run_stage(run: Run, name: str) -> None:
  """Trains, evaluates, and marks the stage as done."""
  config = run.config
  block = config.stages[name]
  folder = run.folder(name)
  previous = run.restore(block.init_from) if block.init_from else None
  artifacts = _before_stage(run, name, previous)
  stage = run.stage(name)
  state = assembly.initial_state(
    stage, previous, artifacts, None if previous else _weights(config)
  )
  say(assembly.summary(stage, state))
  checkpoints = run.checkpoints(name)
  loop = train.Loop(
    backend=run.backend,
    checkpoints=checkpoints,
    writer=run.writer,
    batches=functools.partial(batches, run, stage),
    stop=run.stop,
    evaluate=functools.partial(results.during, run),
    say=say,
  )
  state, seconds = train.train(stage, state, loop)
  predictor = functools.partial(assembly.predictor, stage, state)
  stage.method.after_stage(_context(run, name, state, predictor))
  record = {
    'name': name,
    'method': stage.method.name,
    'role': block.role,
    'steps': stage.steps,
    'segmentation_updates': stage.method.segmentation_updates(stage.steps),
    'seconds': round(seconds, 1),
    'warning': stage.method.verdict(results.last_records(run, name)),
    **results.after(run, stage, state),
  }
  checkpoints.close()
  if jax.process_index() == 0:
    checkpoint.write_json(folder / 'done.json', record)
  parallel.barrier(f'done {name}')


def _before_stage(run: Run, name: str, previous) -> contract.Artifacts:
  """The method's host pass; what it decided is kept in `artifacts.json`."""
  folder = run.folder(name) / 'artifacts'
  if parallel.agreed((folder / 'artifacts.json').exists()):
    return run.artifacts(name)
  stage = assembly.build(run.config, name)
  if stage.method.before_stage is contract.no_artifacts:
    return contract.Artifacts()
  origin = run.config.stages[name].init_from
  predictor = None
  if previous is not None:
    predictor = functools.partial(
      assembly.predictor, run.stage(origin), previous
    )
  context = _context(run, name, previous, predictor)
  artifacts = stage.method.before_stage(context)
  if artifacts.steps is not None:
    # Counts that depend on data are scaled after they are computed.
    steps = max(1, round(artifacts.steps * run.config.steps_scale))
    artifacts = artifacts._replace(steps=steps)
  if jax.process_index() == 0:
    files = {k: str(v.relative_to(folder)) for k, v in artifacts.files.items()}
    record = {'files': files, 'steps': artifacts.steps}
    checkpoint.write_json(folder / 'artifacts.json', record)
  parallel.barrier(f'artifacts {name}')
  return artifacts


def _context(run: Run, name: str, state, predictor) -> contract.StageContext:
  """What the host passes of a stage may use."""
  folder = run.folder(name) / 'artifacts'
  return contract.StageContext(
    run.config, name, folder, state, predictor, run.dataset, say
  )


def _weights(config) -> Callable | None:
  """Imports `config.init.weights` into fresh segmenter variables."""
  path = config.init.weights
  if not path:
    return None

  def load(variables):
    tensors = import_weights.read(pathlib.Path(path).expanduser())
    variables, report = import_weights.load_into(variables, tensors)
    say(f'{path}: {report}')
    return variables

  return load


def batches(run: Run, stage: train.Stage, start: int):
  """Host batches of a stage from step `start` on."""
  domains = stage.method.domains
  opened = {name: run.dataset(domain.spec) for name, domain in domains.items()}
  rows = chosen_rows(domains, run.artifacts(stage.name))
  return loader(
    run.config, stage.name, domains, opened, start, stage.steps, rows
  )


def chosen_rows(
  domains: Mapping[str, contract.Domain], artifacts: contract.Artifacts
) -> dict[str, data_pipeline.Rows]:
  """Batch key -> the rows that the host pass chose for it."""
  chosen = {}
  for name, domain in domains.items():
    if domain.rows:
      with np.load(artifacts.files[domain.rows]) as found:
        arrays = dict(found)
      chosen[name] = data_pipeline.Rows(arrays.pop('index'), arrays)
  return chosen


def loader(
  config,
  stage: str,
  domains: Mapping[str, contract.Domain],
  opened: Mapping[str, sources.DatasetSource],
  start: int,
  stop: int,
  rows: Mapping[str, data_pipeline.Rows] | None = None,
) -> data_pipeline.Batches:
  """Host batches of steps start .. stop - 1, from datasets that are open.

  Args:
    config: resolved.
    stage: its name, on which the order depends.
    domains: batch key -> stream.
    opened: batch key -> dataset.
    start: the first step.
    stop: the step after the last.
    rows: batch key -> rows to stream, instead of all examples.
  """
  rows = rows or {}
  return data_pipeline.pair_batches(
    {
      name: data_pipeline.Domain(
        opened[name],
        size=domain.size if any(domain.size) else None,
        resize=domain.resize,
        crop=domain.crop if any(domain.crop) else None,
        labels=domain.labelled,
        rows=rows.get(name),
      )
      for name, domain in domains.items()
    },
    batch_size=config.batch_size,
    seed=config.seed,
    stage=stage,
    start_step=start,
    num_steps=stop - start,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def _from_cache(run: Run, name: str) -> bool:
  """Takes a finished baseline from the cache; False where there is none."""
  folder = run.folder(name)
  entry = cache.entry(run.config, name, run.data_dir, run.steps)
  if entry is None:
    return False
  # Process 0 decides: the others may look when it has copied already.
  if not parallel.agreed(
    not folder.exists() and (entry / 'done.json').exists()
  ):
    return False
  if jax.process_index() == 0:
    say(f'stage {name}: taken from {entry}')
    # First the lines: the stage counts as finished as soon as it is copied.
    lines = (entry / 'metrics.jsonl').read_text().splitlines()
    run.writer.replay(name, lines)
    cache.copy(entry, folder)
  parallel.barrier(f'cached {name}')
  return True


def _to_cache(run: Run, name: str) -> None:
  """Offers a finished baseline to later runs."""
  entry = cache.entry(run.config, name, run.data_dir, run.steps)
  if entry is None or jax.process_index() != 0:
    return
  folder = run.folder(name)
  lines = run.writer.lines(name)
  (folder / 'metrics.jsonl').write_text(''.join(f'{line}\n' for line in lines))
  cache.copy(folder, entry)
