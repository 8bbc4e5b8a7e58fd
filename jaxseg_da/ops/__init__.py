"""Pure functions on image batches, one idea per module."""

from __future__ import annotations

from jaxseg_da.ops import (
  augment,
  blur,
  ema,
  mixing,
  normalize,
  patches,
  photometric,
  pooling,
  resize,
  rng,
  scale_crop,
)

__all__ = [
  'augment',
  'blur',
  'ema',
  'mixing',
  'normalize',
  'patches',
  'photometric',
  'pooling',
  'resize',
  'rng',
  'scale_crop',
]
