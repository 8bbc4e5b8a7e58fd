"""CBST and CRST against numbers of their reference implementations."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da.classes.labels import IGNORE
from jaxseg_da.data import pseudo_labels
from jaxseg_da.losses import regularised, segmentation
from jaxseg_da.ops import scale_crop
from jaxseg_da.training import optim
from tests.parity import harness

SINGLE = 1e-5  # arrays that the reference computed in float32
TIGHT = 1e-9  # float64 on float64 arrays
AMBIGUOUS = 1e-6  # smaller margins may round to either class
MXNET_EVERY = 4  # the code's constant, not in the files
# Growth per round and limit; where the portions start is in the files.
TARGET_PORTION, SOURCE_PORTION = (0.05, 0.5), (0.0025, 0.06)


@pytest.mark.parametrize('path', harness.cases('selftraining'))
def test_parity(path):
  harness.run(path, CHECKS)


def _cases(arrays, key):
  """The arrays of each case that has a `key`, by name."""
  suffix = f'_{key}'
  names = sorted(n.removesuffix(suffix) for n in arrays if n.endswith(suffix))
  assert names, f'no array is called *{suffix}'
  return {
    name: {
      k.removeprefix(f'{name}_'): v
      for k, v in arrays.items()
      if k.startswith(f'{name}_')
    }
    for name in names
  }


def _confidences(probs, every):
  """Confidences of images, predictions and maxima taken where probs are."""
  parts = [
    pseudo_labels.confidences(
      np.asarray(jnp.argmax(image, axis=-1)),
      np.asarray(jnp.max(image, axis=-1)),
      image.shape[-1],
      every,
    )
    for image in jnp.asarray(probs)
  ]
  return pseudo_labels.merge(parts)


def _cbst_thresholds_labels(arrays):
  for name, case in _cases(arrays, 'probs').items():
    lists, counts = _confidences(case['probs'], int(case['ds_rate']))
    np.testing.assert_array_equal(counts, case['pred_counts'], name)
    sizes = pseudo_labels.list_sizes(lists)
    np.testing.assert_array_equal(sizes, case['conf_counts'], name)
    for ours, padded in zip(lists, case['conf_lists'], strict=True):
      theirs, padding = np.split(padded, [len(ours)])
      np.testing.assert_array_equal(ours, theirs, name)
      assert np.all(padding == -1)

    thresholds = pseudo_labels.thresholds(lists, float(case['portion']))
    assert thresholds.dtype == np.float32
    np.testing.assert_array_equal(thresholds, case['thresholds'], name)
    for values, value, rank in zip(
      lists, thresholds, case['selected_sizes'], strict=True
    ):
      assert value == (np.sort(values)[-rank] if rank else 1), name

    labels = _labels(case['probs'], thresholds)
    expected = case['pseudo_labels']
    np.testing.assert_array_equal(labels == IGNORE, expected == IGNORE, name)
    clear = case['ratio_margin'] > AMBIGUOUS
    np.testing.assert_array_equal(labels[clear], expected[clear], name)
    ratios = np.max(case['probs'] / thresholds, axis=-1)
    harness.close(ratios, case['max_ratio'], SINGLE, name)
    _check_ids(counts, case)


def _labels(probs, thresholds):
  select = jax.jit(pseudo_labels.label_selection)
  labels = np.asarray(select(jnp.asarray(probs), jnp.asarray(thresholds)))
  assert labels.dtype == np.uint8
  return labels


def _check_ids(counts, case):
  # Classes of equal shares have no order, so shares are compared.
  rare = pseudo_labels.mine_ids(counts, np.inf)[: len(case['rare_ids'])]
  np.testing.assert_array_equal(counts[rare], counts[case['rare_ids']])
  mine = pseudo_labels.mine_ids(counts)
  np.testing.assert_array_equal(counts[mine], counts[case['mine_ids']])
  assert set(mine) == set(case['mine_ids'])


def _cbst_mxnet(arrays):
  for name, case in _cases(arrays, 'probs').items():
    policy = 'global' if case['policy_is_global'] else 'mxnet'
    lists, _ = _confidences(case['probs'], MXNET_EVERY)
    sizes = pseudo_labels.list_sizes(lists, policy)
    np.testing.assert_array_equal(sizes, case['cls_size'], name)
    portion, raw = float(case['portion']), case['thresholds_raw']
    thresholds = pseudo_labels.thresholds(lists, portion, policy)
    np.testing.assert_array_equal(thresholds, np.where(raw == 0, 1, raw), name)
    labels = _labels(case['probs'], thresholds)
    np.testing.assert_array_equal(labels, case['pseudo_labels'], name)


def _lrent_labels(arrays):
  for name, case in _cases(arrays, 'probs').items():
    labels, keep = pseudo_labels.soft_labels(
      jnp.asarray(case['probs']), case['thresholds'], float(case['alpha'])
    )
    harness.close(labels, case['soft_labels'], SINGLE, name)
    hard = np.where(keep, np.argmax(labels, axis=-1), IGNORE)
    np.testing.assert_array_equal(hard, case['hard_labels'], name)


def _losses(arrays):
  for name, case in _cases(arrays, 'logits').items():
    logits = jnp.asarray(harness.wide(case['logits']))
    if 'grad' not in case:  # without a label: NaN in the reference
      assert np.isnan(case['loss'])
      labels = jnp.full(logits.shape[:-1], IGNORE)
      ones = jnp.ones(len(logits))
      loss, grad = _loss_and_grad(logits, labels, ones, 0.1)
      assert loss == 0, name
      np.testing.assert_array_equal(grad, 0, name)
      continue
    labels = case['soft_labels' if 'soft_labels' in case else 'labels']
    weights, alpha = case['reg_weights'], case['mr_weight_kld']
    loss, grad = _loss_and_grad(logits, labels, jnp.asarray(weights), alpha)
    harness.close(loss, case['loss'], SINGLE, name)
    harness.close(grad, case['grad'], SINGLE, name)


@jax.jit
@jax.value_and_grad
def _loss_and_grad(logits, labels, weights, alpha):
  """The whole loss, each sum over its count, as a training step does it."""
  labels = jnp.asarray(labels)
  if labels.ndim == logits.ndim:
    total, count = regularised.soft_cross_entropy(logits, labels)
    valid = regularised.labelled_pixels(labels)
  else:
    total, count = segmentation.cross_entropy(logits, labels)
    valid = segmentation.valid_pixels(labels, logits.shape[-1])
  uniform, number = regularised.uniform_cross_entropy(logits, valid, weights)
  regulariser = alpha * uniform / jnp.maximum(number, 1)
  return total / jnp.maximum(count, 1) + regulariser


def _mine_crop(arrays):
  rows = arrays['crop_h_crop_w_img_h_img_w_hseed_wseed'].astype(int)
  assert len(rows)
  around = jax.jit(scale_crop.corner_around)
  for row, expected in zip(rows, arrays['offsets'].astype(int), strict=True):
    crop, size, seed = np.split(row, 3)
    ours = around(seed, size, 10, crop)  # not scaled: ten tenths
    # Odd windows of the reference stick out by up to a pixel, ours do not.
    excess = np.maximum(expected + crop - size, 0)
    assert np.all(excess <= crop % 2), row
    np.testing.assert_array_equal(ours, expected - excess, str(row))


def _schedules(arrays):
  for name, growth in (
    ('tgt_portion', TARGET_PORTION),
    ('src_portion', SOURCE_PORTION),
  ):
    expected = arrays[name]
    ours = pseudo_labels.portions(float(expected[0]), *growth, len(expected))
    np.testing.assert_array_equal(ours, expected, name)
  names = [name for name in arrays if name.startswith('poly_lr_')]
  assert names
  for name in names:
    # As in poly_lr_2p5e4_max1000_pow0p9: 2.5e-4, 1000 steps, power 0.9.
    match = re.fullmatch(r'poly_lr_(.+)e(\d+)(?:_max(\d+))?_pow(.+)', name)
    assert match, name
    base, power = (float(match[i].replace('p', '.')) for i in (1, 4))
    horizon = int(match[3] or 1 + max(arrays['poly_iters']))
    schedule = optim.poly(base / 10 ** int(match[2]), horizon, power)
    rates = jnp.stack([schedule(t) for t in arrays['poly_iters']])
    harness.close(rates, arrays[name], TIGHT, name)


CHECKS = {
  'cbst_mxnet': _cbst_mxnet,
  'cbst_thresholds_labels': _cbst_thresholds_labels,
  'losses': _losses,
  'lrent_labels': _lrent_labels,
  'mine_crop': _mine_crop,
  'schedules': _schedules,
}
