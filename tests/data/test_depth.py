"""What stored depth means: values by hand, the published code's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep import codecs
from jaxseg_da import errors
from jaxseg_da.data import depth, transforms
from tests.parity import harness

CAMERA = {'focal': 2262.5, 'baseline': 0.2}  # 452.5 px m


def u16(*values: int) -> np.ndarray:
  return np.array([values], np.uint16)


def stored(size: tuple[int, ...], seed: int = 0) -> np.ndarray:
  """Random u16 over the whole range, a fifth of it holes."""
  rng = np.random.default_rng(seed)
  values = rng.integers(1, 65536, size)
  return np.where(rng.random(size) < 0.2, 0, values).astype(np.uint16)


def only(arrays: dict[str, np.ndarray], prefix: str) -> np.ndarray:
  """The one array whose name starts so; the name ends with its size."""
  (name,) = (k for k in arrays if k.startswith(prefix))
  return arrays[name]


def check_targets(arrays: dict[str, np.ndarray]) -> None:
  raw, expected = arrays['synthia/raw_uint16'], arrays['synthia/inverse_depth']
  synthia = depth.inverse_depth_target(raw, 'metric', zero_is_invalid=False)
  assert synthia.dtype == np.float32
  np.testing.assert_allclose(synthia, expected, rtol=3e-7)
  # 1 decides which pixels count, so close is not enough.
  np.testing.assert_array_equal(synthia == 1, expected == 1)
  ours = depth.inverse_depth_target(raw, 'metric')
  np.testing.assert_array_equal(ours, np.where(raw == 0, 1, synthia))

  nearest = only(arrays, 'synthia/resized_nearest')
  resized = depth.resize_target(synthia, nearest.shape, 'cv_nearest')
  np.testing.assert_allclose(resized, nearest, rtol=3e-7)

  raw, expected = arrays['mono/raw_uint16'], arrays['mono/target']
  mono = depth.inverse_depth_target(raw, 'network_disparity')
  np.testing.assert_array_equal(mono, expected)
  linear = only(arrays, 'gta_mono/resized_linear')
  resized = depth.resize_target(mono, linear.shape, 'cv_linear')
  np.testing.assert_allclose(resized, linear, rtol=1e-6)


@pytest.mark.parametrize('path', harness.cases('depth_targets'))
def test_the_targets_are_those_of_the_published_code(path):
  harness.run(path, {'depth_targets': check_targets})


def test_metric_depth_by_hand():
  values = u16(0, 1, 50, 65534, 65535)
  metres = depth.to_metres(values, 'metric')
  assert metres.dtype == np.float32
  np.testing.assert_allclose(metres, [[0, 0.01, 0.5, 655.34, 655.35]], 1e-7)
  target = depth.inverse_depth_target(values, 'metric')
  assert target.dtype == np.float32
  expected = [[1, 655.36 / 0.02, 655.36 / 0.51, 655.36 / 655.35, 1]]
  np.testing.assert_allclose(target, expected, rtol=1e-7)
  # The furthest depth is invalid exactly, the one before it is not.
  np.testing.assert_array_equal(target == 1, [[1, 0, 0, 0, 1]])


def test_disparity_by_hand():
  # A hole, infinity, 1/256 px, 1 px, 2.5 px and 255 253/256 px.
  values = u16(0, 1, 2, 257, 641, 65534)
  metres = depth.to_metres(values, 'disparity', **CAMERA)
  assert metres.dtype == np.float32
  expected = [[0, 0, 115840, 452.5, 181, 452.5 * 256 / 65533]]
  np.testing.assert_allclose(metres, expected, rtol=1e-6)
  target = depth.inverse_depth_target(values, 'disparity', **CAMERA)
  assert target.dtype == np.float32
  near = 655.36 / (452.5 * 256 / 65533 + 0.01)
  expected = [[1, 1, 1, 655.36 / 452.51, 655.36 / 181.01, near]]
  np.testing.assert_allclose(target, expected, rtol=1e-6)
  np.testing.assert_array_equal(target == 1, [[1, 1, 1, 0, 0, 0]])


def test_network_disparity_by_hand():
  values = u16(0, 1, 128, 65535)
  target = depth.inverse_depth_target(values, 'network_disparity')
  assert target.dtype == np.float32
  expected = [[1, 1 + 1 / 256, 1.5, 256.99609375]]
  np.testing.assert_array_equal(target, expected)


def test_zeros_are_the_closest_points_only_on_request():
  zeros, options = u16(0), {'zero_is_invalid': False}
  for kind, expected in [
    ('metric', 65536),
    ('disparity', 1),
    ('network_disparity', 1),
  ]:
    target = depth.inverse_depth_target(zeros, kind, **CAMERA, **options)
    assert target == expected, kind
    assert depth.inverse_depth_target(zeros, kind, **CAMERA) == 1, kind


def test_metres_are_rounded_to_the_nearest_centimetre():
  metres = np.random.default_rng(1).uniform(0.005, 655, (16, 32))
  values = depth.metric_to_u16(metres)
  assert values.dtype == np.uint16
  error = np.abs(depth.to_metres(values, 'metric') - metres)
  # Half a centimetre, and a float32 of up to 655 m that is 3e-5 m off.
  assert error.max() <= 0.005 + 3.1e-5


def test_stored_metres_survive_the_round_trip():
  values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
  metres = depth.to_metres(values, 'metric')
  np.testing.assert_array_equal(depth.metric_to_u16(metres), values)


def test_special_metres():
  metres = np.array([[0, -1, np.nan, 0.001, 0.014, 656, np.inf]], np.float32)
  expected = [[0, 0, 0, 1, 1, 65535, 65535]]
  np.testing.assert_array_equal(depth.metric_to_u16(metres), expected)


def test_both_bytes_survive_png():
  values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
  data = codecs.encode_png(values)
  np.testing.assert_array_equal(codecs.decode_deep(data, 'map'), values)


@pytest.mark.parametrize('kind', depth.KINDS)
def test_a_channel_axis_is_kept(kind):
  values = stored((16, 32))
  target = depth.inverse_depth_target(values, kind, **CAMERA)
  np.testing.assert_array_equal(
    depth.inverse_depth_target(values[..., None], kind, **CAMERA),
    target[..., None],
  )
  np.testing.assert_array_equal(
    depth.resize_stored(values[..., None], (5, 9), kind),
    depth.resize_stored(values, (5, 9), kind)[..., None],
  )
  for mode in depth.TARGET_MODES:
    np.testing.assert_array_equal(
      depth.resize_target(target[..., None], (5, 9), mode),
      depth.resize_target(target, (5, 9), mode)[..., None],
    )


def test_interpolated_targets_are_invalid_only_among_invalid_ones():
  # By half, each result is the mean of two neighbours in each direction.
  target = np.array([[1, 1, 1, 5], [1, 1, 1, 1]], np.float32)
  resized = depth.resize_target(target, (1, 2), 'cv_linear')
  np.testing.assert_array_equal(resized, [[1, 2]])


def test_nearest_of_targets_takes_other_pixels_than_nearest_of_labels():
  columns = np.arange(8, dtype=np.float32)[None]
  sampled = depth.resize_target(columns, (1, 4), 'cv_nearest')
  np.testing.assert_array_equal(sampled, [[0, 2, 4, 6]])
  centred = transforms.nearest(columns, (1, 4))
  np.testing.assert_array_equal(centred, [[1, 3, 5, 7]])


@pytest.mark.parametrize('kind', ['metric', 'network_disparity'])
def test_stored_values_without_a_length_in_pixels_are_only_sampled(kind):
  values = stored((16, 32))
  resized = depth.resize_stored(values, (5, 9), kind)
  assert resized.dtype == np.uint16
  np.testing.assert_array_equal(resized, transforms.nearest(values, (5, 9)))


def test_stored_disparity_scales_with_the_width():
  # A hole, infinity, 2 px and 200 px, each over two columns.
  values = np.repeat(u16(0, 1, 513, 51201), 2, axis=1)
  half = depth.resize_stored(values, (3, 4), 'disparity')
  assert half.dtype == np.uint16
  np.testing.assert_array_equal(half, np.tile(u16(0, 1, 257, 25601), (3, 1)))
  # 400 px no longer fit.
  double = depth.resize_stored(values, (1, 16), 'disparity')
  expected = np.repeat(u16(0, 1, 1025, 65535), 4, axis=1)
  np.testing.assert_array_equal(double, expected)
  same = depth.resize_stored(values, (2, 8), 'disparity')
  np.testing.assert_array_equal(same, np.tile(values, (2, 1)))


def test_a_resized_disparity_still_means_the_same_metres():
  values = np.maximum(stored((16, 32)), 5000)
  values[stored((16, 32)) == 0] = 0
  camera = np.array([CAMERA['focal'], 2000, 15, 8])
  small = depth.resize_stored(values, (4, 8), 'disparity')
  focal = depth.scale_intrinsics(camera, (16, 32), (4, 8))[0]
  metres = depth.to_metres(small, 'disparity', focal=focal, baseline=0.2)
  sampled = transforms.nearest(values, (4, 8))
  expected = depth.to_metres(sampled, 'disparity', **CAMERA)
  # Rounding moves the disparity by half of one of at least 1249 steps.
  np.testing.assert_allclose(metres, expected, rtol=0.5 / 1249)


def test_intrinsics_follow_pixel_centres():
  old = np.array([100, 90, 15.5, 3], np.float32)
  new = depth.scale_intrinsics(old, (16, 32), (8, 64))
  assert new.dtype == np.float32
  # The middle of the image stays its middle: 15.5 of 32, 31.5 of 64.
  np.testing.assert_allclose(new, [200, 45, 31.5, 1.25])
  np.testing.assert_allclose(
    depth.scale_intrinsics(new, (8, 64), (16, 32)), old
  )


def test_every_kind_has_a_unit():
  assert depth.UNITS == {
    'metric': 'cm',
    'disparity': '1/256 px',
    'network_disparity': '1/65535',
  }
  assert [depth.check_kind(k) for k in depth.KINDS] == list(depth.UNITS)


@pytest.mark.parametrize(
  'call',
  [
    lambda d: depth.check_kind('metrik'),
    lambda d: depth.to_metres(d, 'metrik'),
    lambda d: depth.inverse_depth_target(d, 'metrik'),
    lambda d: depth.resize_stored(d, (1, 1), 'metrik'),
  ],
)
def test_an_unknown_kind_is_named(call):
  with pytest.raises(
    errors.UserError,
    match=r"unknown depth kind 'metrik'; valid: .* Did you mean 'metric'",
  ):
    call(u16(1))


def test_an_unknown_mode_of_targets_is_named():
  with pytest.raises(errors.UserError, match="'nearest'; valid: cv_linear, cv"):
    depth.resize_target(np.ones((2, 2), np.float32), (1, 1), 'nearest')


def test_a_networks_output_has_no_metres():
  with pytest.raises(errors.UserError, match='no metres'):
    depth.to_metres(u16(1), 'network_disparity', **CAMERA)


@pytest.mark.parametrize('missing', ['focal', 'baseline'])
def test_disparity_needs_the_camera(missing):
  camera = {k: v for k, v in CAMERA.items() if k != missing}
  for function in (depth.to_metres, depth.inverse_depth_target):
    with pytest.raises(errors.UserError, match='needs the camera'):
      function(u16(1), 'disparity', **camera)
