"""Domain-adaptive semantic segmentation of driving scenes in JAX."""

from __future__ import annotations

__version__ = '0.1.0'
