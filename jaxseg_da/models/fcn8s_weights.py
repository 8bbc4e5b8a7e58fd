"""Names and layouts of the weight files that FCN-8s starts from.

- A checkpoint of LSE, BDL or FDA names the layers as we do (`conv1_1.weight`,
  `score_fr.bias`). Its transposed convolutions (`upscore8.weight`) have to be
  bilinear, because they are constants here.
- VGG-16 trained on ImageNet has `features.N.*` and, as matrices, fc6 and fc7 in
  `classifier.0.*` and `classifier.3.*`. Score layers keep their values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxseg_da import errors
from jaxseg_da.models import fcn8s, vgg

_SCORES = ('score_fr', 'score_pool4', 'score_pool3')
_LEAVES = {'kernel': 'weight', 'bias': 'bias'}


def fits(leaves: Mapping[str, Any]) -> bool:
  """Whether the paths `params/classifier/...` are those of an FCN-8s."""
  return 'params/classifier/score_fr/kernel' in leaves


def published_name(path: str, layers: Mapping[str, str] | None = None) -> str:
  """`params/backbone/conv1_1/kernel` -> `conv1_1.weight`.

  Args:
    path: of a parameter.
    layers: other names of layers; without it they are called as here.
  """
  _, _, layer, leaf = path.split('/')
  return f'{(layers or {}).get(layer, layer)}.{_LEAVES[leaf]}'


def match(
  leaves: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[dict, dict, dict, tuple[str, ...]]:
  """Pairs a network's parameters with the tensors of a file.

  Args:
    leaves: parameters by path.
    tensors: of the file, PyTorch layouts.

  Returns:
    The file's name per path; the tensors to load, matrices of `fc6` and `fc7`
    as kernels `[O, I, k, k]`; why others are skipped; layers that the file
    does not carry.

  Raises:
    UserError: a transposed convolution is not bilinear.
  """
  usable, skipped = {}, {}
  for name, value in tensors.items():
    layer = name.rpartition('.')[0]
    if layer in fcn8s.UPSCORES:
      _check_bilinear(name, value, fcn8s.UPSCORES[layer])
      skipped[name] = 'bilinear kernels, which are constants here'
    elif layer == 'classifier.6':
      skipped[name] = 'the ImageNet classifier'
    else:
      usable[name] = value
  imagenet = any(name.startswith('features.') for name in usable)
  layers, absent = (_imagenet(), _SCORES) if imagenet else ({}, ())
  names = {
    path: published_name(path, layers)
    for path in leaves
    if path.split('/')[2] not in absent
  }
  for path, name in names.items():
    value = usable.get(name)
    if value is not None and value.ndim == 2:
      usable[name] = _kernel(value, leaves[path].shape[0])
  return names, usable, skipped, absent


def _imagenet() -> dict[str, str]:
  """Layers as a list of modules counts them: each ReLU and pooling is one."""
  layers, index = {'fc6': 'classifier.0', 'fc7': 'classifier.3'}, 0
  for block, depth in enumerate(vgg.DEPTHS, 1):
    for i in range(1, depth + 1):
      layers[f'conv{block}_{i}'] = f'features.{index}'
      index += 2
    index += 1
  return layers


def _kernel(matrix: np.ndarray, size: int) -> np.ndarray:
  """`[O, I * size * size]` as `[O, I, size, size]`, where that is possible."""
  outputs, inputs = matrix.shape
  if inputs % size**2:
    return matrix
  return matrix.reshape(outputs, -1, size, size)


def _check_bilinear(name: str, value: np.ndarray, size: int) -> None:
  channels = np.eye(len(value))[:, :, None, None]
  expected = channels * fcn8s.bilinear_kernel(size)
  if value.shape != expected.shape or not np.allclose(
    value, expected, rtol=0, atol=1e-5
  ):
    raise errors.UserError(
      f'{name} {value.shape} is not the bilinear {size}x{size} kernel of each'
      ' channel, which this network has as a constant: a file with trained'
      ' transposed convolutions does not fit.'
    )
