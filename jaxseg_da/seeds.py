"""The same config over several seeds, as paired differences to the control.

python -m jaxseg_da.seeds --config=configs/demo.py --workdir=runs/benchmark
  [--seeds=0,1,2] [--config.key=value ...]

Each seed runs in a folder of its own, `WORKDIR/seed_N`, and resumes there; the
table goes to `WORKDIR/seeds.json` and to the terminal. A single seed's
difference says little: on the street benchmark two seeds of one method differ
by several points, so only the paired mean with its spread is a result.
"""

from __future__ import annotations

import pathlib
import statistics
import sys

from jaxseg_da import errors, main
from jaxseg_da.evaluation import tables
from jaxseg_da.experiment import results
from jaxseg_da.training import checkpoint


def split_flags(argv: list[str]) -> tuple[list[int], pathlib.Path, list[str]]:
  """Takes `--seeds` and `--workdir` out of a command line.

  Returns:
    Seeds, work directory, and the flags that every run gets.

  Raises:
    UserError: no work directory, or seeds that are not integers.
  """
  seeds, workdir, rest = '0,1,2', None, []
  for flag in argv:
    if flag.startswith('--seeds='):
      seeds = flag.partition('=')[2]
    elif flag.startswith('--workdir='):
      workdir = flag.partition('=')[2]
    else:
      rest.append(flag)
  if not workdir:
    raise errors.UserError('--workdir is required')
  try:
    numbers = [int(seed) for seed in seeds.split(',')]
  except ValueError as error:
    raise errors.UserError(
      f'--seeds={seeds} is not a list of integers such as 0,1,2'
    ) from error
  if len(set(numbers)) < len(numbers) or min(numbers) < 0:
    raise errors.UserError(
      f'--seeds={seeds} must be different and not negative'
    )
  return numbers, pathlib.Path(workdir).expanduser(), rest


def summarise(runs: dict[int, dict]) -> dict:
  """Per stage: mIoU of every seed, and paired differences to the control.

  Args:
    runs: seed -> results.json of its run.

  Returns:
    stage -> `miou` and `gain` (None without control), each a dict of `seeds`
    (in the order of `runs`), `mean` and `sd` (sample standard deviation, None
    for one seed), in percent points.
  """
  table = {}
  first = next(iter(runs.values()))
  for stage in first['stages']:
    name = stage['name']
    records = [
      (s['evaluation'], results.controls(result))
      for result in runs.values()
      for s in result['stages']
      if s['name'] == name
    ]
    gains = [tables.gain(record, controls) for record, controls in records]
    known = [gain for gain in gains if gain is not None]
    table[name] = {
      'miou': _statistics([record['miou'] for record, _ in records]),
      'gain': _statistics(known) if len(known) == len(gains) else None,
    }
  return table


def _statistics(values: list[float]) -> dict:
  return {
    'seeds': [round(v, 2) for v in values],
    'mean': round(statistics.mean(values), 2),
    'sd': round(statistics.stdev(values), 2) if len(values) > 1 else None,
  }


def render(table: dict, seeds: list[int]) -> str:
  """The table as text: one row per stage."""
  title = ', '.join(map(str, seeds))
  lines = [
    f'{"stage":<14}{"mIoU":>8}{"sd":>7}   {"vs control":>10}{"sd":>7}'
    f'   per seed ({title})'
  ]
  for name, row in table.items():
    miou, gain = row['miou'], row['gain']
    spread = lambda block: '' if block['sd'] is None else f'{block["sd"]:.2f}'
    cells = f'{name:<14}{miou["mean"]:>8.2f}{spread(miou):>7}   '
    if gain:
      each = '  '.join(f'{v:+.2f}' for v in gain['seeds'])
      cells += f'{gain["mean"]:>+10.2f}{spread(gain):>7}   {each}'
    lines.append(cells.rstrip())
  return '\n'.join(lines)


def run(argv: list[str]) -> int:
  """Runs every seed, then prints and writes the table; returns an exit code."""
  try:
    seeds, workdir, rest = split_flags(argv[1:])
  except errors.UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return main.USAGE
  runs = {}
  for seed in seeds:
    folder = workdir / f'seed_{seed}'
    flags = [*rest, f'--config.seed={seed}', f'--workdir={folder}']
    code = main.main([argv[0], *flags])
    if code:
      return code
    runs[seed] = checkpoint.read_json(folder / 'results.json') or {}
  table = summarise(runs)
  checkpoint.write_json(
    workdir / 'seeds.json', {'seeds': seeds, 'stages': table}
  )
  print(render(table, seeds))
  print(f'written: {workdir / "seeds.json"}')
  return main.DONE


if __name__ == '__main__':
  sys.exit(run(sys.argv))
