"""Records as text, for the terminal."""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]


def input_table(record: Values) -> str:
  """Throughput of the loader by stored form, and what a step waits."""
  found, hardware = record['result']['input'], record['hardware']
  protocol, device = record['protocol'], found['device_step_ms']
  lines = [_stream(key, domain) for key, domain in found['domains'].items()]
  lines.append(
    f'{found["threads"]} threads on {hardware["host_cores"]} cores '
    f'({hardware["host_cpu"]}), load {protocol["load_average_1m"]:.1f} before; '
    f'median of {protocol["repeats"]} windows of {protocol["window_seconds"]} s'
  )
  title = f'\n{"stored as":<20}{"kB/image":>13}{"images/s":>10}{"per core":>10}'
  if device:
    title += f'{"step ms":>10}{"waiting":>10}{"input-bound":>13}'
  lines += [title, *map(_row, found['forms'].values())]
  if device:
    lines.append(
      f'stage {record["workload"]["stage"]} on one batch that stays on the '
      f'device: {device["mean"]:.1f} ms per step'
    )
  return '\n'.join(lines)


def _row(form: Values) -> str:
  """One stored form."""
  sizes = ' + '.join(f'{b / 1e3:.0f}' for b in form['bytes_per_image'].values())
  text = (
    f'{form["label"]:<20}{sizes:>13}{form["images_per_second"]:>10.1f}'
    f'{form["images_per_second_per_core"]:>10.1f}'
  )
  step = form['step']
  if step is None:
    return text
  return text + (
    f'{step["step_ms"]["mean"]:>10.1f}{step["input_wait_share"]:>10.1%}'
    f'{step["input_bound_fraction"]:>13.1%}'
  )


def _stream(key: str, domain: Values) -> str:
  """Whose frames, how many, of which size."""
  shape = lambda size: 'x'.join(map(str, size))
  raw = [shape(size) for size in domain['raw_hw']]
  sizes = raw[0] if len(raw) == 1 else f'{len(raw)} sizes'
  kind = {'rendered': 'rendered (real ones compress differently)'}
  origin = kind.get(domain['frames'], domain['frames'])
  text = f'{key} {domain["dataset"]}: {domain["images"]} frames, {origin}, '
  if domain['same_size']:
    return f'{text}{sizes} as training wants them: raw and pre-resized are one'
  return f'{text}{sizes} to {shape(domain["resized_hw"])}, {domain["resize"]}'
