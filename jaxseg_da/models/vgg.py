"""The 13 convolutions of VGG-16, padded and pooled as FCN-8s needs them.

Simonyan and Zisserman, arXiv 1409.1556, configuration D. The first convolution
pads by 100, so that images of any size survive five poolings and the 7x7
convolution that follows; poolings round sizes up. Every crop of FCN-8s counts
on both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg_da.models import initializers, layers

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = (2, 2, 3, 3, 3)
BORDER = 100


class Conv(nn.Module):
  """A convolution with bias, stride 1.

  Attributes:
    features: output channels.
    size: kernel height and width.
    padding: zeros on every side.
    init: initialiser of the kernel; biases start at zero.
    options: dtypes.
  """

  features: int
  size: int
  padding: int
  init: Callable = initializers.he
  options: layers.Options = layers.Options()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Convolves `[B, H, W, C]`; output in `options.dtype`."""
    o = self.options
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param('kernel', self.init, shape, o.param_dtype)
    bias = self.param('bias', nn.initializers.zeros, shape[-1:], o.param_dtype)
    y = layers.convolve(
      x.astype(o.dtype), kernel.astype(o.dtype), padding=self.padding
    )
    return y + bias.astype(o.dtype)


class VGG(nn.Module):
  """The convolutions `conv1_1` to `conv5_3`, each followed by ReLU.

  Attributes:
    widths: channels per block.
    options: dtypes.
  """

  widths: Sequence[int] = WIDTHS
  options: layers.Options = layers.Options()

  @nn.compact
  def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
    """`pool1` to `pool5` of `[B, H, W, 3]`; `pool1` has ceil((H + 198) / 2)."""
    x, features = images, {}
    blocks = zip(self.widths, DEPTHS, strict=True)
    for block, (width, depth) in enumerate(blocks, 1):
      for i in range(1, depth + 1):
        padding = BORDER if block == i == 1 else 1
        name = f'conv{block}_{i}'
        x = Conv(width, 3, padding, options=self.options, name=name)(x)
        x = nn.relu(x)
      x = features[f'pool{block}'] = max_pool(x)
    return features


def max_pool(x: jax.Array) -> jax.Array:
  """2x2 max-pool, stride 2: `[B, H, W, C]` to `[B, ceil(H/2), ceil(W/2), C]`.

  The last window of an odd size holds one row or column only. Of equal values
  the first in reading order takes the gradient. Written with comparisons: the
  gradient of `lax.reduce_window` takes ten times as long on CPU.
  """
  border = [(0, 0), *((0, n % 2) for n in x.shape[1:3]), (0, 0)]
  x = jnp.pad(x, border, constant_values=-jnp.inf)
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  x = _first_max(x[..., 0, :], x[..., 1, :])
  return _first_max(x[:, :, 0], x[:, :, 1])


def _first_max(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.where(b > a, b, a)
