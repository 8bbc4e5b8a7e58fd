"""Values: every key with its type, range, meaning and source.

`schema` says what a key is, `base` declares those that every run has, `pairs`
sets the values of a source -> target pair. Nothing here knows a method: methods
bring their own blocks of keys.
"""

from __future__ import annotations

from jaxseg_da.config.base import (
  STEP_KEY,
  ConfigDict,
  base_config,
  from_dict,
  leaves,
  optimizer,
  stage,
  to_dict,
)

__all__ = [
  'STEP_KEY',
  'ConfigDict',
  'base_config',
  'from_dict',
  'leaves',
  'optimizer',
  'stage',
  'to_dict',
]
