from __future__ import annotations

import io

import pytest

from jaxseg_da.training import progress as progress_lib


class Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_progress_rate_excludes_pauses_and_compilation():
  clock, stream = Clock(), io.StringIO()
  progress = progress_lib.Progress(
    'dacs', 100, 200, 8, stream=stream, clock=clock, interval=5
  )
  clock.now += 60  # compilation
  progress.restart(101)
  clock.now += 10
  with progress.pause():
    clock.now += 1000
  assert progress.update(121, {'loss': 1.25}) == pytest.approx(16.0)
  assert stream.getvalue() == (
    'dacs 121/200  loss 1.2500  16.0 images/s  ETA 0:40\n'
  )
  clock.now += 1
  progress.update(122)  # too soon for another line
  assert stream.getvalue().count('\n') == 1
  progress.update(200)
  assert stream.getvalue().splitlines()[-1].startswith('dacs 200/200')
  progress.close()
  assert stream.getvalue().count('\n') == 2


def test_progress_shows_a_rate_below_one():
  clock, stream = Clock(), io.StringIO()
  progress = progress_lib.Progress('a', 0, 3, stream=stream, clock=clock)
  clock.now += 160
  progress.update(2)
  assert stream.getvalue() == 'a 2/3  0.013 images/s  ETA 1:20\n'


def test_progress_shows_the_loss_of_every_phase():
  clock, stream = Clock(), io.StringIO()
  progress = progress_lib.Progress('a', 0, 3, stream=stream, clock=clock)
  clock.now += 1
  progress.update(3, {'G/loss': 0.5, 'loss/source': 7.0, 'D/loss': 0.25})
  assert stream.getvalue().startswith('a 3/3  loss 0.5000, 0.2500  ')


def test_progress_rewrites_one_line_on_a_terminal():
  clock, stream = Clock(), Terminal()
  progress = progress_lib.Progress('a', 0, 3, stream=stream, clock=clock)
  for step in (1, 2):
    clock.now += 1
    progress.update(step)
  progress.close()
  progress.close()
  text = stream.getvalue()
  assert text.count('\n') == 1
  assert text.count('\r') == 2


def test_progress_before_anything_was_done_and_when_silent():
  stream = io.StringIO()
  progress = progress_lib.Progress('a', 5, 9, stream=stream, enabled=False)
  assert progress.update(5) == 0.0
  assert stream.getvalue() == ''


@pytest.mark.parametrize(
  ('seconds', 'text'), [(0, '0:00'), (59.6, '1:00'), (3725, '1:02:05')]
)
def test_duration(seconds, text):
  assert progress_lib.duration(seconds) == text
