"""Enlarged patches that carry the labels predicted at normal scale.

Subhani and Ali, Learning from Scale-Invariant Examples (ECCV 2020). Image,
*probabilities* and mask of a window are up-sampled; nothing is predicted anew.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg_da import errors
from jaxseg_da.classes import labels
from jaxseg_da.ops import resize


class Patch(NamedTuple):
  """One enlarged window.

  Attributes:
    image: float `[H, W, 3]`.
    label: i32 `[H, W]`, 255 where no trusted pixel takes part.
    keep: float `[H, W]`, the interpolated mask, 0..1.
  """

  image: jax.Array
  label: jax.Array
  keep: jax.Array


def enlarge(
  image: jax.Array,
  probabilities: jax.Array,
  keep: jax.Array,
  corner: jax.Array,
  window: Sequence[int],
  size: Sequence[int],
) -> Patch:
  """Cuts a window out of one image and brings it to a size.

  Bilinear with aligned corners, in float32 at least. A label is 255 where the
  mask's interpolation is exactly 0: then every pixel that takes part has mask
  0, because weights are not negative and 0 stays 0 in any precision.

  Args:
    image: `[H, W, 3]`, float or uint8, in any range.
    probabilities: float `[H, W, C]`.
    keep: bool `[H, W]`, false where the prediction is not trusted.
    corner: int `[2]`, (y0, x0) of the window; may be traced. A window that does
      not fit is moved inside.
    window: its (height, width).
    size: (height, width) of the result; that of the window only cuts.

  Returns:
    The patch, of `size`, in float32 or better.
  """

  def enlarged(x):
    start = (corner[0], corner[1], jnp.zeros_like(corner[0]))
    x = lax.dynamic_slice(x, start, (*window, x.shape[-1]))
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return resize.align_corners(x[None], size)[0]

  mask = enlarged(keep[..., None])[..., 0]
  label = jnp.argmax(enlarged(probabilities), axis=-1).astype(jnp.int32)
  label = jnp.where(mask == 0, labels.IGNORE, label)
  return Patch(enlarged(image), label, mask)


def window_positions(
  seed: int,
  stage: str,
  index: int,
  image_size: Sequence[int],
  window: Sequence[int],
  count: int,
) -> np.ndarray:
  """Draws an image's windows; the same ones whenever and wherever it is asked.

  Per window x0 is uniform in `0..W-w`, then y0 in `0..H-h`, ends included.

  Args:
    seed: of the run, not negative.
    stage: name of the stage.
    index: of the image in its data set.
    image_size: (H, W).
    window: (h, w).
    count: number of windows.

  Returns:
    i32 `[count, 2]`, (y0, x0) of each.

  Raises:
    UserError: the window is larger than the image.
  """
  rows, columns = (n - k for n, k in zip(image_size, window, strict=True))
  if min(rows, columns) < 0:
    raise errors.UserError(
      f'a window of {tuple(window)} does not fit into images of '
      f'{tuple(image_size)}; choose a smaller one'
    )
  words = (zlib.crc32(text.encode()) for text in (stage, 'patches'))
  entropy = np.random.SeedSequence((seed, *words, index))
  rng = np.random.Generator(np.random.Philox(entropy))
  draws = rng.integers(0, (columns, rows), (count, 2), np.int32, endpoint=True)
  return draws[:, ::-1]
