"""DACS and ClassMix against numbers of their reference implementations."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da.losses import segmentation, selftraining
from jaxseg_da.ops import blur, ema, mixing, normalize, photometric, resize
from jaxseg_da.training import optim
from tests.parity import harness

TIGHT = 1e-9  # float64 on float64 arrays
SINGLE = 2e-6  # arrays that the reference computed or stored in float32
THRESHOLD = 0.968  # paper's constant, not in the files
JITTER_GATE, BLUR_GATE = 0.2, 0.5


@pytest.mark.parametrize('path', harness.cases('dacs'))
def test_parity(path):
  harness.run(path, CHECKS)


def _names(arrays, pattern):
  """Sorted distinct first groups of the names that match."""
  found = (re.fullmatch(pattern, name) for name in arrays)
  names = sorted({match[1] for match in found if match})
  assert names, f'no array matches {pattern}'
  return names


def _functions(arrays):
  _check_ema(arrays)
  _check_poly(arrays)
  _check_class_mask(arrays)
  _check_hsv(arrays)
  for name in _names(arrays, r'(jitter\d+)/y'):
    y = photometric.color_jitter(
      jnp.asarray(arrays['hsv/rgb']),
      _factors(arrays, name),
      arrays[f'{name}/order'],
    )
    harness.close(y, arrays[f'{name}/y'], TIGHT, name)
  _check_wrapper(arrays)
  _check_blur(arrays)


def _factors(arrays, name):
  return photometric.Factors(
    *(arrays[f'{name}/{f}_factor'] for f in photometric.Factors._fields)
  )


def _check_ema(arrays):
  for name in _names(arrays, r'(ema_a[^/]+/iter\d+/p\d+)/teacher'):
    match = re.fullmatch(r'ema_a([^/]+)/iter(\d+)/p\d+', name)
    decay = ema.decay(int(match[2]), float(match[1]))
    new = ema.update(
      [jnp.asarray(arrays[f'{name}/teacher'])],
      [jnp.asarray(arrays[f'{name}/student'])],
      decay,
    )
    harness.close(new[0], arrays[f'{name}/new_teacher'], TIGHT, name)


def _check_poly(arrays):
  # 2.5e-4 over 250 000 iterations to the power 0.9: the paper's constants.
  schedule = optim.poly(2.5e-4, 250_000, 0.9)
  rates = jnp.stack([schedule(t) for t in arrays['lr_poly/iters']])
  harness.close(rates, arrays['lr_poly/lr'], TIGHT, 'lr_poly')


def _check_class_mask(arrays):
  labels, classes = arrays['class_mask/labels'], arrays['class_mask/classes']
  chosen = jnp.zeros(256, bool).at[classes].set(True)  # slot 255: ignored
  mask = mixing.mask(jnp.asarray(labels), chosen)
  np.testing.assert_array_equal(mask, arrays['class_mask/mask'])


def _check_hsv(arrays):
  # The reference's pi is a float32, so hue agrees in single precision only.
  hsv = photometric.rgb_to_hsv(jnp.asarray(arrays['hsv/rgb']))
  hue, saturation_value = np.split(arrays['hsv/hsv'], [1], axis=-1)
  harness.close(hsv[..., :1], hue, SINGLE, 'hue')
  harness.close(hsv[..., 1:], saturation_value, TIGHT, 'saturation, value')
  back = photometric.hsv_to_rgb(jnp.asarray(arrays['hsv/hsv']))
  harness.close(back, arrays['hsv/back'], SINGLE, 'hsv back')


def _check_wrapper(arrays):
  for name in _names(arrays, r'(jitter_wrapper/draw[^/]+)/y'):

    def jitter(images, name=name):
      images = photometric.color_jitter(
        normalize.to_unit(images, 'caffe_bgr'),
        _factors(arrays, name),
        arrays[f'{name}/order'],
      )
      return normalize.from_unit(images, 'caffe_bgr')

    x = jnp.asarray(arrays[f'{name}/x_bgr_minus_mean'], jnp.float64)
    draw = float(name.rpartition('draw')[2])
    # The file has factors exactly where its reference drew some.
    assert (draw > JITTER_GATE) == (f'{name}/order' in arrays), name
    if draw > JITTER_GATE:
      x = photometric.gate(draw, JITTER_GATE, jitter, x)
    harness.close(x, arrays[f'{name}/y'], 1e-5, name)


def _check_blur(arrays):
  for name in _names(arrays, r'(blur\d+)/kernel_size_hw'):
    for case in _names(arrays, rf'({name}/draw[^/]+)/y'):
      x = jnp.asarray(arrays[f'{case}/x'], jnp.float64)
      taps = tuple(blur.kernel_size(n) for n in x.shape[1:3])
      assert taps == tuple(arrays[f'{name}/kernel_size_hw'])
      y = photometric.gate(
        float(case.rpartition('draw')[2]),
        BLUR_GATE,
        lambda x, case=case: blur.gaussian_blur(x, arrays[f'{case}/sigma']),
        x,
      )
      harness.close(y, arrays[f'{case}/y'], SINGLE, case)


def _chosen(labels, mask, num_classes):
  """The slots that a mask holds, by image; checks that it holds them whole."""
  labels = np.where(labels < num_classes, labels, num_classes)
  slots = labels[..., None] == np.arange(num_classes + 1)
  chosen = np.any(slots & (mask[..., None] != 0), axis=(1, 2))
  np.testing.assert_array_equal(
    jax.vmap(mixing.mask)(jnp.asarray(labels), jnp.asarray(chosen)), mask
  )
  return chosen


def _check_choice(labels, mask, num_classes, **rule):
  """Our own draw takes as many slots as the file's, of those present."""
  chosen = _chosen(labels, mask, num_classes)
  keys = jax.random.split(jax.random.key(0), len(labels))
  choose = lambda key, y: mixing.choose_classes(key, y, num_classes, **rule)
  ours = np.asarray(jax.vmap(choose)(keys, jnp.asarray(labels)))
  np.testing.assert_array_equal(ours.sum(axis=1), chosen.sum(axis=1))
  present = jax.vmap(lambda y: mixing.present_classes(y, num_classes))(
    jnp.asarray(labels)
  )
  assert not np.any((ours | chosen) & ~np.asarray(present))


def _upsampled(arrays, name, labels):
  return resize.align_corners(jnp.asarray(arrays[name]), labels.shape[1:])


def _mixed_loss(logits, labels, weights):
  up = resize.align_corners(logits, labels.shape[1:])
  total, count = selftraining.mixed_loss(up, labels, weights)
  return total / count


def _supervised_loss(logits, labels):
  up = resize.align_corners(logits, labels.shape[1:])
  total, count = segmentation.cross_entropy(up, labels)
  return total / count


def _step(mode):
  def check(arrays):
    source = jnp.asarray(arrays['labels_src'])
    num_classes = arrays['logits_src'].shape[-1]
    _check_choice(arrays['labels_src'], arrays['mix_mask'], num_classes)
    mask = jnp.asarray(arrays['mix_mask'] != 0)

    teacher = _upsampled(arrays, 'logits_teacher', source)
    pseudo, confidence = segmentation.pseudo_labels(teacher)
    np.testing.assert_array_equal(pseudo, arrays['pseudo_label'])
    harness.close(confidence, arrays['max_probs'], TIGHT, 'max_probs')

    images = mixing.mix(
      mask, jnp.asarray(arrays['images_src']), jnp.asarray(arrays['images_tgt'])
    )
    np.testing.assert_array_equal(images, arrays['mixed_images'])
    weights = selftraining.confidence_weight(confidence, THRESHOLD, mode)
    labels, weights = selftraining.mix_targets(mask, source, pseudo, weights)
    np.testing.assert_array_equal(labels, arrays['mixed_labels'])
    harness.close(weights, arrays['pixel_weight'], SINGLE, 'pixel_weight')

    supervised, gradient = jax.value_and_grad(_supervised_loss)(
      jnp.asarray(arrays['logits_src']), source
    )
    harness.close(supervised, arrays['loss/L_l'], TIGHT, 'L_l')
    harness.close(gradient, arrays['grad_logits_src'], TIGHT, 'grad_src')
    mixed, gradient = jax.value_and_grad(_mixed_loss)(
      jnp.asarray(arrays['logits_mix']), labels, weights
    )
    # The reference's share of confident pixels is a float32.
    tolerance = SINGLE if mode == 'threshold_uniform' else TIGHT
    total = supervised + mixed
    harness.close(mixed, arrays['loss/L_u'], tolerance, 'L_u')
    harness.close(gradient, arrays['grad_logits_mix'], tolerance, 'grad_mix')
    harness.close(total, arrays['loss/loss'], tolerance, 'loss')

  return check


def _classmix(arrays):
  labels = jnp.asarray(arrays['labels'])
  num_classes = arrays['logits_teacher'].shape[-1]
  teacher = _upsampled(arrays, 'logits_teacher', labels)
  own, _ = segmentation.pseudo_labels(teacher)
  np.testing.assert_array_equal(own, arrays['argmax_before_mix'])
  _check_choice(
    arrays['argmax_before_mix'],
    arrays['mix_mask'],
    num_classes,
    include_ignore=False,
    rounding='floor',
  )
  mask = jnp.asarray(arrays['mix_mask'] != 0)

  partner = lambda x: jnp.roll(jnp.asarray(x), -1, axis=0)
  unlabelled = jnp.asarray(arrays['images_unlabeled'])
  images = mixing.mix(mask, unlabelled, partner(unlabelled))
  np.testing.assert_array_equal(images, arrays['mixed_images'])
  pseudo, confidence = selftraining.classmix_targets(
    mask, teacher, partner(teacher)
  )
  np.testing.assert_array_equal(pseudo, arrays['pseudo_label'])
  harness.close(confidence, arrays['mixed_prob_max'], TIGHT, 'prob_max')
  weights = selftraining.confidence_weight(confidence, THRESHOLD)
  harness.close(weights, arrays['pixel_weight'], SINGLE, 'pixel_weight')

  supervised = _supervised_loss(jnp.asarray(arrays['logits_labeled']), labels)
  harness.close(supervised, arrays['loss/L_l'], TIGHT, 'L_l')
  mixed, gradient = jax.value_and_grad(_mixed_loss)(
    jnp.asarray(arrays['logits_mix']), pseudo, weights
  )
  # The reference's share of confident pixels is a float32.
  harness.close(mixed, arrays['loss/L_u'], SINGLE, 'L_u')
  harness.close(gradient, arrays['grad_logits_mix'], SINGLE, 'grad_mix')


CHECKS = {
  'functions': _functions,
  'classmix_step': _classmix,
  'step_False': _step('none'),
  'step_threshold': _step('threshold'),
  'step_threshold_uniform': _step('threshold_uniform'),
}
