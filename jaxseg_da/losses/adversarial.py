"""Losses of a discriminator that tells source from target outputs.

Tsai et al., Learning to Adapt Structured Output Space for Semantic
Segmentation (CVPR 2018); Vu et al., ADVENT (CVPR 2019). With D the
discriminator's outputs and L the mean of `domain_loss`, the discriminator
minimises

  1/2 L(D(source), SOURCE) + 1/2 L(D(target), TARGET)

on detached maps, and the segmentation network L(D(target), SOURCE). L is the
binary cross-entropy of logits or, in the least-squares variant, the squared
distance of the raw output to the label.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxseg_da import errors
from jaxseg_da.losses import terms

SOURCE, TARGET = 0, 1
OBJECTIVES = ('bce', 'least_squares')


def domain_loss(
  logits: jax.Array, domain: int, objective: str = 'bce'
) -> tuple[jax.Array, jax.Array]:
  """Summed loss of outputs that should say `domain`, and their number.

  Args:
    logits: float `[...]`, outputs of a discriminator, one per position.
    domain: `SOURCE` or `TARGET`.
    objective: `bce` or `least_squares`.

  Returns:
    (total, count): scalars, float32 or better.

  Raises:
    UserError: the objective is unknown.
  """
  _check(objective)
  logits = logits.astype(terms.loss_dtype(logits.dtype))
  if objective == 'bce':
    # Not `softplus(x) - domain * x`: that cancels where x is large and right.
    loss = jax.nn.softplus(-logits if domain == TARGET else logits)
  else:
    loss = jnp.square(logits - domain)
  return jnp.sum(loss), jnp.asarray(loss.size, loss.dtype)


def domain_accuracy(
  logits: jax.Array, domain: int, objective: str = 'bce'
) -> tuple[jax.Array, jax.Array]:
  """Number of outputs on the side of `domain`, and of all outputs.

  An output says target where it is nearer to the target's label: above 0 for
  `bce`, above 0.5 for `least_squares`.

  Args:
    logits: float `[...]`, outputs of a discriminator, one per position.
    domain: `SOURCE` or `TARGET`.
    objective: `bce` or `least_squares`.

  Returns:
    (total, count): scalars, float32 or better, without gradient.

  Raises:
    UserError: the objective is unknown.
  """
  _check(objective)
  dtype = terms.loss_dtype(logits.dtype)
  says_target = logits > (0 if objective == 'bce' else 0.5)
  right = says_target if domain == TARGET else ~says_target
  return jnp.sum(right, dtype=dtype), jnp.asarray(logits.size, dtype)


def _check(objective: str) -> None:
  if objective not in OBJECTIVES:
    raise errors.unknown('adversarial objective', objective, OBJECTIVES)
