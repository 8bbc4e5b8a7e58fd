"""Augmentation that every method shares, on the device: u8 in, floats out."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxseg_da.ops import blur, normalize
from jaxseg_da.ops import rng as rng_lib


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


def random_blur(
  keys: jax.Array, images: jax.Array, probability: float, largest: float
) -> jax.Array:
  """Blurs some examples by a Gaussian whose sigma is uniform in 0..largest.

  One uniform number u per example says both: it is blurred where u is less
  than the probability, and u / probability is then uniform as well.

  Args:
    keys: `[B]`, one per example.
    images: float `[B, H, W, C]`; those that are not blurred stay exact.
    probability: of each example, above 0.
    largest: sigma in pixels; it decides how far the kernels reach.

  Returns:
    `[B, H, W, C]`, dtype of `images`.
  """
  u = jax.vmap(lambda key: jax.random.uniform(key, dtype=jnp.float32))(keys)
  sigma = jnp.where(u < probability, u * (largest / probability), 0)
  height, width = (blur.opencv_taps(largest, n) for n in images.shape[1:3])
  return blur.gaussian_blur(images, sigma, (height, width))


def prepare(
  batch,
  keys: rng_lib.Keys,
  *,
  normalization: str,
  mirror: bool,
  blur_probability: float = 0.0,
  blur_sigma: Sequence[float] = (0.0, 0.0),
  dtype=None,
):
  """Flips, blurs, normalises, squeezes labels; per domain, on the device.

  Args:
    batch: domain -> `image` u8 `[b, H, W, 3]` RGB, `label` u8 `[b, H, W, 1]`,
      and perhaps others, which stay as they are.
    keys: keys of the step.
    normalization: name in `ops.normalize`.
    mirror: whether examples are flipped at random.
    blur_probability: of each example.
    blur_sigma: the largest sigma in pixels, of `source` and of `target`; 0, as
      under any other name, does not blur.
    dtype: of the images; float32 by default.

  Returns:
    domain -> `image` float `[b, H, W, 3]`, `label` i32 `[b, H, W]`.
  """
  dtype = dtype or jnp.float32
  largest = dict(zip(('source', 'target'), blur_sigma, strict=True))
  prepared = {}
  for domain, arrays in batch.items():
    image, label = arrays['image'], arrays['label'][..., 0]
    if mirror:
      image, label = flip(keys.examples(f'{domain}/flip'), image, label)
    if blur_probability and largest.get(domain):
      image = image.astype(jnp.promote_types(dtype, jnp.float32))
      chosen = keys.examples(f'{domain}/blur')
      image = random_blur(chosen, image, blur_probability, largest[domain])
    image = normalize.normalize(image, normalization, dtype)
    label = label.astype(jnp.int32)
    prepared[domain] = {**arrays, 'image': image, 'label': label}
  return prepared
