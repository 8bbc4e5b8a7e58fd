"""The scenes that all layouts show, and checks of what a caller asks for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from data_prep.streets import world
from jaxseg_da import errors

Size = tuple[int, int]


def domain(name: str) -> world.Domain:
  """A domain of the street world; `errors.UserError` for an unknown name."""
  try:
    return world.domain(name)
  except ValueError as error:
    raise errors.unknown('street domain', name, world.names()) from error


def check_packages(
  layout: str, packages: Collection[str], known: Collection[str]
) -> None:
  """Raises `errors.UserError` for optional packages a layout does not have."""
  for name in packages:
    if name not in known:
      raise errors.UserError(
        f'{layout} has no optional package {name!r}; it has: '
        f'{", ".join(known) or "none"}'
      )


def render(
  scenery: world.Domain,
  split: str,
  indices: range,
  size: Size,
  *,
  views: bool = False,
) -> Iterator[dict[str, Any]]:
  """Scenes of a split, one after the other; see `world.render_example`."""
  for index in indices:
    yield world.render_example(scenery, split, index, size, views=views)


def to_u16(values: np.ndarray, depth: np.ndarray) -> np.ndarray:
  """Rounded values u16 `[H, W]`, 0 where there is no depth and only there.

  Args:
    values: float `[H, W]`; cut to 1..65535.
    depth: metres `[H, W]`, 0 where there is none.
  """
  rounded = np.clip(np.rint(values), 1, 65535)
  return np.where(depth > 0, rounded, 0).astype(np.uint16)
