"""One temporary folder for a whole test run, shared by its workers.

The process that starts the run makes it and removes it; workers and children
find it in the environment.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

_VARIABLE = 'JAXSEG_DA_TESTS'


def root() -> pathlib.Path:
  """The run's folder; made by the first process that asks."""
  if _VARIABLE not in os.environ:
    made = tempfile.mkdtemp(prefix='jaxseg_da_tests_')
    os.environ[_VARIABLE] = made
    atexit.register(shutil.rmtree, made, ignore_errors=True)
  return pathlib.Path(os.environ[_VARIABLE])


def folder(name: str) -> pathlib.Path:
  """A folder in it, made where it is missing."""
  path = root() / name
  path.mkdir(parents=True, exist_ok=True)
  return path


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
  """Keeps other processes of the run out of what has this name."""
  with (root() / f'{name}.lock').open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield
