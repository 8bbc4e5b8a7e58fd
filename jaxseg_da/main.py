"""Command line: flags, process start-up, dispatch on --mode.

python -m jaxseg_da.main --config=configs/METHOD.py[:ARG] --workdir=DIR
  [--mode=run|evaluate|predict|benchmark|explain] [--config.key=value ...]

--mode=explain, or --help with a --config, prints its keys with their values,
meanings, ranges and sources, and the pipeline as it would run, and exits.

Exit codes: 0 done, 2 wrong usage, config or data (one line on stderr),
3 diverged, 75 preempted and saved.
"""

from __future__ import annotations

import os
import pathlib
import re
import signal
import sys
import traceback

from absl import flags
from ml_collections import config_flags

from jaxseg_da import config as config_lib
from jaxseg_da import errors, methods
from jaxseg_da.config import schema
from jaxseg_da.experiment import checks, explain

MODES = ('run', 'evaluate', 'predict', 'benchmark', 'explain')
DONE, USAGE, DIVERGED, PREEMPTED = 0, 2, 3, 75


def main(argv: list[str] | None = None) -> int:
  """Runs one command; returns its exit code."""
  try:
    config, workdir, mode = parse(sys.argv if argv is None else argv)
    return _dispatch(config, workdir, mode)
  except errors.UserError as error:
    print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
    return USAGE


def parse(argv: list[str]):
  """The config, the work directory and the mode of a command line.

  Raises:
    UserError: anything wrong with the flags or the config file.
  """
  values = flags.FlagValues()
  flags.DEFINE_string('workdir', None, 'Output folder.', flag_values=values)
  flags.DEFINE_string('mode', 'run', ', '.join(MODES), flag_values=values)
  flags.DEFINE_bool('help', False, 'Shows this.', flag_values=values)
  _define_config(values, argv)
  _check_file(argv)
  try:
    leftover = values(argv, known_only=False)[1:]
  except (
    flags.Error,
    ValueError,
    AttributeError,
    KeyError,
    TypeError,
  ) as error:
    raise errors.UserError(str(error)) from error
  if values.help and not values['config'].value:
    _help()
    raise SystemExit(DONE)
  if leftover:
    raise errors.UserError(f'unexpected argument {leftover[0]!r}')
  if values.mode not in MODES:
    raise errors.unknown('--mode', values.mode, MODES)
  mode = 'explain' if values.help else values.mode
  for name in ('config', *(() if mode == 'explain' else ('workdir',))):
    if not values[name].value:
      raise errors.UserError(f'--{name} is required')
  config = values.config
  _check_tuples(config, argv)
  checks.validate_keys(config)
  checks.validate_used(config, _overridden(argv))
  return config, pathlib.Path(values.workdir or '').expanduser(), mode


def _help() -> None:
  """What there is, where no config says more."""
  print(__doc__)
  print(f'Methods: {", ".join(sorted(methods.NAMES))}')
  print('\nKeys of every config; methods add their own:')
  print('\n'.join(explain.base_keys()))


def _check_tuples(config, argv: list[str]) -> None:
  """Refuses a tuple that is not written as one: `1.0` could mean anything.

  Raises:
    UserError: names the key.
  """
  values = dict(config_lib.leaves(config))
  for argument in argv:
    key, _, raw = argument.partition('=')
    key = key.lstrip('-').removeprefix('config.')
    written = raw[:1] in ('(', '[') or '=' not in argument
    if isinstance(values.get(key), tuple) and not written:
      raise errors.UserError(
        f'config.{key}={raw} must be a tuple, written as ({raw},)'
      )


def _overridden(argv: list[str]) -> list[str]:
  """The keys that a command line sets, whether they exist or not."""
  found = (re.match(r'--?(?:no)?config\.([^=\[]+)', a) for a in argv)
  return [match[1] for match in found if match]


def _define_config(values: flags.FlagValues, argv: list[str]) -> None:
  config_flags.DEFINE_config_file(
    'config',
    None,
    'configs/METHOD.py[:ARG]',
    flag_values=values,
    # Where overrides are found; by default those of the process.
    sys_argv=argv,
  )


def _check_file(argv: list[str]) -> None:
  """Loads the config file alone, to tell its errors from those of flags.

  Raises:
    UserError: no such file, its code fails, or an override names no key.
  """
  path = next(
    (a.split('=', 1)[1] for a in argv if re.match('--?config=', a)), ''
  )
  if not path:
    return
  file = path.partition(':')[0]
  if not pathlib.Path(file).is_file():
    raise errors.UserError(f'--config={path}: there is no file {file}')
  values, alone = flags.FlagValues(), [argv[0], f'--config={path}']
  _define_config(values, alone)
  try:
    values(alone)
    config = values.config
  except Exception as error:  # whatever code in the file may raise
    lines = _lines(error, file)
    while error.__context__ is not None:
      error = error.__context__
      lines += _lines(error, file)
    if isinstance(error, errors.UserError):
      raise error from None
    raise errors.UserError(
      f'{file}{"".join(lines[-1:])}: {type(error).__name__}: {error}'
    ) from error
  if not isinstance(config, config_lib.ConfigDict):
    raise errors.UserError(
      f'--config={path}: get_config() returned a {type(config).__name__}'
    )
  keys = [key for key, _ in config_lib.leaves(config)]
  for key in _overridden(argv):
    if key not in keys:
      checks.validate_used(config, [key])  # another method's?
      raise schema.unknown_key(key, keys)


def _lines(error: BaseException, file: str) -> list[str]:
  """Lines of a file that an error came through, as `:LINE`."""
  return [
    f':{line}'
    for frame, line in traceback.walk_tb(error.__traceback__)
    if frame.f_code.co_filename == file
  ]


def _dispatch(config, workdir: pathlib.Path, mode: str) -> int:
  """Starts processes and devices, then runs the mode."""
  stop = _Signal()
  if config.deterministic:
    # Recorded in config.json; GPU kernels are otherwise not repeatable.
    os.environ['XLA_FLAGS'] = (
      f'{os.environ.get("XLA_FLAGS", "")} --xla_gpu_deterministic_ops=true '
      '--xla_gpu_autotune_level=0'
    ).strip()
  # JAX reads the flags above when it starts.
  from jaxseg_da import modes
  from jaxseg_da.training import parallel, train

  parallel.start_processes(config.distributed)
  try:
    getattr(modes, mode)(config, workdir, stop)
  except train.Diverged as error:
    print(f'diverged: {error}', file=sys.stderr)
    return DIVERGED
  except train.Preempted as error:
    print(f'preempted: {error}; the same command resumes', file=sys.stderr)
    return PREEMPTED
  return DONE


class _Signal:
  """True once SIGTERM has come; a second SIGTERM kills."""

  def __init__(self):
    self._received = False
    signal.signal(signal.SIGTERM, self._receive)

  def __call__(self) -> bool:
    return self._received

  def _receive(self, number, frame):
    del frame
    self._received = True
    signal.signal(number, signal.SIG_DFL)


if __name__ == '__main__':
  sys.exit(main())
