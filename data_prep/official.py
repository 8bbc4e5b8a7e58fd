"""What the official download of a data set is like, for `data_prep.check`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from data_prep import codecs

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Official:
  """Facts that reading does not need, but that tell a damaged download.

  Attributes:
    title: name of the data set for people; '' for that of its layout.
    ids: the numbers that the image ids are; empty where ids are no numbers.
    sizes: usual (height, width) of images; empty where they vary.
    label_key: pattern of label files, its first group the image id; finds
      labels without image. '' where that is not asked.
    label_size: bytes and name of a label file to its (height, width).
    label_bits: bits per channel of the official label files.
    reference: name of its row in `checks.shares.REFERENCE`; '' where it has
      none and Cityscapes stands in.
  """

  title: str = ''
  ids: range = range(0)
  sizes: tuple[Size, ...] = ()
  label_key: str = ''
  label_size: Callable[[bytes, str], Size] = codecs.image_size
  label_bits: int = 8
  reference: str = ''
