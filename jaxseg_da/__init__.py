"""Domain-adaptive semantic segmentation of driving scenes in JAX."""

from __future__ import annotations

import importlib

__version__ = '0.1.0'

# What people import without knowing the house.
_WINGS = {'labels': 'classes', 'metrics': 'evaluation'}


def __getattr__(name: str):
  """`labels` and `metrics` from their wings, loaded when they are asked for."""
  if name in _WINGS:
    return importlib.import_module(f'{__name__}.{_WINGS[name]}.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
