"""Bilinear resizing in the two sampling conventions that papers use.

Both directions are small dense matrices, one per axis, built at trace time in
float64. So the resize is exact to rounding, its transpose is the same pair of
matrix products (no scatter, the same bits on every run), and it works for
up-sampling, down-sampling (two taps, no antialiasing) and sizes of one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def align_corners(x: jax.Array, size: Sequence[int]) -> jax.Array:
  """Resizes so that the corner pixels' centres coincide.

  Output index i samples the input at `i * (n_in - 1) / (n_out - 1)`, and at 0
  where the output has one pixel. DeepLab-V2 as used in the domain-adaptation
  literature upsamples logits this way.

  Args:
    x: `[B, H, W, C]`, floating.
    size: `(H_out, W_out)`.

  Returns:
    `[B, H_out, W_out, C]` in the dtype of `x`.

  Raises:
    ValueError: `x` has another rank, no floats, or a size is below 1.
  """
  return _resize(x, size, _corner_positions)


def half_pixel(x: jax.Array, size: Sequence[int]) -> jax.Array:
  """Resizes with half-pixel centres, clamped at the border.

  Output index i samples the input at `(i + 0.5) * n_in / n_out - 0.5`, not
  below 0. Two taps also when shrinking: no antialiasing.

  Args:
    x: `[B, H, W, C]`, floating.
    size: `(H_out, W_out)`.

  Returns:
    `[B, H_out, W_out, C]` in the dtype of `x`.

  Raises:
    ValueError: `x` has another rank, no floats, or a size is below 1.
  """
  return _resize(x, size, _half_pixel_positions)


def _corner_positions(n_in: int, n_out: int) -> np.ndarray:
  # Multiplied first: positions that are whole numbers come out whole.
  return np.arange(n_out) * (n_in - 1) / max(n_out - 1, 1)


def _half_pixel_positions(n_in: int, n_out: int) -> np.ndarray:
  return np.maximum((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0.0)


def _weights(positions: np.ndarray, n_in: int) -> np.ndarray:
  """Interpolation matrix `[n_out, n_in]` of two taps per row."""
  low = np.minimum(np.floor(positions).astype(int), n_in - 1)
  high = np.minimum(low + 1, n_in - 1)
  fraction = positions - low
  rows = np.arange(len(positions))
  matrix = np.zeros((len(positions), n_in))
  np.add.at(matrix, (rows, low), 1 - fraction)
  np.add.at(matrix, (rows, high), fraction)
  return matrix


def _resize(x, size, positions):
  if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(
      f'resize needs floats [B, H, W, C], got {x.dtype} {x.shape}'
    )
  if min(size) < 1:
    raise ValueError(f'resize needs a size of at least 1 x 1, got {size}')
  batch, height, width, channels = x.shape
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  out_h, out_w = size
  y = x.astype(dtype)
  if out_h != height:
    rows = jnp.asarray(_weights(positions(height, out_h), height), dtype)
    y = y.reshape(batch, height, width * channels)
    y = jnp.einsum('oh,bhx->box', rows, y, precision='highest')
  y = y.reshape(batch, out_h, width, channels)
  if out_w != width:
    columns = jnp.asarray(_weights(positions(width, out_w), width), dtype)
    y = y.reshape(batch * out_h, width, channels)
    y = jnp.einsum('ow,bwc->boc', columns, y, precision='highest')
  return y.reshape(batch, out_h, out_w, channels).astype(x.dtype)
