"""Optimizers of one phase: groups by regular expression, schedules, repeats.

A config's `groups` are rules `(regex, learning-rate multiplier, weight-decay
multiplier)`; the first that `re.search` finds in a parameter's path, such as
`segmenter/backbone/layer3_5/conv2/kernel`, holds. Multiplier 0 of the learning
rate freezes: no update, no optimizer state.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxseg_da import errors

OPTIMIZERS = ('sgd', 'adam', 'adamw')
SCHEDULES = ('constant', 'poly', 'step')
MULTIPLICITIES = ('none', 'reference')
FIRST_STEPS = ('fresh', 'recursive')

# How often the published DeepLab-V2 training scripts list a parameter; what is
# in no row they list once.
_REFERENCE_REPEATS = (
  (r'(^|/)backbone/layer\d_\d+/(conv|bn)\d/', 3),
  (r'(^|/)backbone/layer\d_0/downsample_(conv|bn)/', 4),
)

Schedule = Callable[[Any], Any]


class Group(NamedTuple):
  """How a parameter is trained.

  Attributes:
    rule: the regular expression that matched.
    learning_rate: multiplier; 0 is frozen.
    weight_decay: multiplier.
    repeats: SGD applications per step; 1 where frozen.
  """

  rule: str
  learning_rate: float
  weight_decay: float
  repeats: int

  @property
  def frozen(self) -> bool:
    """Whether the group is not trained at all."""
    return self.learning_rate == 0

  @property
  def label(self) -> str:
    """The group's key in the optimizer state."""
    if self.frozen:
      return 'frozen'
    rates = f'lr{self.learning_rate:g}_wd{self.weight_decay:g}'
    return f'{rates}_x{self.repeats}'


def poly(base: float, horizon: int, power: float = 0.9) -> Schedule:
  """`base * (1 - t / horizon) ** power`, 0 from the horizon on.

  Chen et al., arXiv 1606.00915, section 3.1. Step t = 0 is the first.
  """
  return _precise(optax.polynomial_schedule(base, 0.0, power, horizon))


def _precise(schedule: Schedule) -> Schedule:
  """Evaluates at a float step: 32-bit integers divide in float32 only."""
  return lambda step: schedule(jnp.asarray(step, float))


def schedule(config, horizon_steps: int) -> Schedule:
  """The learning rate as a function of the step.

  Args:
    config: has `schedule`, `learning_rate`, `horizon_steps` (0: the argument),
      `warmup_steps` (a factor rises linearly from 0 to 1 over them; 0: none),
      `power` where the schedule is `poly`; `decay_rate`, the factor after
      every `decay_steps`, where it is `step`.
    horizon_steps: steps of the stage.

  Raises:
    UserError: the schedule is unknown, or its length is not positive.
  """
  horizon = config.horizon_steps or horizon_steps
  if config.schedule == 'poly':
    if horizon < 1:
      raise errors.UserError(
        f'horizon_steps of the poly schedule has to be positive, not {horizon}'
      )
    base = poly(config.learning_rate, horizon, config.power)
  elif config.schedule == 'constant':
    base = optax.constant_schedule(config.learning_rate)
  elif config.schedule == 'step':
    if config.decay_steps < 1:
      raise errors.UserError(
        f'decay_steps of the step schedule has to be positive, not '
        f'{config.decay_steps}'
      )
    base = optax.exponential_decay(
      config.learning_rate,
      config.decay_steps,
      config.decay_rate,
      staircase=True,
    )
  else:
    raise errors.unknown('schedule', config.schedule, SCHEDULES)
  base = _precise(base)
  if not config.warmup_steps:
    return base
  warmup = _precise(optax.linear_schedule(0.0, 1.0, config.warmup_steps))
  return lambda step: warmup(step) * base(step)


class RepeatedState(NamedTuple):
  """State of `repeated_sgd`.

  Attributes:
    count: steps of the schedule.
    started: whether the momentum buffer has seen a gradient.
    inner: state of one application.
  """

  count: jax.Array
  started: jax.Array
  inner: Any


def restart_schedules(state: Any) -> Any:
  """Optimizer state whose learning rate begins anew; momenta stay."""
  kinds = (RepeatedState, optax.ScaleByScheduleState)
  counts = lambda node: isinstance(node, kinds)

  def restart(node):
    if not counts(node):
      return node
    return node._replace(count=jnp.zeros_like(node.count))

  return jax.tree.map(restart, state, is_leaf=counts)


def repeated_sgd(
  learning_rate: float | Schedule,
  momentum: float,
  weight_decay: float,
  repeats: int = 1,
  first_step: str = 'fresh',
) -> optax.GradientTransformation:
  """SGD applied several times per step to the same gradient.

  The published DeepLab-V2 scripts list a backbone weight once per enclosing
  module, and PyTorch then updates it as often: `d = g + weight_decay * p`,
  `m = momentum * m + d`, `p = p - learning_rate * m`, with one buffer m. An
  update is the sum of the displacements. `repeats=1` is plain SGD with coupled
  weight decay.

  Args:
    learning_rate: constant, or a function of the step, evaluated once a step.
    momentum: of the buffer, no Nesterov; 0 for none.
    weight_decay: L2 coefficient, inside every application.
    repeats: applications per step.
    first_step: `fresh` starts the buffer anew in every application of the
      first step (recent PyTorch), `recursive` does not (PyTorch 1.7).

  Returns:
    A transformation whose update needs `params`.

  Raises:
    UserError: `first_step` is unknown.
  """
  if first_step not in FIRST_STEPS:
    raise errors.unknown('first step', first_step, FIRST_STEPS)
  once = optax.chain(
    optax.add_decayed_weights(weight_decay)
    if weight_decay
    else optax.identity(),
    optax.trace(momentum) if momentum else optax.identity(),
  )

  def init(params):
    zero = jnp.zeros([], jnp.int32)
    return RepeatedState(zero, jnp.zeros([], bool), once.init(params))

  def update(updates, state, params=None):
    if params is None:
      raise ValueError('repeated_sgd needs params in update')
    rate = learning_rate
    rate = rate(state.count) if callable(rate) else rate
    inner = state.inner
    total = jax.tree.map(jnp.zeros_like, params)
    for application in range(repeats):
      if application and first_step == 'fresh':
        # Buffers are zero before the first step, and only there.
        keep = state.started
        inner = jax.tree.map(lambda m, k=keep: jnp.where(k, m, 0), inner)
      moved = optax.apply_updates(params, total)
      directions, inner = once.update(updates, inner, moved)
      total = jax.tree.map(
        lambda t, d: t - jnp.asarray(rate, d.dtype) * d, total, directions
      )
    count = jnp.asarray(optax.safe_increment(state.count))
    return total, RepeatedState(count, jnp.ones([], bool), inner)

  return optax.GradientTransformation(init, update)


def _path(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _groups(config, params):
  """A pytree of `Group` like `params`; groups are leaves."""
  if config.multiplicity not in MULTIPLICITIES:
    raise errors.unknown('multiplicity', config.multiplicity, MULTIPLICITIES)
  reference = config.multiplicity == 'reference'
  if reference and config.name != 'sgd':
    raise errors.UserError(
      f"multiplicity 'reference' is defined for sgd, not for {config.name}"
    )
  rules = []
  for pattern, rate, decay in config.groups:
    try:
      rules.append((re.compile(pattern), float(rate), float(decay)))
    except re.error as error:
      raise errors.UserError(
        f'groups: {pattern!r} is no regular expression: {error}'
      ) from error

  def group(path, leaf):
    del leaf
    name = _path(path)
    repeats = 1
    if reference:
      hits = [k for rule, k in _REFERENCE_REPEATS if re.search(rule, name)]
      repeats = hits[0] if hits else 1
    for rule, rate, decay in rules:
      if rule.search(name):
        return Group(rule.pattern, rate, decay, repeats if rate else 1)
    known = ', '.join(repr(rule.pattern) for rule, _, _ in rules) or 'none'
    raise errors.UserError(
      f'no rule of the optimizer groups matches the parameter {name!r}; '
      f"rules: {known}; ('.*', 1, 1) as the last one matches everything"
    )

  return jax.tree_util.tree_map_with_path(group, params)


def _is_group(node) -> bool:
  return isinstance(node, Group)


def group_table(config, params) -> list[tuple[str, Group]]:
  """Path and group of every parameter, in the order of the tree.

  Args:
    config: has `groups`, `multiplicity` and `name`.
    params: pytree of parameters or of their shapes, by network.

  Raises:
    UserError: no rule matches a parameter; a rule is no regular expression.
  """
  groups = _groups(config, params)
  rows, _ = jax.tree_util.tree_flatten_with_path(groups, is_leaf=_is_group)
  return [(_path(path), group) for path, group in rows]


def trainable_mask(config, params):
  """A pytree of bools like `params`: False where frozen. See `group_table`."""
  return jax.tree.map(
    lambda group: not group.frozen, _groups(config, params), is_leaf=_is_group
  )


def _transformation(config, group: Group, rate: Schedule):
  """What trains the parameters of one group."""
  if group.frozen:
    return optax.set_to_zero()
  scaled = lambda step: group.learning_rate * rate(step)
  decay = group.weight_decay * config.weight_decay
  if config.name == 'sgd':
    return repeated_sgd(
      scaled, config.momentum, decay, group.repeats, config.first_step
    )
  adam = optax.scale_by_adam(config.b1, config.b2)
  decayed = optax.add_decayed_weights(decay)
  return optax.chain(
    *((decayed, adam) if config.name == 'adam' else (adam, decayed)),
    optax.scale_by_learning_rate(scaled),
  )


def make(config, params, horizon_steps: int) -> optax.GradientTransformation:
  """The optimizer of one phase.

  Args:
    config: has `name` (`sgd`, `adam` with coupled or `adamw` with decoupled
      weight decay), `weight_decay`, `momentum` (sgd), `b1` and `b2` (Adam),
      `grad_clip` (largest global norm of the trainable gradients, 0: none),
      `groups`, `multiplicity` (`none`, or `reference` for the repeats of the
      published DeepLab-V2 scripts), and what `schedule` reads.
    params: `{network: params}` that the phase trains, or their shapes.
    horizon_steps: steps of the stage.

  Returns:
    A transformation; its updates are to be added, its `update` needs `params`.

  Raises:
    UserError: an unknown name, a rule that is no regular expression, or a
      parameter that no rule matches.
  """
  if config.name not in OPTIMIZERS:
    raise errors.unknown('optimizer', config.name, OPTIMIZERS)
  groups = _groups(config, params)
  rate = schedule(config, horizon_steps)
  distinct = {
    group.label: group for group in jax.tree.leaves(groups, is_leaf=_is_group)
  }
  labels = jax.tree.map(lambda group: group.label, groups, is_leaf=_is_group)
  steps = optax.partition(
    {
      label: _transformation(config, group, rate)
      for label, group in distinct.items()
    },
    labels,
  )
  if not config.grad_clip:
    return steps
  trained = trainable_mask(config, params)
  clip = optax.clip_by_global_norm(config.grad_clip)
  return optax.chain(optax.masked(clip, trained), steps)
