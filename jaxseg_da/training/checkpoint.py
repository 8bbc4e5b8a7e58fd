"""Checkpoints of a stage: Orbax, behind four functions.

A checkpoint is the whole `TrainState` with the stage and seed it belongs to.
The data position needs no item of its own: the batch at step t is a function
of (seed, stage, t), and t is in the state. Writes are atomic: Orbax fills a
temporary folder and renames it, so a killed run never leaves half of one.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxseg_da import errors

Tree = Any


class Checkpoints:
  """The numbered checkpoints in one folder, newest last."""

  def __init__(self, folder: pathlib.Path, keep: int):
    self._folder = folder
    self._manager = ocp.CheckpointManager(
      folder.absolute(),
      item_names=('state', 'meta'),
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep, save_interval_steps=1, create=True
      ),
    )

  def steps(self) -> list[int]:
    """Steps that can be restored, ascending."""
    return sorted(self._manager.all_steps())

  def latest(self) -> int | None:
    """The newest step, None where there is no checkpoint."""
    return self._manager.latest_step()

  def save(self, step: int, state: Tree, meta: dict) -> None:
    """Starts to write a checkpoint; a step that exists is left alone.

    Args:
      step: updates done.
      state: global arrays (`Backend.to_global`).
      meta: JSON-able facts that come back from `meta`.
    """
    if step in self._manager.all_steps():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
      ),
    )

  def restore(self, step: int, like: Tree) -> Tree:
    """Reads the state of `step`.

    Args:
      step: one of `steps`.
      like: global arrays, or shapes with shardings, of the same structure.

    Raises:
      UserError: the checkpoint does not fit `like`, or cannot be read.
    """
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
      like,
    )
    try:
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)),
      )
    except (ValueError, OSError, KeyError) as error:
      reason = str(error).strip().splitlines()[0]
      raise errors.UserError(
        f'checkpoint {self._folder}/{step} cannot be restored: {reason}'
      ) from error
    return restored['state']

  def meta(self, step: int) -> dict:
    """The facts saved with `step`."""
    restored = self._manager.restore(
      step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
    )
    return restored['meta']

  def reached_preemption(self, step: int) -> bool:
    """Whether any process was told to stop; agreed on by all processes."""
    return self._manager.reached_preemption(step)

  def wait(self) -> None:
    """Returns when everything saved so far is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, and releases the folder."""
    self._manager.wait_until_finished()
    self._manager.close()


def steps_in(folder: pathlib.Path) -> list[int]:
  """Steps with a whole checkpoint, ascending; leaves the folder untouched."""
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
  """Writes a file that is there whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  temporary.write_bytes(data)
  temporary.replace(path)


def write_json(path: pathlib.Path, value) -> None:
  """Writes a file that is there whole or not at all."""
  write_bytes(path, (json.dumps(value, indent=2) + '\n').encode())


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes an `.npz` that is there whole or not at all."""
  buffer = io.BytesIO()
  entries: dict[str, Any] = dict(arrays)
  np.savez(buffer, **entries)
  write_bytes(path, buffer.getvalue())


def read_json(path: pathlib.Path):
  """A JSON file's value, None where there is no file.

  Raises:
    UserError: the file is there and cannot be read, or is not JSON.
  """
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    return None
  except OSError as error:
    raise errors.UserError(f'{path}: {error.strerror}') from error
  except ValueError as error:
    raise errors.UserError(f'{path} is not valid JSON: {error}') from error
