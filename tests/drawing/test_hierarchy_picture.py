"""The drawn tree: its size, its fields, and who stands beside whom."""

from __future__ import annotations

import numpy as np
import pytest

from jaxseg_da.classes import hierarchy
from jaxseg_da.drawing import hierarchy_picture

SMALL = hierarchy.Hierarchy(
  (
    (
      hierarchy.StepClass(
        'all there is to see in this world', (0, 1), (9, 8, 7)
      ),
      hierarchy.StepClass('rest', (5,), (200, 10, 10)),
    ),
    (
      hierarchy.StepClass('rest', (5,), (200, 10, 10)),
      hierarchy.StepClass('one', (1,), (1, 2, 3)),
      hierarchy.StepClass('nil', (0,), (4, 5, 6)),
    ),
  )
)
LINE = SMALL.steps[0][:1]
ONE = hierarchy.Hierarchy((LINE, LINE))
TREES = {**hierarchy.PUBLISHED, 'small': SMALL, 'one': ONE}
PAPER = (255, 255, 255)


def columns(page):
  """Where the fields of each step begin: below the ends of a heading's rule."""
  widths = (page[:60] != PAPER).any(2).sum(1)
  rule = (page[widths.argmax()] != PAPER).any(1).astype(int)
  edges = np.diff(np.pad(rule, 1))
  starts, ends = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)
  return list(zip(starts, ends, strict=True))


def fields(page, left):
  """Colours and middles of the fields below a column's heading."""
  column = page[50:, left + 2]
  starts = np.flatnonzero((column[1:] != column[:-1]).any(1)) + 1
  runs = np.split(np.arange(len(column)), starts)
  return {
    tuple(column[run[0]].tolist()): 50 + run.mean()
    for run in runs
    if tuple(column[run[0]]) != PAPER
  }


@pytest.mark.parametrize('name', TREES)
def test_each_class_is_a_field_in_its_colour(name):
  tree = TREES[name]
  page = hierarchy_picture.draw(tree)
  assert page.dtype == np.uint8
  found = [fields(page, left) for left, _ in columns(page)]
  for step, middles in zip(tree.steps, found, strict=True):
    assert {*middles} == {c.colour for c in step}
  for t in range(1, len(tree.steps)):
    for p, children in enumerate(tree.children(t)):
      beside = [found[t][tree.steps[t][i].colour] for i in children]
      middle = found[t - 1][tree.steps[t - 1][p].colour]
      assert min(beside) <= middle + 1 and middle - 1 <= max(beside)


@pytest.mark.parametrize('name', TREES)
def test_lines_do_not_cross(name):
  """Children stand together, in the order of their parents."""
  tree = TREES[name]
  page = hierarchy_picture.draw(tree)
  found = [fields(page, left) for left, _ in columns(page)]
  for t in range(1, len(tree.steps)):
    colours = (c.colour for c in tree.steps[t])
    parents = dict(zip(colours, tree.parents(t), strict=True))
    down = sorted(found[t], key=found[t].get)
    heights = [found[t - 1][tree.steps[t - 1][parents[c]].colour] for c in down]
    assert heights == sorted(heights)


def test_sizes():
  for tree in hierarchy.PUBLISHED.values():
    height, width, channels = hierarchy_picture.draw(tree).shape
    assert 900 <= width <= 1000 and channels == 3
    assert height < 40 * (len(tree.steps[-1]) + 2)


def test_what_is_kept_is_pale_and_what_is_new_is_not():
  page = hierarchy_picture.draw(SMALL)
  (_, middle), (left, right) = columns(page)
  colours = fields(page, left)
  for colour, y in colours.items():
    inside = page[round(y), right - 3]
    if colour == (200, 10, 10):
      assert (inside > np.array(colour) + 40).all()
    else:
      assert tuple(inside) == colour
  # A straight line leads there, and a note is written on it.
  y = round(colours[200, 10, 10])
  rows = (page[y - 1 : y + 2, middle:left] != PAPER).any(2)
  assert rows.all(1).sum() == 1
  assert (page[y - 12 : y - 3, middle + 4 : left - 4] != PAPER).any()


def test_fields_hold_the_longest_name():
  narrow, wide = (
    hierarchy_picture.draw(t) for t in (TREES['gta5_to_idd'], SMALL)
  )
  spans = [[right - left for left, right in columns(p)] for p in (narrow, wide)]
  assert {*spans[0]} == {136}
  assert len({*spans[1]}) == 1 and spans[1][0] > 180
