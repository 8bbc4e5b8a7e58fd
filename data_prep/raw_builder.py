"""Base class of the TFDS builders that read raw files."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from data_prep import builders, items, layouts, lists, raw, shards


class RawBuilder(builders.DrivingBuilder, skip_registration=True):
  """A builder of raw data that a `layouts.Layout` describes.

  Attributes:
    LAYOUT: of the data set.
    options: what the user asked for.
    selection: what is stored; None until the raw data was searched. What is
      optional in the schema is decided by it, or by `options.features`.
  """

  LAYOUT: layouts.Layout

  def __init__(
    self,
    *,
    options: layouts.Options | None = None,
    selection: layouts.Selection | None = None,
    **kwargs: Any,
  ):
    self.options = options or layouts.Options()
    self.selection = selection
    super().__init__(**kwargs)

  @property
  def union(self) -> tuple[str, ...]:
    """See base class."""
    own = lists.makes_splits(self.options.lists)
    return () if own else self.LAYOUT.union

  @property
  def optional_features(self) -> tuple[str, ...]:
    """See base class."""
    if self.selection:
      return self.selection.recipe.features
    return layouts.schema_names(self.options.features or ())

  @property
  def depth_kind(self) -> str:
    """See base class."""
    return self.selection.recipe.depth_kind if self.selection else ''

  def request(self) -> dict[str, Any]:
    """See base class."""
    return layouts.request(self.LAYOUT, self.options)

  def plan(self, manual_dir: pathlib.Path) -> Mapping[str, builders.Split]:
    """See base class."""
    if self.selection is None:
      options = dataclasses.replace(
        self.options, features=self.options.features or ()
      )
      data = raw.Raw(manual_dir)
      self.selection = layouts.select(self.LAYOUT, data, options)
    self.info.metadata['dropped'] |= self.selection.dropped
    return {
      name: builders.Split(members, self.selection.given[name])
      for name, members in self.selection.splits.items()
    }

  def make(self) -> shards.Make:
    """See base class."""
    assert self.selection is not None
    return functools.partial(items.make, recipe=self.selection.recipe)
