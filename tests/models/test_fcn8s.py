"""FCN-8s: geometry, dropout, initial values, optimizer, devices."""

from __future__ import annotations

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxseg_da import config as config_lib
from jaxseg_da import errors, models
from jaxseg_da.config import pairs
from jaxseg_da.experiment import assembly, checks, resolve
from jaxseg_da.models import base, fcn8s, layers, vgg
from jaxseg_da.training import optim, parallel
from tests import toys

SCORES = ('score_fr', 'score_pool3', 'score_pool4')


def tiny(classes=3, dtype=jnp.float32, widths=(2, 2, 3, 4, 4), hidden=6):
  options = layers.Options(dtype, jnp.promote_types(dtype, jnp.float32))
  return base.from_linen(
    fcn8s.FCN8s(classes, widths, hidden, options), dropout=True
  )


def built(preset='full', classes=19, dtype='float32'):
  model = types.SimpleNamespace(
    name='fcn8s', preset=preset, compute_dtype=dtype
  )
  return models.build(model, classes)


def shapes(network, *size):
  images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), images)
  outputs, _ = jax.eval_shape(
    lambda v, x: network.apply(v, x, False), variables, images
  )
  return variables, outputs['logits'].shape


def random_variables(network, dtype=np.float32, seed=0):
  """Variables whose score layers are not zero, so that gradients reach all."""
  rng = np.random.default_rng(seed)
  variables, _ = shapes(network, 16, 16)

  def draw(leaf):
    scale = np.sqrt(2 / max(np.prod(leaf.shape[:-1]), 2))
    return (scale * rng.normal(size=leaf.shape)).astype(dtype)

  return jax.tree.map(draw, variables)


def images(*shape, seed=0, dtype=np.float32):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def paths(tree):
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(p, simple=True, separator='/') for p, _ in flat}


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def trace(n: int) -> list[int]:
  """The specification's sizes along one axis: pools, fc6, u2, u4, u8."""
  sizes = [-(-(n + 198) // 2)]
  while len(sizes) < 5:
    sizes.append(-(-sizes[-1] // 2))
  sizes += [sizes[-1] - 6]
  for size, stride in ((4, 2), (4, 2), (16, 8)):
    sizes.append((sizes[-1] - 1) * stride + size)
  return sizes


def test_published_trace():
  assert trace(512) == [355, 178, 89, 45, 23, 17, 36, 74, 600]
  assert trace(1024) == [611, 306, 153, 77, 39, 33, 68, 138, 1112]


@pytest.mark.parametrize(
  'size', [(512, 1024), (720, 1280), (96, 192), (33, 257), (1, 2)]
)
def test_sizes(size):
  expected = list(zip(*map(trace, size), strict=True))
  module = vgg.VGG((1,) * 5)
  x = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  pools, _ = jax.eval_shape(
    lambda x: module.init_with_output(jax.random.key(0), x), x
  )
  assert [pools[f'pool{i}'].shape[1:3] for i in range(1, 6)] == expected[:5]
  x = jax.ShapeDtypeStruct((1, *expected[5], 1), jnp.float32)
  for kernel, then in zip((4, 4, 16), expected[6:], strict=True):
    x = jax.eval_shape(lambda x, k=kernel: fcn8s.upscore(x, k), x)
    assert x.shape[1:3] == then
  _, logits = shapes(tiny(), *size)
  assert logits == (1, *size, 3)


def test_crops_lie_inside_for_every_size():
  for n in range(1, 3000):
    _, _, pool3, pool4, _, _, u2, u4, u8 = trace(n)
    assert fcn8s.POOL4_OFFSET + u2 <= pool4
    assert fcn8s.POOL3_OFFSET + u4 <= pool3
    assert fcn8s.OUTPUT_OFFSET + n <= u8


def test_parameters_of_the_full_network():
  variables, logits = shapes(built(), 512, 1024)
  assert logits == (1, 512, 1024, 19)
  params = variables['params']
  assert variables['batch_stats'] == {}
  assert count(params['backbone']) == 14_714_688
  assert count(params['classifier']['fc6']) == 102_764_544
  assert count(params['classifier']['fc7']) == 16_781_312
  assert count(params) == 134_353_017
  # Nothing else: the bilinear kernels are constants.
  convs = [
    f'backbone/conv{b}_{i + 1}'
    for b, depth in enumerate((2, 2, 3, 3, 3), 1)
    for i in range(depth)
  ]
  head = [f'classifier/{n}' for n in ('fc6', 'fc7', *SCORES)]
  assert paths(params) == {
    f'{layer}/{leaf}'
    for layer, leaf in itertools.product(convs + head, ('kernel', 'bias'))
  }


def test_reduced_preset_has_an_eighth_of_the_width():
  params = shapes(built('reduced', 16), 64, 96)[0]['params']
  assert params['backbone']['conv1_1']['kernel'].shape == (3, 3, 3, 8)
  head = params['classifier']
  assert head['fc6']['kernel'].shape == (7, 7, 64, 512)
  assert head['score_pool3']['kernel'].shape == (1, 1, 32, 16)


@pytest.mark.parametrize('size', [4, 16])
def test_upscore_is_the_transposed_convolution(size):
  with jax.enable_x64(True):
    x = images(2, 5, 4, 3, dtype=np.float64)
    kernel = fcn8s.bilinear_kernel(size)[:, :, None, None] * np.eye(3)

    def reference(x):
      return lax.conv_transpose(
        x,
        jnp.asarray(kernel),
        (size // 2, size // 2),
        'VALID',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )

    expected, pull = jax.vjp(reference, x)
    actual, pull_ours = jax.vjp(lambda x: fcn8s.upscore(x, size), x)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)
    g = images(*expected.shape, seed=1, dtype=np.float64)
    np.testing.assert_allclose(pull_ours(g)[0], pull(g)[0], rtol=1e-10)


def test_bilinear_kernels_by_hand():
  row = np.array([0.25, 0.75, 0.75, 0.25])
  np.testing.assert_array_equal(fcn8s.bilinear_kernel(4), np.outer(row, row))
  row = np.array([1, 2, 3, 2, 1]) / 3
  np.testing.assert_allclose(fcn8s.bilinear_kernel(5), np.outer(row, row))


def test_max_pool_by_hand():
  x = jnp.asarray([[1.0, 2, 5], [2, 0, 5], [-3, -1, -7]])[None, ..., None]
  np.testing.assert_array_equal(vgg.max_pool(x)[0, ..., 0], [[2, 5], [-1, -7]])
  # Of equal values the first takes the gradient.
  weights = jnp.asarray([[1.0, 2], [3, 4]])[None, ..., None]
  gradient = jax.grad(lambda x: jnp.sum(weights * vgg.max_pool(x)))(x)
  np.testing.assert_array_equal(
    gradient[0, ..., 0], [[0, 1, 2], [0, 0, 0], [0, 3, 4]]
  )


def test_skips_are_scaled_before_their_score_layers():
  """Only the scores of the skips count, and of these the biases are whole."""
  network = tiny()
  variables = random_variables(network)
  head = variables['params']['classifier']
  zero = jax.tree.map(np.zeros_like, head)
  for layer, bias in (('score_pool4', 1.0), ('score_pool3', 10.0)):
    head[layer] = {
      'kernel': zero[layer]['kernel'],
      'bias': zero[layer]['bias'] + np.float32(bias),
    }
  head['score_fr'] = zero['score_fr']
  logits, _ = jax.jit(network.apply, static_argnums=2)(
    variables, images(1, 8, 24, 3), False
  )
  np.testing.assert_allclose(logits['logits'], 11.0, rtol=1e-6)


def keys(n, seed=0):
  return jax.random.split(jax.random.key(seed), n)


def test_dropout_takes_whole_channels_of_each_example():
  x = jnp.ones((3, 4, 5, 2000))
  y = np.asarray(fcn8s.drop_channels(x, keys(3), 'fc6'))
  np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
  rows = y[:, 0, 0]
  assert set(np.unique(rows)) == {0, 2}
  # 2000 coins: five standard deviations are 0.11 around 1.
  assert np.all(np.abs(rows.mean(1) - 1) < 0.12)
  for a, b in itertools.combinations(rows, 2):
    assert 0.4 < np.mean(a == b) < 0.6
  other = fcn8s.drop_channels(x, keys(3), 'fc7')[:, 0, 0]
  assert 0.4 < np.mean(rows == other) < 0.6


def test_an_example_drops_the_same_beside_others():
  network = tiny()
  variables, x = random_variables(network), images(3, 8, 9, 3)
  run = jax.jit(lambda x, k: network.apply(variables, x, True, k)[0]['logits'])
  whole = run(x, keys(3))
  turned = run(x[::-1], keys(3)[::-1])
  np.testing.assert_allclose(turned[::-1], whole, rtol=1e-4, atol=1e-5)
  again = run(x, keys(3, seed=1))
  assert not np.allclose(again, whole, rtol=1e-2)


def test_training_needs_one_key_per_image():
  network = tiny()
  variables, _ = shapes(network, 8, 8)
  x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
  for wrong in (None, keys(3), jax.random.key(0)):
    with pytest.raises(ValueError, match='one random key per image'):
      jax.eval_shape(
        lambda v, x, k=wrong: network.apply(v, x, True, k), variables, x
      )


@pytest.mark.parametrize('name', models.NAMES)
def test_every_network_takes_keys(name):
  model = config_lib.base_config().model
  model.name, model.preset = name, 'reduced'
  network = models.build(model, 4)
  variables, _ = shapes(network, 32, 48)
  x = jax.ShapeDtypeStruct((2, 32, 48, 3), jnp.float32)
  for train_mode in (True, False):
    outputs, stats = jax.eval_shape(
      lambda v, x, t=train_mode: network.apply(v, x, t, keys(2)), variables, x
    )
    assert outputs['logits'].shape[-1] == 4
    assert paths(stats) == paths(variables['batch_stats'])


def test_initial_values():
  network = tiny(widths=(8, 8, 8, 16, 16), hidden=32)
  params = network.init(jax.random.key(0), images(1, 8, 8, 3))['params']
  for layer in SCORES:
    assert not any(np.any(x) for x in params['classifier'][layer].values())
  drawn = params['backbone'] | {
    n: params['classifier'][n] for n in ('fc6', 'fc7')
  }
  for layer in drawn.values():
    kernel = np.asarray(layer['kernel'])
    expected = np.sqrt(2 / (kernel.size // kernel.shape[2]))
    assert abs(kernel.std() / expected - 1) < 5 / np.sqrt(2 * kernel.size)
    assert not np.any(layer['bias'])


def test_bfloat16_is_near_float32():
  x, outputs = images(1, 16, 24, 3), {}
  for dtype in (jnp.float32, jnp.bfloat16):
    network = tiny(dtype=dtype)
    variables = random_variables(network)
    for leaf in jax.tree.leaves(shapes(network, 8, 8)[0]):
      assert leaf.dtype == jnp.float32
    run = jax.jit(network.apply, static_argnums=2)
    outputs[dtype] = run(variables, x, True, keys(1))[0]['logits']
  exact, rough = outputs.values()
  assert rough.dtype == jnp.float32
  deviation = np.sqrt(np.mean(np.square(rough - exact)))
  assert 0 < deviation < 0.1 * np.std(exact)


def paper_adam():
  return config_lib.optimizer(
    name='adam',
    learning_rate=1e-6,
    b2=0.99,
    schedule='step',
    decay_steps=50_000,
    groups=pairs.FCN8S_GROUPS,
  )


def test_biases_learn_twice_as_fast():
  params = {'segmenter': shapes(tiny(), 8, 8)[0]['params']}
  table = dict(optim.group_table(paper_adam(), params))
  assert len(table) == 2 * (13 + 5)
  for path, group in table.items():
    assert group.learning_rate == (2 if path.endswith('/bias') else 1), path
  first = {'kernel': [], 'bias': []}
  with jax.enable_x64(True):
    params = jax.tree.map(lambda x: jnp.ones(x.shape), params)
    optimizer = optim.make(paper_adam(), params, 10)
    state = optimizer.init(params)
    for scale in (1.0, 3.0):
      gradients = jax.tree.map(lambda x, s=scale: s * x, params)
      updates, state = jax.jit(optimizer.update)(gradients, state, params)
      for path, leaf in jax.tree_util.tree_flatten_with_path(updates)[0]:
        first[path[-1].key].append(float(leaf.ravel()[0]))
  # Step 2 by hand: m = (0.09 + 0.3) / 0.19, v = (0.0099 + 0.09) / 0.0199.
  second = (0.39 / 0.19) / np.sqrt(0.0999 / 0.0199)
  for kind, rate in (('kernel', 1e-6), ('bias', 2e-6)):
    moves = np.unique(np.float32(first[kind]))
    np.testing.assert_allclose(moves, -rate * np.array([1, second]), rtol=1e-6)


def test_the_rate_falls_every_50000_steps():
  rate = jax.jit(optim.schedule(paper_adam(), 1))
  for step in (0, 1, 49_999, 50_000, 99_999, 100_000, 149_999, 150_000):
    expected = 1e-6 * 0.1 ** (step // 50_000)
    assert float(rate(step)) == pytest.approx(expected, rel=1e-5), step


def test_config_and_checks():
  config = toys.config()
  config.model.name = 'fcn8s'
  resolved = resolve.resolve(config)
  checks.validate(resolved, 8)
  stage = assembly.build(resolved, 'source_only')
  assert stage.method.networks['segmenter']
  config.model.name = 'fcn32s'
  with pytest.raises(errors.UserError, match="Did you mean 'fcn8s'"):
    checks.validate(resolve.resolve(config), 8)


@pytest.fixture
def narrow(monkeypatch):
  """The preset `reduced` with two to four channels."""
  monkeypatch.setattr(vgg, 'WIDTHS', (16, 16, 24, 32, 32))
  monkeypatch.setattr(fcn8s, 'HIDDEN', 64)


@pytest.mark.parametrize(
  'method',
  [pytest.param(m, marks=pytest.mark.slow) for m in ('source_only', 'dacs')],
)
def test_eight_devices_equal_one_in_float64(method, narrow):
  """Every example drops the same channels wherever it is."""
  config = toys.config(method)
  config.model.name, config.model.compute_dtype = 'fcn8s', 'float64'
  data = toys.batch(0, shape=(8, 16))
  with jax.enable_x64(True):
    stage = assembly.build(resolve.resolve(config), method)
    state = jax.device_get(toys.to_float64(assembly.initial_state(stage)))
    network = stage.method.networks['segmenter']
    params = random_variables(network, np.float64)['params']
    state = state.replace(params={'segmenter': params})
    results = []
    for n in (1, 8):
      backend = parallel.PmapBackend(jax.devices()[:n])
      after, metrics = toys.run_steps(stage, state, [data], backend)
      assert np.isfinite(metrics[0]['loss'])
      results.append(after)
  one, many = results
  deviation, where = toys.worst(many, one)
  assert deviation < 1e-9, where
  # Nothing stands still, as dropout of all would make it.
  for a, b in zip(
    jax.tree.leaves(one.params), jax.tree.leaves(state.params), strict=True
  ):
    assert toys.worst(a, b)[0] > 1e-6
