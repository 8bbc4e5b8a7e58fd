"""Class mixing: pixels of half of an image's classes, pasted onto another.

ClassMix (Olsson et al., WACV 2021, section 3.2) and DACS (Tranheden et al.,
WACV 2021, section 3.1). Functions work on one image; `jax.vmap` makes batches.
A *slot* is a class, or, as the last one, everything that is ignored.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxseg_da import errors

ROUNDINGS = ('ceil', 'floor')


def _slots(labels: jax.Array, num_classes: int) -> jax.Array:
  """One-hot `[H, W, num_classes + 1]`, bool; other labels use the last slot."""
  inside = (labels >= 0) & (labels < num_classes)
  slot = jnp.where(inside, labels.astype(jnp.int32), num_classes)
  return slot[..., None] == jnp.arange(num_classes + 1)


def present_classes(labels: jax.Array, num_classes: int) -> jax.Array:
  """Which slots occur in an image.

  Args:
    labels: int `[H, W]`; labels outside `0..num_classes-1` (255) share the
      last slot.
    num_classes: number of classes.

  Returns:
    bool `[num_classes + 1]`.
  """
  return jnp.any(_slots(labels, num_classes), axis=(0, 1))


def choose_classes(
  key: jax.Array,
  labels: jax.Array,
  num_classes: int,
  include_ignore: bool = True,
  rounding: str = 'ceil',
) -> jax.Array:
  """Draws half of the classes of an image, uniformly without replacement.

  Args:
    key: the image's key.
    labels: int `[H, W]`.
    num_classes: number of classes.
    include_ignore: whether ignored pixels count as one more class, as in the
      DACS code (ClassMix leaves them out).
    rounding: `ceil` of half the number (DACS), or `floor` (ClassMix).

  Returns:
    bool `[num_classes + 1]`, the chosen slots.

  Raises:
    UserError: `rounding` is unknown.
  """
  if rounding not in ROUNDINGS:
    raise errors.unknown('rounding', rounding, ROUNDINGS)
  slots = num_classes + 1
  present = present_classes(labels, num_classes)
  if not include_ignore:
    present = present.at[num_classes].set(False)
  number = (jnp.sum(present) + (rounding == 'ceil')) // 2
  # A random order of all slots orders those present uniformly, too.
  order = jnp.where(present, jax.random.permutation(key, slots), slots)
  rank = jnp.sum(order[None] < order[:, None], axis=1)
  return present & (rank < number)


def mask(labels: jax.Array, chosen: jax.Array) -> jax.Array:
  """Where an image shows one of the chosen classes.

  Args:
    labels: int `[H, W]`.
    chosen: bool `[num_classes + 1]` from `choose_classes`.

  Returns:
    bool `[H, W]`.
  """
  return jnp.any(_slots(labels, chosen.size - 1) & chosen, axis=-1)


def mix(mask: jax.Array, source: jax.Array, target: jax.Array) -> jax.Array:
  """Takes `source` where `mask` holds and `target` elsewhere.

  Args:
    mask: bool `[..., H, W]`.
    source: `[..., H, W]` or `[..., H, W, C]`: images, labels, weights.
    target: like `source`.

  Returns:
    Like `source`.

  Raises:
    ValueError: shapes do not fit, or the two have different dtypes.
  """
  if source.shape != target.shape or source.shape[: mask.ndim] != mask.shape:
    raise ValueError(
      f'mask {mask.shape}, source {source.shape} and target {target.shape} '
      f'do not fit together'
    )
  if source.dtype != target.dtype:
    raise ValueError(f'cannot mix {source.dtype} with {target.dtype}')
  axes = tuple(range(mask.ndim, source.ndim))
  return jnp.where(jnp.expand_dims(mask, axes), source, target)
