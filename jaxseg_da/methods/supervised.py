"""Cross-entropy on labelled images: the term that every method contains."""

from __future__ import annotations

import jax

from jaxseg_da import models
from jaxseg_da.losses import segmentation, terms
from jaxseg_da.training import contract
from jaxseg_da.training.step import AXIS


def segmenter(config, num_classes: int | None = None):
  """The segmentation network of a config, with its BatchNorm rule.

  Args:
    config: resolved.
    num_classes: where they are not those of the data.
  """
  axis, group = bn_axis(config.bn)
  classes = num_classes or config.data.num_classes
  return models.build(config.model, classes, bn_axis=axis, bn_group=group)


def bn_axis(bn: str) -> tuple[str | None, int | None]:
  """`config.bn` as the axis to reduce over and the devices per group."""
  if bn == 'per_device':
    return None, None
  _, _, size = bn.partition(':')
  return AXIS, int(size) if size else None


def loss_terms(
  outputs, labels: jax.Array, aux_weight: float, name: str = 'source'
) -> dict[str, terms.Term]:
  """Terms of all classifiers, at the labels' resolution.

  Args:
    outputs: `logits` `[b, h, w, C]` and perhaps `aux_logits`.
    labels: i32 `[b, H, W]`, 255 is ignored.
    aux_weight: weight of the auxiliary classifier (AdaptSegNet: 0.1).
    name: of the main term.
  """
  size = labels.shape[1:3]
  weights = {'logits': ('', 1.0), 'aux_logits': ('_aux', aux_weight)}
  result = {}
  for key, (suffix, weight) in weights.items():
    if key in outputs:
      logits = models.upsample(outputs[key], size)
      total, count = segmentation.cross_entropy(logits, labels)
      result[name + suffix] = terms.Term(total, count, weight)
  return result


def source_domain(config) -> contract.Domain:
  """The labelled stream of the pair."""
  data = config.data
  return contract.Domain(
    data.source, True, data.source_size, data.source_crop, data.resize
  )


def target_domain(config) -> contract.Domain:
  """The unlabelled stream of the pair."""
  data = config.data
  return contract.Domain(
    data.target,
    False,
    data.target_size,
    data.target_crop,
    data.target_resize or data.resize,
  )
