"""Max-pooling with the ceil-mode output size of the DeepLab-V2 stem."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def max_pool_ceil(x: jax.Array) -> jax.Array:
  """3x3 max-pool, stride 2, padding 1, output size rounded up.

  `n` pixels become `ceil((n - 1) / 2) + 1`: 256 -> 129 and 33 -> 17, where
  SAME or floor pooling of 256 gives 128. Padded positions are minus infinity.

  Args:
    x: `[B, H, W, C]`, floating.

  Returns:
    `[B, ceil((H - 1) / 2) + 1, ceil((W - 1) / 2) + 1, C]`, dtype of `x`.

  Raises:
    ValueError: `x` has another rank or no floats.
  """
  if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(
      f'max_pool_ceil needs floats [B, H, W, C], got {x.dtype} {x.shape}'
    )

  # The last window starts at 2 * (out - 1) - 1, so it always holds a pixel and
  # ends one position past the input (odd n) or two (even n).
  padding = [(1, 1 + (n + 1) % 2) for n in x.shape[1:3]]
  return lax.reduce_window(
    x,
    -jnp.inf,
    lax.max,
    window_dimensions=(1, 3, 3, 1),
    window_strides=(1, 2, 2, 1),
    padding=[(0, 0), *padding, (0, 0)],
  )
