"""Loss functions: sums with their counts, one family per module."""

from __future__ import annotations

from jaxseg_da.losses import (
  adversarial,
  distillation,
  entropy,
  focal,
  grouping,
  maxsquare,
  regularised,
  segmentation,
  selftraining,
  terms,
)

__all__ = [
  'adversarial',
  'distillation',
  'entropy',
  'focal',
  'grouping',
  'maxsquare',
  'regularised',
  'segmentation',
  'selftraining',
  'terms',
]
