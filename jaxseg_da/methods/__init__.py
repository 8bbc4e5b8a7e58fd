"""The methods, found by name; a module is imported when it is asked for.

A module is a room: its keys (`settings`), its recipe (`make`) and whatever
belongs to it. Nothing outside names it but its line in `MODULES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from jaxseg_da import config as config_lib
from jaxseg_da import errors
from jaxseg_da.config import base, schema
from jaxseg_da.training import contract

# Module -> the methods in it.
MODULES = {
  'source_only': ('source_only', 'oracle'),
  'adabn': ('adabn',),
  'dacs': ('dacs',),
  'lse': ('lse',),
  'cbst': ('cbst',),
  'adversarial': ('adversarial',),
  'cdga': ('cdga',),
  'maxsquare': ('maxsquare',),
  'ccda': ('ccda', 'ccda_skdc', 'ccda_mib', 'ccda_msiw', 'ccda_source_only'),
}
CONTROL = 'source_only'  # what a control runs, and where most methods start
NAMES = {name: module for module, names in MODULES.items() for name in names}


def _module(name: str) -> Any:
  return importlib.import_module(f'{__name__}.{name}')


def make(config, stage) -> contract.Method:
  """The `Method` of one stage of a resolved config.

  Args:
    config: the whole configuration.
    stage: one of `config.stages`.

  Raises:
    UserError: the stage names a method that does not exist, or the method
      cannot be made with these values.
  """
  if stage.method not in NAMES:
    raise errors.unknown('method', stage.method, NAMES)
  return _module(NAMES[stage.method]).make(config, stage)


def settings(module: str) -> contract.Settings:
  """What a module adds to a config."""
  return _module(module).settings()


def blocks(names: Iterable[str]) -> dict[str, contract.Settings]:
  """Blocks of keys that methods read, their own and others'.

  Args:
    names: of methods.

  Raises:
    UserError: one of them does not exist.
  """
  found: dict[str, contract.Settings] = {}
  for name in names:
    if name not in NAMES:
      raise errors.unknown('method', name, NAMES)
    waiting = [NAMES[name]]
    while waiting:
      module = waiting.pop(0)
      if module not in found:
        found[module] = settings(module)
        waiting += found[module].reads
  return found


def base_config(*names: str) -> config_lib.ConfigDict:
  """`config.base_config` with the blocks of the methods that a config runs."""
  config = config_lib.base_config()
  add_blocks(config, names)
  return config


def add_blocks(config, names: Iterable[str]) -> None:
  """Adds the blocks that methods read, where they are not there yet."""
  for module, found in blocks(names).items():
    if found.keys and module not in config:
      config[module] = schema.defaults(found.keys)
    for label, values in found.optimizers.items():
      if label not in config.optim:
        config.optim[label] = config_lib.optimizer(**values)


def schema_of(config) -> schema.Block:
  """The schema of a config: the base keys, and the blocks that it has."""
  own = {name: settings(name).keys for name in config if name in MODULES}
  return {**base.SCHEMA, **own}
