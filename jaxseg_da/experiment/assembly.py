"""Stages, built: the methods of a config joined with the engine.

Nothing is compiled here. `build` asks the registry for the method of a stage
and makes its optimizers and its pure step, `initial_state` what it starts from,
`predictor` what it says about images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxseg_da import methods
from jaxseg_da.ops import augment, normalize
from jaxseg_da.ops import rng as rng_lib
from jaxseg_da.training import contract, optim, parallel
from jaxseg_da.training import step as step_lib
from jaxseg_da.training import train_state as train_state_lib
from jaxseg_da.training.train import Stage


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


def _networks(method: contract.Method, key: jax.Array):
  """Fresh variables of every network."""
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  return {
    name: network.init(rng_lib.named(key, name), images)
    for name, network in method.networks.items()
  }


def initial_state(
  stage: Stage,
  previous: train_state_lib.TrainState | None = None,
  artifacts: contract.Artifacts = contract.NO_ARTIFACTS,
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
