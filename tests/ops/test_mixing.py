from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.classes import labels as labels_lib
from jaxseg_da.ops import ema, mixing

IGNORE = labels_lib.IGNORE
LABELS = jnp.array(
  [[0, 0, 2, 2], [4, 4, 5, IGNORE], [5, 5, 5, IGNORE]], jnp.uint8
)
CLASSES = 6
SLOTS = [0, 2, 4, 5, 6]  # the last one is what is ignored


def _draws(number, **rule):
  keys = jax.random.split(jax.random.key(1), number)
  choose = lambda key: mixing.choose_classes(key, LABELS, CLASSES, **rule)
  return np.asarray(jax.jit(jax.vmap(choose))(keys))


def test_present_classes():
  present = mixing.present_classes(LABELS, CLASSES)
  np.testing.assert_array_equal(np.flatnonzero(present), SLOTS)
  # Labels beyond the classes are ignored ones, too.
  present = mixing.present_classes(LABELS, 3)
  np.testing.assert_array_equal(np.flatnonzero(present), [0, 2, 3])


@pytest.mark.parametrize(
  ('include_ignore', 'rounding', 'number'),
  [(True, 'ceil', 3), (True, 'floor', 2), (False, 'ceil', 2)],
)
def test_half_of_the_classes_are_chosen_uniformly(
  include_ignore, rounding, number
):
  draws = _draws(3000, include_ignore=include_ignore, rounding=rounding)
  np.testing.assert_array_equal(draws.sum(axis=1), number)
  slots = SLOTS if include_ignore else SLOTS[:-1]
  share = draws.mean(axis=0)
  absent = np.delete(share, slots)
  np.testing.assert_array_equal(absent, 0)
  # Four standard errors of a share from 3000 draws.
  np.testing.assert_allclose(share[slots], number / len(slots), atol=0.037)


def test_pairs_of_classes_are_chosen_uniformly():
  draws = _draws(3000, include_ignore=False)[:, SLOTS[:-1]]
  _, counts = np.unique(draws, axis=0, return_counts=True)
  assert len(counts) == 6  # 4 choose 2
  np.testing.assert_allclose(counts / 3000, 1 / 6, atol=0.028)


def test_one_class_is_taken_whole_or_not_at_all():
  labels = jnp.full((2, 3), 1, jnp.uint8)
  key = jax.random.key(0)
  assert mixing.choose_classes(key, labels, 3).sum() == 1
  assert mixing.choose_classes(key, labels, 3, rounding='floor').sum() == 0


def test_unknown_rounding_is_named():
  with pytest.raises(errors.UserError, match=r"'up'.*ceil, floor"):
    mixing.choose_classes(jax.random.key(0), LABELS, CLASSES, rounding='up')


def test_mask():
  chosen = jnp.zeros(CLASSES + 1, bool).at[jnp.array([2, 6])].set(True)
  expected = [[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]]
  np.testing.assert_array_equal(mixing.mask(LABELS, chosen), expected)


def test_mix_broadcasts_over_channels():
  mask = jnp.array([[True, False]])
  source = jnp.arange(6).reshape(1, 2, 3)
  mixed = mixing.mix(mask, source, -source)
  np.testing.assert_array_equal(mixed, [[[0, 1, 2], [-3, -4, -5]]])
  batched = jax.vmap(mixing.mix)(mask[None], source[None], -source[None])
  np.testing.assert_array_equal(batched[0], mixed)
  with pytest.raises(ValueError, match='fit together'):
    mixing.mix(mask.T, source, -source)
  with pytest.raises(ValueError, match='int32 with float32'):
    mixing.mix(mask, source, -source.astype(jnp.float32))


def test_teacher_average():
  assert ema.decay(0, 0.99) == 0
  np.testing.assert_allclose(ema.decay(jnp.asarray(4), 0.99), 0.8, rtol=1e-6)
  np.testing.assert_allclose(ema.decay(500, 0.99), 0.99, rtol=1e-6)
  teacher = {'a': jnp.array([1.0, 2.0]), 'b': jnp.float32(4)}
  student = {'a': jnp.array([3.0, 2.0]), 'b': jnp.float32(-4)}
  new = ema.update(teacher, student, 0.75)
  np.testing.assert_allclose(new['a'], [1.5, 2])
  np.testing.assert_allclose(new['b'], 2)
  copied = ema.update(teacher, student, ema.decay(0, 0.99))
  np.testing.assert_array_equal(copied['a'], student['a'])


def test_teacher_keeps_its_precision():
  with jax.enable_x64(True):
    assert float(ema.decay(jnp.int32(2), 0.99)) == 1 - 1 / 3
    old, new = jnp.float64(1), jnp.float64(1 + 1e-12)
    assert float(ema.update(old, new, 0.5)) == 1 + 5e-13
    half = ema.update(jnp.ones(2, jnp.bfloat16), jnp.zeros(2), 0.5)
    assert half.dtype == jnp.bfloat16
