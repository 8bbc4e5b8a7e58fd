"""What a stored depth map means: its units, metres, and CorDA's target.

A prepared data set stores depth as u16 where 0 means: no depth here. The
`depth_kind` of its metadata says what the other values are:

- `metric`: centimetres; 65535 stands for 655.35 m and all beyond (sky).
- `disparity`: of a rectified stereo pair, as Cityscapes ships it: 256 d + 1 for
  d pixels. A value of 1 is a point at infinity.
- `network_disparity`: a network's sigmoid output times 65535. Its scale is
  unknown, so it has no metres.

The functions take maps `[H, W]` or `[H, W, 1]` and keep that shape.
"""

from __future__ import annotations

import cv2
import numpy as np

from jaxseg_da import errors
from jaxseg_da.data import transforms

UNITS = {
  'metric': 'cm',
  'disparity': '1/256 px',
  'network_disparity': '1/65535',
}
KINDS = tuple(UNITS)

INVALID_TARGET = 1.0  # inverse depth of pixels that no loss may use

_TARGET_MODES = {
  'cv_linear': cv2.INTER_LINEAR,
  'cv_nearest': cv2.INTER_NEAREST,
}
TARGET_MODES = tuple(_TARGET_MODES)


def check_kind(kind: str) -> str:
  """`kind`, or `errors.UserError` with the list of depth kinds."""
  if kind not in KINDS:
    raise errors.unknown('depth kind', kind, KINDS)
  return kind


def metric_to_u16(depth: np.ndarray) -> np.ndarray:
  """Metres to u16 centimetres of kind `metric`.

  Args:
    depth: float metres; 0, negative or NaN where there is none. What is
      further than 655.35 m, infinity included, is stored as 65535.
  """
  centimetres = np.rint(np.asarray(depth, np.float64) * 100)
  # What is valid and closer than 5 mm must not become invalid.
  centimetres = np.where(depth > 0, np.maximum(centimetres, 1), 0)
  return np.minimum(centimetres, 65535).astype(np.uint16)


def to_metres(
  depth: np.ndarray,
  kind: str,
  *,
  focal: float | None = None,
  baseline: float | None = None,
) -> np.ndarray:
  """Distance along the optical axis in metres.

  Args:
    depth: stored u16.
    kind: one of `KINDS`.
    focal: horizontal focal length in pixels of this map; `disparity` only.
    baseline: distance of the two cameras in metres; `disparity` only.

  Returns:
    f32; 0 where invalid, and where the disparity is 0 (at infinity).

  Raises:
    errors.UserError: unknown kind, one without metres, or no camera.
  """
  check_kind(kind)
  if kind == 'network_disparity':
    raise errors.UserError(
      "depth of kind 'network_disparity' has no metres: it is the output of a "
      "network on an unknown scale; use 'metric' or 'disparity'"
    )
  values = depth.astype(np.float32)
  if kind == 'metric':
    return values / 100
  if focal is None or baseline is None:
    raise errors.UserError(
      "depth of kind 'disparity' needs the camera's focal length and baseline: "
      'build the dataset from a tree that has its camera files'
    )
  pixels = (values - 1) / 256
  metres = np.zeros_like(pixels)
  scale = np.float32(baseline * focal)
  return np.divide(scale, pixels, out=metres, where=depth > 1)


def inverse_depth_target(
  depth: np.ndarray,
  kind: str,
  *,
  focal: float | None = None,
  baseline: float | None = None,
  zero_is_invalid: bool = True,
) -> np.ndarray:
  """CorDA's training target: larger is closer, `INVALID_TARGET` is ignored.

  Metres d become 655.36 / (d + 0.01), and 1 from 655.35 m on; a network's v
  becomes v / 256 + 1, which has about the same range.

  Args:
    depth: stored u16.
    kind: one of `KINDS`.
    focal: see `to_metres`.
    baseline: see `to_metres`.
    zero_is_invalid: False gives `metric` zeros 65536, like the published code
      for SYNTHIA, whose simulator knows no holes. Elsewhere a zero is a hole,
      and as the closest point of all it would rule the loss.

  Returns:
    f32.

  Raises:
    errors.UserError: unknown kind, or no camera for `disparity`.
  """
  check_kind(kind)
  values = depth.astype(np.float32)
  if kind == 'network_disparity':
    return values / 256 + 1
  if kind == 'metric':
    # In centimetres, where one rounding makes 65535 exactly 1.
    target = 65536 / (values + 1)
    valid = (depth > 0) | (not zero_is_invalid)
  else:
    metres = to_metres(depth, kind, focal=focal, baseline=baseline)
    target = np.maximum(np.float32(655.36) / (metres + np.float32(0.01)), 1)
    valid = metres > 0
  return np.where(valid, target, np.float32(INVALID_TARGET))


def resize_target(
  target: np.ndarray, size: transforms.Size, mode: str
) -> np.ndarray:
  """Resizes an inverse depth target as the published code does.

  There GTA5's targets are interpolated (`cv_linear`), so that 1 survives only
  where all neighbours are 1, and the others sampled (`cv_nearest`). OpenCV's
  nearest takes source pixel floor(i * old / new), whereas the `nearest` of
  `transforms`, which labels use, takes the one under the pixel's centre.

  Args:
    target: f32.
    size: (height, width) of the result.
    mode: one of `TARGET_MODES`.

  Returns:
    f32.

  Raises:
    errors.UserError: the mode is unknown.
  """
  if mode not in TARGET_MODES:
    raise errors.unknown('resize mode of depth targets', mode, TARGET_MODES)
  height, width = size
  resized = cv2.resize(
    target, (width, height), interpolation=_TARGET_MODES[mode]
  )
  return resized.reshape(height, width, *target.shape[2:])


def resize_stored(
  depth: np.ndarray, size: transforms.Size, kind: str
) -> np.ndarray:
  """Resizes a stored map by nearest neighbour, like the labels.

  Disparities are lengths in pixels and shrink with the width; what no longer
  fits is cut at 65535.

  Args:
    depth: stored u16.
    size: (height, width) of the result.
    kind: one of `KINDS`.

  Returns:
    u16.

  Raises:
    errors.UserError: unknown kind.
  """
  check_kind(kind)
  resized = transforms.nearest(depth, size)
  if kind != 'disparity':
    return resized
  scale = size[1] / depth.shape[1]
  scaled = np.rint((resized.astype(np.float64) - 1) * scale) + 1
  scaled = np.where(resized > 0, np.minimum(scaled, 65535), 0)
  return scaled.astype(np.uint16)


def scale_intrinsics(
  intrinsics: np.ndarray, old: transforms.Size, new: transforms.Size
) -> np.ndarray:
  """The camera of a resized image; pixel centres have whole coordinates.

  Args:
    intrinsics: (fx, fy, cx, cy) in pixels.
    old: (height, width) that they belong to.
    new: (height, width) after resizing.

  Returns:
    f32 `[4]`.
  """
  fx, fy, cx, cy = np.asarray(intrinsics, np.float64)
  down, across = new[0] / old[0], new[1] / old[1]
  centre = (cx + 0.5) * across - 0.5, (cy + 0.5) * down - 0.5
  return np.array([fx * across, fy * down, *centre], np.float32)
