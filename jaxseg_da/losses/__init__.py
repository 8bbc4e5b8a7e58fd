"""Loss functions: sums with their counts, one family per module."""

from __future__ import annotations

from jaxseg_da.losses import (
  adversarial,
  entropy,
  focal,
  grouping,
  regularised,
  segmentation,
  selftraining,
  terms,
)

__all__ = [
  'adversarial',
  'entropy',
  'focal',
  'grouping',
  'regularised',
  'segmentation',
  'selftraining',
  'terms',
]
