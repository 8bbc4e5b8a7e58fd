"""Line charts as inline SVG, with axes and a legend.

Lines differ by dash pattern as well as by colour. The colours are variables of
the page, `--s0` to `--s7`, so that they follow a light or dark scheme.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

Points = tuple[Sequence[float], Sequence[float]]
_MAX_POINTS = 200
_DASHES = ('', '8 4', '2 3', '10 3 2 3', '5 5', '12 4', '1 4', '6 2 2 2')
_STYLES = len(_DASHES)

STYLE = """
svg text { fill: var(--soft); font-size: 12px }
.grid { stroke: var(--rule) } .tick { stroke: var(--soft) }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.key { width: 28px; height: 10px; margin-right: .4rem }
""" + ''.join(
  f'.line.s{i} {{ stroke: var(--s{i}); stroke-dasharray: {dash or "none"} }} '
  f'.dot.s{i} {{ fill: var(--s{i}) }}\n'
  for i, dash in enumerate(_DASHES)
)


def lines(name: str, series: Mapping[str, Points]) -> str:
  """A line chart as inline SVG, with axes and a legend.

  Args:
    name: what the vertical axis shows.
    series: steps and values by line name, whose position decides the style;
      values that are not finite are left out, long lines are averaged to 200
      points.

  Returns:
    A `<figure>`; an empty string where there is no point to draw.
  """
  drawn = {}
  for key, (xs, ys) in series.items():
    points = [
      (float(x), float(y))
      for x, y in zip(xs, ys, strict=True)
      if y is not None and math.isfinite(y)
    ]
    if points:
      drawn[key] = _thinned(points)
  if not drawn:
    return ''
  every = [p for points in drawn.values() for p in points]
  x_ticks = ticks(0.0, max(x for x, _ in every))
  y_ticks = ticks(min(y for _, y in every), max(y for _, y in every))
  left, top, width, height = 64, 12, 636, 220

  def place(x: float, y: float) -> tuple[float, float]:
    across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
    up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
    return left + width * across, top + height * (1 - up)

  parts = []
  for x in x_ticks:
    at, _ = place(x, y_ticks[0])
    parts.append(
      f'<line class="tick" x1="{at:.1f}" y1="{top + height}" x2="{at:.1f}" '
      f'y2="{top + height + 5}"/><text x="{at:.1f}" y="{top + height + 20}" '
      f'text-anchor="middle">{x:g}</text>'
    )
  for y in y_ticks:
    _, at = place(0.0, y)
    parts.append(
      f'<line class="grid" x1="{left}" y1="{at:.1f}" x2="{left + width}" '
      f'y2="{at:.1f}"/><text x="{left - 8}" y="{at + 4:.1f}" '
      f'text-anchor="end">{y:g}</text>'
    )
  legend = []
  order = list(series)
  for key, points in drawn.items():
    i = order.index(key)
    label = html.escape(key)
    spots = [place(*p) for p in points]
    path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in spots)
    tip = f'<title>{label}: {points[-1][1]:.4g} at the end</title>'
    parts.append(f'<polyline class="line s{i % _STYLES}" points="{path}">{tip}')
    parts.append('</polyline>')
    x, y = spots[-1]
    parts.append(
      f'<circle class="dot s{i % _STYLES}" cx="{x:.1f}" cy="{y:.1f}" '
    )
    parts.append(f'r="3.5">{tip}</circle>')
    legend.append(
      '<li><svg class="key" viewBox="0 0 28 10" aria-hidden="true">'
      f'<line class="line s{i % _STYLES}" x1="0" y1="5" x2="28" y2="5"/></svg>'
      f'{label}</li>'
    )
  title = html.escape(name)
  label = html.escape(f'{name} by step: {", ".join(drawn)}')
  return (
    f'<figure><figcaption>{title}</figcaption>'
    f'<svg viewBox="0 0 728 272" role="img" aria-label="{label}">'
    f'{"".join(parts)}<text x="{left + width}" y="{top + height + 36}" '
    f'text-anchor="end">step</text></svg>'
    f'<ul class="legend">{"".join(legend)}</ul></figure>\n'
  )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
  """Round numbers that enclose `low..high`, about `count` of them, ascending.

  At least two, also where both ends are the same.
  """
  if high <= low:
    high = low + (abs(low) or 1.0)
  rough = (high - low) / count
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  return [float(f'{i * step:.12g}') for i in range(first, last + 1)]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
  """Means of neighbours where there are too many points to tell apart."""
  size = -(-len(points) // _MAX_POINTS)
  groups = [points[i : i + size] for i in range(0, len(points), size)]
  return [
    (sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g))
    for g in groups
  ]
