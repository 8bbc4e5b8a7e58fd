from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.experiment import assembly, checks, resolve
from jaxseg_da.ops import augment, blur, rng
from tests import toys

KEY = jax.random.key(0)


def keys(size: int = 8):
  return rng.Keys(KEY, np.arange(size))


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


@pytest.mark.parametrize('probability', (0.0, 1.0))
@pytest.mark.parametrize('dtype', (jnp.float32, jnp.bfloat16))
def test_dtype(dtype, probability):
  blurring = {'blur_probability': probability, 'blur_sigma': (2.0, 2.0)}
  _, found = prepared(True, dtype=dtype, **blurring)
  assert found['source']['image'].dtype == dtype


def sigmas(images) -> np.ndarray:
  """The sigma of each blurred impulse `[B, 15, 15]`, from two neighbours."""
  ratio = images[:, 7, 6] / images[:, 7, 7]
  with np.errstate(divide='ignore'):
    return (-2 * np.log(ratio)) ** -0.5


def test_blur_draws_per_example_and_domain():
  size, domains = 512, ('source', 'target', 'other')
  image = np.zeros((size, 15, 15, 3), np.uint8)
  image[:, 7, 7] = 255
  label = np.zeros((size, 15, 15, 1), np.uint8)
  batch = {domain: {'image': image, 'label': label} for domain in domains}
  found = augment.prepare(
    batch,
    keys(size),
    normalization='unit',
    mirror=False,
    blur_probability=0.75,
    blur_sigma=(2.0, 1.0),
  )
  found = {d: (np.asarray(found[d]['image']) + 1) * 127.5 for d in domains}
  np.testing.assert_allclose(found['other'], image, atol=1e-4)
  drawn = {}
  for domain, largest in (('source', 2.0), ('target', 1.0)):
    values = sigmas(found[domain][..., 0])
    # The whole image is that of the sigma: one kernel, all channels.
    seen = values > 0.4  # below, a neighbour is too dark to tell
    taps = (blur.opencv_taps(largest, 15),) * 2
    expected = blur.gaussian_blur(
      image.astype(np.float32), np.where(seen, values, 0), taps
    )
    np.testing.assert_allclose(
      found[domain][seen], expected[seen], rtol=1e-3, atol=1e-3
    )
    # Uniform in 0..largest with probability 3/4, else none.
    shares = [(values > part * largest).mean() for part in (0.4, 0.6, 0.8, 1)]
    np.testing.assert_allclose(shares, [0.45, 0.3, 0.15, 0], atol=0.06)
    drawn[domain] = np.where(seen, values / largest, 0)
  assert abs(np.corrcoef(drawn['source'], drawn['target'])[0, 1]) < 0.15


def test_images_that_are_not_blurred_stay_as_they_are():
  _, plain = prepared(True, 64)
  _, found = prepared(True, 64, blur_probability=0.5, blur_sigma=(5.0, 0.0))
  same = np.array(found['source']['image'] == plain['source']['image'])
  assert 16 < same.all((1, 2, 3)).sum() < 48
  np.testing.assert_array_equal(
    found['target']['image'], plain['target']['image']
  )
  for domain in found:
    assert np.isfinite(found[domain]['image']).all()
    np.testing.assert_array_equal(
      found[domain]['label'], plain[domain]['label']
    )


def test_the_same_images_on_eight_devices():
  prepare = functools.partial(
    augment.prepare,
    normalization='caffe_bgr',
    mirror=True,
    blur_probability=0.5,
    blur_sigma=(5.0, 2.0),
  )
  whole = prepare(toys.batch(0, 16), keys(16))
  split = jax.tree.map(
    lambda x: x.reshape(8, 2, *x.shape[1:]), toys.batch(0, 16)
  )
  found = jax.pmap(lambda data, i: prepare(data, rng.Keys(KEY, i)))(
    split, np.arange(16).reshape(8, 2)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      np.reshape(a, b.shape), b, atol=1e-3
    ),
    found,
    whole,
  )


@pytest.mark.parametrize(
  ('probability', 'sigma'), [(0.0, (5.0, 5.0)), (0.5, (0.0, 0.0))]
)
def test_no_blur_is_no_code(probability, sigma):
  program = lambda **values: str(
    jax.make_jaxpr(
      functools.partial(
        augment.prepare, normalization='unit', mirror=True, **values
      )
    )(toys.batch(0), keys())
  )
  plain = program()
  values = {'blur_probability': probability, 'blur_sigma': sigma}
  assert program(**values) == plain and 'dot_general' not in plain
  assert 'dot_general' in program(blur_probability=0.5, blur_sigma=(0.0, 1.0))


def test_a_stage_blurs_as_its_config_says():
  config = toys.config()
  assert config.augment.blur_probability == 0
  config.augment.update(blur_probability=0.5, blur_sigma=(3.0, 1.0))
  stage = assembly.build(resolve.resolve(config), 'source_only')
  batch = toys.batch(0)
  found = stage.step.keywords['prepare'](batch, keys())
  _, expected = prepared(True, blur_probability=0.5, blur_sigma=(3.0, 1.0))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
  ('key', 'value', 'said'),
  [
    ('blur_probability', 1.5, '1.5 must be a number from 0 to 1'),
    ('blur_probability', float('nan'), 'must be a number from 0 to 1'),
    ('blur_sigma', (1.0, -1.0), r'\(SOURCE, TARGET\), each a number from 0'),
    ('blur_sigma', (1.0,), r'\(SOURCE, TARGET\)'),
    ('blur_sigma', (1.0, float('inf')), r'\(SOURCE, TARGET\)'),
  ],
)
def test_values_that_are_none(key, value, said):
  config = toys.config()
  config.augment.update(blur_probability=1.0, blur_sigma=(0.0, 3.0))
  checks.validate(config, 1)
  config.augment[key] = value
  with pytest.raises(errors.UserError, match=rf'augment\.{key}=.*{said}'):
    checks.validate(config, 1)
