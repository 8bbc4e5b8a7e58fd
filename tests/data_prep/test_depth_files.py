"""Depth files: what is read as it is, what is converted, what is refused."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import scipy.io

from data_prep import codecs, depth_files
from jaxseg_da import errors
from jaxseg_da.data import depth
from tests.parity import harness

PLACE = 'depth.zip: train/a_depth_stereoscopic.mat'


def mat(compress: bool = True, form: str = '5', **variables) -> bytes:
  file = io.BytesIO()
  scipy.io.savemat(file, variables, format=form, do_compression=compress)
  return file.getvalue()


def png(array: np.ndarray) -> bytes:
  done, buffer = cv2.imencode('.png', array)
  assert done
  return buffer.tobytes()


def refused(data: bytes, where: str = PLACE, kind: str = 'metric') -> str:
  """The sentence with which a file is refused; it starts with the path."""
  with pytest.raises(errors.UserError) as info:
    depth_files.read(data, where, kind)
  sentence = str(info.value)
  assert sentence.startswith(where) and '\n' not in sentence
  return sentence


def scene(size: tuple[int, int] = (16, 32)) -> np.ndarray:
  return np.random.default_rng(0).uniform(0.1, 200, size)


@pytest.mark.parametrize('kind', depth.KINDS)
@pytest.mark.parametrize('channels', [1, 3])
def test_png_is_read_as_it_is(kind, channels):
  values = np.random.default_rng(0).integers(0, 65536, (16, 32), np.uint16)
  stack = np.repeat(values[..., None], channels, axis=2)
  read = depth_files.read(png(stack), 'a.png', kind)
  assert read.dtype == np.uint16
  np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize(
  'dtype', [np.float32, np.float64, '>f8'], ids=['f4', 'f8', 'big_endian']
)
@pytest.mark.parametrize(
  'compress',
  [False, True],
  ids=['v6', 'v7'],
)
def test_metres_become_centimetres(compress, dtype):
  metres = scene().astype(dtype)
  others = {'a': np.ones(3), 'b': {'c': 'text'}, 'c': [np.ones(2), 'text']}
  data = mat(**others, depth_map=metres, z=np.zeros(0), compress=compress)
  read = depth_files.read(data, PLACE, 'metric')
  assert read.dtype == np.uint16
  np.testing.assert_array_equal(read, np.rint(metres.astype(float) * 100))


def test_matlab_files_are_known_by_content_too():
  read = depth_files.read(mat(depth_map=scene()), 'a', 'metric')
  assert read.shape == (16, 32)


def test_holes_and_limits():
  metres = [0, -3, np.nan, np.inf, -np.inf, 0.099, 0.1, 655.35, 655.36, 9999]
  read = depth_files.read(mat(depth_map=[metres]), PLACE, 'metric')
  expected = [[0, 0, 0, 0, 0, 0, 10, 65535, 65535, 65535]]
  np.testing.assert_array_equal(read, expected)


def check_stereo(arrays: dict[str, np.ndarray]) -> None:
  metres = arrays['city_stereo/depth_m']
  expected = arrays['city_stereo/inverse_depth']
  read = depth_files.read(mat(depth_map=metres), PLACE, 'metric')
  target = depth.inverse_depth_target(read, 'metric')
  # Stored metres are off by e <= 0.005, so the target t = 655.36 / (d + 0.01)
  # is off by t |e| / (d + e + 0.01) <= 0.005 t / (d + 0.005). Float32 adds
  # three roundings.
  bound = expected * (0.005 / (np.clip(metres, 0, 655.35) + 0.005) + 2e-7)
  hole = expected == 1
  assert hole.any() and not hole.all()
  np.testing.assert_array_less(np.abs(target - expected)[~hole], bound[~hole])
  np.testing.assert_array_equal(target[hole], 1)


@pytest.mark.parametrize('path', harness.cases('depth_targets'))
def test_stereo_completion_gives_the_published_target(path):
  harness.run(path, {'depth_targets': check_stereo})


def test_eight_bits_are_refused():
  sentence = refused(png(np.zeros((4, 6), np.uint8)), 'a.png')
  assert 'holds uint8 values but depth needs 16 bits' in sentence
  assert 'take the original file' in sentence


def test_channels_that_differ_are_no_depth():
  values = np.random.default_rng(0).integers(0, 9, (4, 6, 3), np.uint16)
  sentence = refused(png(values), 'LABELS/a.png')
  assert 'its 3 channels differ' in sentence


def test_broken_png_is_named():
  data = png(np.ones((16, 32), np.uint16))
  assert 'Truncated' in refused(data[:-20], 'a.png')
  assert 'not an image' in refused(b'text', 'a.png')


def test_an_unknown_kind_is_named():
  with pytest.raises(errors.UserError, match="unknown depth kind 'cm'"):
    depth_files.read(mat(depth_map=scene()), PLACE, 'cm')


@pytest.mark.parametrize('kind', ['disparity', 'network_disparity'])
def test_matlab_files_are_metric(kind):
  sentence = refused(mat(depth_map=scene()), kind=kind)
  assert f'declared as {kind!r}' in sentence


def test_other_variables_are_named():
  sentence = refused(mat(depth=scene(), camera=np.ones(4)))
  assert "has no variable 'depth_map', it holds 'depth', 'camera'" in sentence
  assert 'it holds nothing' in refused(mat())


@pytest.mark.parametrize(
  'value',
  [
    np.ones((4, 6), np.uint16),
    np.ones((4, 6), bool),
    np.ones((4, 6)) * 1j,
    np.ones((4, 6, 3)),
    np.ones((0, 6)),
    'text',
    {'depth': np.ones((4, 6))},
  ],
  ids=['integer', 'logical', 'complex', '3d', 'empty', 'char', 'struct'],
)
def test_other_values_are_refused(value):
  sentence = refused(mat(depth_map=value))
  assert 'is no depth map' in sentence
  assert 'a real number of metres per pixel' in sentence


def test_hdf5_is_told_how_to_be_saved():
  header = b'MATLAB 7.3 MAT-file'.ljust(124) + b'\0\2IM'
  sentence = refused(header + bytes(384) + b'\x89HDF\r\n\x1a\n' + bytes(99))
  assert 'v7.3' in sentence and 'save it again with -v7' in sentence


@pytest.mark.parametrize('compress', [False, True])
@pytest.mark.parametrize('part', [0.0, 0.3, 0.9])
def test_truncated_matlab_files_are_refused(compress, part):
  data = mat(depth_map=scene(), compress=compress)
  refused(data[: int(part * len(data))])


def test_what_is_no_matlab_file_is_refused():
  assert 'cannot be decoded as a MATLAB file' in refused(b'x' * 500)


def test_absurd_sizes_are_not_read(monkeypatch):
  monkeypatch.setattr(codecs, 'MAX_PIXELS', 100)
  sentence = refused(mat(depth_map=scene((16, 32))))
  assert "'depth_map' claims 16x32 numbers" in sentence
