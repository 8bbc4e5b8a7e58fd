"""A run: its config, its work directory, and where each stage keeps what."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax

from jaxseg_da import errors
from jaxseg_da.experiment import assembly, datasets
from jaxseg_da.training import checkpoint, contract, parallel, train


@dataclasses.dataclass(eq=False)
class Run:
  """One run of a resolved config in a work directory.

  Attributes:
    config: resolved and validated.
    workdir: where everything goes.
    backend: placement and compilation.
    writer: metric sinks.
    stop: whether the process was told to stop.
  """

  config: Any
  workdir: pathlib.Path
  backend: parallel.Backend
  writer: Any
  stop: Callable[[], bool]

  @functools.cached_property
  def data_dir(self) -> pathlib.Path:
    """Where prepared datasets are."""
    return pathlib.Path(self.config.data_dir).expanduser()

  @functools.cache  # noqa: B019 -- a run lives as long as the process
  def dataset(self, spec: str):
    """A prepared dataset, opened once; `streets` is built on first use."""
    return datasets.open_dataset(spec, self.data_dir)

  def folder(self, name: str) -> pathlib.Path:
    """The folder of a stage."""
    index = self.config.pipeline.index(name)
    return self.workdir / 'stages' / f'{index:02d}_{name}'

  def checkpoints(self, name: str) -> checkpoint.Checkpoints:
    """The checkpoints of a stage."""
    folder = self.folder(name) / 'checkpoints'
    return checkpoint.Checkpoints(folder, self.config.checkpoint.keep)

  def done(self, name: str) -> dict | None:
    """What a finished stage wrote; None while it is not finished."""
    return checkpoint.read_json(self.folder(name) / 'done.json')

  def steps(self, name: str) -> int:
    """A stage's updates: what its host pass or earlier stages decided."""
    block = self.config.stages[name]
    others = [self.done(other) for other in block.updates_of]
    if others and None not in others:
      return max(1, sum(o['segmentation_updates'] for o in others if o))
    return block.steps or self.artifacts(name).steps or 1

  def stage(self, name: str) -> train.Stage:
    """Builds a stage with its step count."""
    return assembly.build(self.config, name, self.steps(name))

  def restore(
    self, name: str, step: int | None = None, folder: pathlib.Path | None = None
  ):
    """The state of a stage at `step`, by default its newest checkpoint.

    Args:
      name: the stage.
      step: a step that was checkpointed.
      folder: of the checkpoints, where they are not the stage's own.

    Raises:
      UserError: there is no such checkpoint.
    """
    folder = folder or self.folder(name) / 'checkpoints'
    steps = checkpoint.steps_in(folder)
    if not steps or (step is not None and step not in steps):
      raise errors.UserError(
        f'no checkpoint {"" if step is None else step} of stage {name} in '
        f'{folder}; there are: {", ".join(map(str, steps)) or "none"}'
      )
    checkpoints = checkpoint.Checkpoints(folder, self.config.checkpoint.keep)
    stage = self.stage(name)
    shapes = jax.eval_shape(
      lambda: assembly.initial_state(stage, artifacts=self.artifacts(name))
    )
    like = self.backend.abstract(shapes)
    state = checkpoints.restore(steps[-1] if step is None else step, like)
    checkpoints.close()
    return self.backend.from_global(state)

  def artifacts(self, name: str) -> contract.Artifacts:
    """What the host pass of a stage left; nothing where there was none."""
    folder = self.folder(name) / 'artifacts'
    record = checkpoint.read_json(folder / 'artifacts.json')
    if record is None:
      return contract.NO_ARTIFACTS
    files = {k: folder / v for k, v in record['files'].items()}
    return contract.Artifacts(files, record['steps'])


def say(text: str) -> None:
  """A line on stderr, once per run."""
  if jax.process_index() == 0:
    print(text, file=sys.stderr, flush=True)
