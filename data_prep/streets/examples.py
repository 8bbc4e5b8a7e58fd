"""Renders and encodes one example of the street world; no TFDS import."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from data_prep import codecs, items
from data_prep.streets import world
from jaxseg_da.data import depth


class Job(NamedTuple):
  """Which example to render.

  Attributes:
    domain: name of a domain of the world.
    split: 'train' or 'validation'.
    index: 0, 1, ... in the split.
    size: (height, width).
    views: whether to render the right, previous and next frame too.
  """

  domain: str
  split: str
  index: int
  size: tuple[int, int]
  views: bool


@functools.cache
def _domain(name: str) -> Any:
  return world.domain(name)


def render(job: Job) -> tuple[items.Example, items.Size]:
  """The encoded example of a job, with its true label, and its size."""
  scene = world.render_example(
    _domain(job.domain), job.split, job.index, job.size, views=job.views
  )
  example = {
    'image_id': f'{job.split}_{job.index:06d}',
    'image': codecs.encode_png(scene['image']),
    'depth': codecs.encode_png(depth.metric_to_u16(scene['depth'])),
    'intrinsics': np.asarray(scene['intrinsics'], np.float32),
    'baseline': np.float32(scene['baseline']),
  }
  if job.views:
    for name in ('image_right', 'image_prev', 'image_next'):
      example[name] = codecs.encode_png(scene[name])
  return example | items.label_features(scene['label'], job.size), job.size
