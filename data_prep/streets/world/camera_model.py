"""The camera: from radiance to eight bits, in a fixed order.

Fog, saturation, contrast and brightness, white balance, exposure, response
curve, vignette, blur, signal-dependent noise. Labels never depend on it.
"""

from __future__ import annotations

import numpy as np

from data_prep.streets.world import domains, hashing

_LEVELS = 16  # response curve steps per grey level


def expose(
  image: np.ndarray,
  depth: np.ndarray,
  domain: domains.Domain,
  seed: int,
  exposure_seed: int,
) -> np.ndarray:
  """Applies the whole chain.

  Args:
    image: float32 `[H, W, 3]` radiance, 0 to 255; overwritten.
    depth: float64 `[H, W]` metres, infinite for the sky.
    domain: its appearance.
    seed: noise seed of this view.
    exposure_seed: exposure seed, shared by the views of a scene.

  Returns:
    uint8 `[H, W, 3]`.
  """
  image = _fog(image, depth, domain)
  mean = (image[..., :1] + image[..., 1:2] + image[..., 2:]) / np.float32(3)
  image -= mean
  image *= np.float32(domain.saturation)
  image += mean
  image -= np.float32(110)
  image *= np.float32(domain.contrast)
  image += np.float32(110 + domain.brightness)
  draw = hashing.Random(exposure_seed, 'exposure').normal()
  image *= np.array(domain.gains, np.float32) * np.float32(
    1 + domain.exposure * draw
  )
  image = _response(image, domain.gamma)
  image = _vignette(image, domain.vignette)
  image = _blur(image, domain.blur)
  image = _noise(image, domain.noise, seed)
  return quantise(image)


def quantise(image: np.ndarray) -> np.ndarray:
  """Rounds to uint8."""
  return (np.clip(image, 0, 255) + np.float32(0.5)).astype(np.uint8)


def _fog(image, depth, domain) -> np.ndarray:
  if not domain.fog:
    return image
  clear = np.exp(-domain.fog * np.minimum(depth, 400.0))
  clear = (np.round(clear * 65536) / 65536).astype(np.float32)[..., None]
  haze = np.array(domain.fog_colour, np.float32)
  return (image - haze) * clear + haze


def _response(image, gamma: float) -> np.ndarray:
  """The response curve, from a table, so that it is reproducible."""
  levels = np.arange(255 * _LEVELS + 1) / (255.0 * _LEVELS)
  curve = np.round(255 * levels**gamma * 256) / 256
  index = np.clip(image, 0, 255) * np.float32(_LEVELS) + np.float32(0.5)
  return curve.astype(np.float32)[index.astype(np.int32)]


def _vignette(image, strength: float) -> np.ndarray:
  if not strength:
    return image
  height, width = image.shape[:2]
  y = (np.arange(height, dtype=np.float32) / height - 0.5)[:, None]
  x = (np.arange(width, dtype=np.float32) / width - 0.5)[None]
  image *= (1 - np.float32(2 * strength) * (x * x + y * y))[..., None]
  return image


def _blur(image, strength: float) -> np.ndarray:
  """Mixes in one pass of a five-point kernel."""
  if not strength:
    return image
  p = np.pad(image, ((1, 1), (1, 1), (0, 0)), 'edge')
  soft = p[:-2, 1:-1] + p[2:, 1:-1]
  soft += p[1:-1, :-2]
  soft += p[1:-1, 2:]
  soft *= np.float32(0.125)
  soft += image * np.float32(0.5)
  soft -= image
  soft *= np.float32(strength)
  image += soft
  return image


def _noise(image, level: float, seed: int) -> np.ndarray:
  """Noise with a constant part and one that grows with the signal."""
  if not level:
    return image
  height, width = image.shape[:2]
  sigma = np.sqrt(np.clip(image, 0, 255))
  sigma *= np.float32(0.05 * level)
  sigma += np.float32(0.5 * level)
  image += sigma * hashing.pixel_normals(height, width, seed)
  return image
