"""What the rest of the package sees of a network: two pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn


@dataclasses.dataclass(frozen=True)
class Network:
  """A network without its framework.

  Attributes:
    init: `(key, images) -> variables`, a dict `{'params', 'batch_stats'}` of
      nested dicts. Of `images` only shape and dtype are read, so a
      `jax.ShapeDtypeStruct` will do.
    apply: `(variables, images, train, keys=None) -> (outputs, batch_stats)`.
      `images` are normalised floats `[B, H, W, 3]`; outputs are a dict with
      `logits` `[B, h, w, C]` at the network's own resolution and, where the
      network has them, `aux_logits` of a second head, and `features`.
      With `train=True` normalisation uses the batch's statistics and the
      returned ones have moved; with `train=False` it uses the running ones and
      returns them unchanged. `keys`
      are random keys `[B]`, as `rng.Keys.examples` gives them: what a network
      with dropout needs in training, and what others ignore.
  """

  init: Callable[[jax.Array, Any], dict[str, Any]]
  apply: Callable[..., tuple[dict[str, jax.Array], Any]]


def from_linen(module: nn.Module, dropout: bool = False) -> Network:
  """Wraps a Linen module as a `Network`.

  Args:
    module: its call is `module(images, train) -> outputs`, with dropout
      `module(images, train, keys)`.
    dropout: whether it drops anything in training. Its `apply` then raises a
      ValueError where `train=True` comes without one key per image.
  """

  def init(key, images):
    # Lazily: the forward pass only finds shapes, nothing of it is computed.
    sample = jax.ShapeDtypeStruct(images.shape, images.dtype)
    variables = module.lazy_init(key, sample, False)
    return {
      'params': variables['params'],
      'batch_stats': variables.get('batch_stats', {}),
    }

  def apply(
    variables: Mapping[str, Any], images, train: bool, keys=None
  ) -> Any:
    stats = variables.get('batch_stats', {})
    if not train:
      return module.apply(variables, images, False), stats
    inputs = (images, True)
    if dropout:
      _check_keys(keys, images)
      inputs += (keys,)
    outputs, updated = module.apply(variables, *inputs, mutable=['batch_stats'])
    return outputs, updated.get('batch_stats', stats)

  return Network(init, apply)


def _check_keys(keys, images) -> None:
  if keys is None or keys.shape != images.shape[:1]:
    found = 'none' if keys is None else f'keys of shape {keys.shape}'
    raise ValueError(
      'training with dropout needs one random key per image, shape'
      f' {images.shape[:1]}, but got {found}; a method passes'
      " context.keys.examples('dropout/NAME')"
    )
