"""Finds the reference numbers that a parity test has to check.

A set is a folder of `*_WHAT.npz` files, in `tests/fixtures/SET/` or, when the
variable is set, in `$JAXSEG_DA_FIXTURES/SET/`. Each test module maps WHAT to a
check function; a file whose WHAT has no check, and a set without files, fail.
Every check runs in `double`.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping

import jax
import numpy as np
import pytest

from tests import toys

_LOCAL = pathlib.Path(__file__).parents[1] / 'fixtures'


def folder(name: str) -> pathlib.Path:
  """The folder that holds the files of the set `name`."""
  return pathlib.Path(os.environ.get('JAXSEG_DA_FIXTURES', _LOCAL)) / name


def cases(name: str) -> list:
  """One pytest parameter per file of the set; one failing one if empty."""
  files = sorted(folder(name).glob('*.npz'))
  return [pytest.param(f, id=f.stem) for f in files] or [
    pytest.param(None, id='empty')
  ]


def run(path: pathlib.Path | None, checks: Mapping[str, Callable]) -> None:
  """Runs the check that the file's name asks for on the file's arrays."""
  assert path is not None, 'the parity set is empty: no *.npz file was found'
  _, _, what = path.stem.partition('_')
  name = max(
    (k for k in checks if what == k or what.startswith(k + '_')),
    key=len,
    default=None,
  )
  assert name is not None, f'{path.name}: no check for {what!r}'
  with double(), np.load(path) as arrays:
    checks[name]({k: arrays[k] for k in arrays.files})


def double():
  """The context of every check: float64 is kept where it comes in.

  Derivatives are compared in float64 only, see `wide`. A slope may jump, at
  the zero of a ReLU or where two maxima are equal, and what lies within
  float32's rounding of such a place falls on the wrong side of it: a correct
  network then misses a gradient by a percent, in one file and not in another.
  """
  return jax.enable_x64(True)


def wide(tree):
  """What a check differentiates at: floating leaves become float64.

  Arrays that a file stores in float32 or float16 are exact in it. Reference
  numbers stay as they are, and the tolerance is that of their precision.
  """
  return toys.to_float64(tree)


def close(actual, expected, tolerance: float, what: str = '') -> None:
  """Asserts a deviation of at most `tolerance` of the expected maximum."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  assert actual.shape == expected.shape, (what, actual.shape, expected.shape)
  scale = max(float(np.max(np.abs(expected), initial=0.0)), 1e-30)
  deviation = float(np.max(np.abs(actual - expected), initial=0.0)) / scale
  assert deviation <= tolerance, f'{what}: {deviation:.3g} > {tolerance:.3g}'
