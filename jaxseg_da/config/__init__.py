"""Values: every key with its type, range, meaning and source.

`schema` says what a key is, `base` declares those that every run has, `pairs`
sets the values of a source -> target pair. Nothing here knows a method: methods
bring their own blocks of keys.
"""

from __future__ import annotations

from jaxseg_da.config.base import base_config, optimizer, stage
from jaxseg_da.config.schema import ConfigDict
from jaxseg_da.config.values import from_dict, leaves, to_dict

__all__ = [
  'ConfigDict',
  'base_config',
  'from_dict',
  'leaves',
  'optimizer',
  'stage',
  'to_dict',
]
