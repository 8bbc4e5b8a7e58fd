"""Loss functions: sums with their counts, one family per module."""

from __future__ import annotations

from jaxseg_da.losses import (
  entropy,
  focal,
  regularised,
  segmentation,
  selftraining,
  terms,
)

__all__ = [
  'entropy',
  'focal',
  'regularised',
  'segmentation',
  'selftraining',
  'terms',
]
