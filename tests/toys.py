"""Tiny networks, batches and steps that the tests of the core share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da import config as config_lib
from jaxseg_da import methods
from jaxseg_da.models import base as models_base
from jaxseg_da.training import parallel, train

SIZE = (32, 32)  # the least that a discriminator sees


def config(method: str = 'source_only', **values) -> config_lib.ConfigDict:
  """A one-stage config of the smallest street network."""
  c = methods.base_config('lse', 'cdga', method)
  c.method = method
  c.model.preset = 'reduced'
  c.model.width = 64
  c.batch_size = c.scale_reference_batch = 8
  c.data.source_size = c.data.target_size = SIZE
  c.lse.window = (SIZE[0] // 2, SIZE[1] // 2)
  c.adversarial.discriminator_width, c.cdga.groups = 4, 3
  c.optim.main.update(name='sgd', learning_rate=0.05, weight_decay=1e-3)
  c.pipeline = (method,)
  with c.unlocked():
    c.stages = config_lib.ConfigDict({method: config_lib.stage(method, 4)})
  c.update(values)
  return c


def batch(seed: int, size: int = 8, shape=SIZE, domains=('source', 'target')):
  """Random u8 images with block-shaped labels; shares of 255 differ."""
  rng = np.random.default_rng(seed)
  result = {}
  for domain in domains:
    image = rng.integers(0, 256, (size, *shape, 3), dtype=np.uint8)
    coarse = rng.integers(0, 19, (size, shape[0] // 4, shape[1] // 4, 1))
    label = coarse.repeat(4, 1).repeat(4, 2).astype(np.uint8)
    for i in range(size):
      label[i, : rng.integers(0, shape[0])] = 255
    if domain == 'target':
      label[:] = 255
    result[domain] = {'image': image, 'label': label}
  return result


def linear_network(features: int, batch_norm: bool = True, axis='batch'):
  """A 3x3 convolution, BatchNorm and a 1x1 classifier, without Flax."""

  def init(key, images):
    first, second = jax.random.split(key)
    params = {
      'conv': 0.3 * jax.random.normal(first, (3, 3, images.shape[-1], 6)),
      'classifier': 0.3 * jax.random.normal(second, (6, features)),
    }
    return {'params': params, 'batch_stats': {}}

  def apply(variables, images, train):
    p = variables['params']
    x = jax.lax.conv_general_dilated(
      images,
      p['conv'].astype(images.dtype),
      (1, 1),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    logits = jax.nn.relu(x) @ p['classifier'].astype(images.dtype)
    return {'logits': logits}, variables['batch_stats']

  return models_base.Network(init, apply)


def domains_of(stage: train.Stage, data):
  """The part of a batch that the stage's method reads.

  Where a host pass would choose the rows, windows come with them.
  """
  chosen = {}
  for name, domain in stage.method.domains.items():
    chosen[name] = data[name]
    if domain.rows:
      size = len(data[name]['image'])
      rng = np.random.default_rng(size)
      limits = [n // 2 + 1 for n in SIZE]
      corner = rng.integers(0, limits, (size, 2)).astype(np.int32)
      chosen[name] = {**data[name], 'corner': corner}
  return chosen


def run_steps(stage, state, batches, backend: parallel.Backend):
  """Runs the stage's step on host batches; returns host state and metrics."""
  step = backend.compile(stage.step)
  state = backend.replicate(state)
  key = backend.replicate(stage.key)
  metrics = []
  for data in batches:
    data = backend.shard(domains_of(stage, data))
    state, values = step(state, data, key)
    metrics.append(jax.device_get(values))
  return jax.device_get(state), metrics


def to_float64(tree):
  """Floating leaves in double precision."""
  return jax.tree.map(
    lambda x: (
      x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
    ),
    tree,
  )


def worst(actual, expected, floor: float = 1e-12):
  """Largest deviation over leaves, relative to each leaf's norm."""

  def leaf(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), floor)

  deviations = jax.tree.map(leaf, actual, expected)
  flat, _ = jax.tree_util.tree_flatten_with_path(deviations)
  return max(((v, jax.tree_util.keystr(k)) for k, v in flat), default=(0, ''))
