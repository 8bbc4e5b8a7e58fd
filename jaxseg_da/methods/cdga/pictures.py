"""What the groups have become: a picture of pixels, and a table of classes.

Written after a stage for its report, with the numbers in `groups.json`.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da import models
from jaxseg_da.classes import labels
from jaxseg_da.data import transforms
from jaxseg_da.drawing import visual
from jaxseg_da.methods import predictions
from jaxseg_da.training import checkpoint, contract

IMAGES = 32  # per domain, for the class distributions
SHOWN = 3  # of them, as pictures


def write(
  context: contract.StageContext, domains: Mapping[str, contract.Domain]
) -> None:
  """Writes `groups.png`, `group_classes.png` and `groups.json`.

  Args:
    context: of the finished stage; its method predicts `groups`, too.
    domains: the streams that it was trained on.
  """
  panels, tables = [], {}
  for name, domain in domains.items():
    source = context.open_dataset(domain.spec)
    rows = np.unique(
      np.linspace(0, len(source) - 1, IMAGES).round().astype(int)
    )
    found = predictions.over_dataset(
      context, domain, statistics, f'groups_{name}', [int(i) for i in rows]
    )
    masses = found['masses'].sum(axis=0, dtype=np.float64)
    sums = found['sums'].sum(axis=0, dtype=np.float64)
    tables[name] = (
      sums / np.maximum(masses, 1e-6)[:, None],
      masses / masses.sum(),
    )
    for at in range(0, len(rows), -(-len(rows) // SHOWN)):
      image = source.read(int(rows[at]), ('image',))['image']
      size = found['groups'][at].shape
      image = transforms.resize(image, size, domain.resize)
      maps = found['predicted'][at], found['groups'][at]
      panels.append(_panel(name, image, *maps, len(masses)))
  if jax.process_index() != 0:
    return
  folder = context.folder
  width = max(p.shape[1] for p in panels)
  page = np.concatenate([_widened(p, width) for p in panels])
  checkpoint.write_bytes(folder / 'groups.png', visual.encode_png(page))
  names = labels.NAMES[: context.config.data.num_classes]
  table = _table(tables, names)
  checkpoint.write_bytes(folder / 'group_classes.png', visual.encode_png(table))
  record = {
    name: {
      'masses': masses.round(6).tolist(),
      'classes': classes.round(6).tolist(),
    }
    for name, (classes, masses) in tables.items()
  }
  checkpoint.write_json(folder / 'groups.json', record)


def statistics(forward, images):
  """Per image: class sums `[K, C]` and masses `[K]` of the groups, and maps."""
  outputs = forward(images)
  groups = outputs['groups']
  size = groups.shape[1:3]
  probabilities = jax.nn.softmax(models.upsample(outputs['logits'], size))
  return {
    'sums': jnp.einsum('bhwk,bhwc->bkc', groups, probabilities),
    'masses': jnp.sum(groups, axis=(1, 2)),
    'groups': jnp.argmax(groups, axis=-1).astype(jnp.uint8),
    'predicted': jnp.argmax(probabilities, axis=-1).astype(jnp.uint8),
  }


def colours(count: int) -> np.ndarray:
  """Colours of groups, u8 `[K, 3]`: hues at equal distances."""
  hues = [colorsys.hsv_to_rgb(k / count, 0.75, 0.95) for k in range(count)]
  return (np.array(hues) * 255).round().astype(np.uint8)


def _panel(name, image, predicted, groups, count: int) -> np.ndarray:
  """Image, prediction and groups side by side."""
  return visual.panel(
    (
      (name, image),
      ('prediction', visual.colourise(predicted)),
      ('groups', visual.colourise(groups, colours(count))),
    ),
    128,
  )


def _widened(panel: np.ndarray, width: int) -> np.ndarray:
  """White added on the right."""
  rest = ((0, 0), (0, width - panel.shape[1]), (0, 0))
  return np.pad(panel, rest, constant_values=255)


def _table(tables, names: Sequence[str]) -> np.ndarray:
  """Class distributions of all groups, domain by domain."""
  return np.concatenate(
    [
      visual.heatmap(
        classes,
        [f'{name} {k}: {mass:.0%}' for k, mass in enumerate(masses)],
        names,
      )
      for name, (classes, masses) in tables.items()
    ]
  )
