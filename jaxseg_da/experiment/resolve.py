"""From the config that a user wrote to the one that runs."""

from __future__ import annotations

import copy
from collections.abc import Callable

from jaxseg_da import config as config_lib
from jaxseg_da import methods
from jaxseg_da.config import ConfigDict, schema
from jaxseg_da.experiment import checks


def resolve(config: ConfigDict) -> ConfigDict:
  """Applies `control`, `steps_scale` and `scale_rule`: what really runs.

  With k = batch_size / scale_reference_batch, both batch rules divide step
  counts by k (as many examples as before) and raise EMA decays to the power k
  (the same horizon in examples); learning rates grow by k (linear) or by its
  root (sqrt, the rule for adaptive optimizers).

  Raises:
    UserError: a number or a stage with which that makes no sense, or a class
      tree that cannot be read.
  """
  config = copy.deepcopy(config)
  with config.unlocked():
    chosen = checks.stages(config).values()
    methods.add_blocks(config, (stage.method for stage in chosen))
    checks.validate_keys(config)
    checks.validate_crops(config)
    checks.validate_pipeline(config)
    for module, settings in methods.blocks(s.method for s in chosen).items():
      if module in config:
        settings.complete(config[module])
    if config.control:
      _append_control(config)
    ratio = batch_ratio(config)
    for block in config.optim.values():
      block.learning_rate *= (
        ratio**0.5 if config.scale_rule == 'sqrt' else ratio
      )
    _change(config, schema.DECAY, lambda decay: decay**ratio)
  return scaled(config, config.steps_scale / ratio)


def _change(config, kind: str, function: Callable) -> None:
  """Applies a function to every value whose rule is of a kind."""
  found = schema.keys(config, methods.schema_of(config))
  for name, value, key in list(found):
    if key is not None and key.rule.kind == kind:
      config.update_from_flattened_dict({name: function(value)})


def _append_control(config: ConfigDict) -> None:
  """Adds the control after the stages that it controls for.

  A config may have its own, in stages of that role; otherwise it is one stage.
  """
  own = [name for name, s in config.stages.items() if s.role == 'control']
  own.sort(key=lambda name: config.stages[name].level)
  main = [n for n in config.pipeline if config.stages[n].role == 'main']
  first = main[0]
  starts_from_source = config.stages[first].method == methods.CONTROL
  later = tuple(
    n for n in main if not methods.make(config, config.stages[n]).baseline
  )
  config.pipeline = tuple(dict.fromkeys((*config.pipeline, *own)))
  if own or not later:
    return  # nothing to add, or nothing that it could be compared with
  last = config.stages[main[-1]]
  config.stages.control = config_lib.stage(
    methods.CONTROL,
    sum(config.stages[name].steps for name in later),
    init_from=first if starts_from_source else '',
    role='control',
    updates_of=later,
    optim=last.optim,
  )
  at = config.pipeline.index(main[-1]) + 1
  config.pipeline = (*config.pipeline[:at], 'control', *config.pipeline[at:])


def batch_ratio(config: ConfigDict) -> float:
  """The batch over the one that the constants were made for; 1 without rule."""
  if config.scale_rule == 'none':
    return 1.0
  return config.batch_size / config.scale_reference_batch


def scaled(config: ConfigDict, factor: float) -> ConfigDict:
  """A copy with every key measured in steps scaled, at least 1 where not 0."""
  config = copy.deepcopy(config)
  with config.unlocked():
    _change(
      config,
      schema.STEPS,
      lambda steps: steps and max(1, round(steps * factor)),
    )
  return config
