"""Losses of confidence regularised self-training.

Zou et al., CRST (ICCV 2019). With V the labelled pixels of a batch and g_b a
weight of image b, the published code minimises

  sum_V CE_i / |V|  +  alpha * sum_V g_b(i) U_i / |{i in V: g_b(i) != 0}|

CE is the cross-entropy with hard labels (`segmentation.cross_entropy`) or with
soft ones (LRENT); U is that of the uniform distribution with the prediction
(MRKLD), which is KL(uniform || p) + log K. Source images have g = 0. Target
images have g = alpha, so alpha counts twice: the regulariser weighs alpha ** 2,
0.01 with alpha = 0.1. With g = 1 it weighs alpha, as in the paper.

Each function returns one sum and its count. A batch without a labelled pixel
has 0 for both, and a step makes the loss 0 of them; in the published code it
is NaN. Pixels that do not count have gradient 0 whatever their logits are,
infinities included.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg_da.losses import terms


def soft_cross_entropy(
  logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Summed cross-entropy with soft labels, and the number of labelled pixels.

  Args:
    logits: float `[B, H, W, K]`, unnormalised.
    labels: float `[B, H, W, K]`, probabilities of the classes, no gradient;
      a pixel where all are 0 is ignored.

  Returns:
    (total, count): scalars in float32 or better.

  Raises:
    ValueError: the shapes differ.
  """
  if labels.shape != logits.shape:
    raise ValueError(f'labels {labels.shape}, logits {logits.shape}: not alike')
  logits = logits.astype(terms.loss_dtype(logits.dtype))
  labels = lax.stop_gradient(labels).astype(logits.dtype)
  valid = labelled_pixels(labels)
  # Before the logarithm, or 0 * inf would put NaN into the gradient.
  logits = jnp.where(valid[..., None], logits, 0)
  products = labels * jax.nn.log_softmax(logits, axis=-1)
  # A class that is impossible and not the label is 0 * -inf.
  total = -jnp.sum(jnp.where(labels > 0, products, 0))
  return total, jnp.sum(valid, dtype=logits.dtype)


def labelled_pixels(labels: jax.Array) -> jax.Array:
  """Where soft labels `[B, H, W, K]` are not all 0, bool `[B, H, W]`."""
  return jnp.any(labels > 0, axis=-1)


def uniform_cross_entropy(
  logits: jax.Array, valid: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Summed cross-entropy of the uniform distribution with the prediction.

  It holds predictions back from one-hot: its minimum, log K, is at equal
  probabilities.

  Args:
    logits: float `[B, H, W, K]`, unnormalised.
    valid: bool `[B, H, W]`, where there is a label.
    weights: float `[B]`, g_b; images of weight 0 do not count.

  Returns:
    total: scalar, sum of g_b * -mean_c(log p_c), in float32 or better.
    count: scalar, same dtype, number of valid pixels of images that count.

  Raises:
    ValueError: the shapes do not fit.
  """
  if valid.shape != logits.shape[:-1] or weights.shape != logits.shape[:1]:
    raise ValueError(
      f'valid {valid.shape} and weights {weights.shape} have to be [B, H, W] '
      f'and [B] of logits [B, H, W, K], here {logits.shape}'
    )
  logits = logits.astype(terms.loss_dtype(logits.dtype))
  weights = lax.stop_gradient(weights).astype(logits.dtype)[:, None, None]
  counts = valid & (weights != 0)
  logits = jnp.where(counts[..., None], logits, 0)
  loss = jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1)
  total = jnp.sum(jnp.where(counts, weights * loss, 0))
  return total, jnp.sum(counts, dtype=logits.dtype)
