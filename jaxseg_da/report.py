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

import numpy as np

from jaxseg_da import charts, tables, visual, writers
from jaxseg_da import labels as label_tables
from jaxseg_da import progress as progress_lib

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
  # What stages wrote about their host passes.
  pictures += sorted(folder.glob('stages/*/artifacts/*.png'))
  body = (
    _header(results),
    _stages(results),
    _curves(records),
    _classes(results),
    _pictures(pictures, results),
    _config(config),
  )
  title = html.escape(_title(results))
  page = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{title}</title>\n<style>{_style()}{charts.STYLE}</style>\n</head>\n<body>\n<main>'
    f'{"".join(body)}</main>\n</body>\n</html>\n'
  )
  path = folder / 'report.html'
  fresh = path.with_name('report.html.tmp')
  fresh.write_text(page, encoding='utf-8')
  fresh.replace(path)
  return path


def summary_images(
  directory: str | os.PathLike,
  images: Sequence[np.ndarray],
  truth: Sequence[np.ndarray],
  predictions: Mapping[str, Sequence[np.ndarray]],
  colours: np.ndarray = label_tables.COLOURS,
  height: int = 192,
) -> list[pathlib.Path]:
  """Writes a panel per example: image, truth, one prediction per model.

  Args:
    directory: created where missing; older `example_*.png` are replaced.
    images: n images u8 `[H, W, 3]`.
    truth: n labels, train ids `[H, W]` or `[H, W, 1]`.
    predictions: by caption, n predicted labels each.
    colours: u8 `[C, 3]`.
    height: of each picture in pixels.

  Returns:
    The files, `example_00.png` and so on.

  Raises:
    ValueError: the lists differ in length.
  """
  folder = pathlib.Path(directory)
  folder.mkdir(parents=True, exist_ok=True)
  for old in folder.glob('example_*.png'):
    old.unlink()
  files = []
  rows = zip(images, truth, *predictions.values(), strict=True)
  for index, (image, label, *guesses) in enumerate(rows):
    row = [('image', image), ('truth', visual.colourise(label, colours))]
    for name, guess in zip(predictions, guesses, strict=True):
      row.append((name, visual.colourise(guess, colours)))
    path = folder / f'example_{index:02d}.png'
    path.write_bytes(visual.encode_png(visual.panel(row, height)))
    files.append(path)
  return files


def _style() -> str:
  """The page's own style sheet."""
  return pathlib.Path(__file__).with_suffix('.css').read_text()


def _json(path: pathlib.Path) -> Any:
  return json.loads(path.read_text()) if path.exists() else None


def _title(results: Mapping[str, Any]) -> str:
  if not results:
    return 'A run that is not finished'
  return f'{results["method"]} on {results["benchmark"]}'


def _number(value: float | None, sign: str = '', digits: int = 1) -> str:
  """A number with a real minus sign; a dash where there is none."""
  if value is None:
    return '–'
  return f'{value:{sign}.{digits}f}'.replace('-', '−')


def _gain(value: float | None) -> str:
  """A cell that shows a difference by sign, arrow and colour."""
  if value is None:
    return '<td class="n">–</td>'
  kind = 'up' if value >= 0.05 else 'down' if value <= -0.05 else 'same'
  arrow = {'up': '▲', 'down': '▼', 'same': ''}[kind]
  return f'<td class="n {kind}">{arrow} {_number(value, "+")}</td>'


def _header(results: Mapping[str, Any]) -> str:
  facts = [
    f'{key} {html.escape(str(results[key]))}'
    for key in ('seed', 'device', 'jax', 'git')
    if results.get(key) is not None
  ]
  final, control = results.get('evaluation'), results.get('control')
  tiles = []
  if final:
    what = f'mIoU over {final["num_classes"]} classes, %'
    tiles.append((_number(final['miou']), what))
    split = html.escape(final['split'])
    tiles.append((f'{final["images"]}', f'images of {split}'))
  if final and control:
    gain = tables.difference(final['miou'], control['miou'])
    tiles.insert(1, (_number(gain, '+'), 'points over the control'))
  cells = ''.join(f'<div><b>{a}</b><span>{b}</span></div>' for a, b in tiles)
  return (
    f'<header><h1>{html.escape(_title(results))}</h1>'
    f'<p class="facts">{" · ".join(facts)}</p>'
    f'<div class="tiles">{cells}</div></header>\n'
  )


def _stages(results: Mapping[str, Any]) -> str:
  if not results.get('stages'):
    return ''
  control, stages = results.get('control'), results['stages']
  head = ['stage', 'steps', 'seg. updates', 'time', 'mIoU', 'mIoU-16']
  head += ['mIoU-13', 'pixel acc.'] + (['vs control'] if control else [])
  on_source = any(s.get('source_evaluation') for s in stages)
  head += ['source mIoU'] if on_source else []
  rows = []
  for stage in stages:
    found = stage.get('evaluation') or {}
    values = [
      stage['steps'],
      stage['segmentation_updates'],
      progress_lib.duration(stage['seconds'] or 0),
    ]
    keys = ('miou', 'miou_16', 'miou_13', 'pixel_accuracy')
    values += [_number(found.get(key)) for key in keys]
    cells = ''.join(f'<td class="n">{value}</td>' for value in values)
    if control:
      gain = tables.difference(found.get('miou'), control['miou'])
      cells += _gain(None if found == control else gain)
    if on_source:
      source = stage.get('source_evaluation') or {}
      cells += f'<td class="n">{_number(source.get("miou"))}</td>'
    role = stage.get('role', 'main')
    name = html.escape(stage['name'])
    tag = '' if role == 'main' else f' <small>{html.escape(role)}</small>'
    rows.append(f'<tr><th scope="row">{name}{tag}</th>{cells}</tr>')
  return (
    '<section><h2>Stages</h2>'
    + _table(head, rows, 'Target validation after each stage, in percent.')
    + _best(results)
    + _warnings(results)
    + '</section>\n'
  )


def _best(results: Mapping[str, Any]) -> str:
  best = results.get('best')
  if not best or best.get('miou') is None:
    return ''
  return (
    f'<p class="note">Best snapshot: {_number(best["miou"])} mIoU. It was '
    'selected on target labels, so it is no fair result; the numbers above '
    'are those of the last step.</p>'
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
  final, control = results.get('evaluation'), results.get('control')
  if not final:
    return ''
  head = ['class'] + (['control'] if control else []) + ['result']
  head += ['difference'] if control else []
  rows = []
  for name, value in {**final['iou'], 'mean': final['miou']}.items():
    cells = _bar(value)
    if control:
      base = control['iou'].get(name) if name != 'mean' else control['miou']
      cells = _bar(base) + cells + _gain(tables.difference(value, base))
    chip = '' if name == 'mean' else _chip(name)
    kind = ' class="total"' if name == 'mean' else ''
    label = f'{chip}{html.escape(name)}'
    rows.append(f'<tr{kind}><th scope="row">{label}</th>{cells}</tr>')
  note = 'IoU in percent; a dash: the class is in neither labels nor result.'
  return f'<section><h2>Classes</h2>{_table(head, rows, note)}</section>\n'


def _bar(value: float | None) -> str:
  size = f'<i style="width:{value:.1f}%"></i>' if value is not None else ''
  return (
    f'<td class="n"><span class="bar">{size}</span>'
    f'<span class="value">{_number(value)}</span></td>'
  )


def _chip(name: str) -> str:
  if name not in label_tables.NAMES:
    return ''
  red, green, blue = label_tables.COLOURS[label_tables.NAMES.index(name)]
  return f'<i class="chip" style="background:rgb({red},{green},{blue})"></i>'


def _table(head: Sequence[str], rows: Sequence[str], caption: str) -> str:
  cells = ''.join(f'<th scope="col">{html.escape(h)}</th>' for h in head)
  return (
    f'<div class="scroll"><table><caption>{html.escape(caption)}</caption>'
    f'<thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    '</div>'
  )


def _pictures(paths: Sequence[pathlib.Path], results: Mapping[str, Any]) -> str:
  if not paths:
    return ''
  figures = []
  for path in paths:
    data = base64.b64encode(path.read_bytes()).decode('ascii')
    name = html.escape(path.stem.replace('_', ' '))
    what = 'image, truth and predictions side by side'
    if path.parent.name == 'artifacts':
      stage = path.parents[1].name.partition('_')[2]
      name = html.escape(f'{stage}: {path.stem}').replace('_', ' ')
      what = 'what the stage was trained on'
    figures.append(
      f'<figure><img src="data:image/png;base64,{data}" alt="{name}: {what}">'
      f'<figcaption>{name}</figcaption></figure>'
    )
  final = results.get('evaluation') or {'iou': label_tables.NAMES}
  classes = ''.join(
    f'<li>{_chip(n)}{html.escape(n)}</li>' for n in final['iou']
  )
  return (
    f'<section><h2>Pictures</h2><ul class="legend">{classes}</ul>'
    f'{"".join(figures)}</section>\n'
  )


def _config(config: Mapping[str, Any]) -> str:
  if not config:
    return ''
  text = html.escape(json.dumps(config, indent=2))
  return (
    '<section><h2>Configuration</h2><details><summary>config.json</summary>'
    f'<pre>{text}</pre></details></section>\n'
  )
