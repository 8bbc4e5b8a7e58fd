from __future__ import annotations

import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.classes import hierarchy, hierarchy_file, labels

CITYSCAPES = hierarchy.GTA5_TO_CITYSCAPES
IDD = hierarchy.GTA5_TO_IDD
PUBLISHED = [pytest.param(h, id=n) for n, h in hierarchy.PUBLISHED.items()]

TREE = """
steps:
  - - {name: ground, train_ids: [0, 1], colour: [9, 8, 7]}
    - {name: thing, train_ids: [13, 5, 11]}
  - - {name: person, train_ids: [11]}
    - {name: ground, train_ids: [1, 0]}
    - {name: object, train_ids: [5, 13]}
"""


def _load(tmp_path, text):
  path = tmp_path / 'tree.yaml'
  path.write_text(text, encoding='utf-8')
  return hierarchy_file.load(path)


def test_sizes_and_transitions_of_the_published_trees():
  sizes = lambda h: [h.num_classes(t) for t in range(4)]
  assert sizes(CITYSCAPES) == [3, 7, 14, 19]
  assert sizes(IDD) == [3, 7, 13, 17]
  first = ((0, 3, 4), (1, 2), (5, 6))
  assert CITYSCAPES.children(1) == IDD.children(1) == first
  assert CITYSCAPES.parents(1) == (0, 1, 1, 0, 0, 2, 2)
  # Only the sky is kept at first; terrain and train are what IDD lacks.
  assert CITYSCAPES.definitive(2) == (4,)
  assert CITYSCAPES.ignored(2) == (8,)
  assert IDD.definitive(2) == (3, 4)
  assert IDD.ignored(2) == (6, 7)
  assert CITYSCAPES.refined(3) == (3, 5, 11, 12, 13)
  assert CITYSCAPES.ignored(3) == (0, 1, 2, 5, 8, 9, 10, 11, 12)
  assert IDD.ignored(3) == (0, 1, 2, 5, 8, 9, 10, 11, 14)


def test_names_and_colours_of_the_published_trees():
  assert CITYSCAPES.names(3) == labels.NAMES
  colours = labels.COLOURS.copy()
  colours[labels.NAMES.index('sky')] = 0, 130, 180
  np.testing.assert_array_equal(CITYSCAPES.colours(3), colours)
  assert IDD.names(3) == tuple(labels.NAMES[i] for i in labels.IDD_CLASSES)
  assert IDD.names(1)[3:5] == ('vegetation', 'sky')
  assert IDD.names(2)[10:] == ('personal transport', 'bus', 'two-wheels')
  assert tuple(IDD.colours(2)[11]) == (0, 60, 100)
  assert CITYSCAPES.colours(1).dtype == np.uint8


@pytest.mark.parametrize('tree', PUBLISHED)
def test_the_published_trees_are_trees(tree):
  hierarchy_file.check(tree, 'here')
  for step in range(1, 4):
    kept, split = tree.definitive(step), tree.refined(step)
    assert sorted(kept + split) == list(range(tree.num_classes(step - 1)))
    for parent, group in enumerate(tree.children(step)):
      covered = {i for f in group for i in tree.steps[step][f].train_ids}
      assert covered == {*tree.steps[step - 1][parent].train_ids}
      assert {tree.parents(step)[f] for f in group} == {parent}


@pytest.mark.parametrize('tree', PUBLISHED)
@pytest.mark.parametrize('step', range(4))
def test_tables(tree, step):
  table, training = tree.table(step), tree.table(step, training=True)
  for t in (table, training):
    assert t.dtype == np.uint8 and t.shape == (256,)
    assert np.all(t[19:] == 255)
  assert {*table[:19]} - {255} == {*range(tree.num_classes(step))}
  # Training labels have every class but those that were definitive before.
  left = {*table} - {*tree.ignored(step)}
  assert {*training} == left
  assert np.all((training == table) | (training == 255))


def test_tables_by_hand():
  road, wall, sky, train = 0, 3, 10, 16
  ids = [road, wall, sky, train]
  assert CITYSCAPES.table(0)[ids].tolist() == [0, 1, 0, 2]
  assert CITYSCAPES.table(2)[ids].tolist() == [0, 3, 8, 12]
  assert CITYSCAPES.table(2, training=True)[ids].tolist() == [0, 3, 255, 12]
  assert CITYSCAPES.table(3, training=True)[ids].tolist() == [255, 3, 255, 16]
  assert IDD.table(3)[ids].tolist() == [0, 3, 9, 255]


def test_a_users_tree(tmp_path):
  tree = _load(tmp_path, TREE)
  assert tree == hierarchy_file.get(str(tmp_path / 'tree.yaml'))
  assert tree.names(1) == ('person', 'ground', 'object')
  assert tree.children(1) == ((1,), (0, 2))
  assert tree.parents(1) == (1, 0, 1)
  assert tree.definitive(1) == (0,) and tree.refined(1) == (1,)
  assert tree.ignored(0) == () and tree.ignored(1) == (1,)
  assert tree.table(1)[[0, 1, 5, 11, 13, 2]].tolist() == [1, 1, 2, 0, 2, 255]
  # Colours come from the file, from the train class, or are made up.
  assert tuple(tree.colours(0)[0]) == (9, 8, 7)
  assert tuple(tree.colours(1)[0]) == (220, 20, 60)
  assert len({tuple(c) for c in tree.colours(1)}) == 3
  with pytest.raises(ValueError, match='no transition leads to step 0'):
    tree.parents(0)


def test_published_trees_by_name():
  assert hierarchy_file.get('gta5_to_idd') is IDD
  with pytest.raises(errors.UserError, match="Did you mean 'gta5_to_idd'"):
    hierarchy_file.get('gta_to_idd')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      ('[1, 0]', '[0]', '[11]', '[11, 1]'),
      "class 'person' has the parents 'ground' and 'thing' at step 0; split it",
    ),
    (('[5, 13]', '[13]'), "step 1 loses train id 5 of 'thing' at step 0; add"),
    (('[5, 13]', '[5, 13, 7]'), "class 'object': train id 7 is in no class of"),
    (('[11]', '[11, 13]'), "step 1 has train id 13 in 'person' and again in"),
    (('[5, 13]', '[5, 5, 13]'), "train id 5 in 'object' and again in 'obje"),
    (('person', 'ground'), "step 1 has 2 classes 'ground'; names must differ"),
    (('[11]', '[255]'), r"step 1, class 0 \('person'\): train_ids must .*255"),
    (('[11]', '[-1]'), r'must be a list of integers in 0..254, not \[-1\]'),
    (('[11]', '[yes]'), r'must be a list of integers in 0..254, not \[True\]'),
    (('[11]', '11'), 'train_ids must be a list of integers in 0..254, not 11'),
    (('[11]', '[]'), 'train_ids must be a list of integers in 0..254'),
    (('[9, 8, 7]', '[9, 8]'), 'colour must be three integers in 0..255'),
    (('[9, 8, 7]', '[9, 8, 256]'), 'colour must be three integers in 0..255'),
    (('[9, 8, 7]', ''), 'colour must be three integers in 0..255, not None'),
    (('colour', 'color'), r"\('ground'\): unknown key 'color'.*'colour'"),
    (('name: person', 'name: no'), 'class 0: the name must be text, not False'),
    (('name: person', 'nam: person'), 'class 0 must have the keys name and'),
    (('steps', 'step'), 'must have the key steps, a list of steps'),
    ((TREE, ''), 'must have the key steps, a list of steps'),
    ((TREE, 'steps: []'), 'tree.yaml: steps must be a list of steps'),
    ((TREE, 'steps: [[]]'), 'tree.yaml: step 0 must be a list of classes'),
    ((TREE, 'steps: [[3]]'), 'step 0, class 0 must have the keys name and'),
    (('[11]', '[11'), 'tree.yaml is no YAML: .*line'),
  ],
)
def test_what_is_no_tree(tmp_path, change, message):
  text = TREE
  for old, new in zip(change[::2], change[1::2], strict=True):
    text = text.replace(old, new)
  with pytest.raises(errors.UserError, match=message) as error:
    _load(tmp_path, text)
  assert str(error.value).startswith(str(tmp_path / 'tree.yaml'))
  assert '\n' not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
  with pytest.raises(errors.UserError, match='cannot be read: No such file'):
    hierarchy_file.get(str(tmp_path / 'none.yml'))
  (tmp_path / 'tree.yaml').write_bytes(b'\xff\xfe\x00')
  with pytest.raises(errors.UserError, match=r'tree\.yaml cannot be read'):
    hierarchy_file.load(tmp_path / 'tree.yaml')
