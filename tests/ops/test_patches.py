from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from jaxseg_da import errors
from jaxseg_da.ops import patches

SIZE, WINDOW = (8, 12), (4, 6)


def _image(size=SIZE, kept=0.6):
  rng = np.random.default_rng(1)
  image = rng.uniform(0, 255, (*size, 3)).astype(np.float32)
  probabilities = rng.dirichlet(np.ones(5), size).astype(np.float32)
  return image, probabilities, rng.random(size) < kept


enlarge = jax.jit(patches.enlarge, static_argnames=('window', 'size'))


def test_by_hand():
  image = jnp.array([[0.0, 2.0], [4.0, 6.0]])[..., None].repeat(3, -1)
  first = jnp.array([[0.9, 0.2], [0.4, 0.1]])
  probabilities = jnp.stack([first, 1 - first], axis=-1)
  keep = jnp.array([[True, False], [False, False]])
  patch = enlarge(image, probabilities, keep, jnp.array([0, 0]), (2, 2), (3, 3))
  np.testing.assert_allclose(
    patch.image[..., 1], [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
  )
  np.testing.assert_allclose(
    patch.keep, [[1, 0.5, 0], [0.5, 0.25, 0], [0, 0, 0]]
  )
  # Probabilities of class 0: .9 .55 .2 / .65 .4 .15 / .4 .25 .1
  np.testing.assert_array_equal(
    patch.label, [[0, 0, 255], [0, 1, 255], [255, 255, 255]]
  )
  assert patch.label.dtype == jnp.int32


def test_without_enlargement_it_cuts():
  image, probabilities, keep = _image()
  patch = enlarge(image, probabilities, keep, np.array([3, 5]), WINDOW, WINDOW)
  rows, columns = slice(3, 7), slice(5, 11)
  np.testing.assert_array_equal(patch.image, image[rows, columns])
  np.testing.assert_array_equal(patch.keep, keep[rows, columns])
  labels = np.where(keep, probabilities.argmax(-1), 255)
  np.testing.assert_array_equal(patch.label, labels[rows, columns])


@pytest.mark.parametrize('kept', [False, True])
def test_all_or_nothing(kept):
  image, probabilities, keep = _image()
  keep = np.full_like(keep, kept)
  patch = enlarge(image, probabilities, keep, np.array([1, 2]), WINDOW, SIZE)
  np.testing.assert_array_equal(patch.label == 255, np.full(SIZE, not kept))
  np.testing.assert_allclose(patch.keep, np.full(SIZE, float(kept)), rtol=1e-6)


def _support(kept, size):
  """Whether any pixel with weight is kept, in integers: nothing is rounded."""
  result = np.zeros(size, bool)
  for i, j in np.ndindex(size):
    taps = []
    for index, inside, outside in zip((i, j), kept.shape, size, strict=True):
      low, rest = divmod(index * (inside - 1), outside - 1)
      taps.append([low, low + 1] if rest else [low])
    result[i, j] = kept[np.ix_(*taps)].any()
  return result


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize('size', [(8, 12), (32, 64)])
def test_a_label_survives_with_any_support(size, dtype):
  image, probabilities, keep = _image(size, kept=0.2)
  window = (size[0] // 2, size[1] // 2)
  probabilities = probabilities.astype(dtype)
  corner = np.array([2, 1])
  patch = enlarge(
    image.astype(dtype), probabilities, keep, corner, window, size
  )
  inside = keep[2 : 2 + window[0], 1 : 1 + window[1]]
  support = _support(inside, size)
  assert 0 < support.sum() < support.size
  np.testing.assert_array_equal(patch.label != 255, support)
  assert {x.dtype for x in (patch.image, patch.keep)} == {jnp.dtype('float32')}


def test_vmapped_equals_looped():
  image, probabilities, keep = _image()
  images = np.stack([image, image[::-1]])
  corners = np.array([[0, 6], [4, 0]])
  one = functools.partial(patches.enlarge, window=WINDOW, size=SIZE)
  mapped = jax.jit(jax.vmap(one, in_axes=(0, None, None, 0)))(
    images, probabilities, keep, corners
  )
  for i in range(2):
    looped = enlarge(images[i], probabilities, keep, corners[i], WINDOW, SIZE)
    np.testing.assert_array_equal(mapped.label[i], looped.label)
    np.testing.assert_allclose(mapped.image[i], looped.image, rtol=1e-6)
    np.testing.assert_allclose(mapped.keep[i], looped.keep, rtol=1e-6)


def test_bytes_are_as_good_as_floats():
  image, probabilities, keep = _image()
  image = image.astype(np.uint8)
  rest = (probabilities, keep, np.array([2, 2]), WINDOW, SIZE)
  np.testing.assert_array_equal(
    enlarge(image, *rest).image, enlarge(image.astype(np.float32), *rest).image
  )


def test_image_gradient():
  with jax.enable_x64(True):
    image, probabilities, keep = _image()
    rest = (probabilities, keep, np.array([2, 2]), WINDOW, SIZE)
    function = lambda x: enlarge(x, *rest).image
    image = image.astype(np.float64) / 255
    test_util.check_grads(function, (image,), order=1, modes=['rev'])


def test_windows_repeat_and_differ():
  draw = lambda seed=0, stage='round1', index=0: patches.window_positions(
    seed, stage, index, (32, 64), (16, 32), 4
  )
  first = draw()
  assert first.shape == (4, 2)
  assert first.dtype == np.int32
  np.testing.assert_array_equal(first, draw())
  for other in (draw(seed=1), draw(stage='round2'), draw(index=1)):
    assert not np.array_equal(first, other)
  # More windows continue the same draw.
  longer = patches.window_positions(0, 'round1', 0, (32, 64), (16, 32), 9)
  np.testing.assert_array_equal(longer[:4], first)


def test_windows_reach_every_position():
  found = patches.window_positions(0, 's', 0, (8, 12), (6, 9), 400)
  positions, counts = np.unique(found, axis=0, return_counts=True)
  expected = [(y, x) for y in range(3) for x in range(4)]
  np.testing.assert_array_equal(positions, expected)
  assert counts.min() > 15  # 33 of each are expected


def test_a_window_may_be_the_image_but_not_larger():
  whole = patches.window_positions(0, 's', 0, (8, 12), (8, 12), 2)
  np.testing.assert_array_equal(whole, np.zeros((2, 2)))
  with pytest.raises(errors.UserError, match=r'\(9, 4\).*\(8, 12\)'):
    patches.window_positions(0, 's', 0, (8, 12), (9, 4), 1)
