"""Which target images a self-training round uses, class by class.

Subhani and Ali, Learning from Scale-Invariant Examples (ECCV 2020): every class
takes the images in which it is predicted most confidently, and a threshold from
the first image that it does not take. Of each image only C sums and counts are
kept, so a target set never has to fit into memory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da import errors
from jaxseg_da.losses import terms


class Selection(NamedTuple):
  """The images of a round.

  Attributes:
    indices: i64 `[K]`, selected images, those of class 0 first.
    threshold_images: per class the image its threshold is estimated on, or
      None where there is none: the threshold is then 1.
    predicted: i64 `[C]`, images in which the class is predicted.
    selected: i64 `[C]`, how many of them the class selects; classes may select
      the same ones.
  """

  indices: np.ndarray
  threshold_images: tuple[int | None, ...]
  predicted: np.ndarray
  selected: np.ndarray


def confidence_sums(probabilities: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Summed largest probability and number of pixels by predicted class.

  Of one image, so that one device makes the whole sum. A reduction, not a
  scatter: its order is fixed by the program. Where bits have to agree for any
  number of devices, apply it image by image (`jax.lax.map`), because a program
  for a larger batch may add in another order.

  Args:
    probabilities: float `[H, W, C]`.

  Returns:
    sums: `[C]`, float32 or better; counts: i32 `[C]`.
  """
  num_classes = probabilities.shape[-1]
  best = jnp.max(probabilities, axis=-1)
  best = best.astype(terms.loss_dtype(best.dtype))
  classes = jnp.arange(num_classes)[:, None, None]
  hit = jnp.argmax(probabilities, axis=-1) == classes
  # Rows first: short sums round less than one over all pixels.
  sums = jnp.sum(jnp.where(hit, best, 0), axis=2)
  return jnp.sum(sums, axis=1), jnp.sum(hit, axis=(1, 2), dtype=jnp.int32)


def class_confidence(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Mean confidence f64 `[..., C]`; NaN where a class is not predicted."""
  sums, counts = np.asarray(sums, np.float64), np.asarray(counts)
  result = np.full(sums.shape, np.nan)
  return np.divide(sums, counts, out=result, where=counts > 0)


def select(
  confidences: np.ndarray,
  portion: float,
  names: Sequence[str],
  skip_classes: Collection[int] = (),
  divisor: int = 19,
  minimum: int = 0,
) -> Selection:
  """Selects the images of a round.

  Class c, predicted in N images, takes the first `int(N * (portion / divisor))`
  of them by confidence and, where that is equal, by name, both descending.

  Args:
    confidences: float `[N, C]`, from `class_confidence`; NaN or a negative
      number where a class is not predicted.
    portion: of the round, in float64.
    names: N file names.
    skip_classes: select nothing and have no threshold (those that the source
      lacks).
    divisor: 19 in the paper, for SYNTHIA as well.
    minimum: images that a class takes at least, where there are as many.

  Raises:
    ValueError: `names` and `confidences` differ in length.
  """
  if len(confidences) != len(names):
    raise ValueError(f'{len(names)} names for {len(confidences)} images')
  chosen: list[int] = []
  threshold_images: list[int | None] = []
  predicted, selected = [], []
  for c, column in enumerate(np.transpose(confidences)):
    images = _ranked(column, names)
    predicted.append(len(images))
    if c in skip_classes:
      images = []
    first = images[: max(minimum, int(len(images) * (portion / divisor)))]
    rest = images[len(first) :]
    chosen.extend(first)
    selected.append(len(first))
    threshold_images.append(rest[0] if rest else None)
  return Selection(
    indices=np.array(list(dict.fromkeys(chosen)), np.int64),
    threshold_images=tuple(threshold_images),
    predicted=np.array(predicted, np.int64),
    selected=np.array(selected, np.int64),
  )


def _ranked(column: np.ndarray, names: Sequence[str]) -> list[int]:
  """Images with a confidence, by it and then by name, descending."""
  images = (int(image) for image in np.flatnonzero(column >= 0))
  return sorted(images, key=lambda i: (column[i], names[i]), reverse=True)


def class_threshold(
  normalised: np.ndarray, classes: np.ndarray, c: int
) -> float:
  """Mean normalised entropy of class c: its threshold.

  Args:
    normalised: float `[H, W]`, from `losses.entropy.class_normalised`, of the
      class's threshold image.
    classes: int `[H, W]`, predicted there.
    c: the class.

  Returns:
    A float64 mean; NaN where the class's entropies are; 1 where the class is
    not predicted.
  """
  values = np.asarray(normalised)[np.asarray(classes) == c]
  return float(np.mean(values, dtype=np.float64)) if values.size else 1.0


def portions(start: float, step: float, stop: float) -> tuple[float, ...]:
  """Portion of each round: `start`, then `step` more, up to `stop`.

  Added up one by one, as the published code does: products of portions are
  rounded down, so their last bit counts.

  Raises:
    UserError: no round, or no end of them.
  """
  if step <= 0 or start <= 0 or start > stop:
    raise errors.UserError(
      f'portions from {start} to {stop} in steps of {step} make no rounds; '
      f'start and step have to be positive, and stop no less than start'
    )
  result = [start]
  # A rounding error must not cost the last round.
  while result[-1] + step <= stop + 1e-9:
    result.append(result[-1] + step)
  return tuple(result)
