"""The line that says how far a stage is, and how fast."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO


def is_loss(name: str) -> bool:
  """Whether a number is the whole loss, or that of one of several phases."""
  return name.rpartition('/')[2] == 'loss'


class Progress:
  """One line about a stage: step, loss, images per second, time to go.

  The rate is a plain average since `restart` (or the construction) without
  pauses, so it settles and does not jump. On a terminal one line is rewritten;
  elsewhere a line is printed every `interval` seconds and at the end.

  Args:
    stage: name that the line starts with.
    start: steps that were done before.
    total: steps of the stage.
    images_per_step: images that one step consumes.
    stream: where to print; stderr by default.
    interval: seconds between lines where the stream is no terminal.
    clock: seconds, monotonic.
    enabled: print at all; rates are computed either way.
  """

  def __init__(
    self,
    stage: str,
    start: int,
    total: int,
    images_per_step: int = 1,
    *,
    stream: TextIO | None = None,
    interval: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
    enabled: bool = True,
  ):
    self._stage, self._total, self._images = stage, total, images_per_step
    self._stream = sys.stderr if stream is None else stream
    self._tty = self._stream.isatty()
    self._interval, self._clock, self._enabled = interval, clock, enabled
    self._open = False
    self._printed = -math.inf
    self.restart(start)

  def restart(self, step: int) -> None:
    """Measures from here: after the step that compiled."""
    self._first, self._began, self._paused = step, self._clock(), 0.0

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Time spent inside does not count: evaluation, checkpoints."""
    began = self._clock()
    try:
      yield
    finally:
      self._paused += self._clock() - began

  def update(
    self, step: int, scalars: Mapping[str, Any] | None = None
  ) -> float:
    """Shows the state after `step` steps.

    Args:
      step: steps done.
      scalars: of them `loss`, or `PHASE/loss` of each phase, is shown.

    Returns:
      Images per second; 0 before there is anything to measure.
    """
    seconds = self._clock() - self._began - self._paused
    done = step - self._first
    rate = done / seconds if done > 0 and seconds > 0 else 0.0
    if self._enabled:
      self._show(step, rate, scalars or {})
    return rate * self._images

  def close(self) -> None:
    """Ends the line on a terminal."""
    if self._open:
      print(file=self._stream, flush=True)
      self._open = False

  def _show(self, step: int, rate: float, scalars: Mapping[str, Any]) -> None:
    now, last = self._clock(), step >= self._total
    due = now - self._printed >= self._interval
    if not (self._tty or last or due):
      return
    parts = [f'{self._stage} {step}/{self._total}']
    losses = [v for k, v in scalars.items() if is_loss(k)]
    if losses and None not in losses:
      parts.append(f'loss {", ".join(f"{float(v):.4f}" for v in losses)}')
    if rate:
      images = rate * self._images
      parts.append(f'{images:.{"1f" if images >= 1 else "2g"}} images/s')
      if not last:
        parts.append(f'ETA {duration((self._total - step) / rate)}')
    line = '  '.join(parts)
    if self._tty:
      self._stream.write(f'\r{line}\x1b[K')
      self._stream.flush()
      self._open = True
    else:
      print(line, file=self._stream, flush=True)
    self._printed = now


def duration(seconds: float) -> str:
  """`h:mm:ss`, or `m:ss` below an hour."""
  minutes, second = divmod(round(seconds), 60)
  hours, minute = divmod(minutes, 60)
  if hours:
    return f'{hours}:{minute:02d}:{second:02d}'
  return f'{minute}:{second:02d}'
