"""Maps of groups, and all losses of them, that several tests share."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da.losses import grouping
from jaxseg_da.training import parallel
from jaxseg_da.training import step as step_lib

BACKENDS = sorted(parallel.BACKENDS)
AXIS = step_lib.AXIS
DOMAINS = ('source', 'target')
SHAPE = (8, 2, 3)
K, U = 3, 4
TAU = 0.3  # Some classes of `maps` are present, some are not.
counts = pytest.mark.parametrize('count', (1, 8))


def maps(seed: int, groups: int = K, dtype=np.float64):
  """Random P and H of one domain."""
  rng = np.random.default_rng(seed)
  p, h = rng.dirichlet(np.ones(U), SHAPE), rng.dirichlet(np.ones(groups), SHAPE)
  return p.astype(dtype), h.astype(dtype)


def one_group(seed: int):
  """What one group makes of a domain."""
  p, _ = maps(seed)
  return p, np.ones((*SHAPE, 1))


def sorted_out(labels):
  """One-hot P and H: classes 0 and 1 are group 0, 2 is group 1, 3 group 2."""
  return np.eye(U)[labels], np.eye(K)[np.array([0, 0, 1, 2])[labels]]


def all_classes(seed: int):
  """Labels in which every class occurs."""
  labels = np.random.default_rng(seed).integers(0, U, SHAPE)
  labels[0].flat[:U] = range(U)
  return labels


def losses(source, target, axis_name=None):
  """Every loss in every form, and the statistics that they are made of."""
  q, result = {}, {}
  for mode in grouping.NORMALISATIONS:
    q[mode] = [
      grouping.class_distribution(*x, mode, axis_name)[0]
      for x in (source, target)
    ]
  r = [grouping.presence(*x, axis_name) for x in (source, target)]
  for mode, distance in itertools.product(q, grouping.DISTANCES):
    value = grouping.consistency(*q[mode], distance)
    result[f'co/{mode}/{distance}'] = value
  for mode in q:
    result[f'orth/{mode}'] = sum(map(grouping.orthogonality, q[mode]))
  for form, label in itertools.product(grouping.FORMS, grouping.TARGETS):
    value = grouping.class_equivalence(*r, TAU, form, label)
    result[f'cl/{form}/{label}'] = value
  shares = grouping.class_distribution(*source, axis_name=axis_name)[1]
  return result, {'q': q['mass'], 'q_pixels': q['pixels'], 'r': r, 's': shares}


NAMES = (
  *('co/mass/l2sq', 'co/mass/l1', 'co/pixels/l2sq', 'co/pixels/l1'),
  *('orth/mass', 'orth/pixels'),
  *('cl/bce/hard', 'cl/bce/soft', 'cl/positive_only/hard'),
  'cl/positive_only/soft',
)


@functools.cache
def compiled(count: int, name: str = 'pmap'):
  """Losses, statistics and gradients with respect to all maps.

  As in a step: a device differentiates its share of what is the same on all.
  """
  backend = parallel.BACKENDS[name](jax.devices()[:count])

  def share(batch):
    values, statistics = losses(*batch, AXIS)
    share = jnp.stack([values[k] for k in NAMES]) / jax.lax.psum(1, AXIS)
    return share, (share, statistics)

  def step(state, batch, rng):
    del rng
    gradients, (values, statistics) = jax.jacrev(share, has_aux=True)(batch)
    # The sum over devices is the loss if they all agree.
    values = jax.lax.psum(values, AXIS)
    gather = lambda x: jax.lax.all_gather(x, AXIS, axis=1, tiled=True)
    return state, (values, statistics, jax.tree.map(gather, gradients))

  compiled = backend.compile(step)

  def run(source, target):
    state, key = map(backend.replicate, (jnp.zeros(()), jax.random.key(0)))
    outputs = compiled(state, backend.shard((source, target)), key)[1]
    values, statistics, gradients = jax.device_get(outputs)
    by_name = lambda i: jax.tree.map(lambda x: x[i], gradients)
    return (
      dict(zip(NAMES, values, strict=True)),
      statistics,
      {name: by_name(i) for i, name in enumerate(NAMES)},
    )

  return run


def random_variables(network):
  """Random parameters, biases too, without compiling their initialisation."""
  images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), images)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype), variables
  )
