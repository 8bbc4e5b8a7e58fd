"""Random initial values that are cheap to compile.

Compiling a random draw costs XLA's CPU backend 0.4 s per distinct shape, more
than a small network's whole initialisation is worth. So values are drawn in
blocks of two sizes, each compiled once, and cut to shape.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

_SMALL, _LARGE = 2**12, 2**18


def normal(std: float) -> Callable:
  """An initialiser `(key, shape, dtype)` that draws N(0, std^2)."""
  return lambda key, shape, dtype: std * _draw('normal', key, shape, dtype)


def he(key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
  """N(0, 2 / fan_out) for a kernel `[k, k, C_in, C_out]`.

  He et al., "Delving Deep into Rectifiers", arXiv 1502.01852, section 2.2.
  """
  fan_out = math.prod(shape) // shape[-2]
  return normal(math.sqrt(2 / fan_out))(key, shape, dtype)


def uniform(bound: float) -> Callable:
  """An initialiser `(key, shape, dtype)` that draws U(-bound, bound)."""

  def init(key, shape, dtype):
    return bound * (2 * _draw('uniform', key, shape, dtype) - 1)

  return init


def _draw(kind: str, key, shape, dtype) -> jax.Array:
  size = math.prod(shape)
  block = _SMALL if size <= _SMALL else _LARGE
  count = -(-size // block)
  flat = _blocks(kind, key, block, count, jnp.dtype(dtype).name)
  return flat[:size].reshape(shape)


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))
def _blocks(kind, key, block, count, dtype):
  sample = {'normal': jax.random.normal, 'uniform': jax.random.uniform}[kind]
  if count == 1:
    return sample(key, (block,), dtype)
  keys = jax.random.split(key, count)
  return lax.map(lambda k: sample(k, (block,), dtype), keys).reshape(-1)
