"""Weights of a network with more classes, from one with fewer.

Every class-wise tensor hands its parent's values down to all children. With
biases lowered by the logarithm of the number of children, their probabilities
add up to that of the parent, for every image: the grown network predicts what
the old one did. Shenaj et al., IVC 121 (2022) 104426.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxseg_da import errors

# Tensors below `params` and `batch_stats` whose last axis is the class.
CLASS_WISE = {
  'deeplabv2': r'(aux_)?classifier/conv\d/',
  'deeplabv3': r'classifier/(logits|pooled_logits|logits_bn)/',
  'street': r'classifier/logits/',
}


def grow(
  variables: Mapping[str, Any],
  parents: Sequence[int],
  model: Any,
  shift: bool = True,
) -> dict[str, Any]:
  """Variables of the same network with one class per entry of `parents`.

  Args:
    variables: `{'params', 'batch_stats'}` of a network of `models.build`.
    parents: for each new class the old one that it comes from; every old class
      occurs.
    model: has the attributes `name` and, of DeepLab-V2, `aspp_branches`; see
      `models.build`.
    shift: whether biases are lowered, so that predictions stay the same;
      without it, those of a class add up to more the more children it has.

  Returns:
    Variables of the same structure and dtypes. What is not class-wise is as it
    was.

  Raises:
    ValueError: the network has another number of classes than `parents` names.
    UserError: the model cannot grow. FCN-8s cannot: its upsampling fades out
      towards the border, so that a shift is not the same everywhere.
  """
  if model.name not in CLASS_WISE:
    raise errors.unknown('model that can grow', model.name, CLASS_WISE)
  index = np.asarray(parents)
  children = np.bincount(index)
  # A logit has one bias per summed branch; each takes its part of the shift.
  branches = model.aspp_branches if model.name == 'deeplabv2' else 1
  lowered = np.log(children)[index] / branches
  pattern = re.compile(rf'(params|batch_stats)/{CLASS_WISE[model.name]}')

  def leaf(path, value):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if not pattern.match(name):
      return value
    if value.shape[-1] != len(children):
      raise ValueError(
        f'{name} has {value.shape[-1]} classes, but there are children of'
        f' {len(children)}'
      )
    grown = value[..., index]
    if shift and name.endswith('/bias'):
      return grown - lowered.astype(grown.dtype)
    return grown

  return jax.tree_util.tree_map_with_path(leaf, dict(variables))
