"""CCDA on the published pairs, killed inside a step and resumed."""

from __future__ import annotations

import signal

import pytest

from data_prep import prepare
from data_prep.streets import export
from jaxseg_da.classes import hierarchy
from tests import support
from tests.experiment import test_paper_pairs

STAGES = ('msiw_0', 'ccda_1', 'ccda_2', 'ccda_3')
COUNTS = {
  'gta5_to_cityscapes': [3, 7, 14, 19],
  'gta5_to_idd': [3, 7, 13, 17],
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Exported trees, built; runs and compiled programs go beside them."""
  root = tmp_path_factory.mktemp('ccda')
  raw, size = root / 'raw', test_paper_pairs.NATIVE
  # Nobody may look for labels of targets.
  hidden = {'train_labels': False}
  export.export_gta5(raw / 'gta5', 3, size)
  export.export_cityscapes(
    raw / 'cityscapes', 2, 2, size, packages=['train_extra'], **hidden
  )
  export.export_idd(raw / 'idd', 3, 2, size, **hidden)
  for name in ('gta5', 'cityscapes', 'idd'):
    tree = raw / name
    prepare.build(name, root / 'data', manual_dir=tree, num_workers=1)
  return root


def run(folder, pair, workdir, stages=STAGES, code=None):
  """A command: stages of three steps each, nothing from the cache."""
  return test_paper_pairs.run(
    folder,
    'ccda',
    f'--config.pipeline={stages}',
    *(f'--config.stages.{name}.steps=3' for name in stages),
    '--config.checkpoint.every_steps=1',
    f'--config.cache_dir={workdir}/cache',
    workdir=workdir,
    code=code,
    pair=pair,
    steps=False,
  )


def check_steps(found, tree, counts):
  """Every stage was trained and evaluated on the classes of its step."""
  assert [stage['steps'] for stage in found['stages']] == [3] * len(counts)
  records = found['steps']
  assert [stage['evaluation'] for stage in found['stages']] == records
  assert found['evaluation'] == records[-1]
  assert [record['step'] for record in records] == [*range(len(counts))]
  assert [len(record['iou']) for record in records] == counts
  for step, record in enumerate(records):
    names = tree.names(step)
    assert (*record['iou'],) == (*record['colours'],) == names
    assert record['images'] == 2 and record['input_size'] == [32, 64]


@pytest.mark.slow
@pytest.mark.parametrize('pair', COUNTS)
def test_killed_inside_a_step_and_resumed(folder, pair, monkeypatch):
  whole, cut = folder / pair, folder / f'{pair}_cut'
  done = run(folder, pair, whole)
  assert done.returncode == 0, done.stderr
  found = support.results(whole)
  assert found['benchmark'] == pair and found['method'] == 'ccda'
  check_steps(found, hierarchy.PUBLISHED[pair], COUNTS[pair])

  monkeypatch.setenv('DIES_BEFORE', 'ccda_2/2')
  killed = run(folder, pair, cut, code=support.crashing())
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  assert support.checkpoints(cut) == {
    '00_msiw_0': [2, 3],
    '01_ccda_1': [2, 3],
    '02_ccda_2': [1],
  }
  assert not (cut / 'results.json').exists()

  again = run(folder, pair, cut)
  assert again.returncode == 0, again.stderr
  trained = [stage for stage in STAGES if f'stage {stage}:' in again.stderr]
  assert trained == ['ccda_2', 'ccda_3']
  support.assert_same_run(cut, whole)


@pytest.mark.slow
def test_distillation_alone_on_deeplab_v2(folder):
  pair, stages = 'gta5_to_cityscapes', ('source_only_0', 'skdc_1')
  options = f'{pair},variant=skdc,model=deeplabv2'
  done = run(folder, options, folder / 'skdc', stages)
  assert done.returncode == 0, done.stderr
  found = support.results(folder / 'skdc')
  assert found['method'] == 'ccda_skdc'
  methods = [stage['method'] for stage in found['stages']]
  assert methods == ['ccda_source_only', 'ccda_skdc']
  check_steps(found, hierarchy.PUBLISHED[pair], COUNTS[pair][:2])
