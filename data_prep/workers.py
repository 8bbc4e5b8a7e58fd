"""What a build needs around its examples: processes, progress, one writer."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import multiprocessing
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from multiprocessing import connection
from typing import IO, Any

_CHUNK = 8  # Items per message to a worker.
_WAITING = 4  # Chunks per worker that may be under way or unread.


def cpu_count() -> int:
  """Cores that this process may use."""
  return len(os.sched_getaffinity(0))


def ordered_map(
  function: Callable[[Any], Any], items: Sequence[Any], workers: int
) -> Iterator[Any]:
  """`map` in spawned processes: results in order, few of them in memory.

  Args:
    function: importable, without state; what it raises is raised here.
    items: arguments that can be pickled.
    workers: number of processes. One, or few items, run in this process.

  Yields:
    `function(item)` for each item.
  """
  if workers <= 1 or len(items) <= 2 * _CHUNK:
    yield from map(function, items)
    return
  context = multiprocessing.get_context('spawn')
  pool = futures.ProcessPoolExecutor(workers, context, _leave_with_parent)
  waiting: collections.deque[futures.Future] = collections.deque()
  try:
    for start in range(0, len(items), _CHUNK):
      chunk = items[start : start + _CHUNK]
      waiting.append(pool.submit(_apply, function, chunk))
      if len(waiting) >= workers * _WAITING:
        yield from waiting.popleft().result()
    while waiting:
      yield from waiting.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)


def _leave_with_parent() -> None:
  """Ends this worker when its parent is killed; it would wait for ever."""
  parent = multiprocessing.parent_process()
  assert parent is not None

  def watch() -> None:
    connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _apply(function: Callable[[Any], Any], chunk: Sequence[Any]) -> list[Any]:
  return [function(item) for item in chunk]


class Progress:
  """A line with count, rate and time left: rewritten, or every 5 s in a log."""

  def __init__(self, label: str, total: int, stream: IO[str]):
    self._label = label
    self._total = total
    self._stream = stream
    self._tty = self._stream.isatty()
    self._every = 0.2 if self._tty else 5.0
    self._start = self._last = time.monotonic()
    self._count = 0

  def update(self) -> None:
    """One more is done."""
    self._count += 1
    now = time.monotonic()
    if now - self._last < self._every and self._count < self._total:
      return
    self._last = now
    rate = self._count / max(now - self._start, 1e-3)
    left = (self._total - self._count) / rate
    line = (
      f'{self._label}: {self._count}/{self._total} examples, '
      f'{rate:.0f}/s, {left:.0f} s left'
    )
    last = self._count == self._total
    if self._tty:
      self._stream.write(f'\r{line:<70}' + ('\n' if last else ''))
    else:
      self._stream.write(line + '\n')
    self._stream.flush()


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
