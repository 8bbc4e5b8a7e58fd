from __future__ import annotations

import cv2
import numpy as np
import pytest

from jaxseg_da.classes import labels as label_tables
from jaxseg_da.drawing import visual


def decode(data):
  return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def test_colourise():
  ids = np.array([[0, 10], [255, 19]], np.uint8)
  picture = visual.colourise(ids)
  assert picture.dtype == np.uint8
  np.testing.assert_array_equal(
    picture, [[[128, 64, 128], [70, 130, 180]], [[0, 0, 0], [0, 0, 0]]]
  )
  np.testing.assert_array_equal(visual.colourise(ids[..., None]), picture)
  with pytest.raises(ValueError, match='no integer labels'):
    visual.colourise(ids.astype(np.float32))


def test_overlay_blends_and_leaves_ignored_pixels():
  image = np.full((1, 2, 3), 100, np.uint8)
  ids = np.array([[0, 255]], np.uint8)
  # 0.75 * 100 + 0.25 * (128, 64, 128)
  np.testing.assert_array_equal(
    visual.overlay(image, ids, 0.25), [[[107, 91, 107], [100, 100, 100]]]
  )
  with pytest.raises(ValueError, match='differ'):
    visual.overlay(image, ids[:, :1])


def test_panel_has_one_height_and_sharp_pixels():
  red = np.full((2, 4, 3), (255, 0, 0), np.uint8)
  red[:, 2:] = (0, 0, 255)
  big = np.full((16, 32, 3), 7, np.uint8)
  picture = visual.panel([('labels', red), ('image', big)], height=8)
  assert picture.shape == (8 + 24, 16 + 4 + 16, 3)
  body = picture[24:]
  assert (body[:, :8] == (255, 0, 0)).all()
  assert (body[:, 8:16] == (0, 0, 255)).all()
  assert (body[:, 16:20] == 255).all()
  assert (body[:, 20:] == 7).all()
  assert (picture[:24] < 128).any()  # the captions
  with pytest.raises(ValueError, match='at least one'):
    visual.panel([])


def test_legend_shows_every_colour_and_name():
  strip = visual.legend()
  assert strip.shape == (48, 1160, 3)
  for i, colour in enumerate(label_tables.COLOURS):
    top, left = i // 10 * 24, i % 10 * 116
    field = strip[top : top + 24, left : left + 116]
    assert tuple(field[0, 0]) == tuple(colour)
    assert (field == visual.contrast(colour)).all(-1).any()
  assert (strip[24:, 9 * 116 :] == 255).all()
  with pytest.raises(ValueError, match='1 names for 19'):
    visual.legend(('road',))


def test_heatmap_is_darker_where_shares_are_larger():
  values = np.array([[0.0, 0.5, 1.0], [0.2, 0.8, 0.0]])
  page = visual.heatmap(values, ['a', 'b'], ['x', 'y', 'z'])
  assert page.shape[0] == 3 * 24
  # The corner of a cell is free of text.
  row = page[25, 151::72].astype(int).sum(-1)
  assert row[0] == 3 * 255
  assert row[0] > row[1] > row[2]
  with pytest.raises(ValueError, match='2 x 2'):
    visual.heatmap(values, ['a', 'b'], ['x', 'y'])


def test_contrast():
  assert visual.contrast((0, 0, 142)) == (255, 255, 255)
  assert visual.contrast((220, 220, 0)) == (0, 0, 0)


def test_png_is_lossless_and_rgb():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
  np.testing.assert_array_equal(
    decode(visual.encode_png(image))[..., ::-1], image
  )
  np.testing.assert_array_equal(
    decode(visual.encode_png(image[..., :1])), image[..., 0]
  )
  for bad in (image.astype(float), image[..., :2], image[:0]):
    with pytest.raises(ValueError, match='no u8 image'):
      visual.encode_png(bad)
