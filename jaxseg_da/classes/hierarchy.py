"""Class trees of continual learning: from a few coarse classes to many.

Learning goes through steps. At each step some classes of the step before are
split into children and the others stay as they are. A class is the set of train
ids it covers, so that the tree follows from the steps alone: the parent of a
class is the one that covered its train ids before. The two published trees are
here; `hierarchy_file` reads those of users. NumPy only.

Shenaj et al., "Continual coarse-to-fine domain adaptation in semantic
segmentation", Image and Vision Computing 121 (2022) 104426.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from jaxseg_da.classes import labels


class StepClass(NamedTuple):
  """One class of one step.

  Attributes:
    name: unique within its step.
    train_ids: what it covers, 0..254.
    colour: RGB, 0..255.
  """

  name: str
  train_ids: tuple[int, ...]
  colour: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Hierarchy:
  """The classes of every step; the position of a class is its index.

  Parents and children of step t are those of the transition to it, so that t is
  at least 1 there: parents are indices of step t - 1, children of step t.

  Attributes:
    steps: classes by step, from coarse to fine.
  """

  steps: tuple[tuple[StepClass, ...], ...]

  def num_classes(self, step: int) -> int:
    """How many classes a step has."""
    return len(self.steps[step])

  def names(self, step: int) -> tuple[str, ...]:
    """Names of a step's classes."""
    return tuple(c.name for c in self.steps[step])

  def colours(self, step: int) -> np.ndarray:
    """Colours of a step's classes, u8 `[C, 3]`."""
    return np.array([c.colour for c in self.steps[step]], np.uint8)

  def parents(self, step: int) -> tuple[int, ...]:
    """The parent of each class of the step."""
    before = self.table(self._transition(step) - 1)
    return tuple(int(before[c.train_ids[0]]) for c in self.steps[step])

  def children(self, step: int) -> tuple[tuple[int, ...], ...]:
    """The children of each class of the step before; not always contiguous."""
    parents = self.parents(step)
    return tuple(
      tuple(i for i, parent in enumerate(parents) if parent == p)
      for p in range(self.num_classes(step - 1))
    )

  def definitive(self, step: int) -> tuple[int, ...]:
    """Parents that the transition keeps as they are: one child each."""
    return self._parents_where(step, lambda count: count == 1)

  def refined(self, step: int) -> tuple[int, ...]:
    """Parents that the transition splits."""
    return self._parents_where(step, lambda count: count > 1)

  def ignored(self, step: int) -> tuple[int, ...]:
    """Classes without training labels: children of definitive parents."""
    if step == 0:
      return ()
    children = self.children(step)
    return tuple(sorted(children[p][0] for p in self.definitive(step)))

  def table(self, step: int, training: bool = False) -> np.ndarray:
    """From train ids to classes of the step, u8 `[256]`; 255 does not count.

    Args:
      step: 0 is the coarsest.
      training: whether classes that were definitive before are left out, as in
        training labels. Evaluation counts every class.
    """
    ignored = self.ignored(step) if training else ()
    pairs = (
      (train_id, i)
      for i, c in enumerate(self.steps[step])
      for train_id in c.train_ids
      if i not in ignored
    )
    return labels.lookup_table(pairs, labels.IGNORE)

  def _transition(self, step: int) -> int:
    if not 1 <= step < len(self.steps):
      raise ValueError(f'no transition leads to step {step}')
    return step

  def _parents_where(self, step: int, kept) -> tuple[int, ...]:
    return tuple(
      p for p, group in enumerate(self.children(step)) if kept(len(group))
    )


def restrict(hierarchy: Hierarchy, train_ids: Iterable[int]) -> Hierarchy:
  """The same tree over fewer train ids; classes that cover none vanish.

  A class that comes down to one Cityscapes train id gets its name and colour.
  """
  kept = {*train_ids}

  def rest(c: StepClass) -> StepClass:
    left = tuple(i for i in c.train_ids if i in kept)
    return _single(left[0]) if len(left) == 1 else c._replace(train_ids=left)

  return Hierarchy(
    tuple(
      tuple(rest(c) for c in step if kept & {*c.train_ids})
      for step in hierarchy.steps
    )
  )


def _single(train_id: int) -> StepClass:
  """A train class by itself. The authors' sky has no red in it."""
  name = labels.NAMES[train_id]
  colour = labels.TRAIN_CLASSES[train_id].colour
  return StepClass(
    name, (train_id,), (0, 130, 180) if name == 'sky' else colour
  )


def _published(rows) -> tuple[StepClass, ...]:
  return tuple(
    _single(row) if isinstance(row, int) else StepClass(*row) for row in rows
  )


# A number is a train class by itself.
GTA5_TO_CITYSCAPES = Hierarchy(
  (
    _published(
      (
        ('background', (0, 1, 8, 9, 10), (126, 139, 167)),
        ('static object', (2, 3, 4, 5, 6, 7), (162, 143, 114)),
        ('moving object', (11, 12, 13, 14, 15, 16, 17, 18), (173, 26, 101)),
      )
    ),
    _published(
      (
        ('pavement', (0, 1), (194, 51, 187)),
        ('structure', (2, 3, 4), (118, 104, 119)),
        ('thin object', (5, 6, 7), (198, 175, 109)),
        ('ground', (8, 9), (131, 203, 110)),
        10,
        ('human', (11, 12), (238, 14, 42)),
        ('vehicle', (13, 14, 15, 16, 17, 18), (59, 35, 137)),
      )
    ),
    _published(
      (
        *range(3),
        ('barrier', (3, 4), (152, 130, 154)),
        5,
        ('signage', (6, 7), (235, 196, 21)),
        *range(8, 13),
        ('personal transport', (13, 14), (0, 0, 111)),
        ('public transport', (15, 16), (0, 70, 100)),
        ('two-wheels', (17, 18), (84, 7, 164)),
      )
    ),
    _published(range(labels.NUM_CLASSES)),
  )
)
# IDD has neither terrain nor train.
GTA5_TO_IDD = restrict(GTA5_TO_CITYSCAPES, labels.IDD_CLASSES)
PUBLISHED = {
  'gta5_to_cityscapes': GTA5_TO_CITYSCAPES,
  'gta5_to_idd': GTA5_TO_IDD,
}
