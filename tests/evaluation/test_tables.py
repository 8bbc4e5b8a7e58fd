from __future__ import annotations

from jaxseg_da.evaluation import tables


def test_table():
  def record(miou):
    return {
      'num_classes': 19,
      'miou': miou,
      'iou': {},
      'miou_16': 41.0,
      'miou_13': None,
      'pixel_accuracy': 90.126,
    }

  control = record(40.0)
  rows = [('source_only', None), ('control', control), ('dacs', record(43.5))]
  assert tables.table(rows, [control]).splitlines() == [
    '             mIoU-19  mIoU-16  mIoU-13  pixels  vs control',
    'source_only        -        -        -       -           -',
    'control        40.00    41.00        -   90.13',
    'dacs           43.50    41.00        -   90.13       +3.50',
  ]
  assert 'control' not in tables.table(rows[2:])


def test_only_the_same_classes_are_compared():
  def record(miou, *names):
    found = {'num_classes': len(names), 'miou': miou, 'iou': {}}
    return found | {'iou': dict.fromkeys(names, miou), 'pixel_accuracy': 50.0}

  controls = [record(60.0, 'a', 'b'), record(4.0, 'a', 'c', 'd')]
  coarse, fine = record(85.0, 'a', 'b'), record(33.0, 'a', 'c', 'd')
  rows = [('control_1', controls[1]), ('step_0', coarse), ('step_1', fine)]
  assert tables.table(rows, controls).splitlines() == [
    '           classes   mIoU  mIoU-16  mIoU-13  pixels  vs control',
    'control_1        3   4.00        -        -   50.00',
    'step_0           2  85.00        -        -   50.00      +25.00',
    'step_1           3  33.00        -        -   50.00      +29.00',
  ]
  assert tables.gain(record(85.0, 'a', 'z'), controls) is None
  assert tables.gain(controls[0], controls) is None


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
