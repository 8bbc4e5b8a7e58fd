"""Gaussian blur as two products with banded matrices.

A blur along one axis is linear, so a matrix `[N, N]`, which also carries the
reflection at the borders. Two small matrix products are quick on every
backend, where depthwise convolutions are slow on CPU, and the matrix may
depend on a traced sigma per image.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def kernel_size(size: int) -> int:
  """Taps for an axis of `size` pixels: about a tenth of it, odd.

  `floor(c - 0.5 + c mod 2)` with `c = ceil(0.1 * size)`, evaluated in float64
  as DACS's code does: 51 for 512 pixels.
  """
  tenth = math.ceil(0.1 * size)
  return math.floor(tenth - 0.5 + tenth % 2)


def opencv_taps(sigma: float, size: int) -> int:
  """Taps that OpenCV takes by itself for 8-bit images: about six sigma.

  Args:
    sigma: standard deviation in pixels.
    size: of the axis. Its reflection bounds the taps to `2 * size - 1`.
  """
  taps = round(6 * sigma + 1) | 1
  return min(taps, 2 * size - 1)


def _matrix(size: int, taps: int, sigma: jax.Array) -> jax.Array:
  """The blur along one axis, `[..., N, N]`, for sigma `[...]`."""
  radius = taps // 2
  # Below a hundredth of a pixel neighbours weigh exactly 0 even in float64;
  # sigma = 0 would be 0 / 0.
  sigma = jnp.maximum(sigma, 0.01)
  sigma = sigma[..., None, None]

  def weight(distance):
    value = jnp.exp(-0.5 * (distance / sigma) ** 2)
    return jnp.where(abs(distance) <= radius, value, 0)

  offsets = jnp.arange(-radius, radius + 1)
  norm = jnp.sum(weight(offsets), axis=-1, keepdims=True)
  out, source = jnp.arange(size)[:, None], jnp.arange(size)
  matrix = weight(source - out)
  # Pixel j also stands for its mirror images at -j and 2(N-1)-j, the border
  # pixels excepted, which are their own.
  first = jnp.where(source > 0, weight(-source - out), 0)
  mirrored = 2 * (size - 1) - source
  last = jnp.where(source < size - 1, weight(mirrored - out), 0)
  return (matrix + first + last) / norm


def gaussian_blur(
  images: jax.Array,
  sigma: jax.Array | float,
  taps: tuple[int, int] | None = None,
) -> jax.Array:
  """Separable, normalised Gaussian blur with reflect padding.

  Args:
    images: float `[B, H, W, C]`.
    sigma: standard deviation in pixels, scalar or `[B]`, may be traced; 0
      gives the image back as it is.
    taps: odd numbers of taps along H and W; None for `kernel_size` of each.

  Returns:
    `[B, H, W, C]`, dtype of `images`.

  Raises:
    ValueError: `images` is not 4-D float, a number of taps is even, or the
      kernel reaches further than the reflection of the image.
  """
  if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(
      f'images have to be float [B, H, W, C], not '
      f'{images.dtype} {list(images.shape)}'
    )
  batch, height, width, _ = images.shape
  taps = taps or (kernel_size(height), kernel_size(width))
  for count, size in zip(taps, (height, width), strict=True):
    if count % 2 == 0 or count < 1 or count // 2 >= size:
      raise ValueError(f'{count} taps do not fit {size} pixels')
  sigma = jnp.broadcast_to(jnp.asarray(sigma, images.dtype), (batch,))
  down = _matrix(height, taps[0], sigma)
  along = _matrix(width, taps[1], sigma)
  # The default precision would be bfloat16 on TPU and TF32 on GPU.
  product = lambda spec, *xs: jnp.einsum(spec, *xs, precision='highest')
  images = product('bij,bjwc->biwc', down, images)
  return product('bij,bhjc->bhic', along, images)
