"""A pass of predictions over a data set, for what methods do before a stage.

Every process predicts its share, one image per device and call: so the result
does not depend on the number of devices or processes, to the last bit. Parts
are written as they are finished; an interrupted pass goes on behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

from jaxseg_da.data import pipeline
from jaxseg_da.training import checkpoint, contract, parallel, progress

PART = 512  # Images per file.


def over_dataset(
  context: contract.StageContext,
  domain: contract.Domain,
  function: Callable,
  name: str,
  rows: Sequence[int] | None = None,
) -> dict[str, np.ndarray]:
  """What `function` makes of the images of a domain.

  Args:
    context: of the stage; needs a state that predicts.
    domain: data set, size and resize mode; images are not cropped.
    function: `(forward, images [1, H, W, 3]) -> {name: [1, ...]}`, pure, as
      `StageContext.predictor` takes it; small results of at most 32 bits.
    name: of the folder in `context.folder`, and in the progress line.
    rows: positions in the data set; None for all of them.

  Returns:
    name -> `[N, ...]`, in the order of `rows`, the same on all processes.
  """
  source = context.open_dataset(domain.spec)
  rows = range(len(source)) if rows is None else rows
  starts = range(0, len(rows), PART)
  files = [context.folder / name / f'{start:06d}.npz' for start in starts]
  done = parallel.agreed(sum(file.exists() for file in files))
  assert context.predictor is not None, 'the stage starts from nothing'
  predict = context.predictor(function)
  bar = progress.Progress(
    f'{context.stage}: {name}',
    min(done * PART, len(rows)),
    len(rows),
    enabled=jax.process_index() == 0,
  )
  for start, file in [*zip(starts, files, strict=True)][done:]:
    part = rows[start : start + PART]
    found = _gathered(own(predict, source, domain, part))
    if jax.process_index() == 0:
      checkpoint.write_arrays(file, found)
    bar.update(start + len(part))
  bar.close()
  parallel.barrier(f'{context.stage} {name}')
  parts = [_read(file) for file in files]
  return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}


def own(
  predict: Callable, source, domain: contract.Domain, rows: Sequence[int]
) -> Iterator[dict[str, np.ndarray]]:
  """What this process predicts, batch by batch, with `position` in `rows`."""
  batches = pipeline.image_batches(
    source,
    rows,
    jax.device_count(),
    jax.process_index(),
    jax.process_count(),
    size=domain.size if any(domain.size) else None,
    resize=domain.resize,
  )
  with batches:
    for batch in batches:
      outputs = jax.device_get(predict(batch['image']))
      yield {**outputs, 'position': batch['position']}


def _gathered(batches: Iterable[dict[str, np.ndarray]]):
  """Outputs of all processes, in the order of their rows."""
  collected = [*batches]
  mine = {
    key: np.concatenate([outputs[key] for outputs in collected])
    for key in collected[0]
  }
  # [processes, rows of each, ...]
  found = parallel.gathered(mine)
  found = {key: x.reshape(-1, *x.shape[2:]) for key, x in found.items()}
  position = found.pop('position')
  order = np.argsort(position, kind='stable')
  order = order[position[order] >= 0]  # The others only fill the last batch.
  return {key: x[order] for key, x in found.items()}


def _read(file) -> dict[str, np.ndarray]:
  with np.load(file) as found:
    return dict(found)
