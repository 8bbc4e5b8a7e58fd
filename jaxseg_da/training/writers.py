"""Where numbers of a run go: metrics.jsonl and TensorBoard.

metrics.jsonl is the truth: one JSON object per line, `stage` and `step` first,
strict JSON (a number that is not finite becomes null). Lines reach the file as
they are written, so a killed run loses at most the line it was in; a torn last
line is dropped. Only process 0 writes; `create` gives the others a writer
without sinks.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TextIO

import numpy as np

Scalars = Mapping[str, Any]


class MetricWriter(Protocol):
  """A sink of scalars, pictures and the configuration."""

  def write_scalars(self, stage: str, step: int, scalars: Scalars) -> None:
    """Numbers after `step` updates of `stage`, by name."""

  def write_images(
    self, stage: str, step: int, images: Mapping[str, np.ndarray]
  ) -> None:
    """RGB pictures u8 `[H, W, 3]`, by name."""

  def write_config(self, config: Mapping[str, Any]) -> None:
    """The resolved configuration as nested plain dictionaries."""

  def truncate_after(self, stage: str, step: int) -> None:
    """Forgets what came after `step` updates of `stage`."""

  def replay(self, stage: str, lines: Sequence[str]) -> None:
    """Takes over the lines of a stage that another run trained."""

  def flush(self) -> None:
    """Hands everything to the operating system."""

  def close(self) -> None:
    """Flushes and closes; writing afterwards is an error."""


def create(
  workdir: str | os.PathLike, process_index: int, tensorboard: bool = True
) -> MultiWriter:
  """The writer of a run: JSONL, and TensorBoard where wanted.

  Args:
    workdir: run directory; created where missing.
    process_index: every process but 0 gets a writer that does nothing.
    tensorboard: also write `workdir/tensorboard`.
  """
  if process_index != 0:
    return MultiWriter(())
  folder = pathlib.Path(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  sinks: list[MetricWriter] = [JsonlWriter(folder / 'metrics.jsonl')]
  if tensorboard:
    sinks.append(TensorBoardWriter(folder / 'tensorboard'))
  return MultiWriter(sinks)


def read_jsonl(path: str | os.PathLike) -> list[dict[str, Any]]:
  """The records of a metrics file; lines that are not whole are left out."""
  return [record for _, record in _records(pathlib.Path(path))]


def _records(path: pathlib.Path) -> list[tuple[str, dict[str, Any]]]:
  """Complete lines, each with what it says."""
  if not path.exists():
    return []
  found = []
  text = path.read_text(encoding='utf-8', errors='replace')
  for line in text.split('\n')[:-1]:
    with contextlib.suppress(json.JSONDecodeError):
      record = json.loads(line)
      if isinstance(record, dict):
        found.append((line, record))
  return found


def _plain(value: Any) -> Any:
  """A value as strict JSON has it: device arrays become numbers."""
  if isinstance(value, Mapping):
    return {str(k): _plain(v) for k, v in value.items()}
  if value is None or isinstance(value, (str, bool)):
    return value
  array = np.asarray(value)
  if array.ndim:
    return [_plain(v) for v in array.tolist()]
  number = array.item()
  if isinstance(number, float) and not math.isfinite(number):
    return None
  return number


class JsonlWriter:
  """Appends one JSON object per line to a file."""

  def __init__(self, path: str | os.PathLike):
    self._path = pathlib.Path(path)
    self._file = self._open()
    if self._torn():
      self._rewrite([line for line, _ in _records(self._path)])

  def write_scalars(self, stage: str, step: int, scalars: Scalars) -> None:
    """Writes `{"stage": ..., "step": ..., **scalars}`."""
    record = {'stage': stage, 'step': int(step), **_plain(scalars)}
    self._file.write(json.dumps(record, allow_nan=False) + '\n')

  def write_images(
    self, stage: str, step: int, images: Mapping[str, np.ndarray]
  ) -> None:
    """Nothing: pictures do not go into a text file."""

  def write_config(self, config: Mapping[str, Any]) -> None:
    """Nothing: the run keeps its configuration in config.json."""

  def truncate_after(self, stage: str, step: int) -> None:
    """Drops lines of `stage` beyond `step`, and of stages that followed.

    Stages run one after the other, so whatever stands behind the first line of
    `stage` and belongs to another stage is younger. Where the stage has no
    line yet, all lines are older and stay.
    """
    kept, seen = [], False
    records = _records(self._path)
    for line, record in records:
      mine = record.get('stage') == stage
      seen = seen or mine
      if not seen or (mine and record.get('step', 0) <= step):
        kept.append(line)
    if len(kept) < len(records):
      self._rewrite(kept)

  def lines(self, stage: str) -> list[str]:
    """The lines of one stage, as they stand in the file."""
    self.flush()
    return [line for line, r in _records(self._path) if r.get('stage') == stage]

  def replay(self, stage: str, lines: Sequence[str]) -> None:
    """Puts `lines` in the place of what the file says about `stage`."""
    self.truncate_after(stage, -1)
    for line in lines:
      self._file.write(line.rstrip('\n') + '\n')

  def flush(self) -> None:
    """Lines are handed over as they are written; this makes sure."""
    self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def _open(self) -> TextIO:
    return self._path.open('a', buffering=1, encoding='utf-8')

  def _torn(self) -> bool:
    """Whether the last line has no end: the writing process was killed."""
    size = self._path.stat().st_size
    if not size:
      return False
    with self._path.open('rb') as file:
      file.seek(size - 1)
      return file.read(1) != b'\n'

  def _rewrite(self, lines: Sequence[str]) -> None:
    """Replaces the file in one move: a kill leaves the old or the new one."""
    self._file.close()
    fresh = self._path.with_name(self._path.name + '.tmp')
    fresh.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
    fresh.replace(self._path)
    self._file = self._open()


class TensorBoardWriter:
  """TensorBoard event files through tensorboardX; tags are `STAGE/NAME`."""

  def __init__(self, folder: str | os.PathLike):
    import tensorboardX  # not needed to use the library

    self._writer = tensorboardX.SummaryWriter(os.fspath(folder))

  def write_scalars(self, stage: str, step: int, scalars: Scalars) -> None:
    """Writes every number that is finite."""
    for name, value in _plain(scalars).items():
      if isinstance(value, (int, float)):
        self._writer.add_scalar(f'{stage}/{name}', value, step)

  def write_images(
    self, stage: str, step: int, images: Mapping[str, np.ndarray]
  ) -> None:
    """Writes pictures."""
    for name, image in images.items():
      tag = f'{stage}/{name}'
      self._writer.add_image(tag, image, step, dataformats='HWC')

  def write_config(self, config: Mapping[str, Any]) -> None:
    """Writes the configuration as a text block."""
    text = json.dumps(config, indent=2)
    self._writer.add_text('config', f'```\n{text}\n```')

  def truncate_after(self, stage: str, step: int) -> None:
    """Nothing: event files only grow; a later event hides an earlier one."""

  def replay(self, stage: str, lines: Sequence[str]) -> None:
    """Writes the numbers of another run's lines."""
    for line in lines:
      record = json.loads(line)
      step = record.pop('step', 0)
      record.pop('stage', None)
      self.write_scalars(stage, step, record)

  def flush(self) -> None:
    """Writes out what is queued."""
    self._writer.flush()

  def close(self) -> None:
    """Closes the event file."""
    self._writer.close()


class MultiWriter:
  """Hands everything to each of its sinks; without sinks it does nothing."""

  def __init__(self, writers: Sequence[MetricWriter]):
    self._writers = tuple(writers)

  def write_scalars(self, stage: str, step: int, scalars: Scalars) -> None:
    """To every sink."""
    for writer in self._writers:
      writer.write_scalars(stage, step, scalars)

  def write_images(
    self, stage: str, step: int, images: Mapping[str, np.ndarray]
  ) -> None:
    """To every sink."""
    for writer in self._writers:
      writer.write_images(stage, step, images)

  def write_config(self, config: Mapping[str, Any]) -> None:
    """To every sink."""
    for writer in self._writers:
      writer.write_config(config)

  def truncate_after(self, stage: str, step: int) -> None:
    """In every sink."""
    for writer in self._writers:
      writer.truncate_after(stage, step)

  def replay(self, stage: str, lines: Sequence[str]) -> None:
    """Into every sink."""
    for writer in self._writers:
      writer.replay(stage, lines)

  def lines(self, stage: str) -> list[str]:
    """The stage's lines of the JSONL sink; none where there is none."""
    for writer in self._writers:
      if isinstance(writer, JsonlWriter):
        return writer.lines(stage)
    return []

  def flush(self) -> None:
    """Every sink."""
    for writer in self._writers:
      writer.flush()

  def close(self) -> None:
    """Every sink."""
    for writer in self._writers:
      writer.close()
