"""Command line: flags, process start-up, dispatch on --mode.

python -m jaxseg_da.main --config=configs/METHOD.py[:ARG] --workdir=DIR
  [--mode=run|evaluate|predict] [--config.key=value ...]

Exit codes: 0 done, 2 wrong usage, config or data (one line on stderr),
3 diverged, 75 preempted and saved.
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys

from absl import flags
from ml_collections import config_flags

from jaxseg_da import errors

MODES = ('run', 'evaluate', 'predict')
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
  config_flags.DEFINE_config_file(
    'config', None, 'configs/METHOD.py[:ARG]', flag_values=values
  )
  try:
    leftover = values(argv, known_only=False)[1:]
  except errors.UserError:
    raise
  except (flags.Error, AttributeError, KeyError, TypeError) as error:
    raise errors.UserError(_reason(error)) from error
  except ValueError as error:
    raise errors.UserError(_reason(error)) from error
  except (OSError, ImportError, SyntaxError) as error:
    raise errors.UserError(f'--config: {_reason(error)}') from error
  if values.help:
    print(__doc__)
    raise SystemExit(DONE)
  if leftover:
    raise errors.UserError(f'unexpected argument {leftover[0]!r}')
  if values.mode not in MODES:
    raise errors.unknown('--mode', values.mode, MODES)
  for name in ('config', 'workdir'):
    if not values[name].value:
      raise errors.UserError(f'--{name} is required')
  return values.config, pathlib.Path(values.workdir).expanduser(), values.mode


def _reason(error: Exception) -> str:
  """The error's message without the flag library's decoration."""
  text = str(error.args[0] if error.args else error)
  return text.strip() or type(error).__name__


def _dispatch(config, workdir: pathlib.Path, mode: str) -> int:
  """Starts processes and devices, then runs the mode."""
  stop = _Signal()
  if config.deterministic:
    # Recorded in results.json; GPU kernels are otherwise not repeatable.
    os.environ['XLA_FLAGS'] = (
      f'{os.environ.get("XLA_FLAGS", "")} --xla_gpu_deterministic_ops=true '
      '--xla_gpu_autotune_level=0'
    ).strip()
  # JAX reads the flags above when it starts.
  from jaxseg_da import modes, parallel, train

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
