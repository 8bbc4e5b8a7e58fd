"""Prepared data sets by name; the embedded street world is built on first use.

Here and not in `data/`: what builds data sets (`data_prep`) itself stands on
the wings below.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from jaxseg_da import errors
from jaxseg_da.data import sources


def open_dataset(spec: str, data_dir: pathlib.Path):
  """Opens a prepared dataset; the street benchmark is built on first use."""
  dataset, _, builder_config = spec.partition(':')[0].partition('/')
  if dataset == 'streets':
    ensure_streets(builder_config or 'city', data_dir)
  return sources.open_dataset(spec, data_dir)


def ensure_streets(config: str, data_dir: str | os.PathLike[str]) -> None:
  """Builds a domain of the embedded benchmark where it is not there yet.

  Data that an older version of the world rendered counts as not there.

  The build runs in a process of its own: it starts workers, which does not go
  with devices in use. Several processes may call this at once; one builds.

  Args:
    config: DOMAIN[-HxW][-views].
    data_dir: folder of prepared data sets; made where it is missing.

  Raises:
    errors.UserError: the build failed; its message.
  """
  try:
    from data_prep import streets
  except ImportError as error:
    raise errors.UserError(
      'streets cannot be built: the package data_prep is not installed'
    ) from error
  root = pathlib.Path(data_dir).expanduser().resolve()
  folder = root / 'streets' / config / streets.VERSION
  if (folder / 'dataset_info.json').exists():
    return
  home = str(pathlib.Path(streets.__file__).parents[2])
  paths = [home, *filter(None, [os.environ.get('PYTHONPATH')])]
  print(f'building streets/{config} in {root}', flush=True)
  command = [sys.executable, '-m', 'data_prep.build', 'streets']
  command += [f'--config={config}', f'--data_dir={root}']
  done = subprocess.run(
    command,
    env=os.environ | {'PYTHONPATH': os.pathsep.join(paths)},
    stdin=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    check=False,
  )
  if done.returncode:
    lines = done.stderr.strip().splitlines() or [f'exit {done.returncode}']
    raise errors.UserError(lines[-1].removeprefix('error: '))
