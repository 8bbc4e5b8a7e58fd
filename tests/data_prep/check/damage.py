"""What happens to files of raw data."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_prep.synthia import ids
from jaxseg_da.classes import labels

SIZE = (16, 32)
COUNT = 4  # frames per split


def find(root, pattern):
  return sorted(root.rglob(pattern))


def repaint(path, table):
  """Replaces the values of a grey or palette file, keeping its palette."""
  with Image.open(path) as image:
    image.load()
  changed = Image.fromarray(np.asarray(table, np.uint8)[np.asarray(image)])
  if image.mode == 'P':
    changed.putpalette(image.getpalette())
  changed.save(path)


def every(pattern, change):
  def harm(root):
    found = find(root, pattern)
    assert found
    for path in found:
      change(path)

  return harm


def to_mode(mode):
  def change(path):
    with Image.open(path) as image:
      converted = image.convert(mode)
    converted.save(path)

  return change


def cut(path):
  path.write_bytes(path.read_bytes()[:-100])


def blank(path):
  with Image.open(path) as image:
    size = image.size
  Image.new('L', size).save(path)


def swapped(a, b):
  table = np.arange(256)
  table[[a, b]] = b, a
  return lambda path: repaint(path, table)


def to_train_ids(path):
  repaint(path, labels.GTA5_ID_TO_TRAIN_ID)


def synthia_ids(path):
  return ids.read(path.read_bytes(), str(path))
