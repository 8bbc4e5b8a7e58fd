"""Maximum squares and entropy by hand, by finite differences, over devices."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from jaxseg_da import errors
from jaxseg_da.losses import maxsquare as losses

PLAIN = (losses.maxsquare, losses.mean_entropy)
WEIGHTED = (losses.iw_maxsquare, losses.iw_entropy)
# Two images of four pixels: three and one of classes 0 and 1, then four of 1.
SURE, LIKELY, OTHER = (1.0, 0.0), (0.75, 0.25), (0.25, 0.75)
IMAGES = ((SURE, LIKELY, LIKELY, OTHER), (OTHER,) * 4)
H = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)

every = pytest.mark.parametrize('function', PLAIN + WEIGHTED)


def by_hand():
  return jnp.asarray(IMAGES, jnp.float32)[:, None]  # [2, 1, 4, 2]


def with_ratio(function):
  """A loss of probabilities alone, compiled."""
  if function in WEIGHTED:
    function = functools.partial(function, ratio=0.2)
  return jax.jit(function)


def random_logits(images: int = 3, dtype=jnp.float32):
  rng = np.random.default_rng(3)
  return jnp.asarray(2 * rng.normal(size=(images, 3, 4, 5)), dtype)


def test_plain_losses_by_hand():
  total, count = losses.maxsquare(by_hand())
  # Squares sum to 1 or 5/8; half of the mean over two classes.
  np.testing.assert_allclose(total, -(1 + 7 * 0.625) / 4, rtol=1e-6)
  assert count == 8
  total, count = losses.mean_entropy(by_hand())
  np.testing.assert_allclose(total, 7 * H / 2, rtol=1e-6)
  assert count == 8


@pytest.mark.parametrize(
  ('per', 'ratio', 'first', 'other'),
  [
    # Weights of class 0, and of class 1 in either image: h^r S^(1 - r).
    ('image', 1.0, 1 / 3, (1, 1 / 4)),
    ('image', 0.5, 12**-0.5, (1 / 2, 1 / 4)),
    ('image', 0.0, 1 / 4, (1 / 4, 1 / 4)),
    ('batch', 1.0, 1 / 3, (1 / 5, 1 / 5)),
    ('batch', 0.5, 24**-0.5, (40**-0.5, 40**-0.5)),
    ('batch', 0.0, 1 / 8, (1 / 8, 1 / 8)),
  ],
)
def test_weighted_losses_by_hand(per, ratio, first, other):
  weights = losses.pixel_weights(by_hand(), ratio, per)
  expected = [[first] * 3 + [other[0]], [other[1]] * 4]
  np.testing.assert_allclose(weights[:, 0], expected, rtol=1e-6)
  total, count = losses.iw_maxsquare(by_hand(), ratio, per)
  rare = other[0] + 4 * other[1]
  squares = 2.25 * first + 0.625 * rare
  np.testing.assert_allclose(total, -squares / 2, rtol=1e-6)
  assert count == 2
  total, count = losses.iw_entropy(by_hand(), ratio, per)
  np.testing.assert_allclose(total, H * (2 * first + rare) / 2, rtol=1e-6)
  assert count == 2


@pytest.mark.parametrize(('per', 'factor'), [('image', 2), ('batch', 2 / 3)])
def test_without_ratio_all_pixels_weigh_alike(per, factor):
  p = jax.nn.softmax(random_logits(3))
  plain, pixels = losses.maxsquare(p)
  total, images = losses.iw_maxsquare(p, 0.0, per)
  np.testing.assert_allclose(total / images, factor * plain / pixels, rtol=1e-6)


@every
def test_gradients(function):
  with jax.enable_x64(True):
    loss = lambda p: with_ratio(function)(p)[0]
    p = jax.nn.softmax(random_logits(2, jnp.float64))
    assert loss(p).dtype == jnp.float64
    through = jax.jit(lambda x: loss(jax.nn.softmax(x)))
    logits = random_logits(2, jnp.float64)
    test_util.check_grads(through, (logits,), order=1, modes=['rev'])
    # In closed form: the slope of the summand over 5 classes, times weights.
    slopes = {
      losses.maxsquare: -p / 5,
      losses.iw_maxsquare: -2 * p / 5,
      losses.mean_entropy: -(jnp.log(p) + 1) / 5,
      losses.iw_entropy: -(jnp.log(p) + 1) / 5,
    }
    expected = slopes[function]
    if function in WEIGHTED:
      expected *= losses.pixel_weights(p, 0.2)[..., None]
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(p), expected, rtol=1e-9)


@every
def test_images_add_up_however_they_are_spread(function):
  p = jax.nn.softmax(random_logits(4))
  loss = with_ratio(function)
  whole, parts = loss(p), [loss(x) for x in (p[:1], p[1:])]
  np.testing.assert_allclose(whole, np.sum(parts, axis=0), rtol=1e-6)


@pytest.mark.parametrize('function', WEIGHTED)
def test_the_batch_form_counts_over_all_devices(function):
  """Eight shares, one image each, add up to the loss of the whole batch."""
  with jax.enable_x64(True):
    logits = random_logits(8, jnp.float64)

    def share(x, axis_name):
      p = jax.nn.softmax(x)
      return function(p, 0.2, 'batch', axis_name)[0] / 8

    whole = functools.partial(share, axis_name=None)
    value, gradient = jax.jit(jax.value_and_grad(whole))(logits)
    each = jax.vmap(
      jax.value_and_grad(functools.partial(share, axis_name='batch')),
      axis_name='batch',
    )
    shares, gradients = jax.jit(each)(logits[:, None])
    np.testing.assert_allclose(jnp.sum(shares), value, rtol=1e-12)
    np.testing.assert_allclose(gradients[:, 0], gradient, rtol=1e-12)
    # A device alone would count its own image.
    alone = sum(map(jax.jit(whole), logits[:, None]))
    assert abs(alone - value) > 1e-3 * abs(value)


@every
def test_certain_predictions_have_finite_gradients(function):
  loss = lambda x: with_ratio(function)(jax.nn.softmax(x))[0]
  logits = 1e4 * np.eye(5, dtype=np.float32)[np.array([[[0, 3, 3, 4]]])]
  value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
  assert value == 0 if 'entropy' in function.__name__ else value < 0
  np.testing.assert_array_equal(gradient, 0)


@every
def test_losses_of_bfloat16_are_float32(function):
  # 257 pixels do not fit into bfloat16.
  p = jnp.full((1, 1, 257, 2), 0.5, jnp.bfloat16)
  total, count = with_ratio(function)(p)
  assert total.dtype == count.dtype == jnp.float32
  assert count == (1 if function in WEIGHTED else 257)


def test_an_unknown_way_to_count_names_the_valid_ones():
  with pytest.raises(errors.UserError, match='valid: batch, image'):
    losses.iw_maxsquare(by_hand(), 0.2, 'pixel')


def test_confident_labels_by_hand():
  first = jnp.array([[[SURE, LIKELY, LIKELY, (0.5, 0.5)]]])
  labels = losses.confident_labels([first], 0.75)
  # The threshold itself does not do.
  np.testing.assert_array_equal(labels, [[[0, 255, 255, 255]]])
  assert labels.dtype == jnp.int32
  second = jnp.array([[[OTHER, LIKELY, (0.0, 1.0), (0.125, 0.875)]]])
  for pair in ([first, second], [second, first]):
    labels = losses.confident_labels(pair, 0.75)
    np.testing.assert_array_equal(labels, [[[0, 255, 1, 1]]])
