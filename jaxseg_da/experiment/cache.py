"""Finished baseline runs, found again by everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable

import jax

import jaxseg_da
from jaxseg_da import config as config_lib
from jaxseg_da import methods

# Sections that a baseline's numbers depend on, besides its own stages.
_SECTIONS = (
  'seed',
  'backend',
  'deterministic',
  'batch_size',
  'bn',
  'scale_rule',
  'data',
  'augment',
  'model',
  'init',
  'evaluate',
)


def entry(
  config, name: str, data_dir: pathlib.Path, steps: Callable[[str], int]
) -> pathlib.Path | None:
  """The cache folder of a stage; None where its method is not shared.

  Args:
    config: resolved.
    name: the stage.
    data_dir: where prepared data sets are, and by default the cache.
    steps: stage -> its updates in this run.
  """
  if not _shared(config, name):
    return None
  root = pathlib.Path(config.cache_dir or data_dir / 'jaxseg_da_cache')
  key = fingerprint(config, name, data_dir, steps)
  return root.expanduser() / f'{name}-{key}'


def _shared(config, name: str) -> bool:
  """Whether the stage and all that it starts from may be shared."""
  block = config.stages[name]
  if not methods.make(config, block).shared:
    return False
  return not block.init_from or _shared(config, block.init_from)


def fingerprint(
  config, name: str, data_dir: pathlib.Path, steps: Callable[[str], int]
) -> str:
  """Hash of a stage's config, its ancestors', the data, code and device."""
  values = config_lib.to_dict(config)
  facts = {section: values[section] for section in _SECTIONS}
  facts['chain'], run = [], set()
  while name:
    run.add(values['stages'][name]['method'])
    block = {**values['stages'][name], 'steps': steps(name)}
    del block['updates_of']  # the steps say it
    del block['role']  # a stage may be the control of another run
    facts['chain'].append([name, block, values['optim'][block['optim']]])
    name = str(block['init_from'])
  # Only what these methods read.
  facts |= {b: values[b] for b in methods.blocks(run) if b in values}
  facts['data_sets'] = {
    domain: _data_hash(config.data[domain], data_dir)
    for domain in ('source', 'target')
  }
  facts['code'] = _source_hash()
  facts['jax'] = jax.__version__
  facts['devices'] = [jax.devices()[0].device_kind, jax.device_count()]
  text = json.dumps(facts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _data_hash(spec: str, data_dir: pathlib.Path) -> str:
  """Hash of what a prepared data set says about itself: version, counts."""
  digest = hashlib.sha256()
  folder = data_dir / spec.partition(':')[0]
  for path in sorted(folder.glob('*/*.json')):
    digest.update(path.relative_to(folder).as_posix().encode())
    digest.update(path.read_bytes())
  return digest.hexdigest()


def _source_hash() -> str:
  """Hash of the package's source: another code may give other numbers."""
  root = pathlib.Path(jaxseg_da.__file__).parent
  digest = hashlib.sha256()
  for path in sorted(root.rglob('*.py')):
    digest.update(path.relative_to(root).as_posix().encode())
    digest.update(path.read_bytes())
  return digest.hexdigest()


def copy(source: pathlib.Path, destination: pathlib.Path) -> None:
  """Copies a folder so that it is there whole or not at all."""
  if destination.exists():
    return
  destination.parent.mkdir(parents=True, exist_ok=True)
  temporary = destination.with_name(f'.{destination.name}.{os.getpid()}.tmp')
  shutil.rmtree(temporary, ignore_errors=True)
  shutil.copytree(source, temporary)
  try:
    temporary.rename(destination)
  except OSError:  # another run was faster
    shutil.rmtree(temporary, ignore_errors=True)
