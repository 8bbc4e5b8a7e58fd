"""What makes a config valid; whatever is not is named in one sentence.

The range of each key is in its schema; here is what several keys, the devices
and the registry of methods say together.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import jax

from jaxseg_da import config as config_lib
from jaxseg_da import errors, methods
from jaxseg_da.config import schema
from jaxseg_da.evaluation import evaluate

# A resumed run may differ in these: they change no number that training makes.
FREE = re.compile(
  r'^(data_dir|cache_dir|log_every|tensorboard|distributed|'
  r'(evaluate|predict|report|checkpoint|benchmark)(\..*)?)$'
)


def validate_keys(config: config_lib.ConfigDict) -> None:
  """Holds every key against its schema.

  Raises:
    UserError: a key that does not exist, or a value of another type or out of
      range; names it.
  """
  schema.check(config, methods.schema_of(config))


def validate_used(config, keys: Iterable[str]) -> None:
  """Refuses values for keys that no stage of the pipeline reads.

  Args:
    config: not yet resolved.
    keys: those that the command line sets.

  Raises:
    UserError: names the key and the methods that run.
  """
  read = methods.blocks(stage.method for stage in stages(config).values())
  for key in keys:
    block = key.partition('.')[0]
    if block in methods.MODULES and block not in read:
      ours = ', '.join(sorted({s.method for s in stages(config).values()}))
      raise errors.UserError(
        f'config.{key} is read by no stage of config.pipeline: they run {ours}'
      )


def stages(config) -> dict:
  """Name -> block of the stages in the pipeline.

  Raises:
    UserError: the pipeline names a stage that does not exist.
  """
  for name in config.pipeline:
    if name not in config.stages:
      raise errors.unknown('stage in config.pipeline', name, config.stages)
  return {name: config.stages[name] for name in config.pipeline}


def validate(config: config_lib.ConfigDict, num_devices: int) -> None:
  """Checks a resolved config before anything is compiled.

  Raises:
    UserError: names the key, its value and what would be valid.
  """
  validate_keys(config)
  _validate_bn(config.bn, num_devices)
  _validate_batch(config.batch_size, num_devices)
  validate_crops(config)
  _validate_dtype(config.model.compute_dtype)
  validate_pipeline(config)
  evaluate.check(config.evaluate)


def _validate_dtype(dtype: str) -> None:
  if dtype == 'float64' and not jax.config.read('jax_enable_x64'):
    raise errors.UserError(
      "config.model.compute_dtype='float64' needs the environment variable "
      'JAX_ENABLE_X64=1; without it JAX computes in float32'
    )


def _validate_bn(bn: str, num_devices: int) -> None:
  size = bn.partition(':')[2]
  if size and num_devices % int(size):
    raise errors.UserError(
      f'config.bn={bn!r}: {num_devices} devices do not split into groups of '
      f'{size}'
    )


def _validate_batch(batch_size: int, num_devices: int) -> None:
  if batch_size % num_devices:
    low = batch_size // num_devices * num_devices
    valid = [n for n in (low, low + num_devices) if n > 0]
    raise errors.UserError(
      f'config.batch_size={batch_size} is not divisible by the {num_devices} '
      f'devices; nearest valid: {" or ".join(map(str, valid))}'
    )


def validate_crops(config) -> None:
  """Checks that crops are no larger than images.

  Raises:
    UserError: names both keys.
  """
  for domain in ('source', 'target'):
    size, crop = config.data[f'{domain}_size'], config.data[f'{domain}_crop']
    if any(c > s > 0 for c, s in zip(crop, size, strict=True)):
      raise errors.UserError(
        f'config.data.{domain}_crop={crop} is larger than '
        f'config.data.{domain}_size={size}'
      )


def validate_pipeline(config) -> None:
  """Checks that stages follow each other, and that the run is about one.

  Raises:
    UserError: names the stage, its key and what would be valid.
  """
  chosen = stages(config)
  if len(chosen) < len(config.pipeline):
    raise errors.UserError(
      f'config.pipeline={tuple(config.pipeline)} names a stage twice'
    )
  main = [stage for stage in chosen.values() if stage.role == 'main']
  if not main:
    raise errors.UserError(
      'config.pipeline has no stage whose role is main; there has to be one'
    )
  seen: list[str] = []
  for name, stage in chosen.items():
    _validate_stage(config, name, stage, seen)
    seen.append(name)
  if config.method != main[-1].method:
    raise errors.UserError(
      f'config.method={config.method!r} is not the method of the last main '
      f'stage of config.pipeline; valid: {main[-1].method}'
    )


def _validate_stage(config, name: str, stage, seen: Collection[str]) -> None:
  """Checks what a stage refers to; `seen` are those before it."""
  if stage.method not in methods.NAMES:
    raise errors.unknown(
      f'config.stages.{name}.method', stage.method, methods.NAMES
    )
  if stage.optim not in config.optim:
    raise errors.unknown(
      f'config.stages.{name}.optim', stage.optim, config.optim
    )
  referred = [('init_from', stage.init_from)] if stage.init_from else []
  for key, other in (*referred, *(('updates_of', o) for o in stage.updates_of)):
    if other not in seen:
      raise errors.UserError(
        f'config.stages.{name}.{key}={other!r} is no earlier stage; valid: '
        f'{", ".join(seen) or "(none)"}'
      )
  if stage.steps or stage.updates_of:
    return
  if not methods.make(config, stage).decides_steps:
    raise errors.UserError(
      f'config.stages.{name}.steps={stage.steps} must be at least 1'
    )


def differences(old: dict, new: dict) -> list[str]:
  """Keys on which two resolved configs differ, free keys left out.

  A block that only the old one has is that of a method, or an optimizer, which
  no stage reads: versions differ in which of them stand in every config.

  Args:
    old: `to_dict` of the config that a workdir was made with.
    new: the one that wants to go on.
  """
  a = dict(config_lib.leaves(config_lib.ConfigDict(old)))
  b = dict(config_lib.leaves(config_lib.ConfigDict(new)))
  known = {_block(key) for key in b}
  a = {k: v for k, v in a.items() if _block(k) in known or '.' not in k}
  missing = object()
  return [
    k
    for k in sorted({*a, *b})
    if a.get(k, missing) != b.get(k, missing) and not FREE.match(k)
  ]


def _block(key: str) -> str:
  """What a key stands in: `dacs`, `optim.main`, `stages.source_only`."""
  parts = key.split('.')
  named = parts[0] in ('optim', 'stages')
  return '.'.join(parts[: 2 if named else 1])
