"""Published weights in, ours out, both ways and strictly.

Those of FCN-8s are named in `fcn8s_weights`, all else here is DeepLab-V2. Names
follow the released PyTorch state dicts: `conv1.weight`, `bn1.*`,
`layerS.B.{convN,bnN}.*`, `layerS.0.downsample.{0,1}.*` and the heads
`layer5.conv2d_list.N.*`, `layer6.conv2d_list.N.*`. `layer5` means three things:

- beside `layer6`: the auxiliary head on stage 3;
- alone: the main head on stage 4 (single-level AdaptSegNet, DACS);
- with 21 classes, or under the prefix `Scale.`: the VOC head of a pre-training
  file, which no adaptation uses.

`python -m jaxseg_da.models.import_weights IN OUT.npz` converts a file to .npz
with plain names.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxseg_da import errors
from jaxseg_da.models import fcn8s_weights, tensor_file

_VOC_CLASSES = 21
_LEAVES = {
  ('params', 'kernel'): 'weight',
  ('params', 'scale'): 'weight',
  ('params', 'bias'): 'bias',
  ('batch_stats', 'mean'): 'running_mean',
  ('batch_stats', 'var'): 'running_var',
}
_HEADS = ('classifier', 'aux_classifier')


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The tensors of a weight file, see `tensor_file.read`."""
  return tensor_file.read(path)


def load_into(
  variables: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], str]:
  """Fills a network with the tensors of a file.

  Every tensor is used or skipped for a stated reason, and everything of the
  network is filled but a head that this kind of file does not carry. Tensors
  that are named by our own paths (`params/backbone/...`) load as well, into any
  network.

  Args:
    variables: `{'params', 'batch_stats'}`. Leaves may be
      `jax.ShapeDtypeStruct`, and stay so where nothing is loaded.
    tensors: as `read` returns them, PyTorch layouts.

  Returns:
    New variables with NumPy leaves in the dtypes of `variables`, and a report
    for people that begins with 'loaded n/n tensors'.

  Raises:
    UserError: tensors are left over, are missing or have the wrong shape; it
      lists them.
  """
  leaves = _flatten(variables)
  if all(name in leaves or '/' in name for name in tensors):
    names, skipped, absent = {name: name for name in leaves}, {}, ()
    usable = dict(tensors)
  elif fcn8s_weights.fits(leaves):
    names, usable, skipped, absent = fcn8s_weights.match(leaves, tensors)
  else:
    usable, skipped = _usable(tensors)
    names, absent = _file_names(leaves, usable, skipped)
  wanted = {v: k for k, v in names.items()}
  misshapen = []
  missing = [n for n in wanted if n not in usable]
  unused = [n for n in usable if n not in wanted]
  loaded = {}
  for name, path in wanted.items():
    if name in usable:
      value = usable[name]
      if name != path:
        value = _from_torch(value)
      if value.shape == tuple(leaves[path].shape):
        loaded[path] = np.array(value, leaves[path].dtype)
      else:
        misshapen.append(
          f'{name} has shape {value.shape} in our layout, the network has'
          f' {tuple(leaves[path].shape)}'
        )
  problems = [_listed(misshapen, 3, '; ')] if misshapen else []
  if missing:
    problems.append(f'missing: {_listed(missing)}')
  if unused:
    problems.append(f'no place for: {_listed(unused)}')
  if problems:
    raise errors.UserError(
      f'the weights do not fit the network: {"; ".join(problems)}.'
    )
  notes = [f'loaded {len(loaded)}/{len(usable)} tensors']
  notes += [f'skipped {n}: {reason}' for reason, n in _counts(skipped).items()]
  notes += [f'{head} keeps its initial values' for head in absent]
  return _unflatten({**leaves, **loaded}), '; '.join(notes)


def published_names(variables: Mapping[str, Any]) -> dict[str, str]:
  """`{path: published name}` of a network's parameters and statistics.

  With an auxiliary head that is `layer5` and the main head `layer6`; without
  one the main head is `layer5`. Paths read `params/backbone/conv1/kernel`.
  """
  leaves = _flatten(variables)
  if fcn8s_weights.fits(leaves):
    return {path: fcn8s_weights.published_name(path) for path in leaves}
  heads = {'classifier': 'layer5'}
  if any(path.startswith('params/aux_classifier/') for path in leaves):
    heads = {'aux_classifier': 'layer5', 'classifier': 'layer6'}
  return {path: _torch_name(path, heads) for path in leaves}


def to_torch_names(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Exports a network: `published_names` and PyTorch layouts."""
  leaves = _flatten(variables)
  return {
    name: _to_torch(np.asarray(leaves[path]))
    for path, name in published_names(variables).items()
  }


def main(argv: list[str]) -> None:
  """Converts the file `argv[0]` to the .npz file `argv[1]`."""
  if len(argv) != 2 or not argv[1].endswith('.npz'):
    raise errors.UserError(
      'usage: python -m jaxseg_da.models.import_weights IN OUT.npz'
    )
  usable, skipped = _usable(read(argv[0]))
  np.savez(argv[1], **{name: usable[name] for name in usable})
  print(f'wrote {len(usable)} tensors to {argv[1]}')
  for reason, count in _counts(skipped).items():
    print(f'skipped {count}: {reason}')


def _usable(tensors):
  """Drops prefixes and what no network has; `{name: array}`, `{name: why}`."""
  skipped = {}
  scaled = all(name.startswith('Scale.') for name in tensors)
  usable = {}
  for name, value in tensors.items():
    plain = name.removeprefix('Scale.') if scaled else name
    if plain.endswith('.num_batches_tracked'):
      skipped[name] = 'num_batches_tracked has no use here'
    elif plain.startswith('fc.'):
      skipped[name] = 'the ImageNet classifier fc'
    elif scaled and plain.startswith('layer5.'):
      skipped[name] = 'the 21-class head of pre-training'
    else:
      usable[plain] = value
  return usable, skipped


def _file_names(leaves, usable, skipped):
  """The file's name per path, and the heads that the file does not carry.

  Moves heads that the network has no use for from `usable` to `skipped`.
  """
  present = {n.split('.')[0] for n in usable}
  if 'layer6' in present:
    heads = {'layer6': 'classifier', 'layer5': 'aux_classifier'}
  else:
    heads = {'layer5': 'classifier'}
  ours = {h for h in _HEADS if any(f'params/{h}/' in path for path in leaves)}
  for layer, head in list(heads.items()):
    inside = [n for n in usable if n.startswith(f'{layer}.')]
    reason = None
    if head not in ours:
      reason = f'{layer}: the network has no {head}'
    elif f'params/{head}/conv0/bias' not in leaves:
      reason = f'{layer}: a head of DeepLab-V2'
    elif 'layer6' not in present and _is_voc(usable, leaves, layer, head):
      reason = f'the {_VOC_CLASSES}-class head of pre-training'
    if reason or not inside:
      del heads[layer]
      for name in inside:
        del usable[name]
        skipped[name] = reason
  by_head = {head: layer for layer, head in heads.items()}
  absent = tuple(h for h in _HEADS if h in ours and h not in by_head)
  names = {
    path: _torch_name(path, by_head)
    for path in leaves
    if path.split('/')[1] not in absent
  }
  return names, absent


def _is_voc(usable, leaves, layer, head) -> bool:
  """Whether a head has the 21 classes of VOC and the network's has not."""
  classes = {len(v) for n, v in usable.items() if n.startswith(f'{layer}.')}
  ours = leaves[f'params/{head}/conv0/bias'].shape[0]
  return classes == {_VOC_CLASSES} and ours != _VOC_CLASSES


def _torch_name(path: str, heads: Mapping[str, str]) -> str:
  """`params/backbone/layer3_0/conv1/kernel` -> `layer3.0.conv1.weight`."""
  collection, root, *modules, leaf = path.split('/')
  name = '.'.join(modules)
  if root in heads:
    name = re.sub(r'^conv(\d)$', heads[root] + r'.conv2d_list.\1', name)
  elif root == 'backbone':
    name = re.sub(r'^layer(\d)_(\d+)\b', r'layer\1.\2', name)
    name = name.replace('downsample_conv', 'downsample.0')
    name = name.replace('downsample_bn', 'downsample.1')
  known = name[:1] in ('c', 'b', 'l') and (collection, leaf) in _LEAVES
  if root not in (*heads, 'backbone') or not known:
    raise errors.UserError(
      f'{path} has no published name: only DeepLab-V2 and FCN-8s have.'
    )
  return f'{name}.{_LEAVES[collection, leaf]}'


def _from_torch(value: np.ndarray) -> np.ndarray:
  """Convolution kernels `[O, I, kh, kw]` -> `[kh, kw, I, O]`."""
  return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value


def _to_torch(value: np.ndarray) -> np.ndarray:
  return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value


def _flatten(variables) -> dict[str, Any]:
  flat = jax.tree_util.tree_flatten_with_path(dict(variables))[0]
  return {'/'.join(k.key for k in path): leaf for path, leaf in flat}


def _unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
  tree: dict[str, Any] = {'params': {}, 'batch_stats': {}}
  for path, leaf in leaves.items():
    *parents, last = path.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree


def _counts(skipped: Mapping[str, str]) -> dict[str, int]:
  reasons = list(skipped.values())
  return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


def _listed(names: list[str], limit: int = 8, separator: str = ', ') -> str:
  more = f' and {len(names) - limit} more' if len(names) > limit else ''
  return separator.join(names[:limit]) + more


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except errors.UserError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
