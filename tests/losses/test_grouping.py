"""Statistics and losses of groups, by hand and by their properties."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.losses import grouping
from jaxseg_da.models import grouping as network_lib
from tests import group_maps as gm


@pytest.fixture(autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


def test_by_hand():
  p = np.array([[[[0.8, 0.2], [0.4, 0.6]]]])
  h = np.array([[[[0.75, 0.25], [0.5, 0.5]]]])
  distribution = grouping.class_distribution

  @jax.jit
  def statistics(p, h):
    by_mass, by_pixels = distribution(p, h, eps=0), distribution(p, h, 'pixels')
    with_eps, _ = distribution(p, h, eps=0.75)
    decomposed, presence = grouping.decompose(p, h), grouping.presence(p, h)
    return decomposed, *by_mass, *by_pixels, with_eps, presence

  expected = (
    [[[[0.6, 0.15], [0.2, 0.3]]], [[[0.2, 0.05], [0.2, 0.3]]]],
    [[0.64, 0.36], [8 / 15, 7 / 15]],
    [0.625, 0.375],
    [[0.4, 0.225], [0.2, 0.175]],
    [0.625, 0.375],
    [[0.4, 0.225], [4 / 15, 3.5 / 15]],
    [[0.6, 0.3], [0.2, 0.3]],
  )
  for found, value in zip(statistics(p, h), expected, strict=True):
    np.testing.assert_allclose(found, value, rtol=1e-12)


def test_groups_sum_to_the_probabilities():
  p, h = gm.maps(0)
  groups = grouping.decompose(p, h).reshape(gm.K, *p.shape)
  np.testing.assert_allclose(groups.sum(0), p, rtol=1e-15)
  for k in range(gm.K):
    np.testing.assert_array_equal(groups[k], h[..., k, None] * p)


@gm.counts
def test_distributions_and_shares_sum_to_one(count):
  source, target = gm.maps(0), gm.maps(1)
  _, statistics, _ = gm.compiled(count)(source, target)
  for q in statistics['q']:
    np.testing.assert_allclose(q.sum(1), 1, rtol=1e-6)
  np.testing.assert_allclose(statistics['s'].sum(), 1, rtol=1e-12)
  np.testing.assert_allclose(
    statistics['s'], source[1].mean((0, 1, 2)), rtol=1e-12
  )
  np.testing.assert_allclose(
    statistics['q_pixels'][0].sum(1), statistics['s'], rtol=1e-12
  )


@gm.counts
def test_statistics_are_those_of_the_groups(count):
  """What is computed without F equals what F says."""
  domains = gm.maps(0), gm.maps(1)
  _, statistics, _ = gm.compiled(count)(*domains)
  for i, (p, h) in enumerate(domains):
    groups = h[..., :, None] * p[..., None, :]
    sums, mass = groups.sum((0, 1, 2)), h.sum((0, 1, 2))
    np.testing.assert_allclose(
      statistics['q'][i], sums / (mass[:, None] + 1e-6), rtol=1e-12
    )
    np.testing.assert_array_equal(statistics['r'][i], groups.max((0, 1, 2)))


@pytest.mark.parametrize(
  ('count', 'name'), [(1, 'pmap'), *((8, name) for name in gm.BACKENDS)]
)
def test_the_first_of_equal_maxima_has_the_gradient(name, count):
  """Maxima in images 2, 5 and 6, twice in each; zeros otherwise."""
  p, h = (
    np.zeros((*gm.SHAPE, gm.U)),
    np.zeros((*gm.SHAPE, gm.K)),
  )
  for image in (2, 5, 6):
    for x in (1, 2):
      p[image, 1, x], h[image, 1, x] = 0.5, 0.25
  _, statistics, gradients = gm.compiled(count, name)(gm.maps(0), (p, h))
  np.testing.assert_array_equal(statistics['r'][1], 0.125)
  dp, dh = gradients['cl/bce/soft'][1]
  y = statistics['r'][0]
  slope = -(y / 0.125 - (1 - y) / 0.875) / (gm.K * gm.U)
  np.testing.assert_allclose(dp[2, 1, 1], 0.25 * slope.sum(0), rtol=1e-12)
  np.testing.assert_allclose(dh[2, 1, 1], 0.5 * slope.sum(1), rtol=1e-12)
  for gradient in (dp, dh):
    others = np.delete(gradient.reshape(48, -1), 2 * 6 + 1 * 3 + 1, axis=0)
    np.testing.assert_array_equal(others, 0)


def test_maps_have_to_fit():
  p, h = gm.maps(0)
  g = grouping
  for function in (g.decompose, g.class_distribution, g.presence):
    for wrong in ((p, h[:, 1:]), (p[0], h[0])):
      with pytest.raises(ValueError, match=r'have to be \[b, h, w, u\] and'):
        function(*wrong)


# Losses by hand


def test_consistency_by_hand():
  q = np.array([[1, 0], [0.5, 0.5]]), np.array([[0.5, 0.5], [0.25, 0.75]])
  assert grouping.consistency(*q) == 0.625
  assert grouping.consistency(*q, 'l1') == 1.5
  slope = jax.grad(grouping.consistency)
  np.testing.assert_array_equal(slope(*q), [[1, -1], [0.5, -0.5]])
  np.testing.assert_array_equal(slope(*q, 'l1'), [[1, -1], [1, -1]])
  # Where domains agree, as on classes that neither has, nothing pulls.
  np.testing.assert_array_equal(slope(q[0], q[0], 'l1'), 0)


def test_orthogonality_by_hand():
  q = np.array([[3.0, 4.0], [4.0, 3.0], [0.0, 1.0]])
  value = grouping.orthogonality(q)
  np.testing.assert_allclose(value, 24 / 25 + 4 / 5 + 3 / 5, rtol=1e-12)
  # The product of norms is 1e-10, and taken for 1e-8.
  tiny = np.array([[1e-5, 0.0], [1e-5, 0.0]])
  np.testing.assert_allclose(grouping.orthogonality(tiny), 0.01, rtol=1e-12)


def test_class_equivalence_by_hand():
  source = np.array([[0.6, 0.05], [0.3, 0.04]])
  target = np.array([[0.5, 0.25], [0.8, 0.1]])
  positive = np.dot([0.6, 0.05, 0.3, 0.04], np.log([0.5, 0.25, 0.8, 0.1]))
  negative = np.dot([0.4, 0.95, 0.7, 0.96], np.log([0.5, 0.75, 0.2, 0.9]))
  expected = {
    # 0.05 is not above 0.05: y = 1, 0, 1, 0.
    ('bce', 'hard'): np.log([0.5, 0.75, 0.8, 0.9]).sum(),
    ('positive_only', 'hard'): np.log([0.5, 0.8]).sum(),
    ('bce', 'soft'): positive + negative,
    ('positive_only', 'soft'): positive,
  }
  for names, total in expected.items():
    value = grouping.class_equivalence(source, target, 0.05, *names)
    np.testing.assert_allclose(value, -total / 4, rtol=1e-12)


@pytest.mark.parametrize('dtype', (np.float32, np.float64))
def test_presence_is_clamped(dtype):
  """Certainly absent where it should be, and the reverse: finite."""
  source, target = np.array([[1, 0]], dtype), np.array([[0, 1]], dtype)
  value, slope = jax.value_and_grad(grouping.class_equivalence, 1)(
    source, target, 0.05
  )
  # 1 - 1e-7 is 1 - 1.19e-7 in float32.
  np.testing.assert_allclose(value, -np.log(1e-7), rtol=0.01)
  np.testing.assert_array_equal(slope, 0)


def test_unknown_names():
  p, h = gm.maps(0)
  q = np.ones((gm.K, gm.U))
  for call in (
    lambda: grouping.class_distribution(p, h, 'maas'),
    lambda: grouping.consistency(q, q, 'l2'),
    lambda: grouping.class_equivalence(q, q, 0.1, 'bec'),
    lambda: grouping.class_equivalence(q, q, 0.1, target='sotf'),
  ):
    with pytest.raises(errors.UserError, match=r'unknown .* valid: '):
      call()


# Properties of the whole


@gm.counts
def test_one_group(count):
  """K = 1 is no grouping: F = P, no pairs, means of whole images."""
  source, target = gm.one_group(0), gm.one_group(1)
  for p, h in (source, target):
    np.testing.assert_array_equal(grouping.decompose(p, h), p)
  values, statistics, gradients = gm.compiled(count)(source, target)
  means = [p.mean((0, 1, 2)) for p, _ in (source, target)]
  difference = np.square(means[0] - means[1]).sum()
  np.testing.assert_allclose(values['co/mass/l2sq'], difference, rtol=1e-6)
  np.testing.assert_allclose(values['co/pixels/l2sq'], difference, rtol=1e-12)
  np.testing.assert_array_equal(statistics['s'], 1)
  for mode in grouping.NORMALISATIONS:
    assert values[f'orth/{mode}'] == 0
    for gradient in jax.tree.leaves(gradients[f'orth/{mode}']):
      np.testing.assert_array_equal(gradient, 0)


def test_one_group_has_assignment_one():
  """A soft-max over one logit is exactly 1, so what D sees is exactly P."""
  p = gm.maps(0)[0].astype(np.float32)
  network = network_lib.network(gm.U, 1, hidden=5)
  out, _ = network.apply(gm.random_variables(network), p, True)
  groups = grouping.decompose(p, jax.nn.softmax(out['logits']))
  assert groups.dtype == jnp.float32
  np.testing.assert_array_equal(groups, p)


@gm.counts
def test_equal_domains_are_consistent(count):
  domain = gm.maps(0)
  values, _, gradients = gm.compiled(count)(domain, domain)
  for name in (n for n in gm.NAMES if n.startswith('co/')):
    assert 0 <= values[name] < 1e-15
    if name.endswith('l2sq'):
      for x in jax.tree.leaves(gradients[name]):
        np.testing.assert_allclose(x, 0, atol=1e-15)


@gm.counts
def test_disjoint_groups_are_orthogonal(count):
  values, _, _ = gm.compiled(count)(
    *(gm.sorted_out(gm.all_classes(seed)) for seed in (0, 1))
  )
  assert values['orth/mass'] == values['orth/pixels'] == 0


@gm.counts
def test_equal_groups_are_least_orthogonal(count):
  equal = np.full((*gm.SHAPE, gm.K), 1 / gm.K)
  domains = [(gm.maps(seed)[0], equal) for seed in (0, 1)]
  values, statistics, _ = gm.compiled(count)(*domains)
  for name in ('orth/mass', 'orth/pixels'):
    np.testing.assert_allclose(values[name], gm.K * (gm.K - 1), rtol=1e-12)
  squares = np.square(np.subtract(*statistics['q'])).sum(1)
  np.testing.assert_allclose(squares, squares[0], rtol=1e-12)
  np.testing.assert_allclose(
    values['co/mass/l2sq'], gm.K * squares[0], rtol=1e-12
  )


@gm.counts
def test_order_of_groups_does_not_matter(count):
  domains, order = (gm.maps(0), gm.maps(1)), [2, 0, 1]
  permuted = [(p, h[..., order]) for p, h in domains]
  values, _, gradients = gm.compiled(count)(*domains)
  others, _, moved = gm.compiled(count)(*permuted)
  for name in gm.NAMES:
    np.testing.assert_allclose(others[name], values[name], rtol=1e-12)
    for d in (0, 1):
      dp, dh = gradients[name][d]
      np.testing.assert_allclose(moved[name][d][0], dp, rtol=1e-9, atol=1e-15)
      np.testing.assert_allclose(
        moved[name][d][1], dh[..., order], rtol=1e-9, atol=1e-15
      )
  # What a discriminator sees is the same images in another order.
  folded, other = (
    grouping.decompose(*x[0]).reshape(gm.K, *gm.SHAPE, gm.U)
    for x in (domains, permuted)
  )
  np.testing.assert_array_equal(other, folded[np.array(order)])


@gm.counts
def test_equal_presence_costs_nothing(count):
  """However many pixels a class has, as long as it has one."""
  source, labels = (
    gm.sorted_out(gm.all_classes(0)),
    np.zeros(gm.SHAPE, int),
  )
  labels[3].flat[: gm.U] = range(gm.U)
  same, _, _ = gm.compiled(count)(source, source)
  fewer, _, _ = gm.compiled(count)(source, gm.sorted_out(labels))
  for name in (n for n in gm.NAMES if n.startswith('cl/')):
    assert 0 <= same[name] < 2e-7
    assert fewer[name] == same[name]
  assert fewer['co/mass/l2sq'] > 0.01
  # Without its only pixel, class 3 is missing.
  labels[labels == 3] = 0
  gone, _, _ = gm.compiled(count)(source, gm.sorted_out(labels))
  expected = -np.log(1e-7) / (gm.K * gm.U)
  np.testing.assert_allclose(gone['cl/bce/hard'], expected, rtol=1e-6)


@gm.counts
@pytest.mark.parametrize('empty', ((0,), (0, 2), (0, 1, 2)))
@pytest.mark.parametrize('where', (*gm.DOMAINS, 'both'))
def test_empty_groups_are_finite(where, empty, count):
  """Also where nothing at all is assigned."""
  domains = gm.maps(0), gm.maps(1)
  for name, (_, h) in zip(gm.DOMAINS, domains, strict=True):
    if where in (name, 'both'):
      h[..., empty] = 0
  values, statistics, gradients = gm.compiled(count)(*domains)
  for x in jax.tree.leaves((values, statistics, gradients)):
    assert np.isfinite(x).all()


def test_vanishing_groups_are_finite():
  """In float32, through the soft-max, as the network would starve a group."""
  p, _ = gm.maps(0, dtype=np.float32)
  logits = (
    np.random.default_rng(0).normal(size=(*gm.SHAPE, gm.K)).astype(np.float32)
  )
  full = gm.maps(1, dtype=np.float32)

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1))
  def total(p, logits):
    values, _ = gm.losses(full, (p, jax.nn.softmax(logits)))
    return sum(values.values())

  for logit in (-20, -60, -1e4):
    logits[..., 1] = logit
    value, gradients = total(p, logits)
    assert value.dtype == np.float32 and np.isfinite(value)
    for x in gradients:
      assert np.isfinite(x).all() and np.abs(x).max() < 1e3
