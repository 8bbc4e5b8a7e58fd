from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import rng
from jaxseg_da.ops import augment
from tests import toys


def keys(size: int = 8):
  return rng.Keys(jax.random.key(0), np.arange(size))


def prepared(mirror: bool, size: int = 8, **values):
  batch = toys.batch(0, size)
  prepare = functools.partial(
    augment.prepare, normalization='unit', mirror=mirror, **values
  )
  return batch, prepare(batch, keys(size))


def test_without_mirroring_only_types_change():
  batch, found = prepared(False)
  for domain in ('source', 'target'):
    image = batch[domain]['image'] / 127.5 - 1
    np.testing.assert_allclose(found[domain]['image'], image, atol=1e-6)
    label = batch[domain]['label'][..., 0]
    np.testing.assert_array_equal(found[domain]['label'], label)
    assert found[domain]['label'].dtype == jnp.int32
    assert found[domain]['image'].dtype == jnp.float32


def test_images_and_labels_are_mirrored_together_half_of_the_time():
  _, found = prepared(True, 64)
  _, plain = prepared(False, 64)
  mirrored = []
  for i in range(64):
    image, label = (found['source'][k][i] for k in ('image', 'label'))
    same = bool((image == plain['source']['image'][i]).all())
    side = -1 if not same else 1
    np.testing.assert_array_equal(image, plain['source']['image'][i, :, ::side])
    np.testing.assert_array_equal(label, plain['source']['label'][i, :, ::side])
    mirrored.append(not same)
  assert 16 < sum(mirrored) < 48
  target = (found['target']['image'] != plain['target']['image']).any((1, 2, 3))
  assert list(target) != mirrored


@pytest.mark.parametrize('dtype', (jnp.float32, jnp.bfloat16))
def test_dtype(dtype):
  _, found = prepared(True, dtype=dtype)
  assert found['source']['image'].dtype == dtype
