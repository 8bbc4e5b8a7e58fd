"""The training step under a clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxseg_da.experiment import assembly
from jaxseg_da.experiment.run import Run
from jaxseg_da.training import train

_WARMUP = 10


class Step:
  """The compiled step of a stage, with the state that it goes on from."""

  def __init__(self, run: Run, stage: train.Stage):
    self.place = run.backend.shard
    self.stage = stage.name
    self._call = run.backend.compile(stage.step)
    self._state = run.backend.replicate(assembly.initial_state(stage))
    self._key = run.backend.replicate(stage.key)
    self._first: Any = None
    self._last: Any = None

  def __call__(self, batch: Any) -> None:
    """Makes one step on a batch that is placed, and waits for its end."""
    self._state, self._last = self._call(self._state, batch, self._key)
    jax.block_until_ready((self._state, self._last))
    if self._first is None:
      self._first = self._last

  def checks(self) -> dict[str, Any]:
    """Whether the first and the last step gave finite numbers."""
    first, last = (
      {key: np.asarray(value).item() for key, value in metrics.items()}
      for metrics in jax.device_get((self._first, self._last))
    )
    finite = all(map(math.isfinite, [*first.values(), *last.values()]))
    return {
      'loss_first': first.get('loss') if finite else None,
      'loss_last': last.get('loss') if finite else None,
      'finite': finite,
      'passed': finite,
    }


def warmup(count: int) -> int:
  """Steps that go before `count` timed ones."""
  return min(_WARMUP, count)


def timed(
  step: Step, batches: Iterator[Any], place: Callable[[Any], Any], count: int
) -> np.ndarray:
  """Seconds of `count` steps, and of their wait for a batch, f64 `[2, count]`.

  Each step has ended before the next batch is asked for. While it runs, the
  loader works ahead; only what it does not manage counts as waiting.

  Args:
    step: what to run.
    batches: asked once per step.
    place: puts a batch on the devices.
    count: number of timed steps.
  """
  times = []
  for _ in range(warmup(count) + count):
    began = time.perf_counter()
    batch = next(batches)
    waited = time.perf_counter() - began
    step(place(batch))
    times.append((time.perf_counter() - began, waited))
  return np.transpose(times[-count:])


def spread(seconds: np.ndarray) -> dict[str, Any]:
  """Statistics of step times, in milliseconds."""
  ms = 1e3 * seconds
  p50, p90, p99 = np.percentile(ms, [50, 90, 99])
  return {
    'mean': ms.mean(),
    'p50': p50,
    'p90': p90,
    'p99': p99,
    'max': ms.max(),
    'cv': ms.std() / ms.mean(),
    'n': len(ms),
  }
