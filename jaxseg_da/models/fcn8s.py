"""FCN-8s on VGG-16, as LSE, BDL and FDA train it.

Long et al., "Fully Convolutional Networks", arXiv 1411.4038: the variant that
is trained at once, whose skip connections are scaled by constants. The
transposed convolutions are bilinear, one channel at a time, and never trained:
they are constants here, not parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from jaxseg_da.models import layers, vgg
from jaxseg_da.ops import rng

HIDDEN = 4096
DROPOUT = 0.5
# Published names and kernel sizes of the constants; strides are half as large.
UPSCORES = {'upscore2': 4, 'upscore_pool4': 4, 'upscore8': 16}
# Of the features before their score layer: biases are not scaled.
POOL4_SCALE, POOL3_SCALE = 1e-2, 1e-4
# Where the border of `vgg.BORDER` ends in pool4, pool3 and the output.
POOL4_OFFSET, POOL3_OFFSET, OUTPUT_OFFSET = 5, 9, 31


class FCN8s(nn.Module):
  """Backbone `backbone`, head `classifier`; logits at the images' size.

  Attributes:
    num_classes: channels of the logits.
    widths: channels of the five blocks of VGG.
    hidden: channels of `fc6` and `fc7`.
    options: dtypes.
  """

  num_classes: int
  widths: Sequence[int] = vgg.WIDTHS
  hidden: int = HIDDEN
  options: layers.Options = layers.Options()

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool, keys: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Logits of `images` `[B, H, W, 3]`: BGR, 0..255, mean subtracted.

    Args:
      images: of any size.
      train: whether channels are dropped.
      keys: one per image, `[B]`; read in training only.
    """
    features = vgg.VGG(self.widths, self.options, name='backbone')(images)
    logits = Head(
      self.num_classes, self.hidden, self.options, name='classifier'
    )(features, keys if train else None)
    return {'logits': crop(logits, OUTPUT_OFFSET, images.shape[1:3])}


class Head(nn.Module):
  """`fc6`, `fc7` and one score layer per scale, merged and upsampled.

  Score layers start at zero and compute in float32 at least, as does all that
  follows them.
  """

  num_classes: int
  hidden: int
  options: layers.Options

  @nn.compact
  def __call__(
    self, features: dict[str, jax.Array], keys: jax.Array | None
  ) -> jax.Array:
    """Logits with their border, `[B, 8 * h, 8 * w, C]`; drops with `keys`."""
    o = self.options

    def hidden(name, size, x):
      x = vgg.Conv(self.hidden, size, 0, options=o, name=name)(x)
      x = nn.relu(x)
      return x if keys is None else drop_channels(x, keys, name)

    def score(name, x):
      return vgg.Conv(
        self.num_classes,
        1,
        0,
        nn.initializers.zeros,
        o._replace(dtype=jnp.promote_types(o.dtype, jnp.float32)),
        name=name,
      )(x)

    x = hidden('fc7', 1, hidden('fc6', 7, features['pool5']))
    x = upscore(score('score_fr', x), UPSCORES['upscore2'])
    skip = score('score_pool4', POOL4_SCALE * features['pool4'])
    x = x + crop(skip, POOL4_OFFSET, x.shape[1:3])
    x = upscore(x, UPSCORES['upscore_pool4'])
    skip = score('score_pool3', POOL3_SCALE * features['pool3'])
    x = x + crop(skip, POOL3_OFFSET, x.shape[1:3])
    return upscore(x, UPSCORES['upscore8'])


def drop_channels(x: jax.Array, keys: jax.Array, name: str) -> jax.Array:
  """Zeroes half of the channels at random and doubles the others.

  Args:
    x: `[B, h, w, C]`.
    keys: `[B]`; what an example loses depends on its own key alone.
    name: of the layer, so that layers drop independently.
  """

  def draw(key):
    key = rng.named(key, name)
    return jax.random.bernoulli(key, 1 - DROPOUT, x.shape[-1:])

  kept = jax.vmap(draw)(keys)
  return jnp.where(kept[:, None, None], x / (1 - DROPOUT), 0)


def crop(x: jax.Array, offset: int, size: Sequence[int]) -> jax.Array:
  """The window of `size` `(H, W)` that starts at `offset` on both axes."""
  height, width = size
  return x[:, offset : offset + height, offset : offset + width]


def bilinear_kernel(size: int) -> np.ndarray:
  """The kernel `[size, size]` that upsamples one channel, float64."""
  taps = _taps(size)
  return np.outer(taps, taps)


def _taps(size: int) -> np.ndarray:
  factor = (size + 1) // 2
  centre = factor - 1 if size % 2 else factor - 0.5
  return 1 - np.abs(np.arange(size) - centre) / factor


def upscore(x: jax.Array, size: int) -> jax.Array:
  """Transposed convolution with `bilinear_kernel(size)`, stride size / 2.

  Every output depends on two inputs per axis, so it is written as two products
  per axis: no channel meets another, and no accelerator has to dilate its
  input.

  Args:
    x: `[B, h, w, C]`.
    size: even.

  Returns:
    `[B, (h + 1) * size / 2, (w + 1) * size / 2, C]`.
  """
  taps = _taps(size).tolist()
  for axis in (1, 2):
    x = _stretch(x, taps, axis)
  return x


def _stretch(x: jax.Array, taps: Sequence[float], axis: int) -> jax.Array:
  """Output q * s + p is taps[p] * x[q] + taps[p + s] * x[q - 1]."""
  stride, count = len(taps) // 2, x.shape[axis] + 1
  padded = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)])
  here = lax.slice_in_dim(padded, 1, count + 1, axis=axis)
  before = lax.slice_in_dim(padded, 0, count, axis=axis)
  phases = [taps[p] * here + taps[p + stride] * before for p in range(stride)]
  shape = (*x.shape[:axis], count * stride, *x.shape[axis + 1 :])
  return jnp.stack(phases, axis + 1).reshape(shape)
