"""One step of a method, in one process or in several; run by a test.

python -m tests.one_step OUT.npz BACKEND METHOD DTYPE

Every process feeds its rows of the same global batch; process 0 writes the
leaves of the resulting state, in order.
"""

from __future__ import annotations

import pathlib
import sys

import jax
import numpy as np

from jaxseg_da.experiment import assembly, resolve
from jaxseg_da.training import parallel
from tests import toys


def main(out: str, backend_name: str, method: str, dtype: str) -> None:
  """Runs the step and writes its state."""
  parallel.start_processes(False)
  jax.config.update('jax_enable_x64', dtype == 'float64')
  config = toys.config(method)
  config.model.compute_dtype = dtype
  # The first update is then the gradient times the rate.
  config.optim.main.weight_decay = 0.0
  stage = assembly.build(resolve.resolve(config), method)
  state = jax.device_get(assembly.initial_state(stage))
  if dtype == 'float64':
    state = jax.device_get(toys.to_float64(state))
  before = state.params
  backend = parallel.backend(backend_name)
  rows = toys.domains_of(stage, toys.batch(0))
  share = 8 // jax.process_count()
  first = jax.process_index() * share
  rows = jax.tree.map(lambda x: x[first : first + share], rows)
  step = backend.compile(stage.step)
  placed, key = backend.replicate(state), backend.replicate(stage.key)
  state, metrics = step(placed, backend.shard(rows), key)
  jax.block_until_ready(metrics)
  if jax.process_index() == 0:
    local = jax.tree.map(
      lambda x: np.asarray(x.addressable_shards[0].data), state
    )
    update = jax.tree.map(np.subtract, local.params, before)
    arrays = {f'state/{i:04d}': x for i, x in enumerate(jax.tree.leaves(local))}
    arrays |= {
      f'update/{i:04d}': x for i, x in enumerate(jax.tree.leaves(update))
    }
    np.savez(pathlib.Path(out), **arrays)
  parallel.barrier('written')


if __name__ == '__main__':
  main(*sys.argv[1:])
