"""What a build needs around its examples: processes, progress, one writer."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import process
from multiprocessing import connection
from typing import IO, Any

from jaxseg_da import errors


def cpu_count() -> int:
  """Cores that this process may use."""
  return len(os.sched_getaffinity(0))


class Progress:
  """A line with count, rate and time left: rewritten, or every 5 s in a log.

  Args:
    label: begins the line.
    total: number of things to do.
    stream: where to print.
    kept: how many were done before this run.
  """

  def __init__(self, label: str, total: int, stream: IO[str], kept: int = 0):
    self._label = label
    self._total = total
    self._stream = stream
    self._tty = stream.isatty()
    self._every = 0.2 if self._tty else 5.0
    self._start = self._last = time.monotonic()
    self._count = self._kept = kept
    if kept:
      self._stream.write(f'{label}: {kept} examples of an earlier run kept\n')

  def update(self, count: int = 1) -> None:
    """`count` more are done."""
    self._count += count
    now = time.monotonic()
    last = self._count == self._total
    if not count or (now - self._last < self._every and not last):
      return
    self._last = now
    rate = (self._count - self._kept) / max(now - self._start, 1e-3)
    left = (self._total - self._count) / rate
    line = (
      f'{self._label}: {self._count}/{self._total} examples, '
      f'{rate:.0f}/s, {_duration(left)} left'
    )
    if self._tty:
      self._stream.write(f'\r{line:<70}' + ('\n' if last else ''))
    else:
      self._stream.write(line + '\n')
    self._stream.flush()


def _duration(seconds: float) -> str:
  minutes, rest = divmod(round(seconds), 60)
  if minutes < 2:
    return f'{round(seconds)} s'
  hours, minutes = divmod(minutes, 60)
  return f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s'


def run(
  function: Callable[[Any, Callable[[], None]], Any],
  jobs: Sequence[Any],
  workers: int,
  progress: Progress | None = None,
) -> list[Any]:
  """`function(job, advance)` for each job in spawned processes.

  Args:
    function: importable; calls `advance()` for every small step that is done.
      What it raises is raised here; jobs that run then are ended.
    jobs: arguments that can be pickled.
    workers: number of processes; one worker or one job run in this process.
    progress: told about each step.

  Returns:
    What the jobs returned, in order.

  Raises:
    errors.UserError: a worker was killed.
  """
  advance = progress.update if progress else lambda: None
  if workers <= 1 or len(jobs) <= 1:
    return [function(job, advance) for job in jobs]
  context = multiprocessing.get_context('spawn')
  steps = context.Value('q', 0)
  pool = futures.ProcessPoolExecutor(
    min(workers, len(jobs)), context, _start_worker, (steps,)
  )
  try:
    waiting = [pool.submit(_call, function, job) for job in jobs]
    pending = {*waiting}
    seen = 0
    while pending:
      done, pending = futures.wait(
        pending, timeout=0.2, return_when=futures.FIRST_EXCEPTION
      )
      now = steps.value
      if progress:
        progress.update(now - seen)
      seen = now
      for future in done:
        future.result()
    return [future.result() for future in waiting]
  except process.BrokenProcessPool as error:
    raise errors.UserError(
      'a worker process was killed, perhaps for lack of memory: try fewer '
      '--workers'
    ) from error
  finally:
    pool.shutdown(cancel_futures=True)


_steps: Any = None  # Of this worker process: what all of them count up.


def _start_worker(steps: Any) -> None:
  """Runs first in a worker: ends it when its parent is killed."""
  global _steps
  _steps = steps
  parent = multiprocessing.parent_process()
  assert parent is not None

  def watch() -> None:
    connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _call(function: Callable[..., Any], job: Any) -> Any:
  def advance() -> None:
    with _steps.get_lock():
      _steps.value += 1

  return function(job, advance)


@contextlib.contextmanager
def lock(path: pathlib.Path, waiting: Callable[[], None]) -> Iterator[None]:
  """Holds the lock file `path`; the system frees it if the process dies.

  Args:
    path: the file; it is created and stays.
    waiting: called once if another process holds the lock.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('a') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      waiting()
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
