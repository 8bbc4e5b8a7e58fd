"""The network that sorts pixels of both domains into groups.

Kim et al., Cross-Domain Grouping and Alignment (AAAI 2021), is said to use two
convolutions and a soft-max. Their kernels, width, activation and initial values
are our choice.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg_da import errors
from jaxseg_da.models import base, initializers, layers, vgg

SLOPE = 0.2
_DEFAULTS = layers.Options()


class Grouping(nn.Module):
  """Two convolutions with bias and a leaky ReLU between them.

  Kernels start so that a region that certainly is of one class has logits of
  variance about 1, whatever `kernel` and `hidden` are. With 8 groups the
  largest share of such a region then is a third on average: groups differ from
  the first step on, and no soft-max is saturated. Undecided probabilities give
  smaller logits. Biases start at zero.

  Attributes:
    groups: channels of the logits.
    hidden: channels between the convolutions.
    kernel: height and width of both, odd.
    options: dtypes; the second convolution is in float32 at least.
  """

  groups: int
  hidden: int
  kernel: int
  options: layers.Options

  @nn.compact
  def __call__(self, maps: jax.Array, train: bool) -> dict[str, jax.Array]:
    """Logits `[B, h, w, groups]` of `maps` `[B, h, w, C]`."""
    del train
    o, size, padding = self.options, self.kernel, self.kernel // 2
    precise = o._replace(dtype=jnp.promote_types(o.dtype, jnp.float32))
    x = vgg.Conv(self.hidden, size, padding, options=o, name='conv1')(maps)
    x = nn.leaky_relu(x, SLOPE)
    normal = initializers.normal(1 / size)
    x = vgg.Conv(self.groups, size, padding, normal, precise, name='conv2')(x)
    return {'logits': x}


def network(
  channels: int,
  groups: int,
  hidden: int = 64,
  kernel: int = 1,
  options: layers.Options = _DEFAULTS,
) -> base.Network:
  """The grouping network as two pure functions.

  Args:
    channels: of the maps `[B, h, w, channels]` that it is applied to; the
      images that `init` is called with only tell batch and size.
    groups: K.
    hidden: channels between the convolutions.
    kernel: height and width of both convolutions, odd; outputs are as large as
      inputs.
    options: dtypes.

  Raises:
    UserError: a size is not positive, or the kernel is even.
  """
  sizes = {'groups': groups, 'hidden': hidden, 'kernel': kernel}
  for name, value in sizes.items():
    if value < 1:
      raise errors.UserError(f'cdga.{name} is {value}; it must be positive.')
  if kernel % 2 == 0:
    raise errors.UserError(f'cdga.kernel is {kernel}; it must be odd.')
  inner = base.from_linen(Grouping(groups, hidden, kernel, options))

  def init(key, images):
    shape = (*images.shape[:-1], channels)
    return inner.init(key, jax.ShapeDtypeStruct(shape, images.dtype))

  return base.Network(init, inner.apply)
