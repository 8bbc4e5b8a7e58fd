"""LSE on the published pairs, killed in a round and resumed."""

from __future__ import annotations

import re
import signal

import pytest

from data_prep import prepare
from data_prep.streets import export
from tests import support
from tests.experiment import test_paper_pairs

ROUNDS = ('source_only', 'round_1', 'round_2')
# Predicts image by image, says so, and also dies when it is about to write a
# file that DIES_BEFORE names.
CRASH = support.crashing("""
from jaxseg_da.methods import predictions
from jaxseg_da.training import checkpoint

def own(predict, source, domain, rows, then=predictions.own):
  print('predicts', *rows, flush=True)
  return then(predict, source, domain, rows)

def write(path, arrays, then=checkpoint.write_arrays):
  live(str(path))
  then(path, arrays)

predictions.PART, predictions.own = 1, own
checkpoint.write_arrays = write
""")


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Exported trees, built; runs and compiled programs go beside them."""
  root = tmp_path_factory.mktemp('lse')
  raw, size = root / 'raw', test_paper_pairs.NATIVE
  export.export_gta5(raw / 'gta5', 1, size)
  export.export_synthia(raw / 'synthia', 1, size)
  export.export_cityscapes(raw / 'cityscapes', 3, 1, size, train_labels=False)
  for name in ('gta5', 'synthia', 'cityscapes'):
    tree = raw / name
    prepare.build(name, root / 'data', manual_dir=tree, num_workers=1)
  return root


def run(folder, pair, workdir, code=None):
  """A command: source training and two rounds, of three steps each."""
  return test_paper_pairs.run(
    folder,
    'lse',
    f'--config.pipeline={ROUNDS}',
    *(f'--config.stages.{name}.steps=3' for name in ROUNDS),
    '--config.checkpoint.every_steps=1',
    workdir=workdir,
    code=code,
    pair=pair,
    steps=False,
  )


def predicted(done):
  """The images that a command predicted before its rounds, in order."""
  return [int(i) for i in re.findall(r'^predicts (\d+)$', done.stdout, re.M)]


def artefacts(workdir):
  """What the host passes of a run left, without their parts, by file."""
  files = workdir.glob('stages/*/artifacts/*.*')
  return {str(file.relative_to(workdir)): file.read_bytes() for file in files}


@pytest.mark.slow
@pytest.mark.parametrize(
  'pair', ['gta5_to_cityscapes', 'synthia_to_cityscapes,model=deeplabv2']
)
def test_killed_twice_and_resumed(folder, pair, monkeypatch):
  """In the second round's host pass, and between its steps."""
  name = pair.partition(',')[0]
  whole, cut = folder / name, folder / f'{name}_cut'
  done = run(folder, pair, whole)
  assert done.returncode == 0, done.stderr
  found = support.results(whole)
  assert [stage['steps'] for stage in found['stages']] == [3, 3, 3]
  assert found['evaluation']['upsample'] == 'probabilities'
  names = {'examples.npz', 'thresholds.npz', 'selection.json'}
  assert names <= {path.rpartition('/')[2] for path in artefacts(whole)}

  monkeypatch.setenv('DIES_BEFORE', 'round_2/artifacts/confidence/000001.npz')
  first = run(folder, pair, cut, CRASH)
  assert first.returncode == -signal.SIGKILL, first.stderr
  parts = cut / 'stages/02_round_2/artifacts/confidence'
  (part,) = parts.iterdir()
  assert part.name == '000000.npz'
  written = part.stat().st_mtime_ns

  monkeypatch.setenv('DIES_BEFORE', 'round_2/2')
  second = run(folder, pair, cut, CRASH)
  assert second.returncode == -signal.SIGKILL, second.stderr
  assert predicted(second)[:2] == [1, 2]
  assert part.stat().st_mtime_ns == written
  assert artefacts(cut) == artefacts(whole)
  assert support.checkpoints(cut)['02_round_2'] == [1]
  assert not (cut / 'results.json').exists()

  monkeypatch.setenv('DIES_BEFORE', 'never')
  last = run(folder, pair, cut, CRASH)
  assert last.returncode == 0, last.stderr
  assert not predicted(last)
  support.assert_same_run(cut, whole)
