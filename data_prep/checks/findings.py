"""All that a check finds out."""

from __future__ import annotations

import dataclasses
import os
from typing import IO

from data_prep import layouts, workers
from data_prep.checks import sample, shares, sizes, survey


@dataclasses.dataclass(frozen=True)
class Findings:
  """What is known about a folder of raw data.

  Attributes:
    layout: of the data set.
    root: the folder.
    official: whether it should hold the complete official download.
    survey: its files.
    sizes: of images and labels.
    sample: frames that were read.
  """

  layout: layouts.Layout
  root: str
  official: bool
  survey: survey.Survey
  sizes: sizes.Sizes
  sample: sample.Sample

  @property
  def shares(self) -> shares.Shares:
    """Class shares of the sampled labels."""
    return shares.shares(self.sample.counts, self.layout.to_train_id)

  @property
  def broken(self) -> dict[str, str]:
    """Path -> why it cannot be read."""
    return self.sizes.broken | self.sample.broken

  @property
  def mismatches(self) -> dict[str, str]:
    """Path -> in which way its size does not fit."""
    return self.sizes.mismatches | self.sample.mismatches


def gather(
  layout: layouts.Layout,
  root: str | os.PathLike[str],
  *,
  count: int,
  measure_all: bool,
  official: bool,
  progress: IO[str],
) -> Findings:
  """Searches a folder and reads some of its frames.

  Args:
    layout: of the data set.
    root: the folder.
    count: how many frames to read; what is known to be bad is not among them.
    measure_all: whether to look up the sizes of all frames, not only theirs.
    official: see `Findings`.
    progress: where to print a progress line.

  Raises:
    errors.UserError: see `survey.survey`.
  """
  seen = survey.survey(layout, root)
  usable = seen.usable()
  frames = sample.choose(usable, count)
  measured = frames
  if measure_all:
    measured = [item for members in usable.values() for item in members]
  bar = workers.Progress(
    f'reading {layout.name}', len(measured) + len(frames), progress
  )
  found = sizes.measure(layout, measured, bar)
  return Findings(
    layout, str(root), official, seen, found, sample.look(layout, frames, bar)
  )
