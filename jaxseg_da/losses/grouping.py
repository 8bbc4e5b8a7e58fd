"""Losses on groups of pixels: do both domains fill a group alike?

Kim et al., Cross-Domain Grouping and Alignment for Domain Adaptive Semantic
Segmentation (AAAI 2021). Without code by its authors; which of the forms below
are the article's and which are ours is told in docs/methods/cdga.md.

P `[b, h, w, u]` are class probabilities and H `[b, h, w, K]` the shares of each
pixel in K groups, both summing to 1 over their last axis. Group k of an image
is F_k = H[..., k] * P, and F_1 + ... + F_K = P. What follows compares groups by
two statistics of the whole batch of a domain: how much of each class a group
holds (`class_distribution`), and whether it holds a class at all (`presence`).

Both couple all pixels, so they are reduced here, over devices, too, and so is
every loss made of them: a term of count 1. With D devices each of them
differentiates a D-th of it, and the transposes of the reductions add those up.

Everything is computed in float32 at least, in float64 where an input is. A
group that nobody belongs to has finite losses and gradients.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxseg_da import errors
from jaxseg_da.losses import terms

NORMALISATIONS = ('mass', 'pixels')
DISTANCES = ('l2sq', 'l1')
FORMS = ('bce', 'positive_only')
TARGETS = ('hard', 'soft')
NORM_FLOOR = 1e-8
CLAMP = 1e-7


def _precise(*arrays: jax.Array) -> list[jax.Array]:
  """Arrays in their common dtype, or float32 where that has fewer bits."""
  dtype = terms.loss_dtype(jnp.result_type(*arrays))
  return [jnp.asarray(x, dtype) for x in arrays]


def _maps(probabilities: jax.Array, assignment: jax.Array) -> list[jax.Array]:
  shapes = probabilities.shape, assignment.shape
  if len(shapes[0]) != 4 or shapes[0][:-1] != shapes[1][:-1]:
    raise ValueError(
      f'probabilities {shapes[0]} and assignment {shapes[1]} have to be '
      '[b, h, w, u] and [b, h, w, K]'
    )
  return _precise(probabilities, assignment)


def decompose(probabilities: jax.Array, assignment: jax.Array) -> jax.Array:
  """The groups F_k, folded into the batch axis, for a discriminator.

  Args:
    probabilities: float `[b, h, w, u]`.
    assignment: float `[b, h, w, K]`.

  Returns:
    `[K * b, h, w, u]`, the whole batch of group 0 first: its reshape to
    `[K, b, h, w, u]` sums to `probabilities` over the first axis.

  Raises:
    ValueError: the shapes do not fit.
  """
  p, a = _maps(probabilities, assignment)
  groups = jnp.moveaxis(a, -1, 0)[..., None] * p
  return groups.reshape(-1, *p.shape[1:])


def class_distribution(
  probabilities: jax.Array,
  assignment: jax.Array,
  normalisation: str = 'mass',
  axis_name: str | None = None,
  eps: float = 1e-6,
) -> tuple[jax.Array, jax.Array]:
  """How much of each class the groups of a domain hold.

  Args:
    probabilities: float `[b, h, w, u]`, this device's images of one domain.
    assignment: float `[b, h, w, K]`.
    normalisation: `mass`: a group's sum over pixels is divided by its mass,
      sum(H) + eps, so that the size of the group does not matter and a row of
      Q sums to 1; `pixels`: by the number of pixels, and rows sum to the
      groups' shares.
    axis_name: mapped axis over which the batch is spread.
    eps: in pixels; the row of an empty group is 0.

  Returns:
    Q `[K, u]`, and the groups' shares of the pixels, `[K]`, which sum to 1:
    both of the global batch, and differentiable.

  Raises:
    UserError: `normalisation` is unknown.
    ValueError: the shapes do not fit.
  """
  if normalisation not in NORMALISATIONS:
    raise errors.unknown('group normalisation', normalisation, NORMALISATIONS)
  p, a = _maps(probabilities, assignment)
  sums = jnp.einsum('bhwk,bhwu->ku', a, p, precision=lax.Precision.HIGHEST)
  mass, pixels = jnp.sum(a, axis=(0, 1, 2)), a[..., 0].size
  if axis_name is not None:
    sums, mass, pixels = lax.psum((sums, mass, pixels), axis_name)
  size = mass[:, None] + eps if normalisation == 'mass' else pixels
  return sums / size, mass / pixels


def presence(
  probabilities: jax.Array,
  assignment: jax.Array,
  axis_name: str | None = None,
) -> jax.Array:
  """How surely a group holds a class anywhere: the maximum over pixels of F.

  The gradient goes to the pixel where the maximum is, of equal ones to the
  first of the global batch: so it does not depend on the number of devices.

  Args:
    probabilities: float `[b, h, w, u]`, this device's images of one domain.
    assignment: float `[b, h, w, K]`.
    axis_name: mapped axis over which the batch is spread.

  Returns:
    R `[K, u]` of the global batch.

  Raises:
    ValueError: the shapes do not fit.
  """
  p, a = _maps(probabilities, assignment)
  pixel = _first_maximum(*lax.stop_gradient((p, a)))
  groups, classes = jnp.indices(pixel.shape, jnp.int32, sparse=True)
  a, p = (x.reshape(-1, x.shape[-1]) for x in (a, p))
  largest = a[pixel, groups] * p[pixel, classes]
  if axis_name is None:
    return largest
  everywhere = lax.all_gather(largest, axis_name)
  device = jnp.argmax(everywhere, axis=0, keepdims=True)
  return jnp.take_along_axis(everywhere, device, axis=0)[0]


def _first_maximum(p: jax.Array, a: jax.Array) -> jax.Array:
  """Where F is largest, `[K, u]`: the first such pixel of `[b * h * w]`.

  Row by row at first: XLA fuses the products into a maximum, so that F never
  exists. Into an arg-max it does, too, but that takes ten times as long on CPU.
  """
  width = p.shape[2]
  rows = jnp.max(a[..., None] * p[..., None, :], axis=2)
  rows = rows.reshape(-1, *rows.shape[2:])
  row = lax.argmax(rows, 0, jnp.int32)
  groups, classes = jnp.indices(row.shape, jnp.int32, sparse=True)
  a, p = (x.reshape(-1, *x.shape[2:]) for x in (a, p))
  products = a[row, :, groups] * p[row, :, classes]
  return row * width + lax.argmax(products, 2, jnp.int32)


def consistency(
  q_source: jax.Array, q_target: jax.Array, distance: str = 'l2sq'
) -> jax.Array:
  """L_co: how far the domains' class distributions are apart, over all groups.

  Args:
    q_source: `[K, u]`, from `class_distribution`.
    q_target: `[K, u]`; both have gradients.
    distance: `l2sq`, the sum of squares, or `l1`, of absolute values.

  Returns:
    A scalar.

  Raises:
    UserError: `distance` is unknown.
  """
  if distance not in DISTANCES:
    raise errors.unknown('distance of groups', distance, DISTANCES)
  q_source, q_target = _precise(q_source, q_target)
  difference = q_target - q_source
  # Not `abs`: its derivative at 0, where domains agree, is 1 in JAX.
  other = jnp.sign(difference) if distance == 'l1' else difference
  return jnp.sum(difference * other)


def orthogonality(q: jax.Array) -> jax.Array:
  """L_orth of one domain: cosines between the groups' class distributions.

  Args:
    q: `[K, u]`, from `class_distribution`.

  Returns:
    The sum over pairs of groups of a.b / max(|a| |b|, 1e-8), a scalar from 0,
    no class in common, to K (K - 1) / 2, all alike.
  """
  (q,) = _precise(q)
  products = jnp.matmul(q, q.T, precision=lax.Precision.HIGHEST)
  squares = jnp.diagonal(products)
  # Limited before the root, whose slope at 0 is infinite.
  norms = jnp.sqrt(jnp.maximum(jnp.outer(squares, squares), NORM_FLOOR**2))
  return jnp.sum(jnp.triu(products / norms, 1))


def class_equivalence(
  r_source: jax.Array,
  r_target: jax.Array,
  tau: float,
  form: str = 'bce',
  target: str = 'hard',
) -> jax.Array:
  """L_cl: the target's groups should hold the classes that the source's hold.

  Each group and class has a label y from the source, and R_T is limited to
  [1e-7, 1 - 1e-7]:

    bce            -mean(y log R_T + (1 - y) log(1 - R_T))
    positive_only  -mean(y log R_T)

  Both means are over all K u entries, so that the second form is the first
  without its second summand: classes the source's group lacks are let be.

  Args:
    r_source: `[K, u]`, from `presence`; no gradient.
    r_target: `[K, u]`, R_T.
    tau: presence above which a class counts as present.
    form: `bce` or `positive_only`.
    target: `hard`: y = 1 where R_S > tau, else 0; `soft`: y = R_S, and tau does
      not matter. The minimum of `bce`, at R_T = R_S, then is the mean entropy
      of y, not 0.

  Returns:
    A scalar.

  Raises:
    UserError: `form` or `target` is unknown.
  """
  if form not in FORMS:
    raise errors.unknown('form of class equivalence', form, FORMS)
  if target not in TARGETS:
    raise errors.unknown('target of class equivalence', target, TARGETS)
  r_source, r_target = _precise(lax.stop_gradient(r_source), r_target)
  y = r_source if target == 'soft' else r_source > tau
  limited = jnp.clip(r_target, CLAMP, 1 - CLAMP)
  gain = y * jnp.log(limited)
  if form == 'bce':
    gain += (1 - y) * jnp.log1p(-limited)
  return -jnp.mean(gain)
