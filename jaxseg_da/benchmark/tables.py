"""Records as text, for the terminal."""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]


def input_table(record: Values) -> str:
  """Throughput of the loader by stored form, and what a step waits."""
  found, hardware = record['result']['input'], record['hardware']
  lines = [_domain_line(k, d) for k, d in found['domains'].items()]
  lines += [
    f'{found["threads"]} threads on {hardware["host_cores"]} cores '
    f'({hardware["host_cpu"]}), median of {record["protocol"]["repeats"]} '
    f'windows of {record["protocol"]["window_seconds"]} s',
    '',
    f'{"stored as":<20}{"kB/image":>13}{"images/s":>10}{"per core":>10}'
    f'{"step ms":>10}{"waiting":>9}{"input-bound":>13}',
  ]
  for form in found['forms'].values():
    sizes = ' + '.join(
      f'{b / 1e3:.0f}' for b in form['bytes_per_image'].values()
    )
    line = (
      f'{form["label"]:<20}{sizes:>13}{form["images_per_second"]:>10.1f}'
      f'{form["images_per_second_per_core"]:>10.1f}'
    )
    step = form['step']
    if step:
      line += (
        f'{step["step_ms"]["mean"]:>10.1f}{step["input_wait_share"]:>9.1%}'
        f'{step["input_bound_fraction"]:>13.1%}'
      )
    lines.append(line)
  if found['device_step_ms']:
    lines.append(
      f'stage {record["workload"]["stage"]} on one batch that stays on the '
      f'device: {found["device_step_ms"]["mean"]:.1f} ms per step'
    )
  return '\n'.join(lines)


def _domain_line(key: str, domain: Values) -> str:
  """One stream: whose frames, how many, of which size."""
  shape = lambda size: 'x'.join(map(str, size))
  sizes = ', '.join(map(shape, domain['raw_hw']))
  text = f'{key} {domain["dataset"]}: {domain["images"]} '
  if domain['frames'] == 'rendered':
    text += 'rendered frames (real ones compress differently) of '
  else:
    text += 'prepared frames of '
  if domain['same_size']:
    return f'{text}{sizes}, the size of training: raw and pre-resized are one'
  return f'{text}{sizes} to {shape(domain["resized_hw"])}, {domain["resize"]}'
