from __future__ import annotations

import pytest

from jaxseg_da import errors, seeds


def result(control: float, dacs: float) -> dict:
  rows = (('dacs', 'main', dacs), ('control', 'control', control))
  stages = [
    {'name': name, 'role': role, 'evaluation': {'miou': miou, 'iou': {}}}
    for name, role, miou in rows
  ]
  return {'stages': stages}


def test_flags_are_split():
  numbers, folder, rest = seeds.split_flags(
    ['--config=c.py', '--seeds=3,4', '--workdir=x', '--config.log_every=5']
  )
  assert numbers == [3, 4]
  assert str(folder) == 'x'
  assert rest == ['--config=c.py', '--config.log_every=5']


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--seeds=1'], '--workdir is required'),
    (['--workdir=x', '--seeds=1,b'], 'list of integers'),
    (['--workdir=x', '--seeds=1,1'], 'different'),
    (['--workdir=x', '--seeds=-1'], 'not negative'),
  ],
)
def test_wrong_flags_are_explained(flags, message):
  with pytest.raises(errors.UserError, match=message):
    seeds.split_flags(flags)


def test_wrong_flags_exit_with_2(capsys):
  assert seeds.run(['seeds', '--seeds=1']) == 2
  assert capsys.readouterr().err == 'error: --workdir is required\n'


def test_differences_are_paired_by_seed():
  """Levels differ by ten points between seeds, gains are 4, 6 and 2."""
  runs = {0: result(40, 44), 1: result(50, 56), 2: result(30, 32)}
  table = seeds.summarise(runs)
  assert table['dacs']['gain'] == {
    'seeds': [4, 6, 2],
    'mean': 4,
    'sd': 2.0,
  }
  assert table['dacs']['miou']['mean'] == 44
  assert table['dacs']['miou']['sd'] == 12
  assert table['control']['gain'] is None
  text = seeds.render(table, [0, 1, 2])
  row = next(line for line in text.splitlines() if line.startswith('dacs'))
  assert row.split()[1:] == ['44.00', '12.00', '+4.00', '2.00'] + [
    '+4.00',
    '+6.00',
    '+2.00',
  ]


def test_one_seed_has_no_spread():
  table = seeds.summarise({5: result(40, 41)})
  assert table['dacs']['gain'] == {'seeds': [1], 'mean': 1, 'sd': None}
  assert '+1.00' in seeds.render(table, [5])
