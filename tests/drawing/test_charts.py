from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from jaxseg_da.drawing import charts


@pytest.mark.parametrize(
  ('low', 'high', 'expected'),
  [
    (0, 10, [0, 2, 4, 6, 8, 10]),
    (0.13, 0.47, [0.1, 0.2, 0.3, 0.4, 0.5]),
    (-3, 4, [-4, -2, 0, 2, 4]),
    (0, 500, [0, 100, 200, 300, 400, 500]),
  ],
)
def test_ticks_are_round_and_enclose(low, high, expected):
  assert charts.ticks(low, high) == expected


@pytest.mark.parametrize('value', [0.0, 3.0, -2.5, 1e-9])
def test_ticks_of_one_value(value):
  found = charts.ticks(value, value)
  assert len(found) >= 2
  assert found[0] <= value < found[-1]


def test_lines_are_placed_on_the_axes():
  text = charts.lines('loss', {'a<b': ([0, 50, 100], [0.0, 10.0, 5.0])})
  figure = ElementTree.fromstring(text)
  line = figure.find('.//polyline')
  assert line is not None
  # The plot spans x 64..700 and y 12..232, the axes 0..100 and 0..10.
  assert line.attrib['points'] == '64.0,232.0 382.0,12.0 700.0,122.0'
  words = [t.text for t in figure.iter('text')]
  for word in ('0', '100', '10', 'step'):
    assert word in words
  assert figure.find('figcaption').text == 'loss'
  assert 'a&lt;b' in text
  assert 'a<b' not in text


def test_values_that_are_not_finite_are_left_out():
  text = charts.lines(
    'loss', {'a': ([1, 2, 3], [1.0, None, float('nan')]), 'b': ([1], [None])}
  )
  assert len(re.search(r'points="([^"]*)"', text)[1].split()) == 1
  assert text.count('<polyline') == 1
  assert charts.lines('loss', {'b': ([1], [None])}) == ''


def test_long_lines_are_averaged():
  count = 1000
  text = charts.lines('x', {'a': (range(count), [2.0, 4.0] * (count // 2))})
  spots = re.search(r'points="([^"]*)"', text)[1].split()
  assert len(spots) == 200
  # Means of five neighbours alternate between 2.8 and 3.2; the axis fits them.
  heights = {float(s.split(',')[1]) for s in spots}
  assert heights == {12.0, 232.0}
  assert '>2.8</text>' in text
  assert '>3.2</text>' in text
