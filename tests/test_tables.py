from __future__ import annotations

from jaxseg_da import tables


def test_table():
  def record(miou):
    return {
      'num_classes': 19,
      'miou': miou,
      'miou_16': 41.0,
      'miou_13': None,
      'pixel_accuracy': 90.126,
    }

  control = record(40.0)
  rows = [('source_only', None), ('control', control), ('dacs', record(43.5))]
  assert tables.table(rows, control).splitlines() == [
    '             mIoU-19  mIoU-16  mIoU-13  pixels  vs control',
    'source_only        -        -        -       -           -',
    'control        40.00    41.00        -   90.13',
    'dacs           43.50    41.00        -   90.13       +3.50',
  ]
  assert 'control' not in tables.table(rows[2:])


def test_class_table():
  record = {'miou': 50.0, 'iou': {'road': 90.0, 'train': None}}
  control = {'miou': 52.0, 'iou': {'road': 88.5, 'train': 3.0}}
  assert tables.class_table(record, control).splitlines() == [
    'class    IoU  control  difference',
    'road   90.00    88.50       +1.50',
    'train      -     3.00           -',
    'mean   50.00    52.00       -2.00',
  ]
  assert tables.class_table(record).splitlines()[1] == 'road   90.00'
