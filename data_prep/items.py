"""From raw files to one encoded example; no TFDS import.

An example holds *encoded* images: the bytes of the original file where they can
stay as they are, otherwise PNG or JPEG. Worker processes live here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from data_prep import codecs, depth_files, raw
from jaxseg_da import errors
from jaxseg_da.classes import labels
from jaxseg_da.data import depth as depth_lib
from jaxseg_da.data import transforms

Example = dict[str, Any]
Size = tuple[int, int]

# How images are stored: lossless (their own bytes where they fit), or small.
ENCODINGS = ('keep', 'jpeg95')
# Images of the same place that an example may carry.
VIEWS = ('image_right', 'image_prev', 'image_next')


class Camera(NamedTuple):
  """A pinhole camera.

  Attributes:
    intrinsics: fx, fy, cx, cy in pixels of the raw image.
    baseline: metres to the right camera; 0 where there is none.
  """

  intrinsics: tuple[float, float, float, float]
  baseline: float = 0.0


class Item(NamedTuple):
  """The raw files of one example.

  Attributes:
    image_id: stable name, unique in the data set.
    image: the image file.
    label_name: where the label is expected, for messages; '' where none is.
    label: the label file, or None.
    depth: the depth file, or None.
    views: feature of `VIEWS` -> its file.
    camera: the camera, or the file that describes it, or None.
    forgive: why a label of another size than its image is accepted (and
      resized); '' where it is an error.
  """

  image_id: str
  image: raw.Entry
  label_name: str = ''
  label: raw.Entry | None = None
  depth: raw.Entry | None = None
  views: Mapping[str, raw.Entry] = {}
  camera: raw.Entry | Camera | None = None
  forgive: str = ''

  def files(self) -> list[raw.Entry]:
    """All files of the example."""
    several = (self.image, self.label, self.depth, self.camera)
    files = [file for file in several if isinstance(file, raw.Entry)]
    return [*files, *self.views.values()]


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What the examples of one build have in common; sent to its workers.

  Attributes:
    features: names of the stored features.
    read_label: bytes and name of a label file to raw ids u8 `[H, W]`.
    to_train_id: u8 `[256]`, raw id to train id.
    read_camera: bytes and name of a camera file to a `Camera`.
    size: (height, width) to store, or None for the files' own.
    resize: mode for images, see `transforms.MODES`.
    encoding: one of `ENCODINGS`.
    depth_kind: kind of depth, see `jaxseg_da.data.depth`.
    drop_one_class: why labels of a single class are left out; '' keeps them.
    any_scale: whether labels are outlines rather than pixels: those of another
      size are resized where the shape is that of the image, within 1 %.
  """

  features: tuple[str, ...]
  read_label: Callable[[bytes, str], np.ndarray]
  to_train_id: np.ndarray
  read_camera: Callable[[bytes, str], Camera] | None = None
  size: Size | None = None
  resize: str = 'pil_bicubic'
  encoding: str = 'keep'
  depth_kind: str = ''
  drop_one_class: str = ''
  any_scale: bool = False


class Dropped(Exception):
  """The example is left out; the message is the reason."""


def make(item: Item, recipe: Recipe) -> tuple[Example, Size]:
  """Reads, checks, maps and encodes one example.

  Returns:
    The example, and the (height, width) of its image.

  Raises:
    errors.UserError: names the file that is missing or wrong.
    Dropped: it is left out on purpose.
  """
  data, pixels = codecs.decode_image(raw.read(item.image), str(item.image))
  raw_size = (pixels.shape[0], pixels.shape[1])
  size = recipe.size or raw_size
  example = {'image_id': item.image_id, 'image': _image(data, pixels, recipe)}
  label = read_label(item, recipe, raw_size)
  if label is not None and size != raw_size:
    label = transforms.nearest(label, size)
  example |= label_features(label, size)
  if 'depth' in recipe.features:
    example['depth'] = codecs.encode_png(_depth(item, recipe, raw_size))
  for name in VIEWS:
    if name in recipe.features:
      example[name] = _view(item, name, recipe, raw_size)
  if 'intrinsics' in recipe.features:
    example |= _camera(item, recipe, raw_size)
  return example, size


def read_label(item: Item, recipe: Recipe, size: Size) -> np.ndarray | None:
  """Train ids u8 `[H, W]` of an example, None where it has no label.

  Args:
    item: the example.
    recipe: of the build.
    size: (height, width) of the raw image; the label has to have it.

  Raises:
    errors.UserError: broken, or of another size.
    Dropped: one class only, and the recipe drops such labels.
  """
  if item.label is None:
    return None
  ids = recipe.read_label(raw.read(item.label), str(item.label))
  if ids.shape != size:
    scaled = recipe.any_scale and same_shape(ids.shape, size)
    if not (item.forgive or scaled):
      raise errors.UserError(
        f'{item.label} is {shape_text(ids.shape)} but its image {item.image} '
        f'is {shape_text(size)}'
      )
    ids = transforms.nearest(ids, size)
  if recipe.drop_one_class and (ids == ids[0, 0]).all():
    raise Dropped(recipe.drop_one_class)
  return recipe.to_train_id[ids]


def same_shape(a: tuple[int, ...], b: Size) -> bool:
  """Whether two (height, width) differ in scale only."""
  return abs(a[0] * b[1] - a[1] * b[0]) <= 0.01 * a[1] * b[0]


def label_features(label: np.ndarray | None, size: Size) -> Example:
  """`label` and `class_histogram` of train ids u8 `[H, W]`.

  Args:
    label: train ids, or None where the example has no label: all 255.
    size: (height, width) of the image.
  """
  if label is None:
    label = np.full(size, labels.IGNORE, np.uint8)
  return {
    'label': codecs.encode_png(label),
    'class_histogram': class_histogram(label),
  }


def class_histogram(label: np.ndarray) -> np.ndarray:
  """Pixels per train id, i32 `[19]`; ignored pixels are left out."""
  counts = np.bincount(label.ravel(), minlength=256)
  return counts[: labels.NUM_CLASSES].astype(np.int32)


def _image(data: bytes, pixels: np.ndarray, recipe: Recipe) -> bytes:
  """Encoded bytes of an image; the file's own where nothing changes."""
  resized = pixels
  if recipe.size is not None:
    resized = transforms.resize(pixels, recipe.size, recipe.resize)
  if recipe.encoding == 'jpeg95':
    return codecs.encode_jpeg(resized)
  return data if data and resized is pixels else codecs.encode_png(resized)


def _depth(item: Item, recipe: Recipe, size: Size) -> np.ndarray:
  if item.depth is None:
    return np.zeros(recipe.size or size, np.uint16)
  data, where = raw.read(item.depth), str(item.depth)
  depth = depth_files.read(data, where, recipe.depth_kind)
  wanted = recipe.size or size
  # Networks' depth maps often come at the network's size, so any is accepted.
  return depth_lib.resize_stored(depth, wanted, recipe.depth_kind)


def _view(item: Item, name: str, recipe: Recipe, size: Size) -> bytes:
  file = item.views.get(name)
  if file is None:
    return _image(b'', np.zeros((*size, 3), np.uint8), recipe)
  data, pixels = codecs.decode_image(raw.read(file), str(file))
  if pixels.shape[:2] != size:
    raise errors.UserError(
      f'{file} is {shape_text(pixels.shape)} but {item.image} is '
      f'{shape_text(size)}'
    )
  return _image(data, pixels, recipe)


def _camera(item: Item, recipe: Recipe, size: Size) -> Example:
  camera = item.camera
  if isinstance(camera, raw.Entry):
    assert recipe.read_camera is not None
    camera = recipe.read_camera(raw.read(camera), str(camera))
  camera = camera or Camera((0.0, 0.0, 0.0, 0.0))
  intrinsics = np.asarray(camera.intrinsics, np.float32)
  if recipe.size is not None and camera.intrinsics[0]:
    intrinsics = depth_lib.scale_intrinsics(intrinsics, size, recipe.size)
  return {
    'intrinsics': np.asarray(intrinsics, np.float32),
    'baseline': np.float32(camera.baseline),
  }


def parse_size(text: str) -> Size:
  """'HxW' as (height, width); raises `errors.UserError` for anything else."""
  parts = text.lower().split('x')
  if len(parts) == 2 and all(p.isascii() and p.isdigit() for p in parts):
    height, width = map(int, parts)
    if 0 < height <= 65535 and 0 < width <= 65535:
      return height, width
  raise errors.UserError(
    f'bad size {text!r}: expected HEIGHTxWIDTH in pixels, as in 512x1024'
  )


def shape_text(shape: tuple[int, ...]) -> str:
  """'HxW' of an array's shape."""
  return f'{shape[0]}x{shape[1]}'
