"""How a loss leaves a phase: local sums, with the count they are divided by.

A device differentiates its *share* of the global loss. For an additive loss
that share is `sum_local / psum(count_local)`, so that shares add up to the mean
over the global batch, however unevenly valid pixels are spread over devices.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Term(NamedTuple):
  """One loss term of one device.

  Attributes:
    total: scalar, the local sum (differentiable).
    count: scalar, the local count; its `psum` divides `total`. A term computed
      from `psum`med statistics is the same on every device: give it the count
      1, and the shares add up to it.
    weight: factor of the term in the phase's loss.
  """

  total: jax.Array
  count: jax.Array | float
  weight: jax.Array | float = 1.0


def loss_dtype(dtype) -> jnp.dtype:
  """Losses are computed in float32 at least, in float64 where inputs are."""
  return jnp.promote_types(dtype, jnp.float32)
