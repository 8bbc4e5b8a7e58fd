"""Builds the pure training step of a method.

`step(state, batch, rng) -> (state, metrics)` runs per device over a named axis.
Every phase differentiates the device's *share* of the global loss, so gradients
are summed, once, together with metrics and statistics.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxseg_da.losses import terms as terms_lib
from jaxseg_da.ops import rng as rng_lib
from jaxseg_da.training import contract
from jaxseg_da.training import train_state as train_state_lib

AXIS = 'batch'


def make(
  method: contract.Method,
  optimizers: Mapping[str, optax.GradientTransformation],
  schedules: Mapping[str, Callable],
  prepare: Callable,
  axis_name: str = AXIS,
) -> Callable:
  """The step of `method`, pure and ready to be compiled.

  Args:
    method: networks, phases and `post_update`.
    optimizers: phase name -> optimizer over that phase's networks.
    schedules: phase name -> learning rate by step, for the log.
    prepare: `(batch, keys) -> batch`, augmentation that all methods share.
    axis_name: the axis devices reduce over.
  """
  return functools.partial(
    train_step,
    phases=method.phases,
    post_update=method.post_update,
    optimizers=optimizers,
    schedules=schedules,
    prepare=prepare,
    axis_name=axis_name,
  )


def train_step(
  state: train_state_lib.TrainState,
  batch,
  rng: jax.Array,
  *,
  phases: tuple[contract.Phase, ...],
  post_update: Callable,
  optimizers: Mapping[str, optax.GradientTransformation],
  schedules: Mapping[str, Callable],
  prepare: Callable,
  axis_name: str,
):
  """One iteration: every phase in order, then the method's own state.

  Args:
    state: replicated; donated by the caller.
    batch: domain -> u8 arrays `[b, H, W, ...]`, this device's examples.
    rng: the stage's key, the same at every step and on every device.

  Returns:
    The next state and scalar metrics, both equal on all devices.
  """
  keys = _keys(state.step, batch, rng, axis_name)
  context = contract.Context(
    batch=prepare(batch, keys),
    extra=state.extra,
    carry={},
    step=state.step,
    keys=keys,
    axis_name=axis_name,
  )
  params, batch_stats = dict(state.params), dict(state.batch_stats)
  opt_state, metrics = dict(state.opt_state), {}
  for phase in phases:
    seen = state.params if phase.at == 'old' else params
    grads, output = _differentiate(phase, seen, batch_stats, context)
    batch_stats.update(output.batch_stats)
    carry = {**context.carry, **output.carry}
    if output.averaged:
      averaged = {**context.carry.get('averaged', {}), **output.averaged}
      carry['averaged'] = averaged
    context = context._replace(carry=carry)
    metrics.update(_values(phase, phases, output))
    if not phase.train:
      continue
    trained = {name: params[name] for name in phase.train}
    updates, opt_state[phase.name] = optimizers[phase.name].update(
      grads, opt_state[phase.name], trained
    )
    stepped: Any = optax.apply_updates(trained, updates)
    params.update(stepped)
    metrics.update(_norms(phase, phases, grads, updates, trained))
    metrics[_name('learning_rate', phase, phases)] = schedules[phase.name](
      state.step
    )
  variables = train_state_lib.join(params, batch_stats)
  extra = post_update(state.extra, variables, context.carry, state.step)
  state = state.replace(
    step=state.step + 1,
    params=params,
    batch_stats=batch_stats,
    opt_state=opt_state,
    extra=extra,
  )
  return state, metrics


def _keys(step, batch, rng, axis_name: str) -> rng_lib.Keys:
  """Keys of this step, with the examples' indices in the global batch."""
  local = jax.tree.leaves(batch)[0].shape[0]
  first = jax.lax.axis_index(axis_name) * local
  return rng_lib.Keys(jax.random.fold_in(rng, step), first + jnp.arange(local))


def _differentiate(phase: contract.Phase, params, batch_stats, context):
  """Gradients and outputs of one phase, reduced over devices once.

  Returns:
    Gradients of the global loss for `phase.train`, and the phase's `Output`
    with statistics averaged and terms summed over devices.
  """

  def share(trained):
    variables = train_state_lib.join({**params, **trained}, batch_stats)
    output = phase.loss(variables, context)
    counts = {k: t.count for k, t in output.terms.items()}
    counts = jax.lax.psum(counts, context.axis_name)
    shares = [
      term.weight * term.total / jnp.maximum(counts[name], 1)
      for name, term in output.terms.items()
    ]
    return sum(shares, jnp.zeros(())), (output, counts)

  trained = {name: params[name] for name in phase.train}
  if trained:
    grads, (output, counts) = jax.grad(share, has_aux=True)(trained)
  else:
    grads, (output, counts) = {}, share({})[1]
  devices = jax.lax.psum(1, context.axis_name)
  grads, totals, stats, averaged, logged = jax.lax.psum(
    (
      grads,
      {name: term.total for name, term in output.terms.items()},
      output.batch_stats,
      output.averaged,
      {k: (t.total, t.count) for k, t in output.metrics.items()},
    ),
    context.axis_name,
  )
  mean = functools.partial(jax.tree.map, lambda x: x / devices)
  output = contract.Output(
    terms={
      name: terms_lib.Term(totals[name], counts[name], term.weight)
      for name, term in output.terms.items()
    },
    batch_stats=mean(stats),
    carry=jax.lax.stop_gradient(output.carry),
    averaged=mean(averaged),
    metrics={k: terms_lib.Term(*v) for k, v in logged.items()},
  )
  return grads, output


def _name(what: str, phase: contract.Phase, phases) -> str:
  """A metric's name; the phase is named where there are several."""
  return what if len(phases) == 1 else f'{phase.name}/{what}'


def _values(phase: contract.Phase, phases, output: contract.Output):
  """The phase's loss, its terms, and what the method logs."""
  values, loss = {}, jnp.zeros(())
  for name, term in output.terms.items():
    value = term.total / jnp.maximum(term.count, 1)
    values[f'loss/{name}'] = value
    loss = loss + term.weight * value
  if output.terms:
    values[_name('loss', phase, phases)] = loss
  for name, term in output.metrics.items():
    values[name] = term.total / jnp.maximum(term.count, 1)
  return values


def _norms(phase: contract.Phase, phases, grads, updates, params):
  """Global norms; a finite update norm means that the update was finite."""
  trees = {'grad_norm': grads, 'update_norm': updates, 'param_norm': params}
  return {
    _name(name, phase, phases): optax.tree.norm(tree)
    for name, tree in trees.items()
  }
