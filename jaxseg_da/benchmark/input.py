"""How fast the host makes batches, and how long a step waits for them.

Loader and step are those of training; only the frames are others: the same ones
in three stored forms, in memory. Windows of the forms alternate, so that what
else runs on the machine disturbs all of them alike.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxseg_da import pipeline, train
from jaxseg_da.benchmark import frames as frames_lib
from jaxseg_da.benchmark import record as record_lib
from jaxseg_da.data import pipeline as data_pipeline
from jaxseg_da.methods import base, supervised
from jaxseg_da.run import Run, say

Domains = Mapping[str, base.Domain]
Stored = Mapping[base.Domain, frames_lib.Frames]
Values = dict[str, Any]

_ENDLESS = 10**9
_RATES = ('images_per_second', 'images_per_second_per_core')
_WARMUP_STEPS = 10  # before timed ones, or as many as those where they are few


def measure(run: Run, name: str) -> Values:
  """The record of the input pipeline.

  Args:
    run: its `config.benchmark` says how much is measured.
    name: the stage whose step is fed.
  """
  config, settings = run.config, run.config.benchmark
  record = record_lib.blank(config, name)
  stage = run.stage(name)
  pair = {
    'source': supervised.source_domain(config),
    'target': supervised.target_domain(config),
  }
  fed = stage.method.domains if settings.steps else {}
  frames = _collect(run, [*pair.values(), *fed.values()])
  say(f'{settings.repeats} windows of {settings.seconds} s each')
  forms, device = _throughput(run, pair, frames), None
  if settings.steps:
    say(f'{settings.steps} steps of stage {name} each')
    step = Step(run, stage)
    device, steps = _waiting(run, step, fed, frames)
    for form, found in steps.items():
      forms[form]['step'] = found
    record['checks'] |= step.checks()
  record['workload'] |= {'id': 'input', 'input_mode': 'real'}
  record['protocol'] |= {
    'warmup_steps': _warmup(settings.steps),
    'warmup_seconds': settings.seconds / 5,
    'timed_steps': settings.steps,
    'repeats': settings.repeats,
    'clock_throughput': 'pipelined',
    'clock_latency': 'fenced',
    'window_seconds': settings.seconds,
    'cache': 'memory',
  }
  record['result']['input'] = {
    'frames': '+'.join(sorted({frames[d].origin for d in pair.values()})),
    'domains': {k: _describe(d, frames[d]) for k, d in pair.items()},
    'threads': data_pipeline._THREADS,
    'forms': forms,
    'step_domains': {k: d.spec for k, d in fed.items()},
    'device_step_ms': device,
  }
  return record


def _collect(run: Run, domains: Iterable[base.Domain]) -> Stored:
  """Frames of each stream; streams that are the same share them."""
  count, frames = run.config.benchmark.images, {}
  for domain in dict.fromkeys(domains):
    say(f'{count} frames of {domain.spec} in {len(frames_lib.FORMS)} forms')
    frames[domain] = frames_lib.collect(
      domain, run.dataset, run.data_dir, count
    )
  return frames


def _describe(domain: base.Domain, frames: frames_lib.Frames) -> Values:
  """What the loader does with the frames of a stream."""
  return {
    'dataset': domain.spec,
    'frames': frames.origin,
    'images': frames.count,
    'raw_hw': [list(size) for size in sorted(frames.raw_sizes)],
    'resized_hw': list(frames.size) if frames.size else None,
    'same_size': frames.same_size,
    'resize': domain.resize,
    'crop_hw': list(domain.crop) if any(domain.crop) else None,
    'labels': domain.labelled,
  }


def _loader(run: Run, stage: str, domains: Domains, frames: Stored, form: str):
  """The loader of training over frames in one form, without end."""
  opened = {key: frames[d].forms[form] for key, d in domains.items()}
  return pipeline.loader(run.config, stage, domains, opened, 0, _ENDLESS)


def _throughput(
  run: Run, domains: Domains, frames: Stored
) -> dict[str, Values]:
  """Images per second of the loader alone, by form: medians and windows."""
  settings = run.config.benchmark
  windows: dict[str, list[Values]] = {form: [] for form in frames_lib.FORMS}
  for _ in range(settings.repeats):
    for form, found in windows.items():
      with _loader(run, 'benchmark', domains, frames, form) as batches:
        _window(batches, settings.seconds / 5)
        found.append(_window(batches, settings.seconds))
  median = lambda key, found: statistics.median(w[key] for w in found)
  return {
    form: {
      'label': frames_lib.FORMS[form],
      'bytes_per_image': {
        key: frames[d].forms[form].bytes_per_image for key, d in domains.items()
      },
      **{rate: median(rate, found) for rate in _RATES},
      'windows': found,
      'step': None,
    }
    for form, found in windows.items()
  }


def _window(batches: Iterator[data_pipeline.Batch], seconds: float) -> Values:
  """Takes batches for at least so long, one at least.

  A core's share is counted in processor time, of all threads together: so it
  is what one core can do, however many there are and whoever else uses them.
  """
  images, cpu, began = 0, time.process_time(), time.perf_counter()
  wall = 0.0
  while wall < seconds:
    images += sum(len(rows['image']) for rows in next(batches).values())
    wall = time.perf_counter() - began
  cpu = time.process_time() - cpu
  return {
    'images': images,
    'wall_s': wall,
    'cpu_s': cpu,
    'images_per_second': images / wall,
    'images_per_second_per_core': images / cpu,
  }


class Step:
  """The compiled step of a stage, with the state that it goes on from."""

  def __init__(self, run: Run, stage: train.Stage):
    self.place = run.backend.shard
    self.stage = stage.name
    self._call = run.backend.compile(stage.step)
    self._state = run.backend.replicate(train.initial_state(stage))
    self._key = run.backend.replicate(stage.key)
    self._first: Any = None
    self._last: Any = None

  def __call__(self, batch: Any) -> None:
    """Makes one step on a batch that is placed, and waits for its end."""
    self._state, self._last = self._call(self._state, batch, self._key)
    jax.block_until_ready((self._state, self._last))
    if self._first is None:
      self._first = self._last

  def checks(self) -> Values:
    """Whether the first and the last step gave finite numbers."""
    first, last = (
      {key: np.asarray(value).item() for key, value in metrics.items()}
      for metrics in jax.device_get((self._first, self._last))
    )
    finite = all(map(math.isfinite, [*first.values(), *last.values()]))
    return {
      'loss_first': first.get('loss') if finite else None,
      'loss_last': last.get('loss') if finite else None,
      'finite': finite,
      'passed': finite,
    }


def _waiting(
  run: Run, step: Step, domains: Domains, frames: Stored
) -> tuple[Values, dict[str, Values]]:
  """Times of the step on one resident batch, and behind the loader by form."""
  load = lambda form: _loader(run, step.stage, domains, frames, form)
  count = run.config.benchmark.steps
  with load('resized_png') as batches:
    resident = step.place(next(batches))
  device, _ = _steps(step, itertools.repeat(resident), lambda x: x, count)
  found = {}
  for form in frames_lib.FORMS:
    with load(form) as batches:
      real, waited = _steps(step, batches, step.place, count)
    found[form] = {
      'step_ms': _spread(real),
      'breakdown_ms': {
        'input_wait': 1e3 * waited.mean(),
        'host_to_device': None,
        'compute': 1e3 * device.mean(),
      },
      'input_wait_share': waited.sum() / real.sum(),
      # Two measurements: a step that is as fast as alone may seem faster.
      'input_bound_fraction': max(0.0, 1 - device.mean() / real.mean()),
    }
  return _spread(device), found


def _warmup(steps: int) -> int:
  return min(_WARMUP_STEPS, steps)


def _steps(
  step: Step, batches: Iterator[Any], place: Callable, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Seconds of whole steps, and of their wait for a batch, `[count]` each.

  Each step is waited for before the next batch is asked for: while it runs,
  the loader works ahead, and only what it does not manage counts as waiting.
  """
  times = []
  for _ in range(_warmup(count) + count):
    began = time.perf_counter()
    batch = next(batches)
    waited = time.perf_counter() - began
    step(place(batch))
    times.append((time.perf_counter() - began, waited))
  whole, waited = np.transpose(times[-count:])
  return whole, waited


def _spread(seconds: np.ndarray) -> Values:
  """Statistics of step times."""
  ms = 1e3 * seconds
  p50, p90, p99 = np.percentile(ms, [50, 90, 99])
  return {
    'mean': ms.mean(),
    'p50': p50,
    'p90': p90,
    'p99': p99,
    'max': ms.max(),
    'cv': ms.std() / ms.mean(),
    'n': len(ms),
  }
