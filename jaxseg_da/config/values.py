"""Configs as flat keys, as plain dictionaries, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jaxseg_da.config.schema import ConfigDict


def leaves(config, prefix: str = '') -> Iterator[tuple[str, Any]]:
  """All `(dotted key, value)` of a config, in order."""
  for key in config:
    value = config[key]
    if isinstance(value, ConfigDict):
      yield from leaves(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def to_dict(config: ConfigDict) -> dict:
  """Plain nested dictionary; tuples become lists, as JSON has them."""

  def plain(value):
    if isinstance(value, (tuple, list)):
      return [plain(v) for v in value]
    return value

  def walk(block):
    return {
      k: walk(v) if isinstance(v, ConfigDict) else plain(v)
      for k, v in block.items()
    }

  return walk(config)


def from_dict(values: dict) -> ConfigDict:
  """The inverse of `to_dict`."""

  def typed(value: Any) -> Any:
    if isinstance(value, list):
      return tuple(typed(v) for v in value)
    if isinstance(value, dict):
      return {k: typed(v) for k, v in value.items()}
    return value

  return ConfigDict(typed(values))
