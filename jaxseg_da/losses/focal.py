"""Focal terms: cross-entropy that well-classified pixels hardly enter.

Lin et al., Focal Loss for Dense Object Detection (ICCV 2017): a loss l is
multiplied by `(1 - p)^gamma`, where `p = exp(-l)` is the probability of the
label. Gradients flow through that factor, too. LSE (Subhani and Ali, ECCV 2020)
adds beta times a focal term to the plain cross-entropy; in its code the network
decides what l is: a pixel's loss (FCN-8s), or the mean loss of the batch
(DeepLab). A phase writes

    total, count = segmentation.cross_entropy(logits, labels)
    terms.Term(total, count)
    terms.Term(*focal.focal_loss(logits, labels, gamma), beta)
    # or
    terms.Term(focal.focal_of_mean(total, count, gamma, axis_name), 1.0, beta)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg_da.losses import segmentation


def modulated(loss: jax.Array, gamma: float) -> jax.Array:
  """`(1 - exp(-loss))^gamma * loss`, elementwise; 0 with gradient 0 at 0.

  Args:
    loss: float `[...]`, cross-entropies, not negative.
    gamma: exponent, 0 or more.
  """
  # For gamma < 1 the power has no derivative at 0: keep it away from there.
  positive = loss > 0
  safe = jnp.where(positive, loss, 1)
  return jnp.where(positive, (-jnp.expm1(-safe)) ** gamma * safe, 0)


def focal_loss(
  logits: jax.Array, labels: jax.Array, gamma: float
) -> tuple[jax.Array, jax.Array]:
  """Summed focal loss of the valid pixels, and their number.

  Args:
    logits: float `[B, H, W, C]`, unnormalised.
    labels: int `[B, H, W]`; anything outside `0..C-1` (255) is ignored.
    gamma: exponent, 0 or more.

  Returns:
    (total, count): scalars, float32 or better.

  Raises:
    ValueError: the shapes do not fit, or labels are not integers.
  """
  loss, valid = segmentation.per_pixel_cross_entropy(logits, labels)
  return jnp.sum(modulated(loss, gamma)), jnp.sum(valid, dtype=loss.dtype)


def focal_of_mean(
  total: jax.Array,
  count: jax.Array,
  gamma: float,
  axis_name: str | None = None,
) -> jax.Array:
  """Focal loss of the *mean* cross-entropy of the global batch.

  It couples all pixels, so the mean is reduced here, and the result is the same
  on every device: a term of count 1. With D devices each of them differentiates
  a D-th of it, and the transpose of the sum over devices adds those up again to
  the derivative at the mean, times the device's own share of the mean.

  Args:
    total: scalar, this device's summed cross-entropy.
    count: scalar, this device's valid pixels.
    gamma: exponent, 0 or more.
    axis_name: mapped axis over which the batch is spread.

  Returns:
    A scalar; 0 where no pixel is valid.
  """
  if axis_name is not None:
    total, count = lax.psum((total, count), axis_name)
  return modulated(total / jnp.maximum(count, 1), gamma)
