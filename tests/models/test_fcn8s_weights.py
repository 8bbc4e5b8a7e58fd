"""Weight files of FCN-8s: published checkpoints and ImageNet's VGG-16."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.models import base, fcn8s, import_weights

# Modules of the ImageNet network, in which ReLU and pooling count, too.
FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
WIDTHS = (2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6)
HIDDEN = 7


def network(classes=3):
  return base.from_linen(
    fcn8s.FCN8s(classes, (2, 3, 4, 5, 6), HIDDEN), dropout=True
  )


def variables(seed, classes=3):
  """Variables with a different value in every place."""
  shapes = jax.eval_shape(
    network(classes).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3))
  )
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes
  )


def bilinear(classes=3):
  """The transposed convolutions of a checkpoint."""
  return {
    f'{name}.weight': np.eye(classes, dtype=np.float32)[:, :, None, None]
    * fcn8s.bilinear_kernel(size).astype(np.float32)
    for name, size in fcn8s.UPSCORES.items()
  }


def imagenet(seed=0):
  """A file of the classification network, and what it should become."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  tensors, channels = {}, 3
  for index, width in zip(FEATURES, WIDTHS, strict=True):
    tensors[f'features.{index}.weight'] = draw(width, channels, 3, 3)
    tensors[f'features.{index}.bias'] = draw(width)
    channels = width
  sizes = {0: (HIDDEN, 49 * channels), 3: (HIDDEN, HIDDEN), 6: (10, HIDDEN)}
  for index, shape in sizes.items():
    tensors[f'classifier.{index}.weight'] = draw(*shape)
    tensors[f'classifier.{index}.bias'] = draw(shape[0])
  return tensors


def test_export_and_import_are_inverse(tmp_path):
  source, target = variables(0), variables(1)
  tensors = import_weights.to_torch_names(source)
  assert len(tensors) == 36
  assert tensors['conv1_1.weight'].shape == (2, 3, 3, 3)
  assert tensors['fc6.weight'].shape == (HIDDEN, 6, 7, 7)
  assert tensors['score_pool3.bias'].shape == (3,)
  path = tmp_path / 'checkpoint.npz'
  np.savez(path, **{f'module.{k}': v for k, v in tensors.items()})
  loaded, report = import_weights.load_into(target, import_weights.read(path))
  jax.tree.map(np.testing.assert_array_equal, loaded, source)
  assert report == 'loaded 36/36 tensors'


def test_a_checkpoint_with_its_transposed_convolutions():
  source = variables(0)
  tensors = import_weights.to_torch_names(source) | bilinear()
  loaded, report = import_weights.load_into(variables(1), tensors)
  jax.tree.map(np.testing.assert_array_equal, loaded, source)
  assert report == (
    'loaded 36/36 tensors; skipped 3: bilinear kernels, which are constants'
    ' here'
  )


@pytest.mark.parametrize('name', sorted(bilinear()))
@pytest.mark.parametrize('place', [(0, 0, 1, 1), (0, 1, 1, 1)])
def test_trained_transposed_convolutions_are_refused(name, place):
  tensors = import_weights.to_torch_names(variables(0)) | bilinear()
  tensors[name] = tensors[name].copy()
  tensors[name][place] += 1e-3
  with pytest.raises(errors.UserError, match=f'^{name} .* is not the bilinear'):
    import_weights.load_into(variables(1), tensors)


def test_imagenet_network():
  tensors, before = imagenet(), variables(1)
  loaded, report = import_weights.load_into(before, tensors)
  assert report.split('; ') == [
    'loaded 30/30 tensors',
    'skipped 2: the ImageNet classifier',
    'score_fr keeps its initial values',
    'score_pool4 keeps its initial values',
    'score_pool3 keeps its initial values',
  ]
  params = loaded['params']
  convs = [
    f'conv{b}_{i + 1}'
    for b, depth in enumerate((2, 2, 3, 3, 3), 1)
    for i in range(depth)
  ]
  for name, index in zip(convs, FEATURES, strict=True):
    layer = params['backbone'][name]
    np.testing.assert_array_equal(
      layer['kernel'],
      tensors[f'features.{index}.weight'].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(
      layer['bias'], tensors[f'features.{index}.bias']
    )
  head = params['classifier']
  # A dense layer reads channels first: column c * 49 + row * 7 + column.
  matrix = tensors['classifier.0.weight']
  for row, column, c in itertools.product((0, 3, 6), (0, 5), (0, 1, 5)):
    np.testing.assert_array_equal(
      head['fc6']['kernel'][row, column, c],
      matrix[:, c * 49 + row * 7 + column],
    )
  np.testing.assert_array_equal(
    head['fc7']['kernel'][0, 0], tensors['classifier.3.weight'].T
  )
  for name in ('score_fr', 'score_pool3', 'score_pool4'):
    jax.tree.map(
      np.testing.assert_array_equal,
      head[name],
      before['params']['classifier'][name],
    )


def test_imagenet_layers_give_what_dense_layers_give():
  """fc6 over one window is the dense layer on the flattened features."""
  tensors = imagenet()
  loaded, _ = import_weights.load_into(variables(1), tensors)
  x = np.random.default_rng(2).normal(size=(7, 7, 6))
  kernel = loaded['params']['classifier']['fc6']['kernel']
  np.testing.assert_allclose(
    np.einsum('hwc,hwco->o', x, kernel),
    tensors['classifier.0.weight'] @ x.transpose(2, 0, 1).ravel(),
    rtol=1e-4,
    atol=1e-4,
  )


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda t: t.pop('conv4_2.bias'), 'missing: conv4_2.bias'),
    (lambda t: t.pop('score_fr.weight'), 'missing: score_fr.weight'),
    (lambda t: t.update({'bn1.weight': np.zeros(2)}), 'no place for: bn1.wei'),
    (
      lambda t: t.update({'fc7.weight': np.zeros((HIDDEN, 8))}),
      r'fc7.weight has shape \(1, 1, 8, 7\) in our layout',
    ),
    (
      lambda t: t.update({'fc6.weight': np.zeros((HIDDEN, 50))}),
      r'fc6.weight has shape \(7, 50\)',
    ),
  ],
)
def test_strictness(change, message):
  tensors = import_weights.to_torch_names(variables(0)) | bilinear()
  change(tensors)
  with pytest.raises(errors.UserError, match=message):
    import_weights.load_into(variables(1), tensors)


def test_another_number_of_classes_is_refused():
  tensors = import_weights.to_torch_names(variables(0, 4)) | bilinear(4)
  with pytest.raises(errors.UserError, match=r'score_\w+\.\w+ has shape'):
    import_weights.load_into(variables(1), tensors)


def test_weights_of_another_network_are_refused():
  tensors = {'conv1.weight': np.zeros((64, 3, 7, 7))}
  with pytest.raises(errors.UserError, match=r'missing: .*no place for: conv1'):
    import_weights.load_into(variables(1), tensors)
