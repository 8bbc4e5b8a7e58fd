"""Raw data as it was downloaded: extracted trees, zips, or both, read in place.

A folder is one name space: the files below it, and the members of the zips
below it as if they had been extracted. Nothing is ever unpacked to disk.
"""

from __future__ import annotations

import functools
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jaxseg_da import errors

# No frame, label or depth map is larger. A member that claims more is a bomb.
MAX_BYTES = 1 << 29
_OTHER_ARCHIVES = ('.rar', '.7z', '.tar', '.gz', '.tgz', '.bz2', '.xz')


class Entry(NamedTuple):
  """One raw file.

  Attributes:
    path: its place below the root, or inside the zip; '/' between folders.
    file: the file on disk: itself, or the zip that holds it.
    zipped: whether `file` is a zip.
    size: bytes, unpacked.
    stamp: what changes when the content does: mtime, or the member's CRC.
  """

  path: str
  file: str
  zipped: bool
  size: int
  stamp: int

  def __str__(self) -> str:
    return f'{self.file}/{self.path}' if self.zipped else self.file


class Raw:
  """The files of one folder and of the zips in it.

  Hidden files, `__MACOSX` and what other programs leave behind are not seen.

  Attributes:
    root: the folder.
    other_archives: archives that cannot be read in place, such as .rar.

  Args:
    root: the folder; links are followed.

  Raises:
    errors.UserError: the folder or a zip cannot be read, or a zip holds names
      that point out of it.
  """

  def __init__(self, root: str | os.PathLike[str]):
    self.root = pathlib.Path(root)
    self.other_archives: list[str] = []
    self._files: list[str] = []
    self._members: list[tuple[str, zipfile.ZipInfo, str]] = []
    for path in _walk(str(self.root)):
      if path.lower().endswith('.zip'):
        self._members += ((path, *member) for member in _members(path))
      elif path.lower().endswith(_OTHER_ARCHIVES):
        self.other_archives.append(path)
      else:
        self._files.append(os.path.relpath(path, self.root))

  def __len__(self) -> int:
    return len(self._files) + len(self._members)

  def __iter__(self) -> Iterator[str]:
    """The paths of all files, members of zips included."""
    yield from self._files
    yield from (name for _, _, name in self._members)

  def find(
    self,
    pattern: str,
    key: Callable[[re.Match[str]], str | None] | None = None,
  ) -> dict[str, Entry]:
    """Files whose path is, or ends in a folder's, `pattern`.

    A zip may lie beside what was extracted from it: of two files of one path
    and size, one of them in a zip, the extracted one is taken.

    Args:
      pattern: regular expression for the last parts of the path.
      key: what a match stands for, None for a file to leave aside; its first
        group by default.

    Returns:
      Key -> entry, sorted by key.

    Raises:
      errors.UserError: two files with one key.
    """
    key = key or (lambda match: match[1])
    compiled = re.compile(f'(?:.*/)?{pattern}')
    found: dict[str, Entry] = {}
    for path, entry in self._entries():
      match = compiled.fullmatch(path)
      name = key(match) if match else None
      if name is None:
        continue
      new = entry()
      old = found.setdefault(name, new)
      if old is not new:
        found[name] = _preferred(old, new, name)
    return dict(sorted(found.items()))

  def _entries(self) -> Iterator[tuple[str, Callable[[], Entry]]]:
    for path in self._files:
      yield path, functools.partial(self._file, path)
    for archive, info, name in self._members:
      yield (
        name,
        functools.partial(Entry, name, archive, True, info.file_size, info.CRC),
      )

  def _file(self, path: str) -> Entry:
    file = str(self.root / path)
    try:
      status = os.stat(file)
    except OSError as error:
      raise errors.UserError(f'{file}: {error.strerror}') from error
    return Entry(path, file, False, status.st_size, status.st_mtime_ns)


def read(entry: Entry, count: int = -1) -> bytes:
  """The content of a raw file.

  Args:
    entry: the file.
    count: at most so many bytes, from its start; -1 for all.

  Raises:
    errors.UserError: it is gone, damaged, encrypted, or a bomb.
  """
  if entry.size > MAX_BYTES:
    raise errors.UserError(
      f'{entry} claims {entry.size / 1e9:.1f} GB: no file of a driving data '
      'set, it is not read'
    )
  try:
    if not entry.zipped:
      with open(entry.file, 'rb') as file:
        return file.read(count)
    stamp = os.stat(entry.file).st_mtime_ns
    archive = _archive(entry.file, stamp)
    with archive.open(_member(archive, entry.path)) as member:
      return member.read(count)
  except OSError as error:
    reason = error.strerror or str(error)
    raise errors.UserError(f'{entry}: {reason}') from error
  except (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    RuntimeError,  # Also NotImplementedError: encrypted, unknown compression.
  ) as error:
    raise errors.UserError(f'{entry} cannot be unpacked: {error}') from error


@functools.lru_cache(maxsize=64)
def _archive(file: str, stamp: int) -> zipfile.ZipFile:
  """A zip, opened once per process: its table of contents may be long."""
  del stamp  # Part of the key: a zip that changed is opened again.
  return zipfile.ZipFile(file)


def _member(archive: zipfile.ZipFile, path: str) -> zipfile.ZipInfo:
  try:
    return archive.getinfo(path)
  except KeyError:  # Made on Windows.
    return archive.getinfo(path.replace('/', '\\'))


def _walk(root: str) -> Iterator[str]:
  """Files below a folder in order, each real folder once."""

  def fail(error: OSError) -> None:
    raise errors.UserError(f'{error.filename}: {error.strerror}') from error

  seen = set()
  for folder, folders, files in os.walk(root, onerror=fail, followlinks=True):
    folders[:] = sorted(name for name in folders if not _is_stray(name))
    real = os.path.realpath(folder)
    if real in seen:
      folders.clear()
      continue
    seen.add(real)
    for name in sorted(files):
      if not _is_stray(name):
        yield os.path.join(folder, name)


def _is_stray(name: str) -> bool:
  return name.startswith('.') or name in ('__MACOSX', 'Thumbs.db')


def _members(file: str) -> Iterator[tuple[zipfile.ZipInfo, str]]:
  """Members of a zip with their paths, names made safe to look at."""
  try:
    with zipfile.ZipFile(file) as archive:
      infos = archive.infolist()
  except (zipfile.BadZipFile, OSError) as error:
    raise errors.UserError(
      f'{file} is no readable zip ({error}): the download may be incomplete'
    ) from error
  for info in infos:
    name = info.filename.replace('\\', '/')
    parts = name.split('/')
    if name.startswith('/') or '..' in parts or re.match('[A-Za-z]:', name):
      raise errors.UserError(
        f'{file} holds the unsafe name {info.filename!r}: this is not an '
        'official archive, it is not read'
      )
    if not name.endswith('/') and not any(map(_is_stray, parts)):
      yield info, name


def _preferred(old: Entry, new: Entry, key: str) -> Entry:
  """The extracted one of a file that is there twice."""
  short, long = sorted((old.path, new.path), key=len)
  same_place = f'/{long}'.endswith(f'/{short}')
  if old.zipped != new.zipped and old.size == new.size and same_place:
    return new if old.zipped else old
  raise errors.UserError(
    f'{old} and {new} are two files for {key!r}: remove one of them'
  )
