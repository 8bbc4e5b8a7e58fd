"""Integer hashing: the only source of randomness in the street world.

Everything here is built from wrapping integer arithmetic and the four
correctly rounded float operations, so each value is the same on every
platform and for every NumPy version. Scenes draw from `Random` (one stream
per purpose); textures and sensor noise are `lattice` hashes of coordinates.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_SQRT3 = 1.7320508075688772


def mix64(value: int) -> int:
  """Scrambles the bits of a 64-bit integer (the splitmix64 finaliser)."""
  value &= _MASK
  value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
  value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
  return value ^ (value >> 31)


def combine(*parts: int | str) -> int:
  """One 64-bit key from integers and names; order matters."""
  key = 0
  for part in parts:
    number = zlib.crc32(part.encode()) if isinstance(part, str) else part
    key = mix64(key + _GOLDEN + mix64(number + _GOLDEN))
  return key


class Random:
  """A counter-based random stream, keyed by integers and names."""

  def __init__(self, *key: int | str):
    self._key = combine(*key)
    self._count = 0

  def bits(self) -> int:
    """64 random bits."""
    self._count += 1
    return mix64(self._key + self._count * _GOLDEN)

  def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
    """A float in [low, high)."""
    return low + (high - low) * ((self.bits() >> 11) * 2.0**-53)

  def normal(self) -> float:
    """Zero mean, unit variance, within 3.47: a sum of four uniforms."""
    bits = self.bits()
    total = sum((bits >> shift) & 0xFFFF for shift in (0, 16, 32, 48))
    return (total - 131070) / 65536.0 * _SQRT3

  def near(self, low: float, high: float) -> float:
    """A distance in [low, high), denser near `low` (quadratic)."""
    part = self.uniform()
    return low + (high - low) * part * part

  def chance(self, probability: float) -> bool:
    """True with the given probability."""
    return self.uniform() < probability

  def sign(self) -> int:
    """-1 or +1."""
    return 1 if self.bits() >> 63 else -1

  def integer(self, count: int) -> int:
    """An integer in [0, count)."""
    return ((self.bits() >> 32) * count) >> 32

  def choice(self, weights: Sequence[float]) -> int:
    """An index, drawn in proportion to `weights`."""
    remaining = self.uniform() * sum(weights)
    for index, weight in enumerate(weights):
      remaining -= weight
      if remaining < 0:
        return index
    return len(weights) - 1

  def poisson(self, rate: float) -> int:
    """A Poisson count by inversion; it grows with `rate` draw by draw."""
    target = self.uniform()
    density = _exp_minus(rate)
    total, count = density, 0
    while target >= total and count < 200:
      count += 1
      density *= rate / count
      total += density
    return count


def _exp_minus(value: float) -> float:
  """exp(-value) from additions, products and one division."""
  term = total = 1.0
  for k in range(1, 80):
    term *= value / k
    total += term
  return 1.0 / total


def lattice(x: np.ndarray, y: np.ndarray, seed: np.ndarray | int) -> np.ndarray:
  """Hashes integer lattice points.

  Args:
    x: int32 array.
    y: int32 array of the same shape.
    seed: an integer below 2**32 or a uint32 array of the same shape.

  Returns:
    uint32 array of hashes.
  """
  value = x.view(np.uint32) * np.uint32(0x9E3779B1)
  value += y.view(np.uint32) * np.uint32(0x85EBCA77)
  value += seed if isinstance(seed, np.ndarray) else np.uint32(seed)
  return _scramble(value)


def _scramble(value: np.ndarray) -> np.ndarray:
  """Scrambles uint32 values in place and returns them."""
  value ^= value >> np.uint32(15)
  value *= np.uint32(0x2C1B3C6D)
  value ^= value >> np.uint32(12)
  value *= np.uint32(0x297A2D39)
  value ^= value >> np.uint32(15)
  return value


def lattice_uniform(
  x: np.ndarray, y: np.ndarray, seed: np.ndarray | int
) -> np.ndarray:
  """`lattice` as float32 in [0, 1), for float coordinates (floored)."""
  cell_x, cell_y = np.floor(x), np.floor(y)
  value = lattice(cell_x.astype(np.int32), cell_y.astype(np.int32), seed)
  return (value >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def value_noise(
  x: np.ndarray, y: np.ndarray, seed: np.ndarray | int
) -> np.ndarray:
  """Smooth noise over the unit lattice: float32 in [-1, 1]."""
  floor_x, floor_y = np.floor(x), np.floor(y)
  u = (x - floor_x).astype(np.float32)
  v = (y - floor_y).astype(np.float32)
  u *= u * (3 - 2 * u)
  v *= v * (3 - 2 * v)
  x0 = floor_x.astype(np.int32).view(np.uint32) * np.uint32(0x9E3779B1)
  y0 = floor_y.astype(np.int32).view(np.uint32) * np.uint32(0x85EBCA77)
  y0 += seed if isinstance(seed, np.ndarray) else np.uint32(seed)
  x1 = x0 + np.uint32(0x9E3779B1)
  y1 = y0 + np.uint32(0x85EBCA77)

  def corner(cx, cy):
    high = _scramble(cx + cy) >> np.uint32(8)
    return high.astype(np.float32) * np.float32(2.0**-23) - np.float32(1)

  low = corner(x0, y0)
  low += (corner(x1, y0) - low) * u
  high = corner(x0, y1)
  high += (corner(x1, y1) - high) * u
  low += (high - low) * v
  return low


def pixel_normals(height: int, width: int, seed: int) -> np.ndarray:
  """Sensor noise: float32 `[height, width, 3]`, zero mean, unit variance."""
  y, x = np.indices((height, width), dtype=np.int32)
  noise = np.empty((height, width, 3), np.float32)
  for channel in range(3):
    bits = lattice(x, y, combine(seed, channel) & 0xFFFFFFFF)
    total = bits & np.uint32(255)
    for shift in (8, 16, 24):
      total += (bits >> np.uint32(shift)) & np.uint32(255)
    noise[..., channel] = total
  return (noise - np.float32(510)) * np.float32(_SQRT3 / 256)
