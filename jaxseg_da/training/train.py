"""The loop of one stage: restore, train, log, checkpoint, evaluate.

The loop never asks which method runs. It fetches scalars every `log_every`
steps and otherwise only feeds the compiled step.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxseg_da.ops import rng as rng_lib
from jaxseg_da.training import checkpoint, contract, parallel
from jaxseg_da.training import progress as progress_lib
from jaxseg_da.training import train_state as train_state_lib

RECENT = 10  # records of the log that a verdict is based on


class Diverged(RuntimeError):
  """A logged value is not finite; the last good checkpoint was kept."""


class Preempted(RuntimeError):
  """The process was told to stop; everything is saved."""


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of a resolved config, ready to be initialised and compiled.

  Attributes:
    config: the resolved configuration.
    name: key in `config.stages`.
    steps: updates; may come from `before_stage` instead of the config.
    method: recipe.
    optimizers: phase name -> optimizer.
    schedules: phase name -> learning rate by step.
    step: the pure step.
  """

  config: Any
  name: str
  steps: int
  method: contract.Method
  optimizers: dict[str, Any]
  schedules: dict[str, Callable]
  step: Callable

  @property
  def key(self) -> jax.Array:
    """The stage's key: a function of seed and stage."""
    return rng_lib.named(jax.random.key(self.config.seed), self.name)


@dataclasses.dataclass
class Loop:
  """What a stage's loop needs from the run around it.

  Attributes:
    backend: placement and compilation.
    checkpoints: of this stage.
    writer: metric sinks; does nothing on processes other than 0.
    batches: `(start) -> iterator` of host batches, from step `start` on.
    stop: whether the process was told to stop.
    evaluate: `(stage, state, step) -> None`, between steps.
    say: prints a line, once per run.
  """

  backend: parallel.Backend
  checkpoints: checkpoint.Checkpoints
  writer: Any
  batches: Callable
  stop: Callable[[], bool]
  evaluate: Callable = lambda stage, state, step: None
  say: Callable[[str], None] = lambda text: None


def train(
  stage: Stage, state: train_state_lib.TrainState, loop: Loop
) -> tuple[train_state_lib.TrainState, float]:
  """Trains from the newest checkpoint, or from `state`, to the last step.

  Args:
    stage: what to train.
    state: before the first step, anywhere.
    loop: backend, data and sinks.

  Returns:
    The final state, placed by the backend and checkpointed, and the seconds
    that training took, earlier attempts included.

  Raises:
    Diverged: a loss or norm is not finite.
    Preempted: the state was saved before.
  """
  backend, config = loop.backend, stage.config
  state = backend.replicate(state)
  start, spent = loop.checkpoints.latest() or 0, 0.0
  if start:
    spent = loop.checkpoints.meta(start)['seconds']
    like = backend.to_global(state)
    state = backend.from_global(loop.checkpoints.restore(start, like))
  loop.writer.truncate_after(stage.name, start)
  if start >= stage.steps:
    return state, spent
  every = config.evaluate.every_steps
  if every and start and start % every == 0:
    # Whether the attempt before came to it is unknown.
    loop.evaluate(stage, state, start)

  step = backend.compile(stage.step)
  key = backend.replicate(stage.key)
  images = config.batch_size * len(stage.method.domains)
  progress = progress_lib.Progress(
    stage.name,
    start,
    stage.steps,
    images,
    enabled=jax.process_index() == 0,
  )
  batches = loop.batches(start)
  metrics, compile_seconds = None, 0.0
  recent, said = collections.deque(maxlen=RECENT), None
  entered = time.monotonic() - spent
  try:
    for done in range(start + 1, stage.steps + 1):
      batch = next(batches)
      began = time.monotonic()
      with jax.transfer_guard('disallow'):
        state, metrics = step(state, backend.shard(batch), key)
      if done == start + 1:
        jax.block_until_ready(metrics)
        compile_seconds = time.monotonic() - began
        progress.restart(done)
      last = done == stage.steps
      if last or done % config.log_every == 0:
        jax.block_until_ready(state.step)
        scalars = fetch(metrics, stage, done)
        scalars['images_per_second'] = progress.update(done, scalars)
        if compile_seconds:
          scalars['compile_seconds'] = round(compile_seconds, 3)
          compile_seconds = 0.0
        loop.writer.write_scalars(stage.name, done, scalars)
        recent.append(scalars)
        verdict = stage.method.verdict(recent)
        if verdict and verdict != said:
          loop.say(f'warning: {stage.name} at step {done}: {verdict}')
        said = verdict
      stop = _told_to_stop(loop, done)
      due = every and done % every == 0 and not last
      saving = last or stop or done % config.checkpoint.every_steps == 0
      if saving or due:
        fetch(metrics, stage, done)  # nothing that diverged is kept
      if saving:
        save(loop, stage, state, done, time.monotonic() - entered)
      if stop and not last:
        loop.checkpoints.wait()
        raise Preempted(f'stage {stage.name} saved at step {done}')
      if due:
        with progress.pause():
          loop.evaluate(stage, state, done)
  finally:
    progress.close()
    if hasattr(batches, 'close'):
      batches.close()
    loop.checkpoints.wait()
  return state, time.monotonic() - entered


def _told_to_stop(loop: Loop, step: int) -> bool:
  """SIGTERM here, or, with several processes, agreed on by all of them."""
  if jax.process_count() > 1:
    return loop.checkpoints.reached_preemption(step)
  return loop.stop()


def save(loop: Loop, stage: Stage, state, step: int, seconds: float) -> None:
  """Checkpoints the state with where it belongs."""
  meta = {
    'stage': stage.name,
    'step': step,
    'seed': stage.config.seed,
    'seconds': round(seconds, 1),
  }
  loop.checkpoints.save(step, loop.backend.to_global(state), meta)


def fetch(metrics, stage: Stage, step: int) -> dict[str, float]:
  """The step's scalars on the host.

  Raises:
    Diverged: one of them is not finite; names it.
  """
  values = {k: np.asarray(v).item() for k, v in jax.device_get(metrics).items()}
  bad = sorted(k for k, v in values.items() if not math.isfinite(v))
  if bad:
    raise Diverged(
      f'stage {stage.name} diverged at step {step}: {", ".join(bad)} not '
      'finite; the last good checkpoint was kept'
    )
  return values
