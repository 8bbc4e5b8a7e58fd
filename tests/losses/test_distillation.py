from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors, models
from jaxseg_da.classes import hierarchy
from jaxseg_da.losses import distillation
from jaxseg_da.models import grow

# Four parents of seven classes; the second and the last are definitive.
CHILDREN = ((0, 3, 5), (2,), (4, 6), (1,))
PARENTS = (0, 3, 1, 0, 2, 0, 2)
GROWING = tuple(grow.CLASS_WISE)

log_parents, coarse_to_fine, coarse_to_fine_parts, merged_background = (
  jax.jit(getattr(distillation, name), static_argnums=n)
  for name, n in (
    ('log_parents', 1),
    ('coarse_to_fine', 2),
    ('coarse_to_fine_parts', 2),
    ('merged_background', 2),
  )
)


def _logits(classes, seed=0, shape=(2, 3, 4), scale=2.0):
  return np.random.default_rng(seed).normal(0, scale, (*shape, classes))


def _mean(loss):
  total, count = loss
  return total / count


def _softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def test_by_hand():
  # Student: 1/8, 1/2, 3/8; the first and the last are one parent's children.
  logits = jnp.log(jnp.array([1.0, 4.0, 3.0])).reshape(1, 1, 1, 3)
  teacher = jnp.log(jnp.array([0.25, 0.75])).reshape(1, 1, 1, 2)
  children = ((0, 2), (1,))
  half = np.log(2)
  log_q = log_parents(logits, children)
  np.testing.assert_allclose(log_q.ravel(), [-half, -half], rtol=1e-6)
  total, count = coarse_to_fine(logits, teacher, children)
  np.testing.assert_allclose(total, half, rtol=1e-6)
  assert count == 1
  fine, coarse = coarse_to_fine_parts(logits, teacher, children)
  np.testing.assert_allclose(_mean(fine), 0.75 * half, rtol=1e-6)
  np.testing.assert_allclose(_mean(coarse), 0.25 * half, rtol=1e-6)


def test_all_forms_against_sums_of_probabilities():
  with jax.enable_x64(True):
    logits, teacher = _logits(7), _logits(4, seed=1)
    p, q = _softmax(teacher), _softmax(logits)
    sums = np.stack([q[..., list(g)].sum(-1) for g in CHILDREN], -1)
    losses = -p * np.log(sums)
    args = jnp.asarray(logits), jnp.asarray(teacher), CHILDREN
    total, count = coarse_to_fine(*args)
    assert count == 24
    np.testing.assert_allclose(total, losses.sum(), rtol=1e-12)
    fine, coarse = coarse_to_fine_parts(*args)
    assert fine[1] == coarse[1] == count
    np.testing.assert_allclose(fine[0], losses[..., [1, 3]].sum(), rtol=1e-12)
    np.testing.assert_allclose(coarse[0], losses[..., [0, 2]].sum(), rtol=1e-12)
    # MiB as it is written: each refined parent has all refined children.
    both = np.log(sums[..., 0] + sums[..., 2])
    merged = losses[..., [1, 3]].sum() - ((p[..., 0] + p[..., 2]) * both).sum()
    total, count = merged_background(*args)
    assert count == 24
    np.testing.assert_allclose(total, merged, rtol=1e-12)


def test_parts_that_are_empty_are_zero():
  logits, teacher = jnp.asarray(_logits(4)), jnp.asarray(_logits(4, 1))
  alone, pairs = ((2,), (0,), (1,), (3,)), ((2, 0), (1, 3))
  for children, empty in ((alone, 1), (pairs, 0)):
    teacher = teacher[..., : len(children)]
    args = logits, teacher, children
    parts = coarse_to_fine_parts(*args)
    assert parts[empty][0] == 0
    whole = coarse_to_fine(*args)
    np.testing.assert_allclose(parts[1 - empty][0], whole[0], rtol=1e-6)
  merged, _ = merged_background(*args)
  np.testing.assert_allclose(merged, 0, atol=1e-5)


@pytest.mark.parametrize('name', ['coarse_to_fine', 'merged_background'])
def test_gradient(name):
  loss = lambda x, t: getattr(distillation, name)(x, t, CHILDREN)[0]
  with jax.enable_x64(True):
    x, teacher = _logits(7), _logits(4, 1)
    value = jax.jit(loss)
    slope, still = jax.jit(jax.grad(loss, argnums=(0, 1)))(x, teacher)
    direction, h = _logits(7, 2), 1e-5
    low, high = (value(x + t * direction, teacher) for t in (-h, h))
    found = (high - low) / (2 * h)
    np.testing.assert_allclose(np.sum(slope * direction), found, rtol=1e-7)
    if name == 'coarse_to_fine':
      # What the student gives a class, less that class's share of p.
      p, q = _softmax(teacher), _softmax(x)
      sums = np.stack([q[..., list(g)].sum(-1) for g in CHILDREN], -1)
      expected = q - q * (p / sums)[..., list(PARENTS)]
      np.testing.assert_allclose(slope, expected, atol=1e-12)
    assert not np.any(still)  # the teacher is a constant


def test_far_logits_stay_finite():
  # Both children of the first parent are beyond the range of exp in float32.
  logits = jnp.array([-300.0, 0.0, -301.0]).reshape(1, 1, 1, 3)
  teacher = jnp.array([200.0, 0.0]).reshape(1, 1, 1, 2)
  loss = lambda x: coarse_to_fine(x, teacher, ((0, 2), (1,)))[0]
  value, gradient = jax.value_and_grad(loss)(logits)
  np.testing.assert_allclose(value, 300 - np.log1p(np.exp(-1)), rtol=1e-6)
  share = 1 / (1 + np.exp(-1))
  expected = [-share, 1, share - 1]
  np.testing.assert_allclose(gradient.ravel(), expected, rtol=1e-5)


def test_bfloat16_is_computed_in_float32():
  half = [jnp.asarray(x, jnp.bfloat16) for x in (_logits(7), _logits(4, 1))]
  total, count = merged_background(*half, CHILDREN)
  assert total.dtype == count.dtype == jnp.float32
  exact, _ = merged_background(*(x.astype(jnp.float32) for x in half), CHILDREN)
  np.testing.assert_allclose(total, exact, rtol=1e-6)


def test_images_add_up():
  logits, teacher = jnp.asarray(_logits(7)), jnp.asarray(_logits(4, 1))
  whole = coarse_to_fine(logits, teacher, CHILDREN)
  parts = [
    coarse_to_fine(logits[i], teacher[i], CHILDREN)
    for i in (slice(0, 1), slice(1, 2))
  ]
  np.testing.assert_allclose(sum(t for t, _ in parts), whole[0], rtol=1e-6)
  assert sum(n for _, n in parts) == whole[1]


@pytest.mark.parametrize(
  ('shapes', 'children', 'message'),
  [
    (
      (7, 3),
      CHILDREN,
      'the teacher has 3 classes, but there are children of 4',
    ),
    ((8, 4), CHILDREN, 'must hold each of 8 classes once'),
    ((7, 4), ((0, 3, 5), (2,), (4, 6), (0,)), 'must hold each of 7 classes'),
  ],
)
def test_what_does_not_fit(shapes, children, message):
  logits, teacher = (jnp.zeros((1, 2, 2, n)) for n in shapes)
  for name in ('coarse_to_fine', 'coarse_to_fine_parts', 'merged_background'):
    with pytest.raises(ValueError, match=message):
      getattr(distillation, name)(logits, teacher, children)
  with pytest.raises(ValueError, match='must have the same pixels'):
    coarse_to_fine(jnp.zeros((1, 2, 2, 7)), jnp.zeros((1, 1, 1, 4)), CHILDREN)


def _model(name, **values):
  defaults = {
    'preset': 'reduced',
    'layers': (1, 1, 1, 1),
    'aspp_branches': 2,
    'aux_head': True,
    'width': 32,
    'compute_dtype': 'float64',
  }
  return types.SimpleNamespace(name=name, **{**defaults, **values})


def _variables(network, size, seed=0):
  """Random ones, statistics and biases included."""
  rng = np.random.default_rng(seed)
  images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float64)
  shapes = jax.eval_shape(network.init, jax.random.key(0), images)

  def leaf(path, x):
    if path[-1].key in ('var', 'scale'):
      return rng.uniform(0.5, 1.5, x.shape)
    if path[-1].key == 'all_count':
      return np.full(x.shape, 10.0)
    fan_in = np.prod(x.shape[:-1]) if len(x.shape) == 4 else 1
    return rng.normal(0, np.sqrt(2 / fan_in), x.shape)

  return jax.tree_util.tree_map_with_path(leaf, shapes)


@pytest.mark.parametrize('name', GROWING)
def test_a_grown_network_predicts_what_the_old_one_did(name):
  """The summed child probability is the parent's, the loss the entropy."""
  model, size = _model(name), (32, 48)
  with jax.enable_x64(True):
    images = jnp.asarray(_logits(3, 7, (1, *size), 1.0))
    old, new = (models.build(model, n) for n in (4, 7))
    before = _variables(old, size)
    forward = lambda net: jax.jit(lambda v: net.apply(v, images, False)[0])
    run, teacher = forward(new), forward(old)(before)
    student = run(grow.grow(before, PARENTS, model))
    plain = run(grow.grow(before, PARENTS, model, shift=False))
    for head in ('logits', *(('aux_logits',) if name == 'deeplabv2' else ())):
      p = _softmax(np.asarray(teacher[head]))
      assert np.ptp(p, axis=(0, 1, 2)).max() > 0.01
      log_q = log_parents(student[head], CHILDREN)
      np.testing.assert_allclose(np.exp(log_q), p, rtol=1e-9, atol=1e-12)
      loss = coarse_to_fine(student[head], teacher[head], CHILDREN)
      entropy = -np.sum(p * np.log(p)) / np.prod(p.shape[:-1])
      np.testing.assert_allclose(_mean(loss), entropy, rtol=1e-9)
      # Without the shift, more children have more of the probability.
      log_q = log_parents(plain[head], CHILDREN)
      weighted = p * [len(group) for group in CHILDREN]
      weighted /= weighted.sum(-1, keepdims=True)
      np.testing.assert_allclose(np.exp(log_q), weighted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('name', GROWING)
def test_class_wise_tensors_grow_and_no_others(name):
  """They are those whose shapes depend on the number of classes."""
  model = _model(name)
  with jax.enable_x64(True):
    before = _variables(models.build(model, 4), (32, 32))
    wanted = _variables(models.build(model, 7), (32, 32))
    grown = grow.grow(before, PARENTS, model)
    jax.tree.map(
      lambda a, b: np.testing.assert_equal(a.shape, b.shape), grown, wanted
    )
    shifts = np.log([3, 1, 1, 3, 2, 3, 2]) / (2 if name == 'deeplabv2' else 1)
    index, biases = np.array(PARENTS), 0

    def check(path, a, b):
      nonlocal biases
      if a.shape == b.shape:
        np.testing.assert_array_equal(a, b)
        return
      expected = a[..., index]
      if path[-1].key == 'bias':
        expected, biases = expected - shifts, biases + 1
      np.testing.assert_allclose(b, expected, rtol=1e-12)

    jax.tree_util.tree_map_with_path(check, before, grown)
    assert biases == (8 if name == 'deeplabv2' else 1)


def test_growing_keeps_the_types_of_arrays():
  params = {'classifier': {'logits': {'bias': jnp.zeros(2, jnp.bfloat16)}}}
  grown = grow.grow({'params': params}, (1, 0, 1), _model('street'))
  bias = grown['params']['classifier']['logits']['bias']
  assert bias.dtype == jnp.bfloat16
  np.testing.assert_allclose(bias, -np.log([2, 1, 2]), rtol=1e-2)


def test_what_cannot_grow():
  params = {'classifier': {'logits': {'bias': np.zeros(3)}}}
  with pytest.raises(ValueError, match=r'bias has 3 classes, but .* of 2'):
    grow.grow({'params': params}, (1, 0, 1), _model('street'))
  with pytest.raises(errors.UserError, match=r"unknown model .* 'fcn8s'"):
    grow.grow({'params': params}, (2, 0, 1), _model('fcn8s'))


def test_classes_that_only_change_places_do_so():
  params = {'classifier': {'logits': {'bias': np.array([1.0, 2.0, 3.0])}}}
  grown = grow.grow({'params': params}, (2, 0, 1), _model('street'))
  bias = grown['params']['classifier']['logits']['bias']
  np.testing.assert_array_equal(bias, [3, 1, 2])


@pytest.mark.parametrize('tree', hierarchy.PUBLISHED.values())
def test_the_loss_takes_published_children(tree):
  for step in range(1, 4):
    fine, coarse = tree.num_classes(step), tree.num_classes(step - 1)
    x = jax.ShapeDtypeStruct((1, 2, 2, fine), jnp.float32)
    children = tree.children(step)
    y = jax.eval_shape(lambda x, c=children: log_parents(x, c), x)
    assert y.shape == (1, 2, 2, coarse)
