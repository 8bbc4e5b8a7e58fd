"""Prepares a data set unless that is done already; one process at a time."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from data_prep import layouts, raw, workers
from jaxseg_da import errors

if TYPE_CHECKING:
  from data_prep import builders

# Data sets of raw files, each described by data_prep/NAME/layout.py.
RAW_NAMES = ('cityscapes', 'frames', 'gta5', 'idd', 'synthia')
NAMES = tuple(sorted((*RAW_NAMES, 'streets')))


def build(
  name: str,
  data_dir: str | os.PathLike[str],
  *,
  manual_dir: str | os.PathLike[str] | None = None,
  config: str | None = None,
  options: layouts.Options | None = None,
  num_workers: int | None = None,
  progress: IO[str] | None = None,
) -> tuple[pathlib.Path, bool]:
  """Prepares one data set, unless that is done already.

  Several processes may call it at once: one builds, the others wait for it. A
  build that dies leaves nothing that looks finished; the next one goes on from
  the shards that were.

  Args:
    name: one of `NAMES`.
    data_dir: folder of prepared data sets; made where it is missing.
    manual_dir: the raw data, for the builders that read some.
    config: `streets` only: DOMAIN[-HxW][-views].
    options: what to store; `streets` knows only size and limit.
    num_workers: number of processes; None for one per core.
    progress: where to print a progress line; None for nowhere.

  Returns:
    The folder of the prepared data set, and whether this call built it.

  Raises:
    errors.UserError: unknown name or config, raw data missing or broken, or
      the folder holds the data set with other options.
    OSError: the folder cannot be written.
  """
  if name not in NAMES:
    raise errors.unknown('data set', name, NAMES)
  out = pathlib.Path(data_dir).expanduser().resolve()
  with _quiet():
    module = importlib.import_module(f'data_prep.{name}.{name}_dataset_builder')
    from data_prep import builders

  resources = builders.Resources(
    num_workers or workers.cpu_count(), progress=progress
  )
  options = options or layouts.Options()
  extra: dict[str, Any] = {'options': options}
  if name == 'streets':
    extra = {
      'config': module.parse_config(config or 'city', options.size),
      'limit': options.limit,
    }
    _check_streets(options)
  elif config:
    raise errors.UserError(f'{name} has no configs, but got {config!r}')
  else:
    layouts.check_options(module.Builder.LAYOUT, options)

  def make(**more: Any) -> builders.DrivingBuilder:
    with _quiet():
      return module.Builder(data_dir=out, resources=resources, **extra, **more)

  builder = make()
  target = pathlib.Path(builder.data_path)
  source = None
  if builder.needs_manual_dir:
    source = _check_manual_dir(builder, manual_dir)
  if _is_prepared(target, builder.request()):
    return target, False
  waiting = lambda: print(f'another process builds {target}: waiting for it')
  with workers.lock(target.parent / '.lock', waiting):
    if _is_prepared(target, builder.request()):
      return target, False
    for left_over in target.parent.glob('incomplete.*'):
      shutil.rmtree(left_over, ignore_errors=True)
    if source is not None:
      data = raw.Raw(source)
      layout = module.Builder.LAYOUT
      selection = layouts.select(layout, data, options)
      builder = make(selection=selection)
      _check_space(selection, builder.unfinished)
    _prepare(builder, source)
  return target, True


def _check_manual_dir(
  builder: builders.DrivingBuilder, manual_dir: str | os.PathLike[str] | None
) -> pathlib.Path:
  how = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
  if manual_dir is None:
    raise errors.UserError(f'{builder.name} needs --manual_dir=RAW. {how}')
  manual_dir = pathlib.Path(manual_dir).expanduser()
  if not manual_dir.is_dir():
    raise errors.UserError(f'--manual_dir={manual_dir} is no folder. {how}')
  if not any(manual_dir.iterdir()):
    raise errors.UserError(f'--manual_dir={manual_dir} is empty. {how}')
  return manual_dir


def _is_prepared(target: pathlib.Path, request: dict[str, Any]) -> bool:
  if not target.exists():
    return False
  try:
    found = json.loads((target / 'metadata.json').read_text())
  except (OSError, ValueError) as error:
    raise errors.UserError(
      f'{target} is no prepared data set: remove it and build again'
    ) from error
  changed = [k for k, value in request.items() if found.get(k) != value]
  if changed:
    was = ', '.join(f'{k}={found.get(k)}' for k in changed)
    now = ', '.join(f'{k}={request[k]}' for k in changed)
    raise errors.UserError(
      f'{target} was built with {was}, not {now}: remove it or choose another '
      '--data_dir'
    )
  return True


def _check_space(selection: layouts.Selection, folder: pathlib.Path) -> None:
  """Refuses a build that cannot fit, before hours of work.

  Only images that are stored as they are have a size that is known.
  """
  recipe = selection.recipe
  if recipe.size is not None or recipe.encoding != 'keep':
    return
  needed = sum(
    file.size
    for members in selection.splits.values()
    for item in members
    for file in (item.image, *item.views.values())
  )
  kept = sum(path.stat().st_size for path in folder.glob('*'))
  free = shutil.disk_usage(folder.parent).free
  if needed > free + kept:
    raise errors.UserError(
      f'{folder.parent} has {free / 1e6:.0f} MB free, but the images need '
      f'{needed / 1e6:.0f} MB: choose another --data_dir, or store smaller '
      'images with --size'
    )


def _prepare(
  builder: builders.DrivingBuilder, manual_dir: pathlib.Path | None
) -> None:
  import tensorflow_datasets as tfds

  with _quiet(), tempfile.TemporaryDirectory() as scratch:
    builder.download_and_prepare(
      # TFDS makes its download folder even where nothing is downloaded.
      download_dir=scratch,
      download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
      file_format='array_record',
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Hides what TFDS says about downloads; our own progress line stays."""
  import tensorflow_datasets as tfds
  from absl import logging

  tfds.disable_progress_bar()
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(before)


def _check_streets(options: layouts.Options) -> None:
  plain = layouts.Options(size=options.size, limit=options.limit)
  if options != plain:
    raise errors.UserError(
      'streets is rendered, not read: it takes --config, --size, --limit and '
      '--workers only'
    )
