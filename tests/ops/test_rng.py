from __future__ import annotations

import jax
import numpy as np

from jaxseg_da.ops import rng


def draws(keys):
  return np.asarray(jax.vmap(jax.random.uniform)(keys))


def test_draws_follow_the_global_index_and_the_name():
  step = jax.random.key(3)
  whole = rng.Keys(step, np.arange(6))
  part = rng.Keys(step, np.arange(2, 4))
  np.testing.assert_array_equal(
    draws(whole.examples('a'))[2:4], draws(part.examples('a'))
  )
  assert len(set(draws(whole.examples('a')))) == 6
  assert not set(draws(whole.examples('a'))) & set(draws(whole.examples('b')))


def test_an_iteration_key_is_shared_and_no_example_has_it():
  step = jax.random.key(3)
  one, other = rng.Keys(step, np.arange(2)), rng.Keys(step, np.arange(4, 6))
  a, b = one.iteration('a'), other.iteration('a')
  assert jax.random.uniform(a) == jax.random.uniform(b)
  assert float(jax.random.uniform(a)) not in draws(one.examples('a'))


def test_steps_differ():
  steps = [jax.random.fold_in(jax.random.key(0), t) for t in range(2)]
  first, second = (
    draws(rng.Keys(s, np.arange(3)).examples('a')) for s in steps
  )
  assert not set(first) & set(second)
