"""Distillation from a network with coarse classes into one with finer ones.

The student's probability of a coarse class is the sum over its children, so the
teacher's prediction stays right however that sum is shared out. Every pixel
counts; the teacher gets no gradient.

Shenaj et al., "Continual coarse-to-fine domain adaptation in semantic
segmentation", Image and Vision Computing 121 (2022) 104426, in the form of the
released code: the logarithm of the sum, not the sum of logarithms. MiB is the
baseline that it compares with.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg_da.losses import terms

Children = Sequence[Sequence[int]]
Loss = tuple[jax.Array, jax.Array]


def log_parents(logits: jax.Array, children: Children) -> jax.Array:
  """Log-probabilities of coarse classes, from logits of their children.

  Args:
    logits: float `[..., F]`.
    children: for each of P parents the indices of its children, in any order;
      together every index below F, once.

  Returns:
    The logarithm of the softmax summed over each parent's children, `[..., P]`,
    float32 or better.

  Raises:
    ValueError: the children are no partition of the F classes.
  """
  fine = logits.shape[-1]
  if sorted(f for group in children for f in group) != list(range(fine)):
    raise ValueError(
      f'children {children} must hold each of {fine} classes once'
    )
  logits = logits.astype(terms.loss_dtype(logits.dtype))
  sums = jnp.stack([_log_sum(logits, group) for group in children], axis=-1)
  return sums - jax.nn.logsumexp(logits, axis=-1, keepdims=True)


def coarse_to_fine(
  logits: jax.Array, teacher_logits: jax.Array, children: Children
) -> Loss:
  """Cross-entropy of the student's coarse prediction with the teacher's.

  Its least value is the entropy of the teacher's prediction.

  Args:
    logits: float `[B, H, W, F]` of the student.
    teacher_logits: float `[B, H, W, P]`.
    children: as in `log_parents`.

  Returns:
    total: scalar, the sum over pixels of `-sum_c p_c log q_c` with p of the
      teacher and q of the student, float32 or better.
    count: scalar, same dtype, the number of pixels.

  Raises:
    ValueError: shapes and children do not fit together.
  """
  losses, count = _by_parent(logits, teacher_logits, children)
  return jnp.sum(losses), count


def coarse_to_fine_parts(
  logits: jax.Array, teacher_logits: jax.Array, children: Children
) -> tuple[Loss, Loss]:
  """`coarse_to_fine` in two parts, so that each can have its own weight.

  Args:
    logits: float `[B, H, W, F]` of the student.
    teacher_logits: float `[B, H, W, P]`.
    children: as in `log_parents`.

  Returns:
    `(total, count)` of the definitive parents, which have one child, and of the
    refined ones. The total is 0 where there are none. Both counts are those of
    all pixels, so that parts of equal weight add up to the whole.

  Raises:
    ValueError: shapes and children do not fit together.
  """
  losses, count = _by_parent(logits, teacher_logits, children)
  refined = np.array([len(group) > 1 for group in children])
  definitive, split = (
    jnp.sum(jnp.where(which, losses, 0)) for which in (~refined, refined)
  )
  return (definitive, count), (split, count)


def merged_background(
  logits: jax.Array, teacher_logits: jax.Array, children: Children
) -> Loss:
  """`coarse_to_fine` with all refined parents merged into one (MiB).

  The loss is 0 where every parent is refined.

  Args:
    logits: float `[B, H, W, F]` of the student.
    teacher_logits: float `[B, H, W, P]`.
    children: as in `log_parents`.

  Returns:
    total, count: as `coarse_to_fine`.

  Raises:
    ValueError: shapes and children do not fit together.
  """
  _check_teacher(teacher_logits, children)
  refined = np.array([len(group) > 1 for group in children])
  if not refined.any():
    return coarse_to_fine(logits, teacher_logits, children)
  kept = [group for group in children if len(group) == 1]
  merged = [f for group in children if len(group) > 1 for f in group]
  teacher = teacher_logits.astype(terms.loss_dtype(teacher_logits.dtype))
  background = jax.nn.logsumexp(teacher[..., refined], axis=-1, keepdims=True)
  teacher = jnp.concatenate([teacher[..., ~refined], background], axis=-1)
  return coarse_to_fine(logits, teacher, [*kept, merged])


def _log_sum(logits, group) -> jax.Array:
  """The logarithm of the summed exponentials of some channels, `[...]`."""
  if len(group) == 1:
    return logits[..., group[0]]
  return jax.nn.logsumexp(logits[..., np.array(group)], axis=-1)


def _by_parent(logits, teacher_logits, children) -> Loss:
  """Losses `[P]` summed over pixels, and the number of pixels."""
  _check_teacher(teacher_logits, children)
  if logits.shape[:-1] != teacher_logits.shape[:-1]:
    raise ValueError(
      f'logits {logits.shape} and those of the teacher {teacher_logits.shape}'
      ' must have the same pixels'
    )
  dtype = terms.loss_dtype(teacher_logits.dtype)
  teacher = jax.nn.softmax(lax.stop_gradient(teacher_logits).astype(dtype))
  losses = -teacher * log_parents(logits, children)
  pixels = tuple(range(losses.ndim - 1))
  count = losses.size // losses.shape[-1]
  return jnp.sum(losses, axis=pixels), jnp.asarray(count, losses.dtype)


def _check_teacher(teacher_logits, children) -> None:
  if teacher_logits.shape[-1] != len(children):
    raise ValueError(
      f'the teacher has {teacher_logits.shape[-1]} classes, but there are'
      f' children of {len(children)}'
    )
