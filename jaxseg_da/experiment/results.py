"""Which evaluations a run makes, and what results.json says of them."""

from __future__ import annotations

import json
import pathlib
import subprocess

import jax

from jaxseg_da import errors
from jaxseg_da.config import pairs
from jaxseg_da.data import pipeline as data_pipeline
from jaxseg_da.evaluation import evaluate as evaluate_lib
from jaxseg_da.evaluation import tables
from jaxseg_da.experiment import assembly
from jaxseg_da.experiment.run import Run
from jaxseg_da.training import checkpoint, parallel, train


def validation(spec: str) -> str:
  """The validation split of a dataset that is trained on."""
  return f'{spec.partition(":")[0]}:validation'


def specs(config) -> list[str]:
  """Datasets that stages are evaluated on: the target's, maybe the source's."""
  result = [validation(config.data.target)]
  if config.evaluate.source:
    result.append(validation(config.data.source))
  return result


def target_resize(config) -> str:
  """The resize mode of target images."""
  return config.data.target_resize or config.data.resize


def evaluate(run: Run, stage: train.Stage, state, spec: str) -> dict:
  """The evaluation record of a state on one split."""
  config = run.config
  limit = f'[:{config.evaluate.limit}]' if config.evaluate.limit else ''
  batches = data_pipeline.eval_batches(
    run.dataset(spec + limit),
    _evaluation_batch(config),
    jax.process_index(),
    jax.process_count(),
  )
  classes = stage.method.classes
  with batches:
    record, _ = evaluate_lib.evaluate(
      assembly.predictor(stage, state),
      ({**b, 'label': classes.table[b['label']]} for b in batches),
      split=spec,
      num_classes=len(classes.names),
      names=classes.names,
      subsets=classes.subsets,
      evaluate_config=config.evaluate,
      resize=target_resize(config),
      allreduce=parallel.sum_over_processes,
    )
  if classes.step is None:
    return record
  colours = zip(classes.names, classes.colours.tolist(), strict=True)
  return record | {
    'step': classes.step,
    'kept': list(classes.kept),
    'colours': dict(colours),
  }


def _evaluation_batch(config) -> int:
  """`evaluate.batch_size`, rounded up to a multiple of the processes."""
  count = jax.process_count()
  return -(-config.evaluate.batch_size // count) * count


def during(run: Run, stage: train.Stage, state, step: int) -> None:
  """Evaluates between steps; keeps the checkpoint that is best so far."""
  record = evaluate(run, stage, state, specs(run.config)[0])
  _log(run, stage, step, record)
  _keep_best(run, stage, state, step, record)


def after(run: Run, stage: train.Stage, state) -> dict:
  """Evaluations of a finished stage, for its `done.json`."""
  found = [evaluate(run, stage, state, spec) for spec in specs(run.config)]
  _log(run, stage, stage.steps, found[0])
  best = _keep_best(run, stage, state, stage.steps, found[0])
  return {
    'evaluation': found[0],
    'source_evaluation': found[1] if len(found) > 1 else None,
    'best': best,
  }


def last_records(run: Run, name: str) -> list[dict]:
  """The last training records of a stage's log, as many as a verdict reads."""
  found = [json.loads(line) for line in run.writer.lines(name)]
  return [r for r in found if 'eval/miou' not in r][-train.RECENT :]


def _log(run: Run, stage: train.Stage, step: int, record: dict) -> None:
  """Writes an evaluation, unless the killed attempt before had done so."""
  for line in run.writer.lines(stage.name):
    found = json.loads(line)
    if found['step'] == step and 'eval/miou' in found:
      return
  run.writer.write_scalars(stage.name, step, _scalars(record))


def _scalars(record: dict) -> dict:
  """What of an evaluation goes into metrics.jsonl."""
  keys = ('miou', 'miou_16', 'miou_13', 'pixel_accuracy')
  return {f'eval/{k}': record[k] for k in keys if record[k] is not None}


def _best_folder(run: Run, name: str) -> pathlib.Path:
  return run.folder(name) / 'best'


def _keep_best(run, stage, state, step: int, record: dict) -> dict:
  """The best record so far; its state is checkpointed beside it.

  Only runs that evaluate during training keep a second checkpoint: otherwise
  the last one is the best.
  """
  folder = _best_folder(run, stage.name)
  best = checkpoint.read_json(folder / 'best.json')
  # A later step's record is of an attempt that was cut off; it still holds.
  rank = lambda found: (found['miou'], found['step'])
  if best is None or (record['miou'], step) > rank(best):
    best = {**record, 'step': step, 'selected_on_target_labels': True}
    if run.config.evaluate.every_steps:
      keeper = checkpoint.Checkpoints(folder / 'checkpoints', keep=1)
      meta = {'stage': stage.name, 'step': step, 'seed': run.config.seed}
      keeper.save(step, run.backend.to_global(state), meta)
      keeper.close()
    if jax.process_index() == 0:
      checkpoint.write_json(folder / 'best.json', best)
  parallel.barrier(f'best {stage.name} {step}')
  return best


def restore_best(run: Run, name: str):
  """The state that evaluated best, on target labels.

  Raises:
    UserError: the stage kept none.
  """
  folder = _best_folder(run, name) / 'checkpoints'
  if not folder.exists():
    raise errors.UserError(
      f'stage {name} kept no best checkpoint; train with '
      '--config.evaluate.every_steps greater than 0'
    )
  return run.restore(name, folder=folder)


def collect(run: Run) -> dict:
  """What results.json holds, from the stages' `done.json`."""
  config = run.config
  # A stage from the cache may have had another role.
  stages = [
    {**(run.done(name) or {}), 'role': config.stages[name].role}
    for name in config.pipeline
  ]
  main = [s for s in stages if s['role'] == 'main']
  final = main[-1]['evaluation']
  control = [
    s['evaluation']
    for s in stages
    if s['role'] == 'control' and [*s['evaluation']['iou']] == [*final['iou']]
  ]
  steps = [s['evaluation'] for s in main if 'step' in s['evaluation']]
  return {
    'method': config.method,
    'benchmark': _pair(config),
    'seed': config.seed,
    'git': _git(),
    'jax': jax.__version__,
    'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    'stages': stages,
    'evaluation': final,
    'best': main[-1]['best'],
    'control': control[-1] if control else None,
    'steps': steps or None,
  }


def _pair(config) -> str:
  """The benchmark's name; an overridden pair is called by its datasets."""
  names = [spec.partition(':')[0] for spec in pairs.datasets(config.pair)]
  actual = [
    config.data[domain].partition(':')[0] for domain in ('source', 'target')
  ]
  same = all(
    a == n or (n == 'streets' and a.startswith('streets/'))
    for a, n in zip(actual, names, strict=True)
  )
  if same:
    return config.pair
  return '_to_'.join(name.replace('/', '-') for name in actual)


def _git() -> str | None:
  """The commit that runs, with a plus sign where files differ from it."""
  folder = pathlib.Path(__file__).parent
  command = ['git', '-C', str(folder), 'describe', '--always', '--abbrev=12']
  try:
    found = subprocess.run(
      [*command, '--dirty=+'], capture_output=True, text=True, check=False
    )
  except OSError:
    return None
  return found.stdout.strip() or None


def table(found: dict) -> str:
  """Stages by mIoU, with gains over the control."""
  rows = [(s['name'], s['evaluation']) for s in found['stages']]
  text = tables.table(rows, controls(found))
  for stage in found['stages']:
    if stage['source_evaluation']:
      value = stage['source_evaluation']['miou']
      text += f'\n{stage["name"]} on the source: {value:.2f}'
      break
  for stage in found['stages']:
    if stage.get('warning'):
      text += f'\nwarning: {stage["name"]}: {stage["warning"]}'
  return text


def controls(found: dict) -> list[dict]:
  """Evaluations that those of other stages are measured against."""
  return [s['evaluation'] for s in found['stages'] if s['role'] == 'control']


def class_table(record: dict) -> str:
  """IoU per class of one record."""
  return tables.class_table(record)
