"""Self-training on mixed images: confidence weights and the mixed loss.

DACS (Tranheden et al., WACV 2021, section 3.2) and ClassMix (Olsson et al.,
WACV 2021, section 3). Gradients do not flow into labels and weights.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg_da import errors
from jaxseg_da.losses import segmentation, terms
from jaxseg_da.ops import mixing

WEIGHT_MODES = ('threshold_uniform', 'threshold', 'none')


def confidence_weight(
  confidence: jax.Array,
  threshold: float,
  mode: str = 'threshold_uniform',
  axis_name: str | None = None,
) -> jax.Array:
  """Weights of pseudo-labelled pixels.

  Args:
    confidence: float `[B, H, W]`, largest softmax probabilities.
    threshold: least confidence that counts as confident (0.968 in DACS).
    mode: `threshold_uniform`: every pixel weighs q, the fraction of confident
      pixels in the whole batch; `threshold`: 1 where confident, else 0;
      `none`: 1.
    axis_name: mapped axis over which the batch is spread, for q.

  Returns:
    `[B, H, W]` of `confidence`'s dtype, in `[0, 1]`.

  Raises:
    UserError: `mode` is unknown.
  """
  if mode not in WEIGHT_MODES:
    raise errors.unknown('pseudo-label weighting', mode, WEIGHT_MODES)
  confidence = lax.stop_gradient(confidence)
  if mode == 'none':
    return jnp.ones_like(confidence)
  confident = (confidence >= threshold).astype(confidence.dtype)
  if mode == 'threshold':
    return confident
  # float32 counts are exact to 2**24 pixels per device, then q rounds to 1e-7.
  fraction = jnp.mean(confident, dtype=terms.loss_dtype(confidence.dtype))
  if axis_name is not None:
    fraction = lax.pmean(fraction, axis_name)  # equal shares per device
  return jnp.full_like(confidence, fraction)


def mixed_loss(
  logits: jax.Array, labels: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Weighted cross-entropy of a mixed batch, counted over *all* its pixels.

  Unlike the supervised loss, ignored pixels stay in the count: the reference
  code of both papers takes the mean over B * H * W.

  Args:
    logits: float `[B, H, W, C]`, the student's, at label resolution.
    labels: int `[B, H, W]`, mixed; 255 contributes 0.
    weights: float `[B, H, W]`, mixed confidence weights.

  Returns:
    (total, count): scalars, `sum(weights * loss)` and B * H * W.
  """
  total, _ = segmentation.cross_entropy(
    logits, lax.stop_gradient(labels), lax.stop_gradient(weights)
  )
  return total, jnp.asarray(labels.size, total.dtype)


def mix_targets(
  mask: jax.Array,
  source_labels: jax.Array,
  target_labels: jax.Array,
  target_weights: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Labels and weights of a DACS batch: source pixels weigh 1.

  Args:
    mask: bool `[B, H, W]`, True where the source was pasted.
    source_labels: int `[B, H, W]`, ground truth.
    target_labels: int `[B, H, W]`, of the teacher.
    target_weights: float `[B, H, W]`, from `confidence_weight`.

  Returns:
    labels, in the dtype of `source_labels`, and weights, both `[B, H, W]`.
  """
  labels = mixing.mix(
    mask, source_labels, target_labels.astype(source_labels.dtype)
  )
  return labels, mixing.mix(mask, jnp.ones_like(target_weights), target_weights)


def classmix_targets(
  mask: jax.Array, logits: jax.Array, partner_logits: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Pseudo-labels of ClassMix: the teacher's *softmax maps* are mixed.

  Weights come from `confidence_weight` of the mixed confidences and hold for
  every pixel, whichever image it is from.

  Args:
    mask: bool `[B, H, W]`, True where image i keeps its own pixels.
    logits: float `[B, H, W, C]`, the teacher's for the images.
    partner_logits: `[B, H, W, C]`, for the images mixed into them, in the
      paper those one further in the batch.

  Returns:
    labels: uint8 `[B, H, W]`; confidence: `[B, H, W]`, float32 or better.
  """
  labels, confidence = segmentation.pseudo_labels(logits)
  others, partners = segmentation.pseudo_labels(partner_logits)
  # Pixels are taken whole, so mixing maxima equals the maximum of the mix.
  return (
    mixing.mix(mask, labels, others),
    mixing.mix(mask, confidence, partners),
  )
