"""Cross-entropy with an ignore label, and pseudo-labels from logits.

Every label outside `0..C-1` is ignored; 255 is the usual one. Ignored pixels
have loss 0 and gradient 0 whatever their logits are, infinities included.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxseg_da.losses import terms


def _check(logits: jax.Array, labels: jax.Array) -> None:
  if logits.ndim != labels.ndim + 1 or logits.shape[:-1] != labels.shape:
    raise ValueError(
      f'labels {labels.shape} have to be [B, H, W] of logits [B, H, W, C], '
      f'here {logits.shape}'
    )
  if not jnp.issubdtype(labels.dtype, jnp.integer):
    raise ValueError(f'labels have to be integers, not {labels.dtype}')


def valid_pixels(labels: jax.Array, num_classes: int) -> jax.Array:
  """Where labels count, bool of the same shape: `0 <= label < num_classes`."""
  return (labels >= 0) & (labels < num_classes)


def per_pixel_cross_entropy(
  logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The loss `-log softmax(logits)[label]` of each pixel.

  The target logit is picked by comparison, not by gathering: as quick on CPU,
  and neither the loss nor its gradient needs a gather or scatter elsewhere.

  Args:
    logits: float `[B, H, W, C]`, unnormalised.
    labels: int `[B, H, W]`; anything outside `0..C-1` (255) is ignored.

  Returns:
    loss `[B, H, W]` in float32 or better, 0 where ignored; valid, bool.

  Raises:
    ValueError: the shapes do not fit, or labels are not integers.
  """
  _check(logits, labels)
  num_classes = logits.shape[-1]
  valid = valid_pixels(labels, num_classes)
  logits = logits.astype(terms.loss_dtype(logits.dtype))
  # Before the logarithm, or 0 * inf would put NaN into the gradient.
  logits = jnp.where(valid[..., None], logits, 0)
  hit = labels[..., None] == jnp.arange(num_classes)
  target = jnp.sum(jnp.where(hit, logits, 0), axis=-1)
  loss = jax.nn.logsumexp(logits, axis=-1) - target
  return jnp.where(valid, loss, 0), valid


def cross_entropy(
  logits: jax.Array, labels: jax.Array, weights: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Summed cross-entropy of the valid pixels, and their number.

  Args:
    logits: float `[B, H, W, C]`, unnormalised.
    labels: int `[B, H, W]`; anything outside `0..C-1` (255) is ignored.
    weights: float `[B, H, W]`, factors of the pixels' losses, or None for 1.

  Returns:
    total: scalar, `sum(weights * loss)` in float32 or better.
    count: scalar, same dtype, number of valid pixels whatever they weigh.

  Raises:
    ValueError: the shapes do not fit, or labels are not integers.
  """
  loss, valid = per_pixel_cross_entropy(logits, labels)
  if weights is not None:
    if weights.shape != labels.shape:
      raise ValueError(
        f'weights {weights.shape} have to be [B, H, W], here {labels.shape}'
      )
    loss = loss * weights.astype(loss.dtype)
  return jnp.sum(loss), jnp.sum(valid, dtype=loss.dtype)


def pseudo_labels(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The most probable class of each pixel, and its softmax probability.

  Args:
    logits: float `[..., C]` with C at most 255.

  Returns:
    labels: uint8 `[...]`, the first maximum.
    confidence: `[...]`, in `[1/C, 1]`, float32 or better.

  Raises:
    ValueError: more classes than uint8 leaves beside the ignore label.
  """
  if logits.shape[-1] > 255:
    raise ValueError(f'{logits.shape[-1]} classes do not fit into uint8 labels')
  logits = logits.astype(terms.loss_dtype(logits.dtype))
  top = jnp.max(logits, axis=-1, keepdims=True)
  confidence = 1 / jnp.sum(jnp.exp(logits - top), axis=-1)
  return jnp.argmax(logits, axis=-1).astype(jnp.uint8), confidence
