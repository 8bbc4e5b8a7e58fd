"""Writes examples into ArrayRecord shards: in processes, and resumable.

A shard is written beside its place, renamed, and then described by a small JSON
file. A build that was killed finds the finished shards again, and takes those
that the same files and options would give.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from array_record.python import array_record_module

from data_prep import items, workers
from jaxseg_da import errors

# Small enough to lose little work, large enough for few files: 64 frames of
# full size are 150 MB.
EXAMPLES = 64

Make = Callable[[Any], tuple[items.Example, items.Size]]


@dataclasses.dataclass(frozen=True)
class Job:
  """One shard to write.

  Attributes:
    path: of the shard.
    members: arguments of `make`, one per example.
    make: gives an example and its size; importable and picklable.
    serialize: an example to the bytes of its record; likewise.
    context: what decides about the content besides the members.
    twin: path of a second shard with the same examples without their labels;
      '' for none.
  """

  path: str
  members: Sequence[Any]
  make: Make
  serialize: Callable[[items.Example], bytes]
  context: str
  twin: str = ''

  def fingerprint(self) -> str:
    """A digest of what decides about the content."""
    text = repr((self.context, tuple(self.members)))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Shard:
  """A finished shard.

  Attributes:
    path: of the file.
    twin: of the second file, or ''.
    count: number of examples.
    sizes: the different (height, width) of their images.
    dropped: image id -> why it was left out.
    fingerprint: of the job.
    bytes: length of the file, and of the twin.
  """

  path: str
  twin: str
  count: int
  sizes: list[list[int]]
  dropped: dict[str, str]
  fingerprint: str
  bytes: list[int]


def write_all(
  jobs: Sequence[Job],
  num_workers: int,
  label: str,
  progress: IO[str] | None = None,
) -> list[Shard]:
  """Writes the shards that are not there yet; returns all of them, in order.

  Args:
    jobs: the shards; their folder is made where it is missing.
    num_workers: number of processes.
    label: names the build in the progress line.
    progress: where to print it; None for nowhere.

  Raises:
    errors.UserError: an example is broken, or a shard cannot be written.
  """
  for job in jobs:
    pathlib.Path(job.path).parent.mkdir(parents=True, exist_ok=True)
  found = [_finished(job) for job in jobs]
  todo = [job for job, shard in zip(jobs, found, strict=True) if not shard]
  total = sum(len(job.members) for job in jobs)
  kept = total - sum(len(job.members) for job in todo)
  bar = workers.Progress(label, total, progress, kept) if progress else None
  written = iter(workers.run(_write, todo, num_workers, bar))
  return [shard or next(written) for shard in found]


def _write(job: Job, advance: Callable[[], None]) -> Shard:
  """Writes one shard; runs in a worker process."""
  sizes: set[items.Size] = set()
  dropped: dict[str, str] = {}
  paths = [job.path, job.twin] if job.twin else [job.path]
  count = 0
  with contextlib.ExitStack() as stack:
    writers = [stack.enter_context(_writer(path)) for path in paths]
    for member in job.members:
      try:
        example, size = job.make(member)
      except items.Dropped as reason:
        dropped[member.image_id] = str(reason)
      else:
        sizes.add(size)
        count += 1
        writers[0].write(job.serialize(example))
        if job.twin:
          hidden = example | items.label_features(None, size)
          writers[1].write(job.serialize(hidden))
      advance()
  shard = Shard(
    path=job.path,
    twin=job.twin,
    count=count,
    sizes=sorted([*size] for size in sizes),
    dropped=dropped,
    fingerprint=job.fingerprint(),
    bytes=[os.path.getsize(path) for path in paths],
  )
  with _one_sentence(job.path):
    note = _note(job.path)
    note.with_suffix('.tmp').write_text(json.dumps(dataclasses.asdict(shard)))
    note.with_suffix('.tmp').replace(note)
  return shard


@contextlib.contextmanager
def _writer(path: str) -> Iterator[Any]:
  """An ArrayRecord writer to `path`, which appears when all is written."""
  _note(path).unlink(missing_ok=True)
  temporary = f'{path}.tmp'
  with _one_sentence(path):
    writer = array_record_module.ArrayRecordWriter(temporary, 'group_size:1')
    try:
      yield writer
    except BaseException:
      with contextlib.suppress(Exception):  # What matters is the first error.
        writer.close()
      pathlib.Path(temporary).unlink(missing_ok=True)
      raise
    writer.close()
    os.replace(temporary, path)


@contextlib.contextmanager
def _one_sentence(path: str) -> Iterator[None]:
  """Turns what a full or locked disk raises into a sentence with the path."""
  try:
    yield
  except OSError as error:
    raise unwritable(path, error.strerror or str(error)) from error
  except RuntimeError as error:  # ArrayRecord's: 'write() failed: REASON; ...'
    reason = str(error).partition('failed: ')[2] or str(error)
    raise unwritable(path, reason.partition(';')[0]) from error


def unwritable(path: str | os.PathLike[str], reason: str) -> errors.UserError:
  """An error for a file that cannot be written."""
  return errors.UserError(
    f'{path} cannot be written: {reason}; finished parts are kept, and the '
    'same command goes on from them'
  )


def _finished(job: Job) -> Shard | None:
  """The shard of a job, where an earlier build wrote the same."""
  try:
    values: Mapping[str, Any] = json.loads(_note(job.path).read_text())
    shard = Shard(**values)
    paths = [job.path, job.twin] if job.twin else [job.path]
    lengths = [os.path.getsize(path) for path in paths]
  except (OSError, ValueError, TypeError):
    return None
  same = shard.fingerprint == job.fingerprint() and shard.bytes == lengths
  return shard if same else None


def _note(path: str) -> pathlib.Path:
  return pathlib.Path(f'{path}.json')


def split_evenly(members: Sequence[Any]) -> list[Sequence[Any]]:
  """Consecutive parts of at most `EXAMPLES` members, sizes as equal as can be.

  The parts do not depend on the machine, so neither does the prepared data.
  """
  parts = -(-len(members) // EXAMPLES)
  ends = [len(members) * i // parts for i in range(parts + 1)]
  return [members[a:b] for a, b in itertools.pairwise(ends)]
