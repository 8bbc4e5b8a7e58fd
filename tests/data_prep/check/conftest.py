"""Exported trees, copies of them to harm, and the command."""

from __future__ import annotations

import shutil

import pytest

from data_prep import check
from data_prep.streets import export
from tests.data_prep.check import damage


@pytest.fixture(scope='session')
def exported(tmp_path_factory):
  """One tree per layout, each of four frames per split."""
  root = tmp_path_factory.mktemp('exported')
  export.export_gta5(root / 'gta5', damage.COUNT, damage.SIZE)
  export.export_synthia(root / 'synthia', damage.COUNT, damage.SIZE)
  packages = ('test', 'right', 'disparity', 'camera', 'sequence')
  export.export_cityscapes(
    root / 'cityscapes',
    damage.COUNT,
    damage.COUNT,
    damage.SIZE,
    packages=packages,
  )
  export.export_idd(root / 'idd', damage.COUNT, damage.COUNT, damage.SIZE)
  export.export_frames(root / 'frames', damage.COUNT, damage.SIZE)
  return root


@pytest.fixture
def tree(exported, tmp_path):
  """Copies the tree of a layout, so that a test may harm it."""

  def copy(name):
    shutil.copytree(exported / name, tmp_path / 'raw' / name)
    return tmp_path / 'raw' / name

  return copy


@pytest.fixture
def run(capsys):
  """Runs a check; returns exit code and verdict, having compared both forms."""

  def call(name, root, *more):
    code = check.main([name, f'--manual_dir={root}', *more])
    out, err = capsys.readouterr()
    *_, last = out.splitlines()
    assert last.startswith('verdict: ')
    verdict = last.removeprefix('verdict: ')
    assert err == ('' if code == 0 else f'error: {verdict}\n')
    call.out = out
    return code, verdict

  return call
