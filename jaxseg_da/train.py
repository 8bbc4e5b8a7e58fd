"""One stage: build its step, restore, train, log, checkpoint, evaluate.

The loop never asks which method runs. It fetches scalars every `log_every`
steps and otherwise only feeds the compiled step.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da import checkpoint, methods, optim, parallel
from jaxseg_da import progress as progress_lib
from jaxseg_da import rng as rng_lib
from jaxseg_da import step as step_lib
from jaxseg_da import train_state as train_state_lib
from jaxseg_da.methods import base
from jaxseg_da.ops import augment, normalize

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
  method: base.Method
  optimizers: dict[str, Any]
  schedules: dict[str, Callable]
  step: Callable

  @property
  def key(self) -> jax.Array:
    """The stage's key: a function of seed and stage."""
    return rng_lib.named(jax.random.key(self.config.seed), self.name)


def build(config, name: str, steps: int | None = None) -> Stage:
  """Method, optimizers and pure step of a stage; nothing is compiled.

  Args:
    config: resolved.
    name: key in `config.stages`.
    steps: overrides the config, where data decide the number.
  """
  block = config.stages[name]
  steps = steps or block.steps or 1  # 1: not decided yet
  method = methods.make(config, block)
  shapes = jax.eval_shape(functools.partial(_networks, method), _KEY)
  optimizers, schedules = {}, {}
  for phase in method.phases:
    if phase.train:
      settings = config.optim[phase.optimizer or block.optim]
      trained = {n: shapes[n]['params'] for n in phase.train}
      optimizers[phase.name] = optim.make(settings, trained, steps)
      schedules[phase.name] = optim.schedule(settings, steps)
  prepare = functools.partial(
    augment.prepare,
    normalization=config.data.normalization,
    mirror=config.augment.flip,
    blur_probability=config.augment.blur_probability,
    blur_sigma=config.augment.blur_sigma,
    dtype=_image_dtype(config),
  )
  step = step_lib.make(method, optimizers, schedules, prepare)
  return Stage(config, name, steps, method, optimizers, schedules, step)


def _image_dtype(config):
  """Images are float32 whatever the network computes in, or float64."""
  dtype = jnp.dtype(config.model.compute_dtype)
  return jnp.promote_types(dtype, jnp.float32)


_KEY = jax.eval_shape(lambda: jax.random.key(0))


def _networks(method: base.Method, key: jax.Array):
  """Fresh variables of every network."""
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  return {
    name: network.init(rng_lib.named(key, name), images)
    for name, network in method.networks.items()
  }


def initial_state(
  stage: Stage,
  previous: train_state_lib.TrainState | None = None,
  artifacts: base.Artifacts = base.NO_ARTIFACTS,
  weights: Callable | None = None,
) -> train_state_lib.TrainState:
  """The state before the first step.

  Args:
    stage: what to initialise.
    previous: state of the stage that `init_from` names.
    artifacts: of `before_stage`.
    weights: `(segmenter variables) -> variables`, imported weights.
  """
  variables = _networks(stage.method, stage.key)
  if weights is not None:
    variables['segmenter'] = weights(variables['segmenter'])
  params: dict[str, Any] = {n: v['params'] for n, v in variables.items()}
  state = train_state_lib.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats={n: v.get('batch_stats', {}) for n, v in variables.items()},
    opt_state={},
    extra={},
  )
  state = state.replace(opt_state=_fresh_optimizers(stage, state.params))
  if previous is not None:
    state = stage.method.adopt(previous, state)
  if not state.extra:
    extra = stage.method.init_extra(state.variables(), artifacts)
    state = state.replace(extra=extra)
  return state


def _fresh_optimizers(stage: Stage, params):
  """Optimizer state of every phase that trains."""
  return {
    phase.name: jax.jit(stage.optimizers[phase.name].init)(
      {name: params[name] for name in phase.train}
    )
    for phase in stage.method.phases
    if phase.train
  }


def predictor(
  stage: Stage,
  state: train_state_lib.TrainState,
  function: Callable = lambda forward, images: forward(images)['logits'],
) -> Callable:
  """`images u8 [b, H, W, 3] -> function(forward, images)`, on local devices.

  Args:
    stage: whose method predicts.
    state: of that stage.
    function: pure. It gets `forward`, from normalised images to the method's
      outputs, and the normalised images; what it returns is `[b, ...]`. By
      default it returns the logits.
  """

  def predict(variables, extra, images):
    images = normalize.normalize(images, stage.config.data.normalization)
    forward = functools.partial(stage.method.forward, variables, extra)
    return function(forward, images)

  return parallel.compile_predictor(predict, state.variables(), state.extra)


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
    stage: built by `build`.
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


def parameter_count(state: train_state_lib.TrainState) -> int:
  """Parameters of all networks."""
  return sum(x.size for x in jax.tree.leaves(state.params))


def summary(stage: Stage, state: train_state_lib.TrainState) -> str:
  """One line: what this stage trains, and on what."""
  domains = ', '.join(
    f'{name} {domain.spec}' for name, domain in stage.method.domains.items()
  )
  updates = stage.method.segmentation_updates(stage.steps)
  return (
    f'stage {stage.name}: {stage.method.name}, {stage.steps} steps '
    f'({updates} segmentation updates), '
    f'{parameter_count(state) / 1e6:.2f} M parameters; {domains}; '
    f'batch {stage.config.batch_size} on {jax.device_count()} devices'
  )
