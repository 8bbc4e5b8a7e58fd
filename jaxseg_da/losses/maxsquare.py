"""Maximum squares: a loss that makes predictions certain.

Chen et al., Domain Adaptation for Semantic Segmentation with Maximum Squares
Loss (ICCV 2019). The slope of entropy is steepest where a pixel is all but
certain, so easy pixels drown the others. That of -p^2 grows only linearly.

With P `[b, H, W, C]` the published code takes means over classes as well:

  maxsquare      -1/2 mean(P^2)
  iw_maxsquare   -mean_n sum_i w(k_ni) mean_c P_nic^2
  mean_entropy   -mean(P log P)
  iw_entropy     -mean_n sum_i w(k_ni) mean_c P_nic log P_nic

k is the predicted class and w, the image-wise weight, makes up for classes that
cover little: w(c) = 1 / max(h_c^r S^(1 - r), 1), where h_c of S pixels are
predicted c. In the paper h and S are those of the image; the continual method
CCDA counts over the whole batch, which divides its loss by the number of images
once more. With r = 0 the weighted form is twice the plain one, in CCDA's form
2 / N of it.

No pixel is ignored. Sums and weights are computed in float32 at least, in
float64 where probabilities are: the published weights are float32 always.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg_da import errors
from jaxseg_da.classes.labels import IGNORE
from jaxseg_da.losses import entropy, terms

COUNTED = ('image', 'batch')


def maxsquare(probabilities: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Half the negative mean square of each pixel, summed, and their number.

  Args:
    probabilities: float `[b, H, W, C]`.

  Returns:
    (total, count): scalars, float32 or better.
  """
  return _over_pixels(-_squares(probabilities) / 2)


def iw_maxsquare(
  probabilities: jax.Array,
  ratio: float,
  per: str = 'image',
  axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """The weighted form, summed over images, and their number.

  Args:
    probabilities: float `[b, H, W, C]`, this device's images.
    ratio: r, in 0..1: 0 weighs all pixels alike, 1 all classes.
    per: `image` or `batch`, see `pixel_weights`.
    axis_name: mapped axis over which the batch is spread.

  Returns:
    (total, count): scalars, float32 or better.

  Raises:
    UserError: `per` is unknown.
  """
  weights = pixel_weights(probabilities, ratio, per, axis_name)
  return _over_images(-weights * _squares(probabilities))


def mean_entropy(probabilities: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The mean over classes of -P log P, summed over pixels, and their number.

  Args:
    probabilities: float `[b, H, W, C]`.

  Returns:
    (total, count): scalars, float32 or better; their ratio is log(C) / C of
    that of `entropy.entropy_loss`.
  """
  return _over_pixels(_entropies(probabilities))


def iw_entropy(
  probabilities: jax.Array,
  ratio: float,
  per: str = 'image',
  axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """`iw_maxsquare` with entropy in place of the square."""
  weights = pixel_weights(probabilities, ratio, per, axis_name)
  return _over_images(weights * _entropies(probabilities))


def pixel_weights(
  probabilities: jax.Array,
  ratio: float,
  per: str = 'image',
  axis_name: str | None = None,
) -> jax.Array:
  """The weight of each pixel's predicted class; no gradient.

  Args:
    probabilities: float `[b, H, W, C]`, this device's images.
    ratio: r, in 0..1.
    per: whose pixels are counted: those of each `image`, or of the whole
      `batch`, which is spread over `axis_name`.
    axis_name: mapped axis of the devices, or None; `image` needs none.

  Returns:
    `[b, H, W]` in 0..1, float32 or better.

  Raises:
    UserError: `per` is unknown.
  """
  if per not in COUNTED:
    raise errors.unknown('counting of predicted classes', per, COUNTED)
  probabilities = lax.stop_gradient(probabilities)
  classes = jnp.argmax(probabilities, axis=-1)
  hits = classes[..., None] == jnp.arange(probabilities.shape[-1])
  # Integers: floats would stop counting at 2^24.
  counts = jnp.sum(hits, axis=(1, 2))
  if per == 'batch':
    counts = jnp.sum(counts, axis=0, keepdims=True)
    if axis_name is not None:
      counts = lax.psum(counts, axis_name)
  pixels = jnp.sum(counts, axis=-1, keepdims=True)
  dtype = terms.loss_dtype(probabilities.dtype)
  sizes = counts.astype(dtype) ** ratio * pixels.astype(dtype) ** (1 - ratio)
  weights = 1 / jnp.maximum(sizes, 1)
  return jnp.sum(jnp.where(hits, weights[:, None, None], 0), axis=-1)


def confident_labels(
  predictions: Sequence[jax.Array], threshold: float
) -> jax.Array:
  """Pseudo-labels of one classifier, or of several that guide each other.

  Args:
    predictions: probabilities `[b, H, W, C]` of each classifier.
    threshold: a pixel is labelled where one of them is more certain.

  Returns:
    i32 `[b, H, W]`: the class that is likeliest in the mean of the predictions,
    255 where there is none.
  """
  labels = jnp.argmax(sum(predictions[1:], predictions[0]), axis=-1)
  certain = [jnp.max(p, axis=-1) > threshold for p in predictions]
  kept = jnp.any(jnp.stack(certain), axis=0)
  return jnp.where(kept, labels, IGNORE).astype(jnp.int32)


def _squares(p: jax.Array) -> jax.Array:
  """The mean over classes of P^2, `[b, H, W]`."""
  return jnp.mean(jnp.square(p.astype(terms.loss_dtype(p.dtype))), axis=-1)


def _entropies(p: jax.Array) -> jax.Array:
  """The mean over classes of -P log P, `[b, H, W]`, finite at P = 0."""
  information = jnp.mean(entropy.weighted_self_information(p), axis=-1)
  return math.log(p.shape[-1]) * information


def _over_pixels(values: jax.Array) -> tuple[jax.Array, jax.Array]:
  return jnp.sum(values), jnp.asarray(values.size, values.dtype)


def _over_images(values: jax.Array) -> tuple[jax.Array, jax.Array]:
  return jnp.sum(values), jnp.asarray(len(values), values.dtype)
