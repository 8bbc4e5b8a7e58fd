from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.data import transforms
from jaxseg_da.evaluation import evaluate

NAMES = ('a', 'b', 'c', 'd')
RED = np.array([3.0, -1.0, 0.5, 0.0])
GREEN = np.array([0.0, 2.0, -1.0, 0.7])
BIAS = np.array([0.0, 0.1, 0.6, 0.2])


def reference_logits(images):
  x = images.astype(np.float64) / 255
  return x[..., :1] * RED + x[..., 1:2] * GREEN + BIAS


def predictor(images):
  assert isinstance(images, np.ndarray)
  assert images.dtype == np.uint8
  return jnp.asarray(reference_logits(images), jnp.float32)


def coarse(images):
  """Half resolution, as networks do."""
  return predictor(images)[:, ::2, ::2]


def resize_corners(x, size):
  """Align-corners bilinear, pixel by pixel."""
  height, width = x.shape[:2]
  out = np.zeros((*size, x.shape[2]))
  for i in range(size[0]):
    for j in range(size[1]):
      y = i * (height - 1) / (size[0] - 1)
      z = j * (width - 1) / (size[1] - 1)
      top, left = min(int(y), height - 2), min(int(z), width - 2)
      u, v = y - top, z - left
      out[i, j] = (1 - u) * (
        (1 - v) * x[top, left] + v * x[top, left + 1]
      ) + u * ((1 - v) * x[top + 1, left] + v * x[top + 1, left + 1])
  return out


def count(labels, guesses):
  matrix = np.zeros((4, 4), np.int64)
  for label, guess in zip(labels.ravel(), guesses.ravel(), strict=True):
    if label != 255:
      matrix[label, guess] += 1
  return matrix


def make_batch(seed, size=(32, 64), number=3, label_size=None):
  rng = np.random.default_rng(seed)
  label_size = label_size or size
  return {
    'image': rng.integers(0, 256, (number, *size, 3)).astype(np.uint8),
    'label': rng.choice([0, 1, 2, 3, 255], (number, *label_size, 1)).astype(
      np.uint8
    ),
    'mask': np.ones(number, bool),
  }


def run(predict, batches, **kwargs):
  options = {'split': 'val', 'num_classes': 4, 'names': NAMES, **kwargs}
  return evaluate.evaluate(predict, batches, **options)


def test_matches_numpy_at_the_label_size():
  batch = make_batch(0, (8, 16), 2, label_size=(13, 21))
  record, matrix = run(coarse, [batch])
  expected = np.zeros((4, 4), np.int64)
  for image, label in zip(batch['image'], batch['label'], strict=True):
    small = reference_logits(image[None])[0, ::2, ::2]
    guess = resize_corners(small, (13, 21)).argmax(-1)
    expected += count(label[..., 0], guess)
  np.testing.assert_array_equal(matrix, expected)
  assert matrix.dtype == np.int64
  assert record['task'] == 'segmentation'
  assert (record['split'], record['images']) == ('val', 2)
  assert record['num_classes'] == 4
  assert record['input_size'] is None
  hits = np.diag(expected)
  union = expected.sum(0) + expected.sum(1) - hits
  assert record['miou'] == pytest.approx(100 * (hits / union).mean())
  assert record['pixel_accuracy'] == pytest.approx(
    100 * hits.sum() / expected.sum()
  )
  assert list(record['iou']) == list(NAMES)
  assert record['miou_16'] is None
  json.dumps(record, allow_nan=False)


def test_batches_add_up_and_masked_rows_do_not_count():
  first, second = make_batch(1), make_batch(2)
  padded = {k: np.concatenate([v, v[:2]]) for k, v in second.items()}
  padded['mask'][3:] = False
  filler = {**make_batch(3), 'mask': np.zeros(3, bool)}
  record, matrix = run(predictor, [first, padded, filler])
  _, one = run(predictor, [first])
  _, two = run(predictor, [second])
  np.testing.assert_array_equal(matrix, one + two)
  assert record['images'] == 6
  assert matrix.sum() == sum((b['label'] != 255).sum() for b in (first, second))


def test_odd_native_sizes_are_padded_without_counting_the_padding():
  batches = [make_batch(4, (30, 50)), make_batch(5, (33, 64))]
  shapes = []

  def spy(images):
    shapes.append(images.shape)
    return predictor(images)

  record, matrix = run(spy, batches)
  expected = sum(
    count(b['label'], reference_logits(b['image']).argmax(-1)) for b in batches
  )
  np.testing.assert_array_equal(matrix, expected)
  assert shapes == [(3, 32, 64, 3), (3, 64, 64, 3)]
  assert record['images'] == 6


def test_input_size_resizes_images_and_keeps_labels():
  batch = make_batch(6, (32, 64), 1)
  options = evaluate.Options(size=(16, 32))
  record, matrix = run(
    predictor, [batch], evaluate_config=options, resize='cv_area'
  )
  small = transforms.resize(batch['image'][0], (16, 32), 'cv_area')
  logits = resize_corners(reference_logits(small[None])[0], (32, 64))
  expected = count(batch['label'][0, ..., 0], logits.argmax(-1))
  # Pixels that sit on a tie may fall either way in float32.
  assert np.abs(matrix - expected).sum() <= 4
  assert matrix.sum() == expected.sum()
  assert record['input_size'] == [16, 32]


def test_sliding_windows_of_a_pixelwise_model_change_nothing():
  batch = make_batch(7, (40, 72), 2)
  batch['image'] = batch['image'][:, :32, :64]
  batch['label'] = batch['label'][:, :32, :64]
  shapes = set()

  def spy(images):
    shapes.add(images.shape)
    return predictor(images)

  options = evaluate.Options(mode='sliding', window=(20, 24), stride=(9, 24))
  _, sliding = run(spy, [batch], evaluate_config=options)
  _, whole = run(predictor, [batch])
  np.testing.assert_array_equal(sliding, whole)
  assert shapes == {(2, 20, 24, 3)}


@pytest.mark.parametrize(
  ('upsample', 'expected'),
  [
    ('logits', [0.5, 0.75, 2, 3]),
    # Means of 1 / (1 + exp(-x)) at 1/2, 1 and 3.
    ('probabilities', [0.622459, 0.676759, 0.841816, 0.952574]),
  ],
)
def test_sliding_averages_overlapping_windows(upsample, expected):
  # The first class leads by the first pixel of the window, everywhere.
  def first_pixel(images):
    lead = np.broadcast_to(images[:, :1, :1, :1] / 20, (*images.shape[:3], 1))
    return jnp.asarray(np.concatenate([lead, 0 * lead], -1))

  image = np.zeros((1, 32, 32, 3), np.uint8)
  image[:, :, 0], image[:, :, 8], image[:, :, 16] = 10, 20, 60
  options = evaluate.Options(
    mode='sliding', window=(32, 16), stride=(32, 8), upsample=upsample
  )
  found = evaluate.scores(first_pixel, image, (32, 32), options)[0, 0, :, 0]
  np.testing.assert_allclose(found, np.repeat(expected, 8), rtol=1e-5)


def test_window_larger_than_the_image_is_the_whole_image():
  batch = make_batch(8)
  options = evaluate.Options(mode='sliding', window=(64, 96), stride=(32, 48))
  _, matrix = run(coarse, [batch], evaluate_config=options)
  _, whole = run(coarse, [batch])
  np.testing.assert_array_equal(matrix, whole)


def test_scales_and_flip_average_probabilities():
  batch = make_batch(9, (32, 64), 1)
  options = evaluate.Options(scales=(0.5, 1.0), flip=True)
  found = evaluate.scores(
    coarse, batch['image'], (32, 64), options, 'pil_bilinear'
  )[0]
  expected = np.zeros((32, 64, 4))
  for size in ((16, 32), (32, 64)):
    image = transforms.resize(batch['image'][0], size, 'pil_bilinear')
    for side in (1, -1):
      logits = reference_logits(image[None, :, ::side])[0, ::2, ::2]
      logits = resize_corners(logits[:, ::side], (32, 64))
      powers = np.exp(logits)
      expected += powers / powers.sum(-1, keepdims=True) / 4
  np.testing.assert_allclose(found, expected, atol=2e-6)


def meeting_classes(images):
  """Two pixels: class 1 leads by 1 on the left, class 0 by 4 on the right."""
  del images
  return jnp.array([[[[-1.0, 0.0], [4.0, 0.0]]]])


@pytest.mark.parametrize('mode', evaluate.MODES)
@pytest.mark.parametrize(
  ('upsample', 'expected', 'classes'),
  [
    ('logits', [-1, 0.25, 1.5, 2.75, 4], [1, 0, 0, 0, 0]),
    # Between 1 / (1 + e) and 1 / (1 + exp(-4)).
    (
      'probabilities',
      [0.26894, 0.44721, 0.62548, 0.80374, 0.98201],
      [1, 1, 0, 0, 0],
    ),
  ],
)
def test_what_is_upsampled(mode, upsample, expected, classes):
  options = evaluate.Options(
    (1, 5), mode, window=(1, 5), stride=(1, 5), upsample=upsample
  )
  images = np.zeros((1, 1, 5, 3), np.uint8)
  found = evaluate.scores(meeting_classes, images, (1, 5), options)
  np.testing.assert_allclose(found[0, 0, :, 0], expected, rtol=1e-4)
  batch = {'image': images, 'label': np.array([[[[1], [1], [0], [0], [0]]]])}
  record, matrix = run(
    meeting_classes,
    [batch],
    num_classes=2,
    names=NAMES[:2],
    evaluate_config=options,
  )
  assert record['upsample'] == upsample
  np.testing.assert_array_equal(
    matrix, [[3, 0], [classes.count(0) - 3, classes.count(1)]]
  )


@pytest.mark.parametrize(
  ('upsample', 'expected'),
  [
    # Means of 1 / (1 + exp(-x)) at -1 .. 4 and at 4 .. -1.
    ('logits', [0.62548, 0.75104, 0.81757, 0.75104, 0.62548]),
    ('probabilities', [0.62548] * 5),
  ],
)
def test_views_are_averaged_after_what_is_upsampled(upsample, expected):
  options = evaluate.Options((1, 5), flip=True, upsample=upsample)
  image = np.zeros((1, 1, 5, 3), np.uint8)
  # To this predictor the mirrored view looks the same.
  found = evaluate.scores(meeting_classes, image, (1, 5), options)
  np.testing.assert_allclose(found[0, 0, :, 0], expected, rtol=1e-4)


@pytest.mark.parametrize('labels', evaluate.LABELS)
def test_size_that_labels_are_compared_at(labels):
  """The input's one row is the second, its columns every second one."""
  image = np.zeros((1, 2, 6, 3), np.uint8)
  label = np.array([[[0, 0, 0, 0, 0, 0], [0, 1, 0, 1, 2, 3]]])[..., None]
  record, matrix = run(
    lambda x: jnp.zeros((1, *x.shape[1:3], 4)).at[..., 3].set(1.0),
    [{'image': image, 'label': label}],
    evaluate_config=evaluate.Options((1, 3), labels=labels),
  )
  assert record['labels'] == labels
  expected = [8, 2, 1, 1] if labels == 'native' else [0, 2, 0, 1]
  np.testing.assert_array_equal(matrix[:, 3], expected)
  assert matrix.sum() == sum(expected)


def test_processes_are_summed_in_int64():
  batch = make_batch(10)

  def allreduce(x):
    assert x.dtype == np.int64
    return x * 2**33

  _, alone = run(predictor, [batch])
  record, matrix = run(predictor, [batch], allreduce=allreduce)
  np.testing.assert_array_equal(matrix, alone * 2**33)
  assert record['images'] == 3 * 2**33


def test_one_compilation_per_shape():
  batches = [make_batch(seed) for seed in range(4)]
  before = evaluate._count._cache_size()
  run(predictor, [*batches, make_batch(5, (64, 64))])
  assert evaluate._count._cache_size() - before <= 2


def test_own_confusion_function():
  calls = []

  def device_confusion(label, scores, mask):
    calls.append((label.shape, scores.shape, mask.shape))
    return jnp.eye(4, dtype=jnp.int32)

  _, matrix = run(predictor, [make_batch(0)], device_confusion=device_confusion)
  np.testing.assert_array_equal(matrix, np.eye(4))
  assert calls == [((3, 32, 64), (3, 32, 64, 4), (3,))]


def test_logits_spread_over_devices():
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:3]), ('batch',))
  spread = jax.sharding.NamedSharding(mesh, jax.P('batch'))
  batch = make_batch(11)
  options = evaluate.Options(mode='sliding', window=(20, 40), stride=(12, 24))
  _, matrix = run(
    lambda x: jax.device_put(coarse(x), spread),
    [batch],
    evaluate_config=options,
  )
  _, expected = run(coarse, [batch], evaluate_config=options)
  np.testing.assert_array_equal(matrix, expected)


def test_what_cannot_be_evaluated_is_refused():
  empty = make_batch(0)
  empty['label'][:] = 255
  with pytest.raises(errors.UserError, match=r"'val' has no labelled pixel"):
    run(predictor, [empty])
  with pytest.raises(errors.UserError, match=r"'val' has no image"):
    run(predictor, [])
  with pytest.raises(ValueError, match='4 classes, not 3'):
    run(predictor, [make_batch(0)], num_classes=3, names=NAMES[:3])
  for bad, message in (
    ({'mode': 'slide'}, "sliding.*Did you mean 'sliding'"),
    ({'upsample': 'logit'}, "evaluate.upsample 'logit'.*mean 'logits'"),
    ({'labels': 'inputs'}, "evaluate.labels 'inputs'.*mean 'input'"),
    ({'scales': ()}, 'evaluate.scales'),
    ({'mode': 'sliding', 'stride': (0, 4)}, 'evaluate.stride'),
    ({'mode': 'sliding', 'window': (4, 4)}, 'evaluate.window'),
  ):
    with pytest.raises(errors.UserError, match=message):
      evaluate.check(evaluate.Options()._replace(**bad))
