from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from jaxseg_da import errors
from jaxseg_da.losses import adversarial
from jaxseg_da.losses.adversarial import SOURCE, TARGET

DOMAINS = (SOURCE, TARGET)
LOG3 = np.log(3)


@pytest.mark.parametrize(
  ('objective', 'domain', 'logits', 'expected'),
  [
    # The sigmoid of ln 3 is 3/4.
    ('bce', SOURCE, [0, LOG3, -LOG3], np.log([2, 4, 4 / 3])),
    ('bce', TARGET, [0, LOG3, -LOG3], np.log([2, 4 / 3, 4])),
    ('least_squares', SOURCE, [0, 0.5, -1], [0, 0.25, 1]),
    ('least_squares', TARGET, [0, 0.5, -1], [1, 0.25, 4]),
  ],
)
def test_domain_loss_by_hand(objective, domain, logits, expected):
  logits = jnp.array(logits, jnp.float32).reshape(1, 3, 1, 1)
  total, count = adversarial.domain_loss(logits, domain, objective)
  np.testing.assert_allclose(total, np.sum(expected), rtol=1e-6)
  assert count == 3


@pytest.mark.parametrize('domain', DOMAINS)
def test_gradients(domain):
  with jax.enable_x64(True):
    logits = 3 * jax.random.normal(jax.random.key(0), (2, 3, 1, 1), float)
    slopes = {
      'bce': jax.nn.sigmoid(logits) - domain,
      'least_squares': 2 * (logits - domain),
    }
    for objective, expected in slopes.items():
      loss = jax.jit(
        lambda x, o=objective: adversarial.domain_loss(x, domain, o)[0]
      )
      assert loss(logits).dtype == jnp.float64
      test_util.check_grads(loss, (logits,), order=1, modes=['rev'])
      np.testing.assert_allclose(jax.grad(loss)(logits), expected, rtol=1e-12)


def test_certain_outputs():
  """No cancellation where an output is right, no overflow where it is wrong."""
  for domain, sign in ((SOURCE, -1), (TARGET, 1)):
    loss = lambda x, d=domain: adversarial.domain_loss(x, d)[0]
    value, gradient = jax.value_and_grad(loss)(jnp.float32(sign * 30))
    np.testing.assert_allclose(value, np.exp(-30), rtol=1e-5)
    np.testing.assert_allclose(gradient, -sign * np.exp(-30), rtol=1e-5)
    value, gradient = jax.value_and_grad(loss)(jnp.float32(-sign * 1e30))
    assert (value, gradient) == (np.float32(1e30), -sign)


@pytest.mark.parametrize('objective', adversarial.OBJECTIVES)
def test_parts_add_up(objective):
  """Devices that hold 1 and 3 of 4 images give the mean of all."""
  logits = jax.random.normal(jax.random.key(0), (4, 3, 2, 1))
  for function in (adversarial.domain_loss, adversarial.domain_accuracy):
    total, count = function(logits, TARGET, objective)
    parts = [function(x, TARGET, objective) for x in (logits[:1], logits[1:])]
    np.testing.assert_allclose(total, sum(t for t, _ in parts), rtol=1e-6)
    assert count == sum(n for _, n in parts) == 24


def test_dtypes():
  for function in (adversarial.domain_loss, adversarial.domain_accuracy):
    for value in function(jnp.ones((1, 2, 2, 1), jnp.bfloat16), SOURCE):
      assert value.dtype == jnp.float32
  # 257 ones do not fit into bfloat16.
  logits = jnp.ones((1, 257, 1, 1), jnp.bfloat16)
  assert adversarial.domain_accuracy(logits, TARGET) == (257, 257)


@pytest.mark.parametrize(
  ('objective', 'target', 'source'), [('bce', 3, 2), ('least_squares', 1, 4)]
)
def test_domain_accuracy_by_hand(objective, target, source):
  # The threshold itself says source.
  threshold = 0.0 if objective == 'bce' else 0.5
  logits = jnp.array([-2.0, threshold, 0.25, 0.5, 2.0])
  accuracy = adversarial.domain_accuracy
  assert accuracy(logits, TARGET, objective) == (target, 5)
  assert accuracy(logits, SOURCE, objective) == (source, 5)


def test_unknown_objective():
  for function in (adversarial.domain_loss, adversarial.domain_accuracy):
    with pytest.raises(errors.UserError, match='valid: bce, least_squares'):
      function(jnp.zeros(3), SOURCE, 'hinge')
