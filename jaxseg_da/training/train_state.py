"""Everything that training changes, as one pytree that is equal everywhere."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax


class TrainState(flax.struct.PyTreeNode):
  """State of one stage; replicated over devices, donated to every step.

  Attributes:
    step: i32 scalar, updates done so far.
    params: network name -> parameters (fp32).
    batch_stats: network name -> BatchNorm running statistics.
    opt_state: phase name -> optax state over that phase's networks.
    extra: what the method keeps besides: teachers, centroids, queues.
  """

  step: jax.Array
  params: dict[str, Any]
  batch_stats: dict[str, Any]
  opt_state: dict[str, Any]
  extra: dict[str, Any]

  def variables(self) -> dict[str, Any]:
    """Network name -> `{'params': ..., 'batch_stats': ...}`."""
    return join(self.params, self.batch_stats)


def join(params: dict[str, Any], batch_stats: dict[str, Any]) -> dict[str, Any]:
  """Network name -> variables, from the two trees that the state keeps."""
  return {
    name: {'params': tree, 'batch_stats': batch_stats[name]}
    for name, tree in params.items()
  }
