"""Segmentation quality at native resolution, and the tables that show it.

The network may see a resized image; its logits are brought to the size of the
label, and every labelled pixel of the original counts once. Counts are made on
the device, in integers; batches and processes are summed on the host in int64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da import errors
from jaxseg_da.data import transforms
from jaxseg_da.evaluation import metrics
from jaxseg_da.ops import resize as resize_ops

Predictor = Callable[[np.ndarray], jax.Array]
Size = tuple[int, int]

# Native images are padded to a multiple of this, so that data with many
# slightly different sizes compile few programs.
_GRID = 32
MODES = ('whole', 'sliding')
UPSAMPLED = ('logits', 'probabilities')
LABELS = ('native', 'input')


class Options(NamedTuple):
  """How images go through the network; the block `config.evaluate` has these.

  Attributes:
    size: (height, width) of the network's input; (0, 0) leaves images as they
      are, padded at the right and the bottom to multiples of 32.
    mode: 'whole', or 'sliding': windows, their overlapping logits averaged.
    window: (height, width) of a window.
    stride: (height, width) between windows.
    scales: factors of the input size; class probabilities are averaged.
    flip: average with the mirrored image, too.
    upsample: what is interpolated: 'logits', or 'probabilities', whose largest
      is another class where classes meet; so does LSE's released code.
    labels: 'native', or 'input': brought to `size`, nearest neighbour, so that
      small objects count for less; so do the released codes of MaxSquare, CCDA.
  """

  size: Size = (0, 0)
  mode: str = 'whole'
  window: Size = (512, 1024)
  stride: Size = (341, 683)
  scales: tuple[float, ...] = (1.0,)
  flip: bool = False
  upsample: str = 'logits'
  labels: str = 'native'


WHOLE = Options()


def evaluate(
  predictor: Predictor,
  batches: Iterable[Mapping[str, np.ndarray]],
  *,
  split: str,
  num_classes: int,
  names: Sequence[str],
  subsets: Mapping[int, Sequence[int]] | None = None,
  evaluate_config: Any = WHOLE,
  resize: str = 'pil_bicubic',
  device_confusion: Callable | None = None,
  allreduce: Callable[[np.ndarray], np.ndarray] = lambda x: x,
) -> tuple[dict[str, Any], np.ndarray]:
  """Evaluates a predictor on a labelled split.

  Args:
    predictor: u8 `[b, H, W, 3]` -> logits `[b, h, w, C]`.
    batches: dicts of `image` u8 `[b, H, W, 3]`, `label` u8 `[b, H', W', 1]`
      (train ids, 255 ignored) and optionally `mask` `[b]`, false for rows that
      only fill up the batch. Sizes may change from batch to batch; each new
      one compiles once.
    split: name for the record.
    num_classes: C.
    names: C class names.
    subsets: class indices of the 16- and 13-class means, `labels.SUBSETS`.
    evaluate_config: has the attributes of `Options`.
    resize: mode of `data.transforms` that makes the input size.
    device_confusion: `(label [b, H, W], scores [b, H, W, C], mask [b]) ->
      int32 [C, C]` instead of arg-max and `metrics.confusion`.
    allreduce: sums an int64 array over processes that hold different rows.

  Returns:
    The evaluation record (percent, JSON-ready) and the counts int64 `[C, C]`,
    rows truth, columns prediction.

  Raises:
    UserError: no image, no labelled pixel, or invalid options.
    ValueError: the predictor has another number of classes.
  """
  options = check(evaluate_config)
  count = device_confusion or functools.partial(_count, num_classes=num_classes)
  total = np.zeros((num_classes, num_classes), np.int64)
  images, pending = 0, None
  for batch in batches:
    label = _at_input(np.asarray(batch['label'])[..., 0], options)
    mask = np.asarray(batch.get('mask', np.ones(len(label)))).astype(bool)
    if not mask.any():
      continue
    size = (label.shape[1], label.shape[2])
    found = scores(predictor, batch['image'], size, options, resize)
    if found.shape[-1] != num_classes:
      raise ValueError(
        f'the predictor has {found.shape[-1]} classes, not {num_classes}'
      )
    counts = count(label, found, mask)
    # Fetched one batch late: the host prepares while the device computes.
    if pending is not None:
      total += np.asarray(pending)
    pending, images = counts, images + int(mask.sum())
  if pending is not None:
    total += np.asarray(pending)
  summed = np.asarray(allreduce(np.append(total.ravel(), images)))
  total, images = summed[:-1].reshape(total.shape), int(summed[-1])
  if not images:
    raise errors.UserError(f'split {split!r} has no image to evaluate on')
  if not total.any():
    raise errors.UserError(
      f'split {split!r} has no labelled pixel in {images} images'
    )
  record = {
    'task': 'segmentation',
    'split': split,
    'images': images,
    'num_classes': num_classes,
    **metrics.summary(total, names, subsets),
    'input_size': list(options.size) if any(options.size) else None,
    'mode': options.mode,
    'scales': list(options.scales),
    'flip': options.flip,
    'upsample': options.upsample,
    'labels': options.labels,
  }
  return record, total


def check(config: Any) -> Options:
  """Takes the options out of a config block.

  Raises:
    UserError: one of them is invalid; names the key.
  """
  values = {name: getattr(config, name) for name in Options._fields}
  for name in ('size', 'window', 'stride', 'scales'):
    values[name] = tuple(values[name])
  options = Options(**values)
  if options.mode not in MODES:
    raise errors.unknown('config.evaluate.mode', options.mode, MODES)
  if options.upsample not in UPSAMPLED:
    name = 'config.evaluate.upsample'
    raise errors.unknown(name, options.upsample, UPSAMPLED)
  if options.labels not in LABELS:
    raise errors.unknown('config.evaluate.labels', options.labels, LABELS)
  if not options.scales or min(options.scales) <= 0:
    raise errors.UserError(
      f'config.evaluate.scales={options.scales} must be positive numbers'
    )
  pairs = zip(options.window, options.stride, strict=True)
  if options.mode == 'sliding' and not all(w >= s > 0 for w, s in pairs):
    raise errors.UserError(
      f'config.evaluate.stride={options.stride} must be positive and not '
      f'exceed config.evaluate.window={options.window}'
    )
  return options


def _at_input(labels: np.ndarray, options: Options) -> np.ndarray:
  """Labels `[b, H, W]` at the size that they are compared at."""
  if options.labels == 'native' or not any(options.size):
    return labels
  return _resized(labels, options.size, 'nearest')


def scores(
  predictor: Predictor,
  images: np.ndarray,
  size: Size,
  options: Options = WHOLE,
  resize: str = 'pil_bicubic',
) -> jax.Array:
  """Class scores of images at a wanted size.

  Args:
    predictor: u8 `[b, H, W, 3]` -> logits `[b, h, w, C]`.
    images: u8 `[b, H, W, 3]`.
    size: (height, width) of the result, usually that of the label.
    options: see `Options`.
    resize: mode of `data.transforms` for the images.

  Returns:
    `[b, *size, C]`, float32 at least: logits, or probabilities where these are
    upsampled or several scales or mirrored images are averaged.
  """
  images, target = np.asarray(images), size
  if any(options.size):
    images = _resized(images, options.size, resize)
  elif images.shape[1:3] == tuple(size):
    images = _padded(images)
    target = (images.shape[1], images.shape[2])
  mirror = (False, True) if options.flip else (False,)
  views = [(scale, side) for scale in options.scales for side in mirror]
  predict, late = predictor, len(views) > 1  # where the softmax is taken
  if options.upsample == 'probabilities':
    predict, late = (lambda x: _softmax(predictor(x))), False
  total = None
  for scale, mirrored in views:
    height, width = (max(1, round(n * scale)) for n in images.shape[1:3])
    view = _resized(images, (height, width), resize)
    view = np.ascontiguousarray(view[:, :, ::-1]) if mirrored else view
    if options.mode == 'sliding':
      found = _sliding(predict, view, options.window, options.stride)
    else:
      found = predict(view)
    found = _upsample(found, target, mirrored, late)
    total = found if total is None else total + found
  if total is None:
    raise ValueError('no scale to evaluate at')
  return total[:, : size[0], : size[1]] / len(views)


def _resized(images: np.ndarray, size: Size, mode: str) -> np.ndarray:
  if images.shape[1:3] == tuple(size):
    return images
  return np.stack([transforms.resize(x, size, mode) for x in images])


def _padded(images: np.ndarray) -> np.ndarray:
  """Repeats the last row and column up to multiples of the grid."""
  down, right = (-n % _GRID for n in images.shape[1:3])
  if not (down or right):
    return images
  return np.pad(images, ((0, 0), (0, down), (0, right), (0, 0)), mode='edge')


def _at_least_float32(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@jax.jit
def _softmax(logits: jax.Array) -> jax.Array:
  return jax.nn.softmax(_at_least_float32(logits))


@functools.partial(jax.jit, static_argnames=('size', 'mirrored', 'softmax'))
def _upsample(
  values: jax.Array, size: Size, mirrored: bool = False, softmax: bool = False
) -> jax.Array:
  values = values[:, :, ::-1] if mirrored else values
  values = resize_ops.align_corners(_at_least_float32(values), size)
  return jax.nn.softmax(values) if softmax else values


@functools.partial(jax.jit, static_argnames='num_classes')
def _count(label, scores, mask, *, num_classes: int) -> jax.Array:
  predictions = jnp.argmax(scores, axis=-1)
  return metrics.confusion(label, predictions, num_classes, mask)


def _sliding(
  predictor: Predictor, images: np.ndarray, window: Size, stride: Size
) -> jax.Array:
  """Mean scores `[b, H, W, C]` over the windows that see a pixel."""
  size = images.shape[1:3]
  extent = tuple(min(w, n) for w, n in zip(window, size, strict=True))
  covered = np.zeros((1, *size, 1), np.int32)
  canvas = None
  for top in _starts(size[0], extent[0], stride[0]):
    for left in _starts(size[1], extent[1], stride[1]):
      rows, columns = slice(top, top + extent[0]), slice(left, left + extent[1])
      found = predictor(np.ascontiguousarray(images[:, rows, columns]))
      found = _upsample(found, extent)
      if canvas is None:
        # Made from the scores, so that it lies on the same devices.
        room = [(0, n - k) for n, k in zip(size, extent, strict=True)]
        canvas = jnp.pad(jnp.zeros_like(found), [(0, 0), *room, (0, 0)])
      canvas = _add_window(canvas, found, top, left)
      covered[:, rows, columns] += 1
  if canvas is None:
    raise ValueError(f'no window in images of {size}')
  return canvas / covered


def _starts(length: int, window: int, stride: int) -> Iterator[int]:
  """Window positions that cover 0..length; the last ends at the border."""
  last = length - window
  yield from range(0, last, stride)
  yield last


@jax.jit
def _add_window(canvas, values, top, left) -> jax.Array:
  corner = (0, top, left, 0)
  old = jax.lax.dynamic_slice(canvas, corner, values.shape)
  return jax.lax.dynamic_update_slice(canvas, old + values, corner)
