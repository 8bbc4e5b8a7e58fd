"""LSE against numbers of its reference implementation."""

from __future__ import annotations

import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da.classes import labels
from jaxseg_da.data import selection
from jaxseg_da.evaluation import metrics
from jaxseg_da.losses import entropy, focal, segmentation
from jaxseg_da.ops import patches
from jaxseg_da.training import optim
from tests.parity import harness

SINGLE = 1e-5  # the reference computed in float32
MASK = 2e-6  # its positions are rounded to float32, too
TIGHT = 1e-9
SYNTHIA_LACKS = (9, 14, 16)
# Constants of the paper that are not in the files.
PORTIONS = (0.10, 0.05, 0.40)
DECAY_STEPS, DECAY_RATE, POWER = 50_000, 0.1, 0.9
GROUPS = {'fcn8s': (1, 2), 'deeplab': (1, 10)}  # learning-rate multipliers


@pytest.mark.parametrize('path', harness.cases('lse'))
def test_parity(path):
  harness.run(path, CHECKS)


def _cases(arrays):
  """The arrays of each case, by name without the case's prefix."""
  names = sorted({n.partition('_')[0] for n in arrays})
  assert names, 'no case in the file'
  return {
    case: {
      n.removeprefix(f'{case}_'): value
      for n, value in arrays.items()
      if n.startswith(f'{case}_')
    }
    for case in names
  }


def _close_or_nan(actual, expected, what):
  actual, expected = np.asarray(actual), np.asarray(expected)
  np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected), what)
  harness.close(np.nan_to_num(actual), np.nan_to_num(expected), SINGLE, what)


@jax.jit
def _describe(probabilities):
  """Classes, entropies and normalised entropies of one image."""
  classes = jnp.argmax(probabilities, axis=-1)
  values = entropy.entropy(probabilities)
  num_classes = probabilities.shape[-1]
  normalised = entropy.class_normalised(values, classes, num_classes)
  return classes, values, normalised


def _softmax(logits, dtype):
  return jax.nn.softmax(jnp.asarray(logits, dtype))


def _entropy(arrays):
  for case, a in _cases(arrays).items():
    for dtype in (jnp.float32, jnp.float64):
      (probabilities,) = jnp.asarray(a['probs'], dtype)
      classes, values, normalised = _describe(probabilities)
      np.testing.assert_array_equal(classes, a['argmax'])
      harness.close(values, a['entropy'], SINGLE, case)
      _close_or_nan(normalised, a['entropy_normalized'], case)


def _selection(arrays):
  for case, a in _cases(arrays).items():
    probabilities = _softmax(a['logits'], jnp.float64)
    sums, counts = jax.lax.map(selection.confidence_sums, probabilities)
    confidences = selection.class_confidence(sums, counts)
    shown = np.where(np.isnan(confidences), -1, confidences)
    harness.close(shown, a['class_confidence'], SINGLE, case)

    found = selection.select(
      confidences,
      float(a['portion']),
      [f'img_{i:04d}.png' for i in range(len(confidences))],
      SYNTHIA_LACKS if a['is_synthia'] else (),
    )
    np.testing.assert_array_equal(found.indices, a['selected_indices'], case)

    thresholds = np.ones(confidences.shape[1])
    for c, image in enumerate(found.threshold_images):
      if image is not None:
        classes, _, normalised = _describe(probabilities[image])
        thresholds[c] = selection.class_threshold(normalised, classes, c)
    _close_or_nan(thresholds, a['entropy_thresholds'], case)


@functools.partial(jax.jit, static_argnames='window')
def _patch(image, probabilities, thresholds, corner, window):
  classes, _, normalised = _describe(probabilities)
  keep = entropy.keep_mask(normalised, classes, thresholds)
  return patches.enlarge(
    image, probabilities, keep, corner, window, image.shape[:2]
  )


def _generation(arrays):
  for case, a in _cases(arrays).items():
    images = a['image_rgb255'].astype(np.float32) / 255
    probabilities = _softmax(a['logits'], jnp.float32)
    window = tuple(int(n) for n in a['patch_hw'])
    corners = a['patch_x0_y0'][:, ::-1]
    for i, index in enumerate(a['patch_image_index']):
      patch = _patch(
        images[index],
        probabilities[index],
        a['thresholds'],
        corners[i],
        window,
      )
      what = f'{case} patch {i}'
      np.testing.assert_array_equal(patch.label, a['patch_labels'][i], what)
      mask = a['patch_keep_map'][i]
      np.testing.assert_array_equal(patch.keep == 0, mask == 0, what)
      harness.close(patch.keep, mask, MASK, what)
      harness.close(patch.image, a['patch_imgs'][i], SINGLE, what)

    # Our draws have the range that the file's have.
    size = images.shape[1:3]
    room = np.subtract(size, window)
    assert np.all((corners >= 0) & (corners <= room)), case
    ours = patches.window_positions(0, case, 0, size, window, 500)
    np.testing.assert_array_equal(ours.min(0), [0, 0])
    np.testing.assert_array_equal(ours.max(0), room)


@jax.jit
def _pieces(logits, target, gamma, beta):
  """Cross-entropy, focal term, loss and gradient, of both variants."""

  def pixels(x):
    total, count = segmentation.cross_entropy(x, target)
    modulated, number = focal.focal_loss(x, target, gamma)
    return total / count, modulated / number

  def mean(x):
    total, count = segmentation.cross_entropy(x, target)
    return total / count, focal.focal_of_mean(total, count, gamma)

  def run(variant):
    def loss(x):
      plain, modulated = variant(x)
      return plain + beta * modulated, (plain, modulated)

    (value, parts), gradient = jax.value_and_grad(loss, has_aux=True)(logits)
    return *parts, value, gradient

  return {'vgg': run(pixels), 'deeplab': run(mean)}


def _losses(arrays):
  for case, a in _cases(arrays).items():
    found = _pieces(
      jnp.asarray(harness.wide(a['logits'])),
      jnp.asarray(a['labels'], jnp.int32),
      float(a['gamma']),
      float(a['beta']) if a['use_focal'] else 0.0,
    )
    for name, (plain, modulated, value, gradient) in found.items():
      what = f'{case} {name}'
      harness.close(plain, a[f'{name}_ce_mean'], SINGLE, what)
      if a['use_focal']:
        harness.close(modulated, a[f'{name}_focal'], SINGLE, what)
      harness.close(value, a[f'{name}_target_loss'], SINGLE, what)
      harness.close(gradient, a[f'{name}_grad'], SINGLE, what)


def _rates(base, schedule, horizon, iterations):
  config = types.SimpleNamespace(
    schedule=schedule,
    learning_rate=base,
    horizon_steps=0,
    warmup_steps=0,
    power=POWER,
    decay_steps=DECAY_STEPS,
    decay_rate=DECAY_RATE,
  )
  rate = optim.schedule(config, horizon)
  return np.array([rate(t) for t in iterations])


def _schedules(arrays):
  """The names hold the base rate, and the steps: `lr_base2p5e4_steps1336`."""
  pattern = r'(fcn8s|deeplab)_lr_base(\d+)(?:p(\d+))?e(\d+)(?:_steps(\d+))?'
  found = [m for m in (re.fullmatch(pattern, n) for n in arrays) if m]
  assert {m[1] for m in found} == set(GROUPS)
  for match in found:
    network, whole, fraction, exponent, steps = match.groups()
    base = float(f'{whole}.{fraction or 0}e-{exponent}')
    iterations = arrays['deeplab_iteration' if steps else 'iteration']
    schedule = 'poly' if steps else 'step'
    rates = _rates(base, schedule, int(steps or 1), iterations)
    expected = arrays[match[0]]
    harness.close(
      rates[:, None] * np.array(GROUPS[network]), expected, TIGHT, match[0]
    )
  np.testing.assert_array_equal(
    selection.portions(*PORTIONS), arrays['round_portions']
  )


def _eval(arrays):
  truth = jnp.asarray(arrays['labels'], jnp.int32)
  guess = jnp.asarray(arrays['preds'], jnp.int32)
  counts = metrics.confusion(truth, guess, len(arrays['iou']))
  np.testing.assert_array_equal(counts, arrays['confusion'])
  np.testing.assert_allclose(metrics.iou(counts), arrays['iou'], TIGHT)
  np.testing.assert_allclose(metrics.mean_iou(counts), arrays['miou19'], TIGHT)
  for size in (16, 13):
    classes = labels.SUBSETS[size]
    np.testing.assert_array_equal(classes, arrays[f'idx{size}'])
    mean = metrics.mean_iou(counts, classes)
    np.testing.assert_allclose(mean, arrays[f'miou{size}'], TIGHT)


CHECKS = {
  'entropy': _entropy,
  'selection': _selection,
  'generation': _generation,
  'losses': _losses,
  'schedules': _schedules,
  'eval': _eval,
}
