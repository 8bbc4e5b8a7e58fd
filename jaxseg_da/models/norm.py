"""Batch normalisation with PyTorch's semantics, over one device or several.

Statistics are taken in two passes, mean first and then squared deviations, so
that activations with a large mean lose no digits. With `axis_name` both sums
are `psum`med. Where every device differentiates its own share of the loss and
gradients are summed afterwards, that `psum` transposes to a `psum` and the
gradient is that of one device with the whole batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

EPSILON = 1e-5
MOMENTUM = 0.1  # new = (1 - MOMENTUM) * old + MOMENTUM * batch


def index_groups(devices: int, size: int) -> tuple[tuple[int, ...], ...]:
  """Neighbouring devices in groups of `size`, for `axis_index_groups`.

  Raises:
    ValueError: `size` does not divide `devices`.
  """
  if size < 1 or devices % size:
    raise ValueError(
      f'normalisation groups of {size} devices do not divide {devices} devices'
    )
  starts = range(0, devices, size)
  return tuple(tuple(range(i, i + size)) for i in starts)


def moments(
  x: jax.Array, axis_name: str | None = None, group_size: int | None = None
) -> tuple[jax.Array, jax.Array, int]:
  """Per-channel mean and biased variance of the (synchronised) batch.

  Args:
    x: `[..., C]`, floating. Devices hold batches of the same size.
    axis_name: mapped axis to synchronise over; None for this device only.
    group_size: neighbouring devices that share statistics; None for all.

  Returns:
    Mean `[C]`, variance `[C]` (both float32 at least) and the number of values
    per channel.
  """
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  axes = tuple(range(x.ndim - 1))
  count = x.size // x.shape[-1]
  if axis_name is None:
    add = lambda value: value
  else:
    devices = lax.axis_size(axis_name)
    groups = index_groups(devices, group_size) if group_size else None
    count *= group_size or devices
    add = lambda value: lax.psum(value, axis_name, axis_index_groups=groups)
  mean = add(jnp.sum(x, axes)) / count
  variance = add(jnp.sum(jnp.square(x - mean), axes)) / count
  return mean, variance, count


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last.

  Parameters `scale`, `bias`; running statistics `mean`, `var`. Normalisation
  uses the biased variance, the running variance takes the unbiased one. Whether
  scale and bias are trained is the optimizer's choice.

  Attributes:
    axis_name: mapped axis to synchronise statistics over, or None.
    group_size: neighbouring devices that share statistics; None for all.
    dtype: of the output; statistics and affine stay in float32 at least.
    param_dtype: of parameters and running statistics.
  """

  axis_name: str | None = None
  group_size: int | None = None
  dtype: jnp.dtype = jnp.float32
  param_dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Normalises `[..., C]`; with `train`, by and into its statistics."""
    shape = x.shape[-1:]
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    scale = self.param('scale', ones, shape, self.param_dtype)
    bias = self.param('bias', zeros, shape, self.param_dtype)
    running = {
      name: self.variable('batch_stats', name, make, shape, self.param_dtype)
      for name, make in (('mean', jnp.zeros), ('var', jnp.ones))
    }
    if train and not self.is_initializing():
      mean, variance, count = moments(x, self.axis_name, self.group_size)
      unbiased = variance * (count / max(count - 1, 1))
      for name, value in (('mean', mean), ('var', unbiased)):
        old = running[name].value
        new = (1 - MOMENTUM) * old + MOMENTUM * lax.stop_gradient(value)
        running[name].value = new.astype(old.dtype)
    else:
      mean, variance = running['mean'].value, running['var'].value
    y = (x - mean) * (scale * lax.rsqrt(variance + EPSILON)) + bias
    return y.astype(self.dtype)
