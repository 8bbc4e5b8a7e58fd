"""Batches are pure functions of seed, stage and step; labels stay hidden."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from data_prep import prepare
from jaxseg_da import errors
from jaxseg_da.data import pipeline, sources, transforms
from tests import trees


class Numbered:
  """A source in memory whose pixels tell which example and place they are."""

  def __init__(self, count, size=(4, 6), labelled=True, sizes=None):
    self.spec = f'numbered:{count}'
    self.labelled = labelled
    self._sizes = sizes or [size] * count

  def __len__(self):
    return len(self._sizes)

  def sizes(self):
    return self._sizes

  def read(self, index, features=None):
    height, width = self._sizes[index]
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = index
    image[..., 1] = np.arange(height)[:, None]
    image[..., 2] = np.arange(width)
    label = image[..., :1] % 19
    example = {'image_id': str(index), 'image': image, 'label': label}
    return {
      k: v for k, v in example.items() if features is None or k in features
    }


def batches(source, target, num_steps, **changes):
  settings = {'batch_size': 4, 'seed': 7, 'stage': 'first'} | changes
  domains = {}
  modes = {
    'source': settings.pop('resize', 'pil_bicubic'),
    'target': settings.pop('target_resize', changes.get('resize')),
  }
  for name, data in (('source', source), ('target', target)):
    if data is not None:
      domains[name] = pipeline.Domain(
        data,
        size=settings.pop(f'{name}_size', None),
        resize=modes[name] or 'pil_bicubic',
        crop=settings.pop(f'{name}_crop', None),
        labels=settings.pop(f'{name}_labels', name == 'source'),
      )
  with pipeline.pair_batches(
    domains, num_steps=num_steps, **settings
  ) as iterator:
    assert len(iterator) == num_steps
    return list(iterator)


def indices(steps, domain):
  return [int(i) for b in steps for i in b[domain]['image'][:, 0, 0, 0]]


def leaves(batch):
  return {(d, k): batch[d][k] for d in sorted(batch) for k in batch[d]}


def assert_same(first, second):
  first, second = leaves(first), leaves(second)
  assert first.keys() == second.keys()
  for name in first:
    np.testing.assert_array_equal(first[name], second[name])


def test_a_batch_has_the_promised_shapes_and_types():
  (batch,) = batches(Numbered(5), Numbered(7, (8, 10)), 1)
  shapes = {name: array.shape for name, array in leaves(batch).items()}
  assert shapes == {
    ('source', 'image'): (4, 4, 6, 3),
    ('source', 'label'): (4, 4, 6, 1),
    ('target', 'image'): (4, 8, 10, 3),
    ('target', 'label'): (4, 8, 10, 1),
  }
  assert {array.dtype for array in leaves(batch).values()} == {np.dtype('u1')}


def test_every_epoch_is_another_permutation():
  steps = batches(Numbered(10), Numbered(6), 15)  # 60 rows
  for domain, count in (('source', 10), ('target', 6)):
    rows = np.reshape(indices(steps, domain), (-1, count))
    np.testing.assert_array_equal(
      np.sort(rows, axis=1), np.tile(np.arange(count), (len(rows), 1))
    )
    assert len({tuple(row) for row in rows}) == len(rows)


def test_seed_stage_and_domain_have_their_own_order():
  base = indices(batches(Numbered(50), None, 10), 'source')
  assert base == indices(batches(Numbered(50), None, 10), 'source')
  others = [
    indices(batches(Numbered(50), None, 10, seed=8), 'source'),
    indices(batches(Numbered(50), None, 10, stage='second'), 'source'),
    indices(batches(None, Numbered(50), 10), 'target'),
  ]
  for other in others:
    assert other != base
  # The next seed is no later epoch of this one.
  longer = indices(batches(Numbered(50), None, 25), 'source')
  seed = indices(batches(Numbered(50), None, 13, seed=8), 'source')[:50]
  assert seed != longer[50:100]


def test_the_order_is_pinned():
  # A change here changes every published run: say so in the release notes.
  steps = batches(Numbered(10), Numbered(10), 3, seed=0, stage='pin')
  assert indices(steps, 'source') == [1, 0, 3, 6, 7, 5, 9, 2, 8, 4, 1, 7]
  assert indices(steps, 'target') == [7, 8, 3, 0, 6, 2, 4, 5, 1, 9, 8, 4]


@pytest.mark.parametrize('processes', [2, 4])
def test_processes_share_one_global_batch(processes):
  domains = (Numbered(9, (8, 12)), Numbered(5, (8, 12)))
  crops = {'source_crop': (4, 4), 'target_crop': (2, 8)}
  whole = batches(*domains, 6, **crops)
  parts = [
    batches(*domains, 6, process_index=p, process_count=processes, **crops)
    for p in range(processes)
  ]
  for step, batch in enumerate(whole):
    joined = {
      domain: {
        key: np.concatenate([part[step][domain][key] for part in parts])
        for key in batch[domain]
      }
      for domain in batch
    }
    assert_same(batch, joined)


def test_starting_at_a_step_equals_getting_there():
  domains = (Numbered(9, (8, 12)), Numbered(5, (8, 12)))
  crops = {'source_crop': (4, 4), 'target_crop': (2, 8)}
  whole = batches(*domains, 9, **crops)
  later = batches(*domains, 4, start_step=5, **crops)
  for first, second in zip(whole[5:], later, strict=True):
    assert_same(first, second)
  far = batches(*domains, 1, start_step=10**7)
  assert far[0]['source']['image'].shape == (4, 8, 12, 3)


def test_target_labels_are_hidden_and_never_read():
  target = Numbered(5)
  asked = []
  read = target.read

  def spy(index, features=None):
    asked.append(tuple(features))
    return read(index, features)

  target.read = spy
  steps = batches(Numbered(5), target, 3)
  assert all((b['target']['label'] == 255).all() for b in steps)
  assert any((b['source']['label'] != 255).all() for b in steps)
  assert set(asked) == {('image',)}
  steps = batches(None, Numbered(5), 3, target_labels=True)
  for batch in steps:
    np.testing.assert_array_equal(
      batch['target']['label'], batch['target']['image'][..., :1] % 19
    )


def test_one_domain_alone():
  assert set(batches(Numbered(5), None, 1)[0]) == {'source'}
  assert set(batches(None, Numbered(5), 1)[0]) == {'target'}
  with pytest.raises(ValueError, match='at least one domain'):
    batches(None, None, 1)


def test_crops_cut_image_and_label_alike_and_reach_every_place():
  source = Numbered(5, (6, 9))
  steps = batches(source, None, 60, source_crop=(4, 5))
  image = np.concatenate([b['source']['image'] for b in steps])
  label = np.concatenate([b['source']['label'] for b in steps])
  np.testing.assert_array_equal(label, image[..., :1] % 19)
  tops, lefts = image[:, 0, 0, 1], image[:, 0, 0, 2]
  assert set(tops) == {0, 1, 2}
  assert set(lefts) == {0, 1, 2, 3, 4}
  np.testing.assert_array_equal(
    image[..., 2],
    np.broadcast_to(lefts[:, None, None] + np.arange(5), (240, 4, 5)),
  )


def test_resizing_uses_the_named_modes():
  example = Numbered(1, (8, 12)).read(0)
  (batch,) = batches(
    Numbered(1, (8, 12)),
    Numbered(1, (8, 12)),
    1,
    source_size=(4, 5),
    target_size=(5, 4),
    resize='cv_area',
    target_resize='pil_bilinear',
  )
  area = cv2.resize(example['image'], (5, 4), interpolation=cv2.INTER_AREA)
  np.testing.assert_array_equal(batch['source']['image'][0], area)
  bilinear = Image.fromarray(example['image']).resize(
    (4, 5), Image.Resampling.BILINEAR
  )
  np.testing.assert_array_equal(batch['target']['image'][0], bilinear)


@pytest.mark.parametrize(
  ('source', 'target', 'changes', 'message'),
  [
    (Numbered(5, labelled=False), None, {}, 'numbered:5 has no labels to'),
    (
      None,
      Numbered(5, labelled=False),
      {'target_labels': True},
      'has no labels',
    ),
    (Numbered(0), None, {}, 'numbered:0 has no examples'),
    (Numbered(5), None, {'process_count': 3}, 'batch_size=4 .* 3 processes'),
    (Numbered(5), None, {'batch_size': 0}, 'batch_size=0'),
    (Numbered(5), None, {'resize': 'bicubic'}, 'unknown resize mode'),
    (Numbered(5), None, {'source_crop': (5, 5)}, 'crop 5x5 is larger .* 4x6'),
    (Numbered(2, sizes=[(4, 6), (6, 4)]), None, {}, 'different shapes'),
  ],
)
def test_wrong_settings_are_explained(source, target, changes, message):
  with pytest.raises(errors.UserError, match=message):
    batches(source, target, 1, **changes)


def evaluate(source, batch_size, **changes):
  with pipeline.eval_batches(source, batch_size, **changes) as iterator:
    result = list(iterator)
    assert len(iterator) == len(result)
    return result


def test_evaluation_sees_every_example_once_and_masks_the_rest():
  first, second, third = evaluate(Numbered(5), 2)
  assert [b['index'].tolist() for b in (first, second, third)] == [
    [0, 1],
    [2, 3],
    [4, -1],
  ]
  np.testing.assert_array_equal(third['mask'], [True, False])
  assert not third['image'][1].any()
  assert (third['label'][1] == 255).all()
  assert third['label'].shape == (2, 4, 6, 1)
  assert (third['mask'].dtype, third['index'].dtype) == (bool, np.int32)


def test_evaluation_batches_hold_one_size_and_labels_keep_theirs():
  sizes = [(4, 6), (2, 8), (4, 6), (4, 6), (2, 8)]
  steps = evaluate(Numbered(5, sizes=sizes), 2, size=(3, 3))
  assert [b['index'].tolist() for b in steps] == [[0, 2], [3, -1], [1, 4]]
  assert [b['label'].shape[1:3] for b in steps] == [(4, 6), (4, 6), (2, 8)]
  assert {b['image'].shape for b in steps} == {(2, 3, 3, 3)}


@pytest.mark.parametrize('processes', [2, 4])
def test_evaluation_processes_share_the_batches(processes):
  source = Numbered(7, sizes=[(4, 6)] * 5 + [(2, 8)] * 2)
  whole = evaluate(source, 4)
  parts = [
    evaluate(source, 4, process_index=p, process_count=processes)
    for p in range(processes)
  ]
  assert {len(part) for part in parts} == {len(whole)}
  for step, batch in enumerate(whole):
    for key, value in batch.items():
      joined = np.concatenate([part[step][key] for part in parts])
      np.testing.assert_array_equal(joined, value)


def test_a_corrupt_record_stops_training_with_its_name():
  source = Numbered(5)
  read = source.read

  def broken(index, features=None):
    if index == 3:
      raise errors.UserError('numbered: record 3 is corrupt')
    return read(index, features)

  source.read = broken
  with pytest.raises(errors.UserError, match='record 3 is corrupt'):
    batches(source, None, 2)
  with pytest.raises(errors.UserError, match='record 3 is corrupt'):
    evaluate(source, 2)


def test_prepared_data_arrives_unchanged(tmp_path):
  pairs = trees.write_gta5(tmp_path / 'raw', 3)
  prepare.build('gta5', tmp_path, manual_dir=tmp_path / 'raw', num_workers=1)
  source = sources.open_dataset('gta5', tmp_path)
  (batch,) = evaluate(source, 4)
  for index, (image, _) in enumerate(pairs):
    np.testing.assert_array_equal(batch['image'][index], image)
  (train,) = batches(source, source, 1, batch_size=3)
  found = {image.tobytes() for image in train['source']['image']}
  assert found == {image.tobytes() for image, _ in pairs}


def test_nearest_samples_pixel_centres_as_pillow_does():
  array = np.random.default_rng(0).integers(0, 256, (7, 11), np.uint8)
  for size in ((3, 5), (14, 22), (5, 11), (1, 1), (13, 4)):
    height, width = size
    pillow = Image.fromarray(array).resize(
      (width, height), Image.Resampling.NEAREST
    )
    np.testing.assert_array_equal(transforms.nearest(array, size), pillow)
  deep = array.astype(np.uint16) * 257
  np.testing.assert_array_equal(
    transforms.nearest(deep, (3, 5)), transforms.nearest(array, (3, 5)) * 257.0
  )
  row = np.arange(4)[None]
  np.testing.assert_array_equal(transforms.nearest(row, (1, 2)), [[1, 3]])


def test_resize_modes_differ_and_the_same_size_is_untouched():
  image = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
  results = [transforms.resize(image, (5, 7), m) for m in transforms.MODES]
  assert {r.shape for r in results} == {(5, 7, 3)}
  assert len({r.tobytes() for r in results}) == len(transforms.MODES)
  for mode in transforms.MODES:
    assert transforms.resize(image, (16, 20), mode) is image
  # Area: the mean of each block; OpenCV's bilinear: of the four in the middle.
  blocks = image.reshape(4, 4, 5, 4, 3).astype(float)
  area = transforms.resize(image, (4, 5), 'cv_area')
  np.testing.assert_allclose(area, blocks.mean((1, 3)), atol=0.5)
  linear = transforms.resize(image, (4, 5), 'cv_linear')
  middle = blocks[:, 1:3, :, 1:3].mean((1, 3))
  np.testing.assert_allclose(linear, middle, atol=0.5001)
