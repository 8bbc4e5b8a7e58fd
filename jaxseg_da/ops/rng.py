"""Random keys of one training step, derived and never threaded.

A key depends on the run's key, the step, the example's index in the *global*
batch and the purpose's name. So a draw is the same for any number of devices,
and a resumed run repeats it. A draw that all examples share skips the index.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import jax


def named(key: jax.Array, name: str) -> jax.Array:
  """The key of purpose `name` below `key`."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


class Keys(NamedTuple):
  """Keys of one step on one device.

  Attributes:
    step: key, the run's key folded with the step.
    index: i32 `[b]`, the local examples' indices in the global batch.
  """

  step: jax.Array
  index: jax.Array

  def iteration(self, name: str) -> jax.Array:
    """One key that every example of the global batch shares."""
    return named(self.step, name)

  def examples(self, name: str) -> jax.Array:
    """Keys `[b]`, one per local example."""
    base = named(self.step, 'example')
    keys = jax.vmap(lambda i: jax.random.fold_in(base, i))(self.index)
    return jax.vmap(lambda key: named(key, name))(keys)
