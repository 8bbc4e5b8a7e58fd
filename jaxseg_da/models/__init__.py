"""Networks by name; the rest of the package sees `Network` and nothing else.

A model's module is imported when the model is built, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxseg_da import errors
from jaxseg_da.losses import terms
from jaxseg_da.models import base
from jaxseg_da.ops import resize

NAMES = ('deeplabv2', 'deeplabv3', 'fcn8s', 'street')
PRESETS = ('full', 'reduced')
DTYPES = ('float32', 'bfloat16', 'float64')
REDUCTION = 8  # widths of the preset `reduced` are divided by this


def build(
  model: Any,
  num_classes: int,
  bn_axis: str | None = None,
  bn_group: int | None = None,
) -> base.Network:
  """The network that a configuration asks for.

  Args:
    model: has the attributes `name`, `preset` ('full', or 'reduced': the same
      architecture with an eighth of the width and, of a ResNet, one block
      per stage),
      `layers` (blocks per stage), `aspp_branches` (2 or 4), `aux_head`, `width`
      (of the street model) and `compute_dtype` (of convolutions and
      activations; parameters and statistics are float32, or float64 for
      float64). A model ignores what it has no use for.
    num_classes: channels of the logits.
    bn_axis: mapped axis that BatchNorm synchronises statistics over; None
      keeps them per device.
    bn_group: neighbouring devices that share statistics; None for all.

  Raises:
    UserError: an unknown name or a value out of range.
  """
  for kind, name, choices in (
    ('model', model.name, NAMES),
    ('model.preset', model.preset, PRESETS),
    ('model.compute_dtype', model.compute_dtype, DTYPES),
  ):
    if name not in choices:
      raise errors.unknown(kind, name, choices)
  from jaxseg_da.models import layers

  dtype = jnp.dtype(model.compute_dtype)
  options = layers.Options(
    dtype, jnp.promote_types(dtype, jnp.float32), bn_axis, bn_group
  )
  make = {
    'deeplabv2': _deeplabv2,
    'deeplabv3': _deeplabv3,
    'fcn8s': _fcn8s,
    'street': _street,
  }
  module = make[model.name](model, num_classes, options)
  return base.from_linen(module, dropout=model.name == 'fcn8s')


def upsample(logits: jax.Array, size: Sequence[int]) -> jax.Array:
  """Logits `[B, h, w, C]` at image size `(H, W)`, float32 at least.

  Bilinear with aligned corners, as the published models are trained and
  evaluated.
  """
  dtype = terms.loss_dtype(logits.dtype)
  return resize.align_corners(logits.astype(dtype), size)


def _deeplabv2(model, num_classes, options):
  from jaxseg_da.models import deeplab

  if model.aspp_branches not in (2, 4):
    raise errors.UserError(
      f'model.aspp_branches is {model.aspp_branches}; valid: 2, 4.'
    )
  return deeplab.DeepLab(
    num_classes,
    *_resnet(model),
    model.aspp_branches,
    model.aux_head,
    options,
  )


def _deeplabv3(model, num_classes, options):
  from jaxseg_da.models import deeplab_v3

  hidden = deeplab_v3.HIDDEN
  if model.preset == 'reduced':
    hidden //= REDUCTION
  return deeplab_v3.DeepLabV3(num_classes, *_resnet(model), hidden, options)


def _resnet(model):
  """Blocks and widths of the stages, and the width of the stem."""
  blocks = tuple(model.layers)
  if len(blocks) != 4 or min(blocks) < 1:
    raise errors.UserError(
      f'model.layers is {blocks}; four stages need a positive number of blocks'
      ' each, ResNet-101 has (3, 4, 23, 3).'
    )
  planes, stem = (64, 128, 256, 512), 64
  if model.preset == 'reduced':
    blocks = (1, 1, 1, 1)
    planes = tuple(p // REDUCTION for p in planes)
    stem //= REDUCTION
  return blocks, planes, stem


def _fcn8s(model, num_classes, options):
  from jaxseg_da.models import fcn8s, vgg

  factor = REDUCTION if model.preset == 'reduced' else 1
  widths = tuple(width // factor for width in vgg.WIDTHS)
  return fcn8s.FCN8s(num_classes, widths, fcn8s.HIDDEN // factor, options)


def _street(model, num_classes, options):
  from jaxseg_da.models import street

  if model.width < 4 or model.width % 4:
    raise errors.UserError(
      f'model.width is {model.width}; it must be a positive multiple of 4.'
    )
  if model.preset == 'reduced':
    width = max(model.width // REDUCTION // 4, 1) * 4
    return street.Street(num_classes, width, (1,), options)
  return street.Street(num_classes, model.width, options=options)
