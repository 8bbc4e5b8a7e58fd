"""The embedded benchmark is built completely, in order, and without secrets."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from data_prep import layouts, prepare, shards, streets
from data_prep.streets import examples, streets_dataset_builder, world
from jaxseg_da import errors
from jaxseg_da.data import depth as depth_lib
from jaxseg_da.data import pipeline, sources
from jaxseg_da.experiment import datasets

SIZE = (32, 64)
LIMIT = shards.EXAMPLES + 6  # Two shards, so that worker processes are used.


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  root = tmp_path_factory.mktemp('streets')
  options = layouts.Options(size=SIZE, limit=LIMIT)
  prepare.build('streets', root, config='city', options=options)
  options = layouts.Options(limit=3)
  prepare.build('streets', root, config='gta-32x64-views', options=options)
  return root


def scenes(domain, split, count, views=False):
  chosen = world.domain(domain)
  return [
    world.render_example(chosen, split, index, SIZE, views=views)
    for index in range(count)
  ]


def test_every_example_equals_the_rendered_scene(data_dir):
  source = sources.open_dataset('streets/gta-32x64-views', data_dir)
  assert (source.split, source.labelled, len(source)) == ('train', True, 3)
  rendered = scenes('gta', 'train', 3, views=True)
  for index, (example, scene) in enumerate(zip(source, rendered, strict=True)):
    assert example['image_id'] == f'train_{index:06d}'
    for name in ('image', 'image_right', 'image_prev', 'image_next'):
      np.testing.assert_array_equal(example[name], scene[name])
    np.testing.assert_array_equal(example['label'][..., 0], scene['label'])
    assert example['depth'].dtype == np.uint16
    np.testing.assert_allclose(
      example['depth'][..., 0] / 100, scene['depth'], atol=0.00501
    )
    assert example['depth'].max() > 255  # The high byte is there.
    np.testing.assert_array_equal(
      example['intrinsics'], np.asarray(scene['intrinsics'], np.float32)
    )
    assert example['baseline'] == np.float32(scene['baseline'])
  assert source.metadata['depth_kind'] == 'metric'
  assert source.metadata['depth_unit'] == 'cm'
  assert source.metadata['image_size'] == [32, 64]


def test_worker_processes_keep_the_order(data_dir):
  source = sources.open_dataset('streets/city-32x64:validation', data_dir)
  rendered = scenes('city', 'validation', LIMIT)
  assert len(source) == LIMIT
  for index, (example, scene) in enumerate(zip(source, rendered, strict=True)):
    assert example['image_id'] == f'validation_{index:06d}'
    np.testing.assert_array_equal(example['image'], scene['image'])
    np.testing.assert_array_equal(example['label'][..., 0], scene['label'])


def test_true_labels_of_the_target_are_not_in_its_train_split(data_dir):
  train = sources.open_dataset('streets/city-32x64', data_dir)
  oracle = sources.open_dataset('streets/city-32x64:train_labelled', data_dir)
  assert (train.split, train.labelled, oracle.labelled) == (
    'train',
    False,
    True,
  )
  rendered = scenes('city', 'train', LIMIT)
  for hidden, known, scene in zip(train, oracle, rendered, strict=True):
    assert (hidden['label'] == 255).all()
    assert not hidden['class_histogram'].any()
    np.testing.assert_array_equal(known['label'][..., 0], scene['label'])
    np.testing.assert_array_equal(
      known['class_histogram'],
      [(scene['label'] == c).sum() for c in range(19)],
    )
    for name in ('image_id', 'image', 'depth', 'intrinsics', 'baseline'):
      np.testing.assert_array_equal(hidden[name], known[name])
  with pytest.raises(errors.UserError, match='no labels to train on'):
    pipeline.pair_batches(
      {'source': pipeline.Domain(train)},
      batch_size=1,
      seed=0,
      stage=0,
      num_steps=1,
    )


def test_splits_and_limits(data_dir):
  with pytest.raises(errors.UserError, match='train, train_labelled, validat'):
    sources.open_dataset('streets/city-32x64:test', data_dir)
  with pytest.raises(errors.UserError, match='valid: train, validation'):
    sources.open_dataset('streets/gta-32x64-views:all', data_dir)
  assert streets_dataset_builder.COUNTS == {'train': 600, 'validation': 100}


def test_building_again_does_nothing_and_building_else_is_refused(data_dir):
  again = lambda **kw: prepare.build(
    'streets', data_dir, config='city-32x64', options=layouts.Options(**kw)
  )
  target, fresh = again(limit=LIMIT)
  assert not fresh
  before = (target / 'dataset_info.json').stat().st_mtime_ns
  again(limit=LIMIT)
  assert (target / 'dataset_info.json').stat().st_mtime_ns == before
  with pytest.raises(errors.UserError, match=f'limit={LIMIT}, not limit=None'):
    again()


@pytest.mark.parametrize(
  ('name', 'size', 'expected'),
  [
    ('city', None, ('city', 'city', (96, 192), False)),
    ('city', (96, 192), ('city', 'city', (96, 192), False)),
    ('gta', (8, 16), ('gta-8x16', 'gta', (8, 16), False)),
    ('city-128x256', None, ('city-128x256', 'city', (128, 256), False)),
    (
      'city_hard-views',
      None,
      ('city_hard-views', 'city_hard', (96, 192), True),
    ),
    ('city-views', (8, 16), ('city-8x16-views', 'city', (8, 16), True)),
    ('gta-8x16-views', (8, 16), ('gta-8x16-views', 'gta', (8, 16), True)),
  ],
)
def test_config_names(name, size, expected):
  config = streets_dataset_builder.parse_config(name, size)
  found = (config.name, config.domain, config.size, config.views)
  assert found == expected


@pytest.mark.parametrize(
  ('name', 'size', 'message'),
  [
    ('town', None, "unknown domain of streets 'town'; valid: city, city_app"),
    ('city-8y16', None, "bad size '8y16'"),
    ('city-0x16', None, "bad size '0x16'"),
    ('city-8x16', (8, 32), 'with one size'),
    ('city-8x16-4x4', None, 'bad config'),
    ('city-views-8x16', None, 'bad config'),
  ],
)
def test_bad_config_names_are_explained(name, size, message):
  with pytest.raises(errors.UserError, match=message):
    streets_dataset_builder.parse_config(name, size)


def test_every_domain_of_the_builder_can_be_rendered():
  for domain in streets_dataset_builder.DOMAINS:
    job = examples.Job(domain, 'train', 0, (16, 32), False)
    example, size = examples.render(job)
    assert size == (16, 32)
    assert set(example) == {
      'image_id',
      'image',
      'label',
      'class_histogram',
      'depth',
      'intrinsics',
      'baseline',
    }


def test_depth_keeps_centimetres_and_marks_what_is_invalid():
  depth = np.array([[0.0, 0.001, 0.01, 2.554, 655.35, 9999.0]])
  np.testing.assert_array_equal(
    depth_lib.metric_to_u16(depth), [[0, 1, 1, 255, 65535, 65535]]
  )


def command(data_dir, *arguments):
  return [
    sys.executable,
    '-m',
    'data_prep.build',
    'streets',
    f'--data_dir={data_dir}',
    *arguments,
  ]


def assert_same_data(first, second):
  files = [
    sorted(root.glob('streets/city-32x64/*/*array_record*'))
    for root in (first, second)
  ]
  assert len(files[0]) == 6
  for one, other in zip(*files, strict=True):
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def test_a_killed_build_is_not_taken_for_whole_and_can_be_repeated(
  data_dir, tmp_path
):
  arguments = ('--config=city-32x64', f'--limit={LIMIT}')
  process = subprocess.Popen(
    command(tmp_path, *arguments),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  deadline = time.monotonic() + 60
  pattern = 'streets/city-32x64/.unfinished/*.json'
  while not [*tmp_path.glob(pattern)]:
    assert time.monotonic() < deadline
    assert process.poll() is None
    time.sleep(0.01)
  process.kill()
  process.communicate(timeout=60)  # Ends when its workers are gone, too.
  with pytest.raises(errors.UserError, match='no prepared data set'):
    sources.open_dataset('streets/city-32x64', tmp_path)
  # Two at once: one builds, the other waits and finds it there.
  processes = [
    subprocess.Popen(
      command(tmp_path, *arguments), stdout=subprocess.PIPE, text=True
    )
    for _ in range(2)
  ]
  outputs = [process.communicate()[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0]
  assert sum('wrote' in text for text in outputs) == 1
  assert sum('already prepared' in text for text in outputs) == 1
  assert sum('of an earlier run kept' in text for text in outputs) == 1
  assert not [*tmp_path.glob('streets/*/incomplete*')]
  assert not [*tmp_path.glob('streets/*/.unfinished')]
  assert_same_data(tmp_path, data_dir)


@pytest.mark.slow
def test_the_benchmark_is_built_on_first_use(monkeypatch, tmp_path, capfd):
  monkeypatch.chdir(tmp_path)  # Not the source tree.
  datasets.ensure_streets('gta-8x16', tmp_path / 'data')
  assert 'building streets/gta-8x16' in capfd.readouterr().out
  source = sources.open_dataset('streets/gta-8x16', tmp_path / 'data')
  assert len(source) == 600
  run = subprocess.run
  monkeypatch.setattr(subprocess, 'run', None)
  datasets.ensure_streets('gta-8x16', tmp_path / 'data')  # Builds nothing.
  monkeypatch.setattr(subprocess, 'run', run)
  with pytest.raises(errors.UserError, match='unknown domain of streets'):
    datasets.ensure_streets('town', tmp_path / 'data')
  version = tmp_path / 'data/streets/gta-8x16' / streets.VERSION
  version.rename(version.with_name('0.0.1'))  # As if the world had changed.
  datasets.ensure_streets('gta-8x16', tmp_path / 'data')
  source = sources.open_dataset('streets/gta-8x16', tmp_path / 'data')
  assert source.directory == version
