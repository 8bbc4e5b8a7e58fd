"""One JSON object per measurement: what ran, where, and what came out.

Units are in the names; what is unknown is null, never left out. Every kind of
measurement fills in its part of the same form.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import uuid
from importlib import metadata
from typing import Any

import jax

import jaxseg_da
from jaxseg_da import config as config_lib
from jaxseg_da import errors

SCHEMA, SCHEMA_VERSION = 'jaxseg_da.bench', 1
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'libtpu')
_VARIABLES = (
  'JAX_PLATFORMS',
  'OMP_NUMTHREADS',
  'XLA_PYTHON_CLIENT_PREALLOCATE',
)
_RESULT = (
  'images_per_second',
  'images_per_second_per_device',
  'source_images_per_step',
  'target_images_per_step',
  'forward_pixels_per_step',
  'step_ms',
  'breakdown_ms',
  'input_bound_fraction',
  'model_tflops_per_step',
  'xla_tflops_per_step',
  'achieved_tflops_per_device',
  'mfu',
  'memory',
  'compile',
  'across_processes',
  'repeats',
  'device_hours_per_1000_steps',
  'energy_j_per_image',
)
_PROTOCOL = (
  'warmup_steps',
  'warmup_seconds',
  'timed_steps',
  'repeats',
  'clock_throughput',
  'window_steps',
  'clock_latency',
  'recompilations_in_window',
)
_CHECKS = (
  'loss_first',
  'loss_last',
  'loss_reference',
  'loss_abs_tol',
  'finite',
  'passed',
)


def blank(config, stage: str) -> dict[str, Any]:
  """A record that says what is about to be measured, and where.

  Args:
    config: resolved.
    stage: name of the stage whose step and data are measured.
  """
  now = datetime.datetime.now(datetime.UTC)
  pair = '_to_'.join(
    config.data[domain].partition(':')[0].replace('/', '-')
    for domain in ('source', 'target')
  )
  device = f'{jax.devices()[0].platform}{jax.device_count()}'
  words = (config.method, pair, device, uuid.uuid4().hex[:4])
  return {
    'schema': SCHEMA,
    'schema_version': SCHEMA_VERSION,
    'run_id': '-'.join((f'{now:%Y%m%dT%H%M%SZ}', *words)),
    'status': 'ok',
    'error': None,
    'started_utc': _text(now),
    'finished_utc': None,
    'workload': _workload(config, stage),
    'hardware': _hardware(),
    'software': _software(),
    'protocol': {
      **dict.fromkeys(_PROTOCOL),
      'excluded': ['eval', 'checkpoint', 'logging'],
      'load_average_1m': os.getloadavg()[0],
    },
    'result': dict.fromkeys(_RESULT),
    'scaling': None,
    'checks': dict.fromkeys(_CHECKS),
    'quality': None,
    'artifacts': None,
    'notes': '',
  }


def _text(time: datetime.datetime) -> str:
  return f'{time:%Y-%m-%dT%H:%M:%SZ}'


def _workload(config, stage: str) -> dict[str, Any]:
  values = config_lib.to_dict(config)
  text = json.dumps(values, sort_keys=True)
  data, batch = config.data, config.batch_size
  both = lambda count: {'source': count, 'target': count}
  return {
    'id': None,
    'method': config.method,
    'stage': stage,
    'arch': config.model.name,
    'source': data.source,
    'target': data.target,
    'num_classes': data.num_classes,
    'input_mode': None,
    'source_hw': _input_size(data, 'source'),
    'target_hw': _input_size(data, 'target'),
    'global_batch': both(batch),
    'per_device_batch': both(batch // jax.device_count()),
    'microbatches': 1,
    'remat': 'none',
    'dtype': {
      'params': 'float32',
      'compute': config.model.compute_dtype,
      'loss': 'float32',
    },
    'matmul_precision': jax.config.values['jax_default_matmul_precision']
    or 'default',
    'params_million': None,
    'config_sha256': hashlib.sha256(text.encode()).hexdigest(),
    'config': values,
  }


def _input_size(data, domain: str) -> list[int] | None:
  """(height, width) that a network sees; None where images keep their own."""
  sizes = (data[f'{domain}_crop'], data[f'{domain}_size'])
  return next((list(size) for size in sizes if any(size)), None)


def _hardware() -> dict[str, Any]:
  device = jax.local_devices()[0]
  memory = device.memory_stats() or {}
  return {
    'platform': device.platform,
    'device_kind': device.device_kind,
    'devices': jax.device_count(),
    'local_devices': jax.local_device_count(),
    'processes': jax.process_count(),
    'topology': None,
    'mesh': {'batch': jax.device_count()},
    'hbm_bytes_per_device': memory.get('bytes_limit'),
    'peak_flops_per_device': None,
    'peak_flops_dtype': None,
    'peak_flops_source': None,
    'driver': None,
    'power_limit_w': None,
    'host_cpu': _cpu(),
    'host_cores': len(os.sched_getaffinity(0)),
    'host_ram_bytes': os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'),
  }


def _cpu() -> str | None:
  """The processor's name, where Linux says it."""
  path = pathlib.Path('/proc/cpuinfo')
  lines = path.read_text().splitlines() if path.exists() else []
  names = [line.partition(':')[2] for line in lines if 'model name' in line]
  return names[0].strip() if names else platform.processor() or None


def _software() -> dict[str, Any]:
  commit, dirty = _git()
  return {
    'jaxseg_da': jaxseg_da.__version__,
    'git_commit': commit,
    'git_dirty': dirty,
    'python': platform.python_version(),
    **{name: _version(name) for name in _PACKAGES},
    'cuda': None,
    'cudnn': None,
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'env': {name: os.environ.get(name) for name in _VARIABLES},
    'os': platform.platform(),
    'container': None,
    'argv': sys.argv,
  }


def _version(package: str) -> str | None:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _git() -> tuple[str | None, bool | None]:
  """The commit that runs, and whether files differ from it."""
  folder = str(pathlib.Path(__file__).parent)
  command = ['git', '-C', folder, 'describe', '--always', '--exclude=*']
  try:
    found = subprocess.run(
      [*command, '--abbrev=40', '--dirty=+'],
      capture_output=True,
      text=True,
      check=False,
    )
  except OSError:
    return None, None
  text = found.stdout.strip()
  return (text.rstrip('+'), text.endswith('+')) if text else (None, None)


def finish(record: dict[str, Any]) -> None:
  """Notes the time; a check that failed makes the record a failed one."""
  record['finished_utc'] = _text(datetime.datetime.now(datetime.UTC))
  if record['checks']['passed'] is False:
    record['status'] = 'failed'
    record['error'] = 'a value of the training step is not finite'


def append(path: pathlib.Path, records: list[dict[str, Any]]) -> None:
  """Adds lines to a file of records; none only makes sure that one could.

  Raises:
    UserError: the file cannot be written.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a', encoding='utf-8') as file:
      for record in records:
        file.write(json.dumps(record, allow_nan=False) + '\n')
  except OSError as error:
    raise errors.UserError(
      f'{path} cannot be written: {error.strerror}'
    ) from error
