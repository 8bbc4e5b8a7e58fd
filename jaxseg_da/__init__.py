"""Domain-adaptive semantic segmentation of driving scenes in JAX."""

from __future__ import annotations

import importlib

__version__ = '0.1.0'

# From the ground up: a wing imports only from wings before it. `data_prep` is a
# package of its own that stands between them; tests/test_house.py reads this.
WINGS = (
  'errors',
  'config',
  'classes',
  'ops',
  'losses',
  'models',
  'data',
  'training',
  'drawing',
  'evaluation',
  'methods',
  'data_prep',
  'experiment',
  'report',
  'benchmark',
  'main',  # the door: main.py, modes.py, seeds.py
)

# What people import without knowing the house.
_WINGS = {'labels': 'classes', 'metrics': 'evaluation'}


def __getattr__(name: str):
  """`labels` and `metrics` from their wings, loaded when they are asked for."""
  if name in _WINGS:
    return importlib.import_module(f'{__name__}.{_WINGS[name]}.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
