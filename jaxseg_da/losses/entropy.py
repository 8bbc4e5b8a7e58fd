"""Entropy of predictions: a loss, a map for discriminators, a selection.

Vu et al., ADVENT (CVPR 2019): MinEnt minimises the entropy of target
predictions, AdvEnt shows a discriminator what each class adds to it. Entropies
are divided by `log C` there, so that they are in 0..1.

Subhani and Ali, Learning from Scale-Invariant Examples for Domain Adaptation in
Semantic Segmentation (ECCV 2020): pixels whose entropy, normalised within image
and class, reaches their class's threshold are not trained on.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxseg_da.losses import terms


def entropy(probabilities: jax.Array, eps: float = 1e-12) -> jax.Array:
  """Entropy `-sum_c p_c log(p_c + eps)` in nats, not divided by `log C`.

  Args:
    probabilities: float `[..., C]`.
    eps: keeps the logarithm finite.

  Returns:
    `[...]`, float32 or better.
  """
  p = probabilities.astype(terms.loss_dtype(probabilities.dtype))
  return -jnp.sum(p * jnp.log(p + eps), axis=-1)


def weighted_self_information(probabilities: jax.Array) -> jax.Array:
  """What each class adds to the entropy: `-p log2(p + 1e-30) / log2(C)`.

  The offset keeps value and slope finite at p = 0, where the slope is 99.7 /
  log2(C). It is a normal number in float32.

  Args:
    probabilities: float `[..., C]` with C at least 2.

  Returns:
    `[..., C]`, float32 or better; its sum over C is in 0..1.
  """
  p = probabilities.astype(terms.loss_dtype(probabilities.dtype))
  return p * jnp.log2(p + 1e-30) / -math.log2(p.shape[-1])


def entropy_loss(probabilities: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Summed normalised entropy of predictions, and their number (MinEnt).

  Args:
    probabilities: float `[..., C]` with C at least 2.

  Returns:
    (total, count): scalars, float32 or better; their ratio is in 0..1.
  """
  information = weighted_self_information(probabilities)
  count = information.size // information.shape[-1]
  return jnp.sum(information), jnp.asarray(count, information.dtype)


def class_normalised(
  values: jax.Array, classes: jax.Array, num_classes: int
) -> jax.Array:
  """Min-max normalises one image's values among pixels of the same class.

  Minima and maxima do not depend on the order of the pixels, so the result has
  the same bits on every run.

  Args:
    values: float `[H, W]`, entropies.
    classes: int `[H, W]`, predicted, in `0..C-1`.
    num_classes: C.

  Returns:
    `[H, W]` in 0..1; NaN in a class whose pixels all have the same value, as a
    class of one pixel has. `keep_mask` keeps those.
  """
  flat = values.ravel(), classes.ravel(), num_classes
  low = jax.ops.segment_min(*flat)[classes]
  span = jax.ops.segment_max(*flat)[classes] - low
  spread = span > 0
  return jnp.where(spread, (values - low) / jnp.where(spread, span, 1), jnp.nan)


def keep_mask(
  normalised: jax.Array, classes: jax.Array, thresholds: jax.Array
) -> jax.Array:
  """Which pixels are trusted: not those at or above their class's threshold.

  Args:
    normalised: float `[...]`, from `class_normalised`.
    classes: int `[...]`, predicted, in `0..C-1`.
    thresholds: float `[C]`.

  Returns:
    bool `[...]`; true also where the value or the threshold is NaN.
  """
  return ~(normalised >= thresholds[classes])
