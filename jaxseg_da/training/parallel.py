"""Devices, meshes and placement: nothing else in the package names them.

One contract, two compilers. A batch on the host is `[local_batch, ...]`; state
and keys are replicated, never stacked. `PmapBackend` is the default,
`ShardMapBackend` spans all processes with one mesh. Both run the same pure
step over the axis `batch`, without replication checks: gradients then are the
device's own, and the step sums them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxseg_da import errors
from jaxseg_da.training.step import AXIS

Tree = Any


class Backend(Protocol):
  """How the loop places data and compiles a step."""

  def replicate(self, tree: Tree) -> Tree:
    """Places a tree of host or device arrays on every device."""
    ...

  def shard(self, batch: Tree) -> Tree:
    """Splits the process's rows `[local_batch, ...]` over its devices."""
    ...

  def compile(self, step: Callable) -> Callable:
    """`(state, batch, rng) -> (state, metrics)`; the state is donated."""
    ...

  def abstract(self, tree: Tree) -> Tree:
    """Shapes with the sharding that a checkpoint is restored to."""
    ...

  def to_global(self, tree: Tree) -> Tree:
    """Replicated arrays as arrays of the global mesh, for checkpoints."""
    ...

  def from_global(self, tree: Tree) -> Tree:
    """The inverse of `to_global`."""
    ...


def _mesh(devices) -> Mesh:
  return Mesh(np.array(devices), (AXIS,))


def _put(tree: Tree, sharding: NamedSharding) -> Tree:
  return jax.tree.map(lambda x: jax.device_put(x, sharding), tree)


def _on_this_process(x):
  """A replicated array as this process holds it."""
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return x.addressable_shards[0].data
  return x


def _rewrap(tree: Tree, mesh: Mesh) -> Tree:
  """Replicated arrays with the same buffers, seen as arrays of `mesh`."""
  sharding = NamedSharding(mesh, P())

  def leaf(x):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      return jax.random.wrap_key_data(
        leaf(jax.random.key_data(x)), impl=jax.random.key_impl(x)
      )
    shards = [s.data for s in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(x.shape, sharding, shards)

  return jax.tree.map(leaf, tree)


class PmapBackend:
  """`jax.pmap` with replicated state: what the project's card names.

  Args:
    devices: devices of this process to use; all of all processes by default.
  """

  def __init__(self, devices=None):
    self._devices = devices
    self._local = _mesh(devices or jax.local_devices())
    self._global = _mesh(devices or jax.devices())

  def replicate(self, tree: Tree) -> Tree:
    """See `Backend`."""
    return _put(tree, NamedSharding(self._local, P()))

  def shard(self, batch: Tree) -> Tree:
    """See `Backend`."""
    count = self._local.size
    split = lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:])
    sharding = NamedSharding(self._local, P(AXIS))
    return _put(jax.tree.map(split, batch), sharding)

  def compile(self, step: Callable) -> Callable:
    """See `Backend`."""
    mapped = functools.partial(
      jax.pmap,
      axis_name=AXIS,
      in_axes=(None, 0, None),
      out_axes=(None, None),
      donate_argnums=(0,),
      devices=self._devices,
    )
    if jax.process_count() == 1:
      return mapped(step)
    # Between processes pmap takes typed keys through the host (jax 0.10).
    raw = mapped(
      lambda state, batch, data: step(
        state, batch, jax.random.wrap_key_data(data)
      )
    )
    return lambda state, batch, key: raw(state, batch, jax.random.key_data(key))

  def abstract(self, tree: Tree) -> Tree:
    """See `Backend`."""
    return _abstract(tree, self._global)

  def to_global(self, tree: Tree) -> Tree:
    """See `Backend`: a host-local replica becomes a global array."""
    return _rewrap(tree, self._global)

  def from_global(self, tree: Tree) -> Tree:
    """See `Backend`."""
    return _rewrap(tree, self._local)


class ShardMapBackend:
  """`jit(shard_map)` over one mesh of all processes' devices.

  Args:
    devices: devices to use; all of all processes by default.
  """

  def __init__(self, devices=None):
    self._local = _mesh(devices or jax.local_devices())
    self._global = _mesh(devices or jax.devices())

  def replicate(self, tree: Tree) -> Tree:
    """See `Backend`."""
    # An array that lies on this process cannot be put on a mesh of all.
    local = jax.tree.map(_on_this_process, tree)
    return _rewrap(_put(local, NamedSharding(self._local, P())), self._global)

  def shard(self, batch: Tree) -> Tree:
    """See `Backend`."""
    # Step by step, because make_array_from_process_local_data transfers
    # implicitly where there are several processes, which the loop forbids.
    sharding = NamedSharding(self._global, P(AXIS))
    parts = self._global.size // self._local.size

    def rows(x):
      shards = [s.data for s in x.addressable_shards]
      shape = (parts * x.shape[0], *x.shape[1:])
      return jax.make_array_from_single_device_arrays(shape, sharding, shards)

    return jax.tree.map(rows, _put(batch, NamedSharding(self._local, P(AXIS))))

  def compile(self, step: Callable) -> Callable:
    """See `Backend`."""
    mapped = jax.shard_map(
      step,
      mesh=self._global,
      in_specs=(P(), P(AXIS), P()),
      out_specs=(P(), P()),
      check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=(0,))

  def abstract(self, tree: Tree) -> Tree:
    """See `Backend`."""
    return _abstract(tree, self._global)

  def to_global(self, tree: Tree) -> Tree:
    """See `Backend`: nothing to do."""
    return tree

  def from_global(self, tree: Tree) -> Tree:
    """See `Backend`: nothing to do."""
    return tree


def _abstract(tree: Tree, mesh: Mesh) -> Tree:
  sharding = NamedSharding(mesh, P())
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )


BACKENDS = {'pmap': PmapBackend, 'shard_map': ShardMapBackend}


def backend(name: str) -> Backend:
  """The backend that `config.backend` names."""
  if name not in BACKENDS:
    raise errors.unknown('config.backend', name, BACKENDS)
  return BACKENDS[name]()


def compile_predictor(function: Callable, *arguments: Tree) -> Callable:
  """`images -> function(*arguments, images)`, split over local devices.

  Args:
    function: `(*arguments, images [b, ...]) -> outputs [b, ...]`, pure.
    *arguments: trees, replicated or on the host; copied to local devices.

  Returns:
    A callable for host images of any batch size; outputs stay on the devices.
  """
  mesh = _mesh(jax.local_devices())
  replicated = _put(jax.device_get(arguments), NamedSharding(mesh, P()))
  # Each device runs the program of its own share, whatever the number of them:
  # so an image gives the same numbers on one device as on many.
  specs = (*[P()] * len(arguments), P(AXIS))
  compiled = jax.jit(
    jax.shard_map(
      function, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False
    )
  )

  def predict(images):
    count = len(images)
    padding = -count % mesh.size
    if padding:
      images = np.concatenate([images, np.repeat(images[-1:], padding, 0)])
    images = jax.device_put(np.asarray(images), NamedSharding(mesh, P(AXIS)))
    outputs = compiled(*replicated, images)
    if padding:
      outputs = jax.tree.map(lambda x: x[:count], outputs)
    return outputs

  return predict


def start_processes(requested: bool) -> None:
  """Joins the other processes of a run; has to come before any device use.

  Pods and clusters that JAX knows need no settings. Elsewhere the variables
  `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` say where
  the first process listens, how many there are, and which one this is.

  Args:
    requested: `config.distributed`; the first variable implies it.
  """
  address = os.environ.get('JAX_COORDINATOR_ADDRESS')
  if not (requested or address) or jax.distributed.is_initialized():
    return
  count = os.environ.get('JAX_NUM_PROCESSES')
  index = os.environ.get('JAX_PROCESS_ID')
  jax.distributed.initialize(
    coordinator_address=address,
    num_processes=int(count) if count else None,
    process_id=int(index) if index else None,
  )


def sum_over_processes(counts: np.ndarray) -> np.ndarray:
  """Sums int64 counts over processes, exactly."""
  if jax.process_count() == 1:
    return counts
  halves = np.stack([counts >> 31, counts & 0x7FFFFFFF]).astype(np.int32)
  gathered = np.asarray(multihost_utils.process_allgather(halves))
  gathered = gathered.astype(np.int64).sum(0)
  return (gathered[0] << 31) + gathered[1]


def gathered(tree: Tree) -> Tree:
  """Host arrays of all processes, `[P, ...]`; of at most 32 bits."""
  if jax.process_count() == 1:
    return jax.tree.map(lambda x: x[None], tree)
  return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree))


def agreed(value: int) -> int:
  """What process 0 says: for what processes read from a disk that changes."""
  if jax.process_count() == 1:
    return value
  return int(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def barrier(name: str) -> None:
  """Waits until every process has come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
