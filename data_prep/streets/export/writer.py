"""Files on their way to disk: as a tree, or inside the official archives."""

from __future__ import annotations

import contextlib
import os
import pathlib
import zipfile
from collections.abc import Iterable
from typing import NamedTuple

from jaxseg_da import errors


class File(NamedTuple):
  """One file of a layout.

  Attributes:
    archive: name of the zip that holds it in the official download.
    path: its place in the tree and in the zip; '/' between folders.
    data: content.
  """

  archive: str
  path: str
  data: bytes


def write(
  directory: str | os.PathLike[str], files: Iterable[File], *, zipped: bool
) -> None:
  """Writes files as they come, one at a time in memory.

  Args:
    directory: where to; made where it is missing. Other files in it stay.
    files: what to write; no two of one path.
    zipped: whether to write archives instead of the tree.

  Raises:
    errors.UserError: the folder cannot be written.
  """
  root = pathlib.Path(directory)
  try:
    root.mkdir(parents=True, exist_ok=True)
    (_write_zips if zipped else _write_tree)(root, files)
  except OSError as error:
    where = error.filename or root
    raise errors.UserError(f'{where}: {error.strerror}') from error


def _write_tree(root: pathlib.Path, files: Iterable[File]) -> None:
  for file in files:
    path = root / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.data)


def _write_zips(root: pathlib.Path, files: Iterable[File]) -> None:
  archives: dict[str, zipfile.ZipFile] = {}
  with contextlib.ExitStack() as stack:
    for file in files:
      if file.archive not in archives:
        archive = zipfile.ZipFile(root / file.archive, 'w')
        archives[file.archive] = stack.enter_context(archive)
      # A ZipInfo of its own has a fixed date: same files, same bytes.
      info = zipfile.ZipInfo(file.path)
      info.compress_type = zipfile.ZIP_DEFLATED
      info.external_attr = 0o644 << 16
      archives[file.archive].writestr(info, file.data, compresslevel=1)
