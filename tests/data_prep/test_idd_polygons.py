from __future__ import annotations

import json

import numpy as np
import pytest

from data_prep import codecs
from data_prep.idd import polygons
from jaxseg_da import errors
from jaxseg_da.classes import labels

WHERE = 'gtFine/train/41/007200_gtFine_polygons.json'
BOX = [[1, 1], [4, 1], [4, 3], [1, 3]]


def thing(label, polygon, **more):
  return {'label': label, 'polygon': polygon, **more}


def read(*objects, size=(5, 8)):
  """Rasterises; the image is `[H, W]`, here 5x8."""
  height, width = size
  document = {'imgHeight': height, 'imgWidth': width, 'objects': objects}
  return polygons.read(json.dumps(document).encode(), WHERE)


def message(data):
  with pytest.raises(errors.UserError) as error:
    polygons.read(data, WHERE)
  text = str(error.value)
  assert text.startswith(WHERE)
  assert '\n' not in text
  return text


def picture(text, **ids):
  """Ids of a drawing, one letter a pixel; '.' is 'unlabeled'."""
  ids['.'] = 35
  return [[ids[letter] for letter in line] for line in text.split()]


def test_nothing_is_unlabeled():
  ids = read(size=(2, 3))
  assert ids.dtype == np.uint8
  np.testing.assert_array_equal(ids, np.full((2, 3), 35))


def test_later_objects_cover_earlier_ones():
  ids = read(
    thing('road', [[0, 2], [7, 2], [7, 4], [0, 4]]),
    thing('car', BOX),
    thing('person', [[3, 0], [3, 4], [4, 4], [4, 0]]),
  )
  expected = """
    ...pp...
    .ccpp...
    rccpprrr
    rccpprrr
    rrrpprrr
  """
  np.testing.assert_array_equal(ids, picture(expected, r=0, c=12, p=6))


def test_the_outline_belongs_to_a_slanted_polygon():
  ids = read(thing('sky', [[0, 0], [4, 0], [0, 4]]))
  expected = """
    sssss...
    ssss....
    sss.....
    ss......
    s.......
  """
  np.testing.assert_array_equal(ids, picture(expected, s=33))


def test_outside_is_cut_off():
  ids = read(
    thing('sky', [[-50, -9], [80, -9], [80, 0], [-50, 0]]),
    thing('truck', [[6, 3], [1000, 3], [1000, 999], [6, 999]]),
    thing('bus', [[20, 20], [30, 20], [30, 30]]),
  )
  expected = """
    ssssssss
    ........
    ........
    ......tt
    ......tt
  """
  np.testing.assert_array_equal(ids, picture(expected, s=33, t=13))


def test_fractions_of_pixels_are_cut():
  moved = [[x + 0.75, y + 0.75] for x, y in BOX]
  np.testing.assert_array_equal(
    read(thing('car', moved)), read(thing('car', BOX))
  )


def test_what_is_not_painted():
  ids = read(
    thing('car', BOX, deleted=1),
    thing('never heard of', BOX, deleted=True),
    thing('car', BOX[:2]),
    thing('car', BOX[:1]),
    thing('car', []),
    thing('bicycle', [[7, 4], [7, 4], [7, 4]], deleted=0),
  )
  expected = np.full((5, 8), 35)
  expected[4, 7] = 10
  np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize(
  ('label', 'value'),
  [('cargroup', 12), ('polegroup', 27), ('pole', 26), ('polegroupgroup', 27)],
)
def test_group_is_stripped_from_unknown_labels_only(label, value):
  assert set(read(thing(label, BOX)).ravel()) == {value, 35}


def test_vehicle_fallback_fits_8_bits():
  """Its csId, 355, would not."""
  ids = read(thing('vehicle fallback', BOX))
  assert ids[2, 2] == 18
  assert labels.IDD_ID_TO_TRAIN_ID[ids][2, 2] == 255


def test_licence_plate_is_painted():
  ids = read(thing('car', BOX), thing('license plate', BOX))
  assert ids[2, 2] == 39


def test_every_class_can_be_painted():
  for row in labels.IDD:
    assert read(thing(row.name, BOX))[1, 1] == row.id


def document(**changes):
  base = {'imgHeight': 5, 'imgWidth': 8, 'objects': [thing('car', BOX)]}
  base |= changes
  kept = {key: value for key, value in base.items() if value is not ...}
  return json.dumps(kept).encode()


@pytest.mark.parametrize(
  ('changes', 'part'),
  [
    ({'imgHeight': ...}, 'imgHeight'),
    ({'imgWidth': ...}, 'imgWidth'),
    ({'imgWidth': 0}, 'imgWidth'),
    ({'imgWidth': -8}, 'imgWidth'),
    ({'imgWidth': 8.5}, 'imgWidth'),
    ({'imgWidth': True}, 'imgWidth'),
    ({'imgHeight': '5'}, 'imgHeight'),
    ({'imgHeight': codecs.MAX_PIXELS, 'imgWidth': 2}, '2x80000000 pixels'),
    ({'objects': ...}, "no list 'objects'"),
    ({'objects': {}}, "no list 'objects'"),
    ({'objects': [3]}, "object 0 has no 'label'"),
    ({'objects': [{'polygon': BOX}]}, "object 0 has no 'label'"),
    ({'objects': [thing(['car'], BOX)]}, "object 0 has no 'label'"),
    ({'objects': [{'label': 'car'}]}, "object 0 has no list 'polygon'"),
    ({'objects': [thing('car', 'abc')]}, "object 0 has no list 'polygon'"),
    ({'objects': [thing('car', BOX), thing('Car', BOX)]}, "1 is labelled 'C"),
    ({'objects': [thing('group', BOX)]}, "'group', a class that IDD does not"),
  ],
)  # fmt: skip
def test_wrong_documents_are_named(changes, part):
  assert part in message(document(**changes))


@pytest.mark.parametrize(
  'corner',
  [
    [1], [1, 2, 3], [1, '2'], ['1', '2'], [1, None], 'xy', 3, [], [[1], [2]],
    [True, 'x'], [float('nan'), 1], [float('inf'), 1], [1, -1e7], [10**30, 1],
    [-(2**63), 1],
  ],
)  # fmt: skip
@pytest.mark.parametrize('everywhere', [False, True])
def test_corners_have_to_be_positions(corner, everywhere):
  corners = [corner] * 3 if everywhere else [*BOX, corner]
  text = message(document(objects=[thing('car', corners)]))
  assert 'object 0 has corners that are no pixel positions' in text


@pytest.mark.parametrize(
  'data',
  [b'', document()[:-9], b'\x89PNG\r\n\x1a\n\xff\xff', b'[' * 10**6],
  ids=['empty', 'truncated', 'image', 'deep'],
)
def test_broken_json_is_named(data):
  assert 'no complete JSON' in message(data)


def test_json_of_something_else():
  assert 'no JSON object' in message(b'[1, 2]')


def test_image_size():
  assert polygons.image_size(document(), WHERE) == (5, 8)
  # Names and corners play no role here.
  assert polygons.image_size(document(objects=None), WHERE) == (5, 8)
  with pytest.raises(errors.UserError, match='imgHeight'):
    polygons.image_size(document(imgHeight=None), WHERE)
