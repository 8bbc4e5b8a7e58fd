"""The input benchmark: its record, its three forms, and what it refuses.

Nothing here looks at how long something took, only at how figures are related.
"""

from __future__ import annotations

import hashlib
import json
import pathlib

import numpy as np
import pytest

from jaxseg_da import config as config_lib
from jaxseg_da import main
from jaxseg_da.benchmark import frames, record
from jaxseg_da.data import sources, transforms
from jaxseg_da.experiment import pipeline
from jaxseg_da.training import contract, writers
from tests import support

# ml_collections loads config files through a method that Python deprecates.
pytestmark = [
  pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning'),
  # One worker: what the module measures is measured once.
  pytest.mark.xdist_group('benchmark'),
]
PAPER = f'{support.ROOT}/configs/source_only.py:gta5_to_cityscapes,size=16x32'
REPEATS, STEPS, IMAGES = 2, 3, 5


def command(workdir: pathlib.Path, *more: str) -> list[str]:
  """The smallest measurement; later flags win."""
  return [
    'main',
    '--mode=benchmark',
    *support.flags(workdir, config='source_only'),
    '--config.batch_size=8',  # eight devices
    '--config.benchmark.input_only=true',
    f'--config.benchmark.images={IMAGES}',
    '--config.benchmark.seconds=0.02',
    f'--config.benchmark.repeats={REPEATS}',
    '--config.benchmark.steps=0',
    *more,
  ]


def snapshot(folder: pathlib.Path) -> dict[str, tuple]:
  """What every file holds, and when it was written."""
  return {
    str(path.relative_to(folder)): (
      hashlib.sha256(path.read_bytes()).hexdigest(),
      path.stat().st_mtime_ns,
    )
    for path in folder.rglob('*')
    if path.is_file()
  }


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
  """A measurement of loader and step: its record, and the folder."""
  workdir = tmp_path_factory.mktemp('run')
  before = snapshot(support.data_dir())
  flag = f'--config.benchmark.steps={STEPS}'
  assert main.main(command(workdir, flag)) == main.DONE
  assert snapshot(support.data_dir()) == before, 'prepared data was touched'
  (found,) = writers.read_jsonl(workdir / 'benchmark.jsonl')
  return found, workdir


def test_the_record_says_what_ran_where(measured):
  found, workdir = measured
  assert {path.name for path in workdir.iterdir()} == {'benchmark.jsonl'}
  assert found['schema'] == 'jaxseg_da.bench' and found['schema_version'] == 1
  assert (found['status'], found['error']) == ('ok', None)
  assert found['started_utc'] <= found['finished_utc']
  work = found['workload']
  assert (work['id'], work['stage']) == ('input', 'source_only')
  assert work['source'] == 'streets/gta-32x64:train'
  assert work['source_hw'] == work['target_hw'] == [32, 64]
  assert work['global_batch'] == {'source': 8, 'target': 8}
  assert work['per_device_batch'] == {'source': 1, 'target': 1}
  assert work['config']['benchmark']['images'] == IMAGES
  again = config_lib.from_dict(work['config'])
  assert config_lib.to_dict(again) == work['config']
  assert found['hardware']['devices'] == 8
  assert found['hardware']['host_cores'] >= 1
  assert set(found['software']) >= {'jaxseg_da', 'git_commit', 'jax', 'argv'}
  assert found['result']['mfu'] is None, 'unknown is null, not left out'
  protocol = found['protocol']
  assert protocol['window_steps'] == protocol['warmup_steps'] == STEPS
  assert protocol['timed_steps'] == STEPS * REPEATS
  assert protocol['repeats'] == REPEATS


def test_figures_of_the_loader_belong_together(measured):
  found = measured[0]['result']['input']
  assert list(found['forms']) == list(frames.FORMS)
  assert found['frames'] == 'prepared' and found['threads'] > 0
  for name in ('source', 'target'):
    domain = found['domains'][name]
    assert domain['images'] == IMAGES and domain['same_size']
    assert domain['raw_hw'] == [[32, 64]]
    assert domain['labels'] == (name == 'source')
  for form in found['forms'].values():
    assert len(form['windows']) == REPEATS
    for window in form['windows']:
      assert window['images'] > 0 and window['images'] % 16 == 0
      assert window['wall_s'] >= 0.02 and window['cpu_s'] > 0
      for rate, time in (('', 'wall_s'), ('_per_core', 'cpu_s')):
        images = window[f'images_per_second{rate}'] * window[time]
        assert images == pytest.approx(window['images'])
    rates = sorted(w['images_per_second'] for w in form['windows'])
    assert rates[0] <= form['images_per_second'] <= rates[-1]
    assert all(size > 0 for size in form['bytes_per_image'].values())


def test_figures_of_the_step_belong_together(measured):
  found = measured[0]['result']['input']
  device = found['device_step_ms']
  assert found['step_domains'] == {'source': 'streets/gta-32x64:train'}
  for form in found['forms'].values():
    step = form['step']
    for times in (step['step_ms'], device):
      assert times['n'] == STEPS * REPEATS
      assert 0 < times['p50'] <= times['p90'] <= times['p99'] <= times['max']
    whole, parts = step['step_ms']['mean'], step['breakdown_ms']
    assert 0 <= step['input_wait_share'] <= 1
    assert 0 <= step['input_bound_fraction'] <= 1
    assert parts['input_wait'] == pytest.approx(
      step['input_wait_share'] * whole
    )
    # The same mean, taken in seconds and in milliseconds: the last bit differs.
    assert parts['compute'] == pytest.approx(device['mean'], rel=1e-12)
    bound = max(0, 1 - device['mean'] / whole)
    assert step['input_bound_fraction'] == pytest.approx(bound)
  checks = measured[0]['checks']
  assert checks['passed'] and checks['finite']
  assert checks['loss_first'] > 0 and checks['loss_last'] > 0


def test_the_loader_alone_on_rendered_frames(tmp_path, monkeypatch, capsys):
  """A paper's pair of which nothing is prepared; a second run adds a line."""
  small = {'gta5': ('gta', (20, 40)), 'cityscapes': ('city', (24, 48))}
  monkeypatch.setattr(frames, 'STAND_INS', small)
  data, workdir = tmp_path / 'data', tmp_path / 'run'
  flags = [
    *(f for f in command(workdir) if not f.startswith('--config=')),
    f'--config.data_dir={data}',
  ]
  flags.insert(1, f'--config={PAPER}')
  for _ in range(2):
    assert main.main(flags) == main.DONE
  assert not data.exists()
  first, second = writers.read_jsonl(workdir / 'benchmark.jsonl')
  assert first['run_id'] != second['run_id']
  assert first.keys() == second.keys()
  found = second['result']['input']
  assert found['frames'] == 'rendered'
  assert found['device_step_ms'] is None and found['step_domains'] == {}
  assert all(form['step'] is None for form in found['forms'].values())
  assert second['checks']['passed'] is None
  target = found['domains']['target']
  assert target['raw_hw'] == [[24, 48]] and target['resized_hw'] == [16, 32]
  assert not target['same_size'] and target['resize'] == 'pil_bicubic'
  out = capsys.readouterr().out
  assert 'rendered (real ones compress differently)' in out
  assert '24x48 to 16x32' in out
  assert all(label in out for label in frames.FORMS.values())
  assert str(workdir / 'benchmark.jsonl') in out


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    (['--config.benchmark.input_only=false'], ['input_only=true', 'so far']),
    (['--config.benchmark.second=3'], ['benchmark.second', 'did you mean']),
    (['--config.benchmark.images=0'], ['benchmark.images=0']),
    (['--config.benchmark.seconds=0'], ['benchmark.seconds=0']),
    (['--config.benchmark.repeats=-1'], ['benchmark.repeats=-1']),
    (['--config.benchmark.steps=-1'], ['benchmark.steps=-1']),
    (['--config.data.source=streets/gta-32x64:night'], ["'night'"]),
  ],
)
def test_what_is_wrong_is_one_sentence(tmp_path, capsys, flags, said):
  assert main.main(command(tmp_path / 'run', *flags)) == main.USAGE
  out, err = capsys.readouterr()
  assert err.splitlines()[-1].startswith('error: ') and not out
  assert all(part in err for part in said), err
  assert 'Traceback' not in err


def test_a_file_that_cannot_be_written_is_named_at_once(tmp_path, capsys):
  path = tmp_path / 'run' / 'benchmark.jsonl'
  path.mkdir(parents=True)
  assert main.main(command(tmp_path / 'run')) == main.USAGE
  err = capsys.readouterr().err
  assert err.startswith(f'error: {path} cannot be written'), 'nothing before it'


def test_damaged_data_is_not_replaced_by_rendered_frames(tmp_path):
  (tmp_path / 'gta5').mkdir()
  domain = contract.Domain('gta5:all', True, (16, 32))
  open_dataset = lambda spec: sources.open_dataset(spec, tmp_path)
  with pytest.raises(ValueError, match='no prepared data set in'):
    frames.collect(domain, open_dataset, tmp_path, 2)


@pytest.mark.parametrize(
  'domain',
  [
    contract.Domain('a:train', True, (12, 20), (8, 8), 'pil_bicubic'),
    contract.Domain('a:train', False, (12, 20), (0, 0), 'cv_area'),
    contract.Domain('a:train', True),
  ],
)
def test_all_forms_hold_the_same_frames(domain, tmp_path):
  """What the loader makes of them: exact, but for JPEG's losses."""
  rng = np.random.default_rng(0)
  smooth = np.add.outer(np.arange(32) * 3, np.arange(48) * 2)
  pictures = [
    np.stack([smooth + 8 * i, smooth[::-1], smooth // 2], -1).astype(np.uint8)
    for i in range(3)
  ]
  ids = rng.integers(0, 19, (32, 48, 1), np.uint8)

  asked = []

  class Source:
    labelled = True

    def __len__(self):
      return len(pictures)

    def read(self, index, features):
      asked.append(set(features))
      return {'image': pictures[index], 'label': ids}

  taken = frames.collect(domain, lambda spec: Source(), tmp_path, 10)
  assert (taken.count, taken.origin) == (3, 'prepared')
  wanted = {'image', 'label'} if domain.labelled else {'image'}
  assert asked == [wanted] * 3, 'no other label is looked at'
  assert taken.same_size == (domain.size == (0, 0))
  raw = [taken.forms['raw_png'].read(i) for i in range(3)]
  for example, picture in zip(raw, pictures, strict=True):
    np.testing.assert_array_equal(example['image'], picture)
    if domain.labelled:
      np.testing.assert_array_equal(example['label'], ids)
  size = domain.size if any(domain.size) else (32, 48)
  expected = transforms.resize(pictures[1], size, domain.resize)
  small = taken.forms['resized_png'].read(1)
  np.testing.assert_array_equal(small['image'], expected)
  for form in ('resized_png', 'resized_jpeg95'):
    shapes = {v.shape[:2] for v in taken.forms[form].read(1).values()}
    assert shapes == {size}

  config = config_lib.base_config()
  batches = {}
  for form, stored in taken.forms.items():
    opened = {'x': stored}
    with pipeline.loader(config, 's', {'x': domain}, opened, 0, 3) as loader:
      batches[form] = [batch['x'] for batch in loader]
  for raw, resized, jpeg in zip(*batches.values(), strict=True):
    np.testing.assert_array_equal(raw['image'], resized['image'])
    np.testing.assert_array_equal(raw['label'], resized['label'])
    np.testing.assert_array_equal(raw['label'], jpeg['label'])
    error = np.abs(raw['image'].astype(int) - jpeg['image'])
    assert 0 < error.mean() < 1.6


def test_frames_without_the_labels_that_training_needs_are_refused(tmp_path):
  class Source:
    labelled = False

    def __len__(self):
      return 1

    def read(self, index, features):
      return {'image': np.zeros((32, 48, 3), np.uint8)}

  domain = contract.Domain('a:train', True)
  taken = frames.collect(domain, lambda spec: Source(), tmp_path, 1)
  opened = {'x': taken.forms['raw_png']}
  with pytest.raises(ValueError, match='a:train has no labels'):
    pipeline.loader(config_lib.base_config(), 's', {'x': domain}, opened, 0, 1)


def test_a_step_that_is_not_finite_fails_the_record(tmp_path):
  config = config_lib.base_config()
  config.batch_size = 8
  found = record.blank(config, 'source_only')
  record.finish(found)
  assert found['status'] == 'ok'
  found['checks']['passed'] = False
  record.finish(found)
  assert found['status'] == 'failed' and 'not finite' in found['error']
  path = tmp_path / 'benchmark.jsonl'
  record.append(path, [found, found])
  lines = path.read_text().splitlines()
  assert [json.loads(line) for line in lines] == [found, found]
