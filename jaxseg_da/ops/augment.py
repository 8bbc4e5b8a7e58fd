"""Augmentation that every method shares, on the device: u8 in, floats out."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxseg_da import rng as rng_lib
from jaxseg_da.ops import normalize


def flip(keys: jax.Array, *arrays: jax.Array) -> tuple[jax.Array, ...]:
  """Mirrors each example left to right with probability one half.

  Args:
    keys: `[B]`, one per example.
    *arrays: `[B, H, W, ...]`, mirrored together.
  """
  chosen = jax.vmap(jax.random.bernoulli)(keys)

  def mirror(x):
    return jnp.where(chosen.reshape(-1, *[1] * (x.ndim - 1)), x[:, :, ::-1], x)

  return tuple(mirror(x) for x in arrays)


def prepare(
  batch, keys: rng_lib.Keys, *, normalization: str, mirror: bool, dtype=None
):
  """Normalises images, squeezes labels, flips; per domain, on the device.

  Args:
    batch: domain -> `image` u8 `[b, H, W, 3]` RGB, `label` u8 `[b, H, W, 1]`,
      and perhaps others, which stay as they are.
    keys: keys of the step.
    normalization: name in `ops.normalize`.
    mirror: whether examples are flipped at random.
    dtype: of the images; float32 by default.

  Returns:
    domain -> `image` float `[b, H, W, 3]`, `label` i32 `[b, H, W]`.
  """
  prepared = {}
  for domain, arrays in batch.items():
    image, label = arrays['image'], arrays['label'][..., 0]
    if mirror:
      image, label = flip(keys.examples(f'{domain}/flip'), image, label)
    image = normalize.normalize(image, normalization, dtype or jnp.float32)
    label = label.astype(jnp.int32)
    prepared[domain] = {**arrays, 'image': image, 'label': label}
  return prepared
