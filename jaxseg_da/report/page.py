"""report.html of a run: one file that needs nothing else to be looked at.

Curves are inline SVG, pictures are inside as base64, the style follows the
reader's light or dark setting. The page is made from what the work directory
holds, so it can be written again at any time; what is not there is left out.
"""

from __future__ import annotations

import base64
import html
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxseg_da.classes import labels as label_tables
from jaxseg_da.drawing import charts, html_pieces
from jaxseg_da.evaluation import tables
from jaxseg_da.experiment import results as results_lib
from jaxseg_da.report import steps
from jaxseg_da.training import progress as progress_lib
from jaxseg_da.training import writers

_HIDDEN = ('stage', 'step')


def write(workdir: str | os.PathLike) -> pathlib.Path:
  """Writes `report.html` from the files of a work directory.

  Args:
    workdir: has some of config.json, metrics.jsonl, results.json, images/.

  Returns:
    The path of the report.
  """
  folder = pathlib.Path(workdir)
  results = _json(folder / 'results.json') or {}
  config = _json(folder / 'config.json') or {}
  records = writers.read_jsonl(folder / 'metrics.jsonl')
  pictures = sorted((folder / 'images').glob('*.png'))
  # Those that stages left themselves.
  pictures += sorted(folder.glob('stages/*/artifacts/*.png'))
  body = (
    _header(results),
    _stages(results),
    steps.section(results.get('steps'), _controls(results)),
    _curves(records),
    _classes(results),
    _pictures(pictures, results),
    _config(config),
  )
  title = html.escape(_title(results))
  page = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{title}</title>\n<style>{html_pieces.style()}{charts.STYLE}</style>\n</head>\n<body>\n<main>'
    f'{"".join(body)}</main>\n</body>\n</html>\n'
  )
  path = folder / 'report.html'
  fresh = path.with_name('report.html.tmp')
  fresh.write_text(page, encoding='utf-8')
  fresh.replace(path)
  return path


def _json(path: pathlib.Path) -> Any:
  return json.loads(path.read_text()) if path.exists() else None


def _title(results: Mapping[str, Any]) -> str:
  if not results:
    return 'A run that is not finished'
  return f'{results["method"]} on {results["benchmark"]}'


def _controls(results: Mapping[str, Any]) -> list[tables.Record]:
  """What gains are measured against; nothing before the run is finished."""
  return [*results_lib.controls({'stages': [], **results})]


def _header(results: Mapping[str, Any]) -> str:
  facts = [
    f'{key} {html.escape(str(results[key]))}'
    for key in ('seed', 'device', 'jax', 'git')
    if results.get(key) is not None
  ]
  final = results.get('evaluation')
  tiles = []
  if final:
    what = f'mIoU over {final["num_classes"]} classes, %'
    tiles.append((html_pieces.number(final['miou']), what))
    split = html.escape(final['split'])
    tiles.append((f'{final["images"]}', f'images of {split}'))
  gain = tables.gain(final, _controls(results))
  if gain is not None:
    tiles.insert(1, (html_pieces.number(gain, '+'), 'points over the control'))
  cells = ''.join(f'<div><b>{a}</b><span>{b}</span></div>' for a, b in tiles)
  return (
    f'<header><h1>{html.escape(_title(results))}</h1>'
    f'<p class="facts">{" · ".join(facts)}</p>'
    f'<div class="tiles">{cells}</div></header>\n'
  )


def _stages(results: Mapping[str, Any]) -> str:
  if not results.get('stages'):
    return ''
  controls, stages = _controls(results), results['stages']
  counts = [s['evaluation']['num_classes'] for s in stages if s['evaluation']]
  several = len({*counts}) > 1
  on_source = any(s.get('source_evaluation') for s in stages)
  head = ['stage', 'steps', 'seg. updates', 'time']
  head += ['classes'] if several else []
  head += ['mIoU', 'mIoU-16', 'mIoU-13', 'pixel acc.']
  head += ['vs control'] if controls else []
  head += ['source mIoU'] if on_source else []
  rows = []
  for stage in stages:
    found = stage['evaluation'] or {}
    values = [
      stage['steps'],
      stage['segmentation_updates'],
      progress_lib.duration(stage['seconds'] or 0),
    ]
    values += [found.get('num_classes', '–')] if several else []
    keys = ('miou', 'miou_16', 'miou_13', 'pixel_accuracy')
    values += [html_pieces.number(found.get(key)) for key in keys]
    cells = ''.join(map(html_pieces.cell, values))
    if controls:
      cells += html_pieces.gain(tables.gain(stage['evaluation'], controls))
    if on_source:
      source = stage.get('source_evaluation') or {}
      cells += html_pieces.cell(html_pieces.number(source.get('miou')))
    role = stage.get('role', 'main')
    name = html.escape(stage['name'])
    if role not in ('main', stage['name']):
      name += f' <small>{html.escape(role)}</small>'
    rows.append(html_pieces.row(name, cells))
  note = 'Target validation after each stage, in percent.'
  return (
    '<section><h2>Stages</h2>'
    + html_pieces.table(head, rows, note)
    + _best(results)
    + _warnings(results)
    + '</section>\n'
  )


def _best(results: Mapping[str, Any]) -> str:
  best = results.get('best')
  if not best or best.get('miou') is None:
    return ''
  value = html_pieces.number(best['miou'])
  return (
    f'<p class="note">Best snapshot: {value} mIoU. It was selected on target '
    'labels, so it is no fair result; the numbers above are those of the last '
    'step.</p>'
  )


def _warnings(results: Mapping[str, Any]) -> str:
  """What the stages' methods say has gone wrong."""
  return ''.join(
    f'<p class="note"><strong>{html.escape(stage["name"])}:</strong> '
    f'{html.escape(stage["warning"])}.</p>'
    for stage in results['stages']
    if stage.get('warning')
  )


def _curves(records: Sequence[Mapping[str, Any]]) -> str:
  """The total loss and the evaluations openly, all else folded away."""
  names = list(dict.fromkeys(k for r in records for k in r))
  found = {}
  for name in names:
    series = _series(records, name)
    # A number that was logged once per stage is in the tables.
    if progress_lib.is_loss(name) or any(
      len(xs) > 1 for xs, _ in series.values()
    ):
      found[name] = charts.lines(name, series)
  shown = [n for n in found if progress_lib.is_loss(n) or n == 'eval/miou']
  rest = [n for n in found if n not in shown and found[n]]
  first = ''.join(found[n] for n in shown)
  more = ''.join(found[n] for n in rest)
  if not (first or more):
    return ''
  if more:
    count = f'more curves ({len(rest)})'
    more = f'<details><summary>{count}</summary>{more}</details>'
  return f'<section><h2>Curves</h2>{first}{more}</section>\n'


def _series(
  records: Sequence[Mapping[str, Any]], name: str
) -> dict[str, charts.Points]:
  """Steps and values of one number by stage, all stages in order of the run."""
  found: dict[str, tuple[list, list]] = {}
  for record in records:
    xs, ys = found.setdefault(str(record.get('stage', '')), ([], []))
    value = record.get(name)
    if name not in _HIDDEN and isinstance(value, (int, float)):
      xs.append(record.get('step', 0))
      ys.append(value)
  return {stage: (xs, ys) for stage, (xs, ys) in found.items()}


def _classes(results: Mapping[str, Any]) -> str:
  final = results.get('evaluation')
  if not final:
    return ''
  comparable = [
    c for c in _controls(results) if tables.gain(final, [c]) is not None
  ]
  control = comparable[-1] if comparable else None
  head = ['class', *(['control'] if control else []), 'result']
  head += ['difference'] if control else []
  bases = {**control['iou'], 'mean': control['miou']} if control else {}
  rows = []
  for name, value in {**final['iou'], 'mean': final['miou']}.items():
    cells = html_pieces.bar(value)
    if control:
      gain = tables.difference(value, bases[name])
      cells = html_pieces.bar(bases[name]) + cells + html_pieces.gain(gain)
    label = html_pieces.named(name, final)
    rows.append(html_pieces.row(label, cells, total=name == 'mean'))
  note = 'IoU in percent; a dash: the class is in neither labels nor result.'
  table = html_pieces.table(head, rows, note)
  return f'<section><h2>Classes</h2>{table}</section>\n'


def _pictures(paths: Sequence[pathlib.Path], results: Mapping[str, Any]) -> str:
  if not paths:
    return ''
  figures, seen = [], set()
  for path in paths:
    data = base64.b64encode(path.read_bytes()).decode('ascii')
    if data in seen:  # several stages may have left the same
      continue
    seen.add(data)
    name = html.escape(path.stem.replace('_', ' '))
    what = 'image, truth and predictions side by side'
    if path.parent.name == 'artifacts':
      stage = path.parents[1].name.partition('_')[2]
      name = html.escape(f'{stage}: {path.stem}').replace('_', ' ')
      what = 'a picture that the stage left'
    figures.append(
      f'<figure><img src="data:image/png;base64,{data}" alt="{name}: {what}">'
      f'<figcaption>{name}</figcaption></figure>'
    )
  final = results.get('evaluation') or {'iou': label_tables.NAMES}
  classes = ''.join(
    f'<li>{html_pieces.named(n, final)}</li>' for n in final['iou']
  )
  # With steps each picture has a legend per step.
  legend = '' if results.get('steps') else f'<ul class="legend">{classes}</ul>'
  return f'<section><h2>Pictures</h2>{legend}{"".join(figures)}</section>\n'


def _config(config: Mapping[str, Any]) -> str:
  if not config:
    return ''
  text = html.escape(json.dumps(config, indent=2))
  return (
    '<section><h2>Configuration</h2><details><summary>config.json</summary>'
    f'<pre>{text}</pre></details></section>\n'
  )
