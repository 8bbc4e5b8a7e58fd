"""Class trees from YAML files, and what makes them trees."""

from __future__ import annotations

import colorsys
import hashlib
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from jaxseg_da import errors
from jaxseg_da.classes import hierarchy, labels


def get(name: str) -> hierarchy.Hierarchy:
  """A published hierarchy by its name, or that of a file `*.yaml`, `*.yml`.

  Raises:
    UserError: an unknown name, or what `load` finds wrong.
  """
  if name in hierarchy.PUBLISHED:
    return hierarchy.PUBLISHED[name]
  if pathlib.Path(name).suffix in ('.yaml', '.yml'):
    return load(name)
  raise errors.unknown('hierarchy', name, (*hierarchy.PUBLISHED, 'FILE.yaml'))


def digest(name: str) -> str:
  """Says whether two trees are the same; empty for a published one.

  Raises:
    UserError: as `get`.
  """
  if name in hierarchy.PUBLISHED:
    return ''
  return hashlib.sha256(repr(get(name)).encode()).hexdigest()[:16]


def load(path: str | pathlib.Path) -> hierarchy.Hierarchy:
  """Reads a tree of classes.

  The file has one key, `steps`: a list of steps from coarse to fine, each a
  list of classes with the keys `name`, `train_ids` (a list) and, if wanted,
  `colour` (red, green, blue). Without it a class that is one of the Cityscapes
  train ids has their colour, and others get hues that differ.

  Raises:
    UserError: the file cannot be read, or is no tree: names file, step and
      class, and what would be right.
  """
  path = pathlib.Path(path)
  try:
    content = yaml.safe_load(path.read_text(encoding='utf-8'))
  except (OSError, UnicodeError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise errors.UserError(f'{path} cannot be read: {reason}.') from error
  except yaml.YAMLError as error:
    reason = ' '.join(str(error).split())
    raise errors.UserError(f'{path} is no YAML: {reason}.') from error
  if not isinstance(content, dict) or list(content) != ['steps']:
    raise errors.UserError(
      f'{path} must have the key steps, a list of steps, and no other.'
    )
  steps = _items(content['steps'], f'{path}: steps', 'steps')
  tree = hierarchy.Hierarchy(
    tuple(
      tuple(
        _parse(entry, i, f'{path}: step {t}')
        for i, entry in enumerate(_items(step, f'{path}: step {t}', 'classes'))
      )
      for t, step in enumerate(steps)
    )
  )
  check(tree, str(path))
  return tree


def _items(value: Any, where: str, what: str) -> list:
  if not isinstance(value, list) or not value:
    raise errors.UserError(f'{where} must be a list of {what}.')
  return value


_KEYS = ('name', 'train_ids', 'colour')


def _parse(entry: Any, index: int, where: str) -> hierarchy.StepClass:
  where = f'{where}, class {index}'
  if not isinstance(entry, dict) or not {'name', 'train_ids'} <= {*entry}:
    raise errors.UserError(
      f'{where} must have the keys name and train_ids, and may have colour.'
    )
  name, train_ids = entry['name'], entry['train_ids']
  if not isinstance(name, str) or not name.strip():
    raise errors.UserError(
      f'{where}: the name must be text, not {name!r}; quotes make text of it.'
    )
  where = f'{where} ({name!r})'
  for key in entry:
    if key not in _KEYS:
      raise errors.UserError(f'{where}: {errors.unknown("key", key, _KEYS)}')
  if not _integers(train_ids, labels.IGNORE - 1) or not train_ids:
    raise errors.UserError(
      f'{where}: train_ids must be a list of integers in 0..254, not'
      f' {train_ids!r}.'
    )
  colour = entry.get('colour', _colour(train_ids, index))
  if not _integers(colour, 255) or len(colour) != 3:
    raise errors.UserError(
      f'{where}: colour must be three integers in 0..255, not {colour!r}.'
    )
  return hierarchy.StepClass(name, tuple(train_ids), tuple(colour))


def _integers(values: Any, largest: int) -> bool:
  return isinstance(values, list) and all(
    type(v) is int and 0 <= v <= largest for v in values
  )


def _colour(train_ids: Sequence[int], index: int) -> list[int]:
  if len(train_ids) == 1 and train_ids[0] < labels.NUM_CLASSES:
    return labels.COLOURS[train_ids[0]].tolist()
  # Steps of the golden ratio keep any number of hues apart.
  rgb = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.6, 0.9)
  return [round(255 * x) for x in rgb]


def check(tree: hierarchy.Hierarchy, where: str) -> None:
  """Checks that the steps are a tree.

  Args:
    tree: names and ranges are those of `hierarchy.StepClass`.
    where: the file, for messages.

  Raises:
    UserError: a name or train id occurs twice in a step, a train id gets lost
      between two steps or appears, or a class has several parents.
  """
  before: dict[int, str] = {}
  for t, step in enumerate(tree.steps):
    names = tree.names(t)
    for name in names:
      if names.count(name) > 1:
        raise errors.UserError(
          f'{where}: step {t} has {names.count(name)} classes {name!r}; names'
          ' must differ within a step.'
        )
    now = _owners(step, f'{where}: step {t}')
    if t:
      _check_transition(before, now, step, where, t)
    before = now


def _owners(step: Iterable[hierarchy.StepClass], where: str) -> dict[int, str]:
  """The name of each train id's class."""
  owners: dict[int, str] = {}
  for c in step:
    for train_id in c.train_ids:
      if train_id in owners:
        raise errors.UserError(
          f'{where} has train id {train_id} in {owners[train_id]!r} and again'
          f' in {c.name!r}; it must occur once per step.'
        )
      owners[train_id] = c.name
  return owners


def _check_transition(before, now, step, where: str, t: int) -> None:
  for train_id, name in before.items():
    if train_id not in now:
      raise errors.UserError(
        f'{where}: step {t} loses train id {train_id} of {name!r} at step'
        f' {t - 1}; add it to a class of step {t}.'
      )
  for c in step:
    for train_id in c.train_ids:
      if train_id not in before:
        raise errors.UserError(
          f'{where}: step {t}, class {c.name!r}: train id {train_id} is in no'
          f' class of step {t - 1}; add it to the one that is to be the parent.'
        )
    parents = sorted({before[train_id] for train_id in c.train_ids})
    if len(parents) > 1:
      raise errors.UserError(
        f'{where}: step {t}, class {c.name!r} has the parents'
        f' {" and ".join(map(repr, parents))} at step {t - 1}; split it, so'
        ' that every class has exactly one.'
      )
