from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.models import base, deeplab, import_weights, street


def _network(aux_head=False, classes=3):
  return base.from_linen(
    deeplab.DeepLab(classes, (1, 2, 1, 1), (2, 3, 4, 5), 4, aux_head=aux_head)
  )


def _random(network, seed):
  """Variables with a different value in every place."""
  shapes = jax.eval_shape(
    network.init, jax.random.key(0), jnp.zeros((1, 17, 17, 3))
  )
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes
  )


def _equal(actual, expected):
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


def _renamed(tensors, old, new):
  return {
    new + k.removeprefix(old) if k.startswith(old) else k: v
    for k, v in tensors.items()
  }


@pytest.mark.parametrize('aux_head', [False, True])
def test_export_and_import_are_inverse(aux_head, tmp_path):
  network = _network(aux_head)
  source, target = _random(network, 0), _random(network, 1)
  tensors = import_weights.to_torch_names(source)
  assert tensors['conv1.weight'].shape == (4, 3, 7, 7)
  assert tensors['layer2.1.conv2.weight'].shape == (3, 3, 3, 3)
  assert tensors['layer2.0.downsample.0.weight'].shape == (12, 8, 1, 1)
  assert tensors['layer2.0.downsample.1.running_var'].shape == (12,)
  assert ('layer6.conv2d_list.3.bias' in tensors) is aux_head
  channels = 16 if aux_head else 20
  assert tensors['layer5.conv2d_list.0.weight'].shape == (3, channels, 3, 3)
  kernel = source['params']['backbone']['layer1_0']['conv2']['kernel']
  assert tensors['layer1.0.conv2.weight'][1, 0, 2, 1] == kernel[2, 1, 0, 1]
  path = tmp_path / 'w.npz'
  np.savez(path, **tensors)
  loaded, report = import_weights.load_into(target, import_weights.read(path))
  _equal(loaded, source)
  assert report == f'loaded {len(tensors)}/{len(tensors)} tensors'
  # The template's dtypes hold, not the file's.
  wide = {k: v.astype(np.float64) for k, v in tensors.items()}
  loaded, _ = import_weights.load_into(target, wide)
  assert {x.dtype for x in jax.tree.leaves(loaded)} == {np.dtype('float32')}


def test_every_file_form_of_the_published_weights():
  single, multi = _network(), _network(aux_head=True)
  source, target = _random(single, 0), _random(multi, 1)
  tensors = import_weights.to_torch_names(source)
  backbone = {k: v for k, v in tensors.items() if 'layer5' not in k}
  n = len(backbone)
  voc = {
    k: np.zeros((21, *v.shape[1:]), v.dtype)
    for k, v in tensors.items()
    if 'layer5' in k
  }
  counters = {'bn1.num_batches_tracked': np.asarray(3)}

  def check(network, tensors, count, *notes, heads):
    into = _random(network, 1)
    loaded, report = import_weights.load_into(into, tensors)
    assert report.split('; ') == [f'loaded {count}/{count} tensors', *notes]
    for name in ('params', 'batch_stats'):
      _equal(loaded[name]['backbone'], source[name]['backbone'])
    for head in set(loaded['params']) - {'backbone'}:
      expected = source if head in heads else into
      ours = 'classifier' if head in heads else head
      _equal(loaded['params'][head], expected['params'][ours])

  kept = '{} keeps its initial values'.format
  # Scale.: pre-training for the multi-level models; layer5 is a VOC head.
  scaled = {f'Scale.{k}': v for k, v in {**backbone, **voc}.items()}
  check(
    multi,
    scaled,
    n,
    'skipped 8: the 21-class head of pre-training',
    kept('classifier'),
    kept('aux_classifier'),
    heads=(),
  )
  # COCO: the same head without the prefix.
  check(
    single,
    {**backbone, **voc, **counters},
    n,
    'skipped 1: num_batches_tracked has no use here',
    'skipped 8: the 21-class head of pre-training',
    kept('classifier'),
    heads=(),
  )
  # A classification file.
  fc = {'fc.weight': np.zeros((1000, 20)), 'fc.bias': np.zeros(1000)}
  check(
    single,
    {**backbone, **fc},
    n,
    'skipped 2: the ImageNet classifier fc',
    kept('classifier'),
    heads=(),
  )
  # One head as layer5 (AdaptSegNet single level, DACS) or layer6 (ADVENT).
  check(single, tensors, n + 8, heads=('classifier',))
  check(multi, tensors, n + 8, kept('aux_classifier'), heads=('classifier',))
  as_layer6 = _renamed(tensors, 'layer5.', 'layer6.')
  check(single, as_layer6, n + 8, heads=('classifier',))
  # Two heads into a network with one.
  both = import_weights.to_torch_names(
    {**target, 'params': {**target['params'], **source['params']}}
    | {'batch_stats': source['batch_stats']}
  )
  check(
    single,
    both,
    n + 8,
    'skipped 8: layer5: the network has no aux_classifier',
    heads=('classifier',),
  )


def test_shapes_only_templates():
  network = _network()
  source = _random(network, 0)
  shapes = jax.eval_shape(lambda: source)
  tensors = import_weights.to_torch_names(source)
  loaded, _ = import_weights.load_into(shapes, tensors)
  _equal(loaded, source)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda t: t.pop('layer2.1.bn1.running_mean'), 'missing: layer2.1.bn1.run'),
    (lambda t: t.pop('layer5.conv2d_list.3.bias'), 'missing: layer5.conv2d'),
    (
      lambda t: t.update({'layer2.2.conv1.weight': np.zeros((3, 12, 1, 1))}),
      'no place for: layer2.2.conv1.weight',
    ),
    (
      lambda t: t.update({'bn1.weight': np.zeros(5)}),
      r'bn1.weight has shape \(5,\) in our layout, the network has \(4,\)',
    ),
    # Another number of classes is no pre-training head unless it is 21.
    (
      lambda t: t.update(
        {
          k: np.zeros((16, *v.shape[1:]))
          for k, v in t.items()
          if k.startswith('layer5.')
        }
      ),
      r'layer5.conv2d_list.0.* has shape .*16',
    ),
  ],
)
def test_strictness(change, message):
  variables = _random(_network(), 0)
  tensors = import_weights.to_torch_names(variables)
  change(tensors)
  with pytest.raises(errors.UserError, match=message):
    import_weights.load_into(variables, tensors)


def test_weights_of_another_size_are_refused_in_a_short_sentence():
  wide = base.from_linen(
    deeplab.DeepLab(3, (1, 2, 1, 1), (4, 6, 8, 10), 8, aux_head=False)
  )
  tensors = import_weights.to_torch_names(_random(wide, 0))
  with pytest.raises(errors.UserError) as caught:
    import_weights.load_into(_random(_network(), 0), tensors)
  message = str(caught.value)
  assert message.count('has shape') == 3 and ' more.' in message
  assert len(message) < 400


def test_21_classes_load_into_a_21_class_network():
  variables = _random(_network(classes=21), 0)
  tensors = import_weights.to_torch_names(variables)
  loaded, report = import_weights.load_into(
    _random(_network(classes=21), 1), tensors
  )
  _equal(loaded, variables)
  assert ';' not in report


def test_other_networks_load_by_path():
  network = base.from_linen(street.Street(3, 8, (1,)))
  source, target = _random(network, 0), _random(network, 1)
  flat = jax.tree_util.tree_flatten_with_path(source)[0]
  tensors = {
    jax.tree_util.keystr(p, simple=True, separator='/'): v for p, v in flat
  }
  loaded, report = import_weights.load_into(target, tensors)
  _equal(loaded, source)
  assert report == f'loaded {len(tensors)}/{len(tensors)} tensors'
  tensors.pop('params/classifier/logits/bias')
  with pytest.raises(errors.UserError, match='missing: params/classifier/log'):
    import_weights.load_into(target, tensors)
  with pytest.raises(errors.UserError, match='no published name'):
    import_weights.to_torch_names(source)


def test_command_line(tmp_path, capsys):
  variables = _random(_network(), 0)
  tensors = import_weights.to_torch_names(variables)
  old, new = tmp_path / 'old.npz', tmp_path / 'new.npz'
  counters = {'bn1.num_batches_tracked': np.asarray(3)}
  np.savez(
    old, **{f'module.{k}': v for k, v in {**tensors, **counters}.items()}
  )
  import_weights.main([str(old), str(new)])
  assert capsys.readouterr().out == (
    f'wrote {len(tensors)} tensors to {new}\n'
    'skipped 1: num_batches_tracked has no use here\n'
  )
  loaded, _ = import_weights.load_into(
    _random(_network(), 1), import_weights.read(new)
  )
  _equal(loaded, variables)


def test_command_line_errors(tmp_path):
  command = [sys.executable, '-m', 'jaxseg_da.models.import_weights']
  done = subprocess.run(
    [*command, str(tmp_path / 'absent.pth'), str(tmp_path / 'out.npz')],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1 and 'does not exist' in done.stderr
