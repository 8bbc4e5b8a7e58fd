from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors, models
from jaxseg_da.models import aspp, base, deeplab, layers, resnet

NORMALISED = ('deeplabv2', 'deeplabv3', 'street')  # networks with BatchNorm


def _config(**changes):
  values = {
    'name': 'deeplabv2',
    'preset': 'full',
    'layers': (3, 4, 23, 3),
    'aspp_branches': 4,
    'aux_head': True,
    'width': 96,
    'compute_dtype': 'float32',
  }
  return types.SimpleNamespace(**{**values, **changes})


def _shapes(network, *size):
  images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  variables = jax.eval_shape(network.init, jax.random.key(0), images)
  outputs, stats = jax.eval_shape(
    lambda v, x: network.apply(v, x, True), variables, images
  )
  return variables, outputs, stats


def _count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _paths(tree):
  flat = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(p, simple=True, separator='/') for p, _ in flat}


def _images(shape, seed=0, dtype=np.float32):
  return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize(
  ('size', 'stride4', 'stride8'),
  [
    ((512, 512), (129, 129), (65, 65)),
    ((512, 1024), (129, 257), (65, 129)),
    ((720, 1280), (181, 321), (91, 161)),
  ],
)
def test_deeplab_sizes(size, stride4, stride8):
  _, outputs, _ = _shapes(models.build(_config(), 19), *size)
  assert outputs['logits'].shape == (1, *stride8, 19)
  assert outputs['aux_logits'].shape == (1, *stride8, 19)
  _, features, _ = _shapes(base.from_linen(resnet.ResNet()), *size)
  assert {k: v.shape[1:] for k, v in features.items()} == {
    'pool': (*stride4, 64),
    'layer1': (*stride4, 256),
    'layer2': (*stride8, 512),
    'layer3': (*stride8, 1024),
    'layer4': (*stride8, 2048),
  }


def test_deeplab_parameter_counts_and_names():
  variables, _, stats = _shapes(models.build(_config(), 19), 65, 65)
  params = variables['params']
  assert round(_count(params['backbone']) / 1e6, 2) == 42.50
  # Four 3x3 convolutions with bias.
  assert _count(params['classifier']) == 4 * (9 * 2048 * 19 + 19)
  assert _count(params['aux_classifier']) == 4 * (9 * 1024 * 19 + 19)
  assert _paths(params) >= {
    'backbone/conv1/kernel',
    'backbone/bn1/scale',
    'backbone/layer3_22/conv2/kernel',
    'backbone/layer3_0/downsample_conv/kernel',
    'backbone/layer4_0/downsample_bn/bias',
    'classifier/conv3/bias',
    'aux_classifier/conv0/kernel',
  }
  projections = {p for p in _paths(params) if 'downsample_conv' in p}
  assert len(projections) == 4
  assert _paths(stats) == _paths(variables['batch_stats'])
  assert len(_paths(stats)) == 2 * (1 + 33 * 3 + 4)


def test_reduced_preset_has_the_same_layers():
  small = models.build(_config(preset='reduced', aux_head=False), 19)
  variables, outputs, _ = _shapes(small, 64, 96)
  assert set(outputs) == {'logits', 'features'}
  assert outputs['logits'].shape == (1, 9, 13, 19)
  assert outputs['features'].shape == (1, 9, 13, 256)
  kernels = variables['params']['backbone']
  assert kernels['conv1']['kernel'].shape == (7, 7, 3, 8)
  assert kernels['layer4_0']['conv2']['kernel'].shape == (3, 3, 64, 64)
  assert not any(name.endswith('_1') for name in kernels)


def test_street_size_and_resolution():
  variables, outputs, _ = _shapes(
    models.build(_config(name='street'), 19), 96, 192
  )
  assert 0.7e6 <= _count(variables['params']) <= 1.2e6
  assert outputs['logits'].shape == (1, 24, 48, 19)
  assert {p.split('/')[0] for p in _paths(variables['params'])} == {
    'backbone',
    'classifier',
  }


def test_initial_values():
  module = deeplab.DeepLab(19, (1, 1, 1, 1), (16, 32, 64, 128), 64)
  network = base.from_linen(module)
  variables = network.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3)))
  params = variables['params']
  again = network.init(jax.random.key(0), jnp.zeros((2, 17, 17, 3)))
  other = network.init(jax.random.key(1), jnp.zeros((1, 33, 33, 3)))
  jax.tree.map(np.testing.assert_array_equal, variables, again)
  kernel = params['backbone']['layer4_0']['conv2']['kernel']
  kernels = [
    leaf.ravel()
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    if path[-1].key == 'kernel'
  ]
  for values in kernels:
    spread = 5 * 0.01 / np.sqrt(len(values))
    assert abs(values.mean()) < spread
    assert abs(values.std() - 0.01) < spread
  # No two kernels share their values.
  assert len({float(k[0]) for k in kernels}) == len(kernels)
  assert not np.array_equal(
    kernel, other['params']['backbone']['layer4_0']['conv2']['kernel']
  )
  biases = np.concatenate(
    [params['classifier'][f'conv{i}']['bias'] for i in range(4)]
  )
  bound = 1 / np.sqrt(9 * 512)
  assert 0.9 * bound < np.abs(biases).max() <= bound
  assert biases.min() < 0 < biases.max()
  assert np.all(params['backbone']['bn1']['scale'] == 1)
  assert np.all(variables['batch_stats']['backbone']['bn1']['var'] == 1)


def test_two_branches_sum_two_convolutions():
  x = jnp.asarray(_images((1, 9, 13, 4)))
  four, two = (aspp.ASPP(3, n, layers.Options()) for n in (4, 2))
  variables = four.init(jax.random.key(0), x)
  assert _paths(variables) == _paths(two.init(jax.random.key(0), x))
  grads = jax.jit(jax.grad(lambda v: jnp.sum(jnp.square(two.apply(v, x) - 1))))(
    variables
  )
  norms = [
    float(jnp.linalg.norm(grads['params'][f'conv{i}'][leaf]))
    for leaf in ('kernel', 'bias')
    for i in range(4)
  ]
  assert norms[2:4] == norms[6:] == [0, 0]
  assert min(norms[:2] + norms[4:6]) > 0
  assert not np.allclose(two.apply(variables, x), four.apply(variables, x))
  # Without the other two branches' parameters four branches give the same.
  for name in ('conv2', 'conv3'):
    branch = variables['params'][name]
    branch.update(jax.tree.map(jnp.zeros_like, branch))
  np.testing.assert_allclose(
    two.apply(variables, x), four.apply(variables, x), rtol=1e-6
  )


@pytest.mark.parametrize('stride', [1, 2])
def test_1x1_convolution_is_the_general_one(stride):
  x = jnp.asarray(_images((2, 7, 6, 4)))
  kernel = jnp.asarray(_images((1, 1, 4, 5), 1))
  expected = jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    'VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  np.testing.assert_allclose(
    layers.convolve(x, kernel, stride), expected, rtol=1e-5, atol=1e-6
  )


def test_dilated_convolution_by_hand():
  x = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2, 0].set(1)
  kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
  y = layers.convolve(x, kernel, dilation=2)[0, ..., 0]
  expected = np.zeros((5, 5))
  expected[::2, ::2] = np.arange(9).reshape(3, 3)[::-1, ::-1]
  np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize('name', NORMALISED)
def test_statistics_move_in_training_only(name):
  network = models.build(
    _config(name=name, preset='reduced', aux_head=False), 5
  )
  images = jnp.asarray(_images((2, 32, 48, 3)))
  variables = network.init(jax.random.key(0), images)
  apply = jax.jit(network.apply, static_argnums=2)
  _, same = apply(variables, images, False)
  jax.tree.map(np.testing.assert_array_equal, same, variables['batch_stats'])
  _, moved = apply(variables, images, True)
  old = variables['batch_stats']
  for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(old), strict=True):
    assert a.dtype == b.dtype and not np.array_equal(a, b)


@pytest.mark.parametrize('name', NORMALISED)
def test_bfloat16_computes_near_float32(name):
  images = jnp.asarray(_images((2, 32, 48, 3)))
  outputs = {}
  for dtype in ('float32', 'bfloat16'):
    network = models.build(
      _config(name=name, preset='reduced', compute_dtype=dtype), 5
    )
    variables = network.init(jax.random.key(0), images)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {
      jnp.dtype('float32')
    }
    run = jax.jit(network.apply, static_argnums=2)
    outputs[dtype], stats = run(variables, images, True)
    assert {x.dtype for x in jax.tree.leaves(stats)} == {jnp.dtype('float32')}
  for key, expected in outputs['float32'].items():
    actual = outputs['bfloat16'][key]
    logits = 'logits' in key
    assert actual.dtype == (jnp.float32 if logits else jnp.bfloat16)
    deviation = np.sqrt(np.mean(np.square(actual - expected)))
    # bfloat16 has 8 bits: different numbers, but close ones.
    assert 0 < deviation < 0.1 * np.std(expected)


def test_float64_stays_float64():
  with jax.enable_x64(True):
    network = models.build(
      _config(name='street', preset='reduced', compute_dtype='float64'), 3
    )
    images = jnp.asarray(_images((1, 32, 32, 3), dtype=np.float64))
    variables = network.init(jax.random.key(0), images)
    outputs, stats = network.apply(variables, images, True)
    for leaf in jax.tree.leaves((variables, outputs, stats)):
      assert leaf.dtype == jnp.float64


def test_bias_free_in_front_of_normalisation():
  variables, _, _ = _shapes(models.build(_config(name='street'), 19), 96, 192)
  biases = {p for p in _paths(variables['params']) if p.endswith('/bias')}
  assert all('/bn/' in p or p == 'classifier/logits/bias' for p in biases)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'name': 'segnet'}, "'segnet'.*deeplabv2, deeplabv3, fcn8s, street"),
    ({'preset': 'tiny'}, "unknown model.preset 'tiny'"),
    ({'compute_dtype': 'fp16'}, "unknown model.compute_dtype 'fp16'"),
    ({'aspp_branches': 3}, 'model.aspp_branches is 3'),
    ({'layers': (3, 4)}, 'model.layers is'),
    ({'name': 'street', 'width': 6}, 'model.width is 6'),
  ],
)
def test_wrong_configurations(changes, message):
  with pytest.raises(errors.UserError, match=message):
    models.build(_config(**changes), 19)
