"""A scale-invariant example: an enlarged window with transferred labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxseg_da.losses import entropy
from jaxseg_da.ops import patches


def make(
  image: jax.Array,
  logits: jax.Array,
  corner: jax.Array,
  thresholds: jax.Array,
  settings,
) -> patches.Patch:
  """Cuts and enlarges a window together with what was predicted there.

  Args:
    image: float `[H, W, 3]`.
    logits: float `[H, W, C]`, of the whole image at normal scale.
    corner: i32 `[2]`, (y0, x0) of the window.
    thresholds: float `[C]`, of the normalised entropy.
    settings: has `window`, `enlarge` and `use_thresholds` of `config.lse`.

  Returns:
    The patch, of the image's size, or of the window's without `enlarge`.
  """
  size = image.shape[:2]
  probabilities = jax.nn.softmax(logits)
  classes = jnp.argmax(probabilities, axis=-1)
  keep = jnp.ones(size, bool)
  if settings.use_thresholds:
    values = entropy.class_normalised(
      entropy.entropy(probabilities), classes, logits.shape[-1]
    )
    keep = entropy.keep_mask(values, classes, thresholds)
  out = size if settings.enlarge else settings.window
  return patches.enlarge(
    image, probabilities, keep, corner, settings.window, out
  )
