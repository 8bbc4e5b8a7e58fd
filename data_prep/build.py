"""Prepares a data set: `python -m data_prep.build NAME --data_dir=OUT ...`.

Exit codes: 0 built or already there, 2 wrong usage or data (one line on
stderr). TensorFlow is neither needed nor imported.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from data_prep import common, workers
from jaxseg_da import errors

if TYPE_CHECKING:
  from data_prep import builders

NAMES = ('cityscapes', 'gta5', 'streets')
_STREETS_PAIR = ('gta', 'city')


def build(
  name: str,
  data_dir: str | os.PathLike[str],
  *,
  manual_dir: str | os.PathLike[str] | None = None,
  config: str | None = None,
  size: tuple[int, int] | None = None,
  **options: Any,
) -> tuple[pathlib.Path, bool]:
  """Prepares one data set, unless that is done already.

  Several processes may call it at once: one builds, the others wait for it. A
  build that dies leaves nothing that looks finished.

  Args:
    name: one of `NAMES`.
    data_dir: folder of prepared data sets; made where it is missing.
    manual_dir: the raw data, for the builders that read some.
    config: `streets` only: DOMAIN[-HxW][-views].
    size: (height, width) to store.
    **options: the other fields of `builders.Options`.

  Returns:
    The folder of the prepared data set, and whether this call built it.

  Raises:
    errors.UserError: unknown name or config, raw data missing or broken, or
      the folder holds the data set with another size or limit.
    OSError: the folder cannot be written.
  """
  if name not in NAMES:
    raise errors.unknown('data set', name, NAMES)
  data_dir = pathlib.Path(data_dir).expanduser().resolve()
  builder = _builder(name, data_dir, config, size, options)
  raw = None
  if builder.needs_manual_dir:
    raw = _check_manual_dir(builder, manual_dir)
  target = pathlib.Path(builder.data_path)
  if _is_prepared(target, builder.request()):
    return target, False
  waiting = lambda: print(f'another process builds {target}: waiting for it')
  with workers.lock(target.parent / '.lock', waiting):
    if _is_prepared(target, builder.request()):
      return target, False
    for left_over in target.parent.glob('incomplete.*'):
      shutil.rmtree(left_over, ignore_errors=True)
    _prepare(builder, raw)
  return target, True


def _builder(
  name: str,
  data_dir: pathlib.Path,
  config: str | None,
  size: tuple[int, int] | None,
  options: dict[str, Any],
) -> builders.DrivingBuilder:
  with _quiet():
    module = importlib.import_module(f'data_prep.{name}.{name}_dataset_builder')
    from data_prep import builders

    chosen: Any = None
    if name == 'streets':
      chosen = module.parse_config(config or 'city', size)
    elif config:
      raise errors.UserError(f'{name} has no configs, but got {config!r}')
    return module.Builder(
      data_dir=data_dir,
      config=chosen,
      options=builders.Options(size=size, **options),
    )


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


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> Any:
    raise errors.UserError(message)


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog='data_prep.build', description=__doc__, allow_abbrev=False
  )
  parser.add_argument('name', metavar='NAME', help=', '.join(NAMES))
  parser.add_argument(
    '--data_dir',
    default='~/tensorflow_datasets',
    help='folder of prepared data sets (default: %(default)s)',
  )
  parser.add_argument('--manual_dir', help='folder of the raw data')
  parser.add_argument(
    '--config',
    help='streets: DOMAIN[-HxW][-views] (default: gta and city)',
  )
  parser.add_argument('--size', help='HxW to store (default: as it is)')
  parser.add_argument('--limit', help='at most N examples per split')
  parser.add_argument('--workers', help='processes (default: all cores)')
  return parser


def _positive(flag: str, text: str | None) -> int | None:
  if text is None:
    return None
  if not (text.isascii() and text.isdigit() and int(text) > 0):
    raise errors.UserError(f'{flag}={text}: expected a positive number')
  return int(text)


def run(argv: Sequence[str]) -> None:
  """Builds what the arguments ask for; raises `errors.UserError`."""
  args = _parser().parse_args(argv)
  options: dict[str, Any] = {
    'limit': _positive('--limit', args.limit),
    'progress': sys.stdout,
  }
  if args.workers is not None:
    options['workers'] = _positive('--workers', args.workers)
  size = common.parse_size(args.size) if args.size is not None else None
  configs: tuple[str | None, ...] = (args.config,)
  if args.name == 'streets' and args.config is None:
    configs = _STREETS_PAIR
  for config in configs:
    target, fresh = build(
      args.name,
      args.data_dir,
      manual_dir=args.manual_dir,
      config=config,
      size=size,
      **options,
    )
    print(f'{"wrote" if fresh else "already prepared:"} {target}', flush=True)


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  try:
    run(sys.argv[1:] if argv is None else argv)
  except errors.UserError as error:
    message = str(error)
  except OSError as error:
    message = f'{error.filename or "data_prep.build"}: {error.strerror}'
  else:
    return 0
  print(f'error: {message}', file=sys.stderr)
  return 2


if __name__ == '__main__':
  sys.exit(main())
