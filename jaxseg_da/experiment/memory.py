"""What a stage needs at least, before anything is compiled.

A lower bound: the state, the gradients of a phase, the pixels of the batch, and
those of one domain as floats. What networks keep for the backward pass, logits
and teachers come on top. So what does not fit here never fits, and what fits
here may still fail.
"""

from __future__ import annotations

import dataclasses
import math
import os
from typing import NamedTuple

import jax

from jaxseg_da import errors
from jaxseg_da.experiment import assembly
from jaxseg_da.training import contract
from jaxseg_da.training.train import Stage

_GIB = 2**30


class Estimate(NamedTuple):
  """Of one stage.

  Attributes:
    parameters: of all networks.
    needed: bytes per device, at least.
    available: bytes per device; None where the device does not say.
  """

  parameters: int
  needed: int
  available: int | None


def estimate(stage: Stage) -> Estimate:
  """What a stage needs on each device, and what there is."""
  # What a method keeps besides may depend on a host pass: it is left out.
  method = dataclasses.replace(stage.method, init_extra=contract.no_extra)
  bare = dataclasses.replace(stage, method=method)
  state = jax.eval_shape(lambda: assembly.initial_state(bare))
  gradients = max(
    (
      sum(_bytes(state.params[name]) for name in phase.train)
      for phase in stage.method.phases
    ),
    default=0,
  )
  images = -(-stage.config.batch_size // jax.device_count())
  values = [
    3 * images * math.prod(d.crop if any(d.crop) else d.size)
    for d in stage.method.domains.values()
  ]
  batch = sum(values) + 4 * max(values)  # bytes, and one domain as float32
  return Estimate(
    assembly.parameter_count(state),
    _bytes(state) + gradients + batch,
    available(),
  )


def available() -> int | None:
  """Bytes of a device; CPU devices share the memory of the host."""
  device = jax.local_devices()[0]
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit']
  if device.platform != 'cpu':
    return None
  try:
    total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  except (OSError, ValueError):
    return None
  return total // jax.local_device_count()


def check(stage: Stage) -> None:
  """Refuses a stage that cannot fit.

  Raises:
    UserError: names what is needed, what there is, and what to lower.
  """
  found = estimate(stage)
  if found.available is None or found.needed <= found.available:
    return
  raise errors.UserError(
    f'stage {stage.name} needs at least {found.needed / _GIB:.1f} GiB per '
    f'device, which has {found.available / _GIB:.1f} GiB: lower '
    f'config.batch_size={stage.config.batch_size}, the sizes of the images, or '
    'the network'
  )


def _bytes(tree) -> int:
  return sum(
    x.size * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
    if hasattr(x.dtype, 'itemsize')
  )
