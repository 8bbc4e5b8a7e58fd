"""Exponential moving averages of parameters: the mean teacher.

Tarvainen and Valpola, NeurIPS 2017, with the start-up rule of DACS's code.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def decay(step: jax.Array | int, maximum: float) -> jax.Array:
  """The decay of iteration `step` (from 0): `min(1 - 1/(step+1), maximum)`.

  At step 0 it is 0, so the teacher becomes a copy of the student.
  """
  # As a float: 32-bit integers divide in float32 even where float64 is on.
  return jnp.minimum(1 - 1 / (jnp.asarray(step, float) + 1), maximum)


def update(teacher, student, decay: jax.Array | float):
  """Moves every leaf: `decay * teacher + (1 - decay) * student`.

  Args:
    teacher: pytree of floats, for instance parameters.
    student: pytree of the same structure and shapes.
    decay: scalar in `[0, 1]`; 0 copies the student.

  Returns:
    The new teacher, in the teacher's dtypes.
  """

  def leaf(old, new):
    keep = jnp.asarray(decay, old.dtype)
    return keep * old + (1 - keep) * new.astype(old.dtype)

  return jax.tree.map(leaf, teacher, student)
