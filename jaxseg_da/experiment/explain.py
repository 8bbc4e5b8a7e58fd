"""What a config means and what it would run, as text; nothing is run."""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Iterator

import jax

from jaxseg_da import errors, methods
from jaxseg_da.config import base, schema
from jaxseg_da.data import sources
from jaxseg_da.experiment import assembly, memory, results

_WIDTH = 79


def text(config) -> str:
  """Keys and pipeline of a resolved config.

  Raises:
    UserError: a stage cannot be built.
  """
  head = f'{config.method} on {config.pair}, seed {config.seed}'
  return '\n'.join(
    [
      head,
      '',
      *pipeline(config),
      '',
      'keys as they would run; * differs from the default',
      *keys(config),
    ]
  )


def keys(config) -> Iterator[str]:
  """A paragraph per key: value, meaning, range and source."""
  read = methods.blocks(config.stages[n].method for n in config.pipeline)
  block = None
  for name, value, key in _in_order(config):
    if key is None:
      continue
    top = name.partition('.')[0] if '.' in name else ''
    if top != block:
      unused = top in methods.MODULES and top not in read
      note = '  (read by no stage of the pipeline)' if unused else ''
      yield from ('', f'[{top or "run"}]{note}')
      block = top
    yield from _paragraph(name, value, key)


def _paragraph(name: str, value, key: schema.Key) -> Iterator[str]:
  """A key with its value, and what it means and may be."""
  mark = ' ' if value == key.default else '*'
  yield f'{mark} {name} = {value!r}'
  source = f' [{key.source}]' if key.source else ''
  indent = ' ' * 6
  yield from textwrap.wrap(
    f'{key.meaning}; {key.rule.text}{source}',
    _WIDTH,
    initial_indent=indent,
    subsequent_indent=indent,
  )


def _in_order(config):
  """Keys as the schemas list them, single ones first."""
  order = [*methods.schema_of(config)]
  found = list(schema.keys(config, methods.schema_of(config)))
  rank = lambda item: ('.' in item[0], order.index(item[0].partition('.')[0]))
  return sorted(found, key=rank)


def base_keys() -> Iterator[str]:
  """The keys that every config has, at their defaults."""
  for name, value, key in schema.keys(
    schema.defaults(base.SCHEMA), base.SCHEMA
  ):
    if key is not None:
      yield from _paragraph(name, value, key)


def pipeline(config) -> Iterator[str]:
  """The stages in order, with steps, data, parameters and least memory."""
  devices = jax.device_count()
  yield (
    f'pipeline: {len(config.pipeline)} stages, batch {config.batch_size} per '
    f'domain on {devices} {jax.devices()[0].device_kind} devices'
  )
  seen: dict[str, None] = {}
  for number, name in enumerate(config.pipeline):
    block = config.stages[name]
    stage = assembly.build(config, name)
    steps = f'{stage.steps} steps'
    if stage.method.decides_steps and not block.steps:
      steps = 'as many steps as its host pass finds'
    elif block.updates_of:
      steps = f'as many steps as {", ".join(block.updates_of)} made updates'
    found = memory.estimate(stage)
    after = f' from {block.init_from}' if block.init_from else ' from scratch'
    role = '' if block.role == 'main' else f' ({block.role})'
    yield f'{number:>2} {name}{role}: {block.method}{after}, {steps}'
    yield (
      f'     {found.parameters / 1e6:.2f} M parameters, optimizer '
      f'{block.optim}, {_need(found)}'
    )
    for domain, stream in stage.method.domains.items():
      labels = 'with labels' if stream.labelled else 'without labels'
      yield f'     {domain}: {stream.spec} {labels}, {_size(stream)}'
      seen[stream.spec] = None
  seen |= dict.fromkeys(results.specs(config))
  yield f'evaluated on {" and ".join(results.specs(config))}'
  yield f'data sets in {config.data_dir}:'
  for spec in seen:
    yield f'     {spec}: {_prepared(spec, config)}'


def _need(found: memory.Estimate) -> str:
  need = f'at least {found.needed / 2**20:.0f} MiB per device'
  if found.available is None:
    return need
  fits = '' if found.needed <= found.available else ': DOES NOT FIT'
  return f'{need} of {found.available / 2**20:.0f}{fits}'


def _size(stream) -> str:
  size = '{}x{}'.format(*stream.size) if any(stream.size) else 'native size'
  crop = ', crop {}x{}'.format(*stream.crop) if any(stream.crop) else ''
  return f'{size} by {stream.resize}{crop}'


def _prepared(spec: str, config) -> str:
  folder = pathlib.Path(config.data_dir).expanduser()
  try:
    return f'{len(sources.open_dataset(spec, folder))} images'
  except errors.UserError as error:
    if spec.startswith('streets/'):
      return 'not there yet, built on first use'
    return str(error)
