"""How fast the host makes batches, and how long a step waits for them.

Loader and step are those of training; only the frames are others: the same ones
in three stored forms, in memory. Windows of the forms alternate, so that what
else runs on the machine disturbs all of them alike.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxseg_da.benchmark import frames as frames_lib
from jaxseg_da.benchmark import record as record_lib
from jaxseg_da.benchmark import step as step_lib
from jaxseg_da.data import pipeline as data_pipeline
from jaxseg_da.experiment import pipeline
from jaxseg_da.experiment.run import Run, say
from jaxseg_da.methods import two_domains
from jaxseg_da.training import contract

Domains = Mapping[str, contract.Domain]
Collected = Mapping[contract.Domain, frames_lib.Frames]
Values = dict[str, Any]

_ENDLESS = 10**9
_RATES = ('images_per_second', 'images_per_second_per_core')


def measure(run: Run, name: str) -> Values:
  """The record of the input pipeline.

  Args:
    run: its `config.benchmark` says how much is measured.
    name: the stage whose step is fed.
  """
  config, settings = run.config, run.config.benchmark
  record = record_lib.blank(config, name)
  stage = run.stage(name)
  pair = two_domains.streams(config)
  fed = stage.method.domains if settings.steps else {}
  frames = _collect(run, [*pair.values(), *fed.values()])
  say(f'{settings.repeats} windows of {settings.seconds} s each')
  forms, device = _throughput(run, pair, frames), None
  if settings.steps:
    say(f'{settings.repeats} windows of {settings.steps} steps of {name} each')
    step = step_lib.Step(run, stage)
    device, steps = _waiting(run, step, fed, frames)
    for form, found in steps.items():
      forms[form]['step'] = found
    record['checks'] |= step.checks()
  record['workload'] |= {'id': 'input', 'input_mode': 'real'}
  record['protocol'] |= {
    'warmup_steps': step_lib.warmup(settings.steps),
    'warmup_seconds': settings.seconds / 5,
    'timed_steps': settings.steps * settings.repeats,
    'window_steps': settings.steps,
    'repeats': settings.repeats,
    'clock_throughput': 'pipelined',
    'clock_latency': 'fenced',
    'window_seconds': settings.seconds,
    'cache': 'memory',
  }
  record['result']['input'] = {
    'frames': '+'.join(sorted({frames[d].origin for d in pair.values()})),
    'domains': {k: _describe(d, frames[d]) for k, d in pair.items()},
    'threads': data_pipeline.THREADS,
    'forms': forms,
    'step_domains': {k: d.spec for k, d in fed.items()},
    'device_step_ms': device,
  }
  return record


def _collect(run: Run, domains: Iterable[contract.Domain]) -> Collected:
  """Frames of each stream; streams that are the same share them."""
  count, frames = run.config.benchmark.images, {}
  for domain in dict.fromkeys(domains):
    say(f'{count} frames of {domain.spec} in {len(frames_lib.FORMS)} forms')
    frames[domain] = frames_lib.collect(
      domain, run.dataset, run.data_dir, count
    )
  return frames


def _describe(domain: contract.Domain, frames: frames_lib.Frames) -> Values:
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


def _loader(
  run: Run, stage: str, domains: Domains, frames: Collected, form: str
):
  """The loader of training over frames in one form, without end."""
  opened = {key: frames[d].forms[form] for key, d in domains.items()}
  return pipeline.loader(run.config, stage, domains, opened, 0, _ENDLESS)


def _throughput(
  run: Run, domains: Domains, frames: Collected
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


def _waiting(
  run: Run, step: step_lib.Step, domains: Domains, frames: Collected
) -> tuple[Values, dict[str, Values]]:
  """Times of the step on one resident batch, and behind the loader by form."""
  load = lambda form: _loader(run, step.stage, domains, frames, form)
  settings = run.config.benchmark
  with load('resized_png') as batches:
    resident = step.place(next(batches))
  alone: list[np.ndarray] = []
  behind: dict[str, list[np.ndarray]] = {form: [] for form in frames_lib.FORMS}
  for _ in range(settings.repeats):
    same = itertools.repeat(resident)
    alone.append(step_lib.timed(step, same, lambda x: x, settings.steps))
    for form, found in behind.items():
      with load(form) as batches:
        times = step_lib.timed(step, batches, step.place, settings.steps)
      found.append(times)
  device = np.concatenate(alone, 1)[0]
  return step_lib.spread(device), {
    form: _compare(device, *np.concatenate(found, 1))
    for form, found in behind.items()
  }


def _compare(device: np.ndarray, real: np.ndarray, wait: np.ndarray) -> Values:
  """What the loader costs a step.

  Args:
    device: seconds of steps on a resident batch.
    real: seconds of steps behind the loader.
    wait: seconds of these that were spent waiting for a batch.
  """
  return {
    'step_ms': step_lib.spread(real),
    'breakdown_ms': {
      'input_wait': 1e3 * wait.mean(),
      'host_to_device': None,
      'compute': 1e3 * device.mean(),
    },
    'input_wait_share': wait.sum() / real.sum(),
    # Two measurements: where the loader costs nothing, noise decides the sign.
    'input_bound_fraction': max(0.0, 1 - device.mean() / real.mean()),
  }
