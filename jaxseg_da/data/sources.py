"""Prepared data sets as random-access sources of decoded examples.

TFDS and ArrayRecord are imported when a data set is opened, not before, and
TensorFlow never. A spec is `NAME[/CONFIG][:SPLIT]`: 'streets/city:validation',
'gta5', 'cityscapes:train[:10]'.
"""

from __future__ import annotations

import io
import os
import pathlib
import re
from collections.abc import Collection
from typing import Any

import cv2
import numpy as np
from PIL import Image

from jaxseg_da import errors
from jaxseg_da.classes import labels

Example = dict[str, Any]

# Name -> what its build command needs besides --data_dir.
DATASETS = {
  'cityscapes': '--manual_dir=RAW',
  'frames': '--manual_dir=RAW',
  'gta5': '--manual_dir=RAW',
  'idd': '--manual_dir=RAW',
  'synthia': '--manual_dir=RAW',
  'streets': '--config={config}',
}
_SPEC = re.compile(r'(?P<name>\w+)(/(?P<config>[\w-]+))?(:(?P<split>.+))?')
_DEPTH = ('depth',)
_IMAGES = ('image', 'image_right', 'image_prev', 'image_next')


class DatasetSource:
  """One split of a prepared data set; safe to read from several threads.

  Attributes:
    spec: 'NAME[/CONFIG]:SPLIT'.
    directory: folder of the prepared data set.
    split: name of the split.
    labelled: whether its labels are real, not 255 throughout.
    num_classes: 19.
    metadata: what the builder recorded: sizes, kind and unit of depth, ...
  """

  num_classes = labels.NUM_CLASSES

  def __init__(
    self, spec: str, directory: pathlib.Path, split: str, builder: Any
  ):
    import tensorflow_datasets as tfds

    self.spec = spec
    self.directory = directory
    self.split = split
    self.metadata: dict[str, Any] = dict(builder.info.metadata or {})
    flags = self.metadata.get('labelled', {})
    parts = _stored(split, self.metadata)
    self.labelled = all(flags.get(_base(part), True) for part in parts)
    instruction = '+'.join(parts)
    skip = tfds.decode.SkipDecoding()
    features = builder.info.features
    decoders = {k: skip for k in (*_IMAGES, *_DEPTH, 'label') if k in features}
    try:
      self._files = [
        (file.take, file.filename)
        for file in builder.info.splits[instruction].file_instructions
      ]
      self._records = builder.as_data_source(instruction, decoders=decoders)
    except Exception as error:
      raise errors.UserError(
        f'{spec} cannot be opened: {_reason(error)}'
      ) from error
    for _, file in self._files:
      if not os.path.exists(file):
        raise errors.UserError(f'{spec}: {file} is missing; build it again')
    self._sizes: list[tuple[int, int]] | None = None

  def __len__(self) -> int:
    return sum(take for take, _ in self._files)

  def __getitem__(self, index: int) -> Example:
    return self.read(index)

  def read(
    self, index: int, features: Collection[str] | None = None
  ) -> Example:
    """Reads and decodes one example.

    Args:
      index: 0 .. len - 1, in the order of the build.
      features: which to return; the others are not even decoded. None: all.

    Returns:
      `image_id` str; `image` u8 `[H, W, 3]` RGB; `label` u8 `[H, W, 1]`;
      `depth` u16 `[H, W, 1]`; the rest as the builder stored it.

    Raises:
      IndexError: no such example.
      errors.UserError: the record is corrupt; names data set, split, index and
        file.
    """
    if not 0 <= index < len(self):
      raise IndexError(f'{self.spec}: no example {index} of {len(self)}')
    record = self._record(index)
    try:
      return {
        name: _decode(name, value)
        for name, value in record.items()
        if features is None or name in features
      }
    except Exception as error:
      raise self._corrupt(index, error) from error

  def sizes(self) -> list[tuple[int, int]]:
    """(height, width) of every image; free where all share one."""
    if self._sizes is None:
      same = self.metadata.get('image_size')
      if same:
        self._sizes = [(same[0], same[1])] * len(self)
      else:
        self._sizes = [self._size(index) for index in range(len(self))]
    return self._sizes

  def _size(self, index: int) -> tuple[int, int]:
    data = self._record(index)['image']
    try:
      width, height = Image.open(io.BytesIO(data)).size
    except Exception as error:
      raise self._corrupt(index, error) from error
    return height, width

  def _record(self, index: int) -> Example:
    try:
      return self._records[index]
    except Exception as error:
      raise self._corrupt(index, error) from error

  def _corrupt(self, index: int, error: Exception) -> errors.UserError:
    first = 0
    path = str(self.directory)
    for take, file in self._files:
      if first <= index < first + take:
        path = str(file)
      first += take
    return errors.UserError(
      f'{self.spec}: record {index} of split {self.split} is corrupt in '
      f'{path} ({_reason(error)}); remove {self.directory} and build it again'
    )


def open_dataset(
  spec: str,
  data_dir: str | os.PathLike[str],
  default_split: str | None = None,
) -> DatasetSource:
  """Opens a prepared data set.

  Args:
    spec: 'NAME[/CONFIG][:SPLIT]'; SPLIT may be a slice, 'train[:10]'.
    data_dir: folder of prepared data sets.
    default_split: the split where the spec names none; None means `all` where
      the data set offers it, else `train`.

  Raises:
    errors.UserError: bad spec, unknown data set or split, nothing prepared
      (names the folder and the command that builds it), or damaged files.
  """
  match = _SPEC.fullmatch(spec)
  if match is None:
    raise errors.UserError(
      f'bad data set {spec!r}: expected NAME[/CONFIG][:SPLIT]'
    )
  name, config = match['name'], match['config']
  root = pathlib.Path(data_dir).expanduser()
  directory = _prepared(root, name, config)
  if directory is None:
    raise _missing(root, name, config)
  builder = _open(directory)
  metadata = dict(builder.info.metadata or {})
  union = metadata.get('all') or []
  choices = [*builder.info.splits]
  if len(union) == 1:  # Stored under a stand-in for the reserved name `all`.
    choices.remove(union[0])
  if union:
    choices.append('all')
  default = default_split or ('all' if 'all' in choices else 'train')
  split = match['split'] or default
  short = f'{name}/{config}' if config else name
  for part in split.split('+'):
    if _base(part) not in choices:
      raise errors.unknown(f'split of {short}', _base(part), choices)
  return DatasetSource(f'{short}:{split}', directory, split, builder)


def _prepared(
  root: pathlib.Path, name: str, config: str | None
) -> pathlib.Path | None:
  """The newest prepared version, or None."""
  folder = root / name / (config or '')
  versions = [
    (tuple(map(int, path.parent.name.split('.'))), path.parent)
    for path in folder.glob('*/dataset_info.json')
    if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)
  ]
  return max(versions)[1] if versions else None


def _missing(
  root: pathlib.Path, name: str, config: str | None
) -> errors.UserError:
  others = {path.name for path in root.glob('*') if path.is_dir()}
  known = set(DATASETS) | {o for o in others if not o.startswith('.')}
  if name not in known:
    return errors.unknown('dataset', name, known)
  if name == 'streets' and config is None:
    return errors.UserError(
      "dataset 'streets' needs a domain, as in streets/gta or streets/city"
    )
  command = f'python -m data_prep.build {name} --data_dir={root}'
  if name in DATASETS:
    command += ' ' + DATASETS[name].format(config=config)
  where = root / name / (config or '')
  return errors.UserError(
    f'no prepared data set in {where}; build it with: {command}'
  )


def _open(directory: pathlib.Path) -> Any:
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder_from_directory(directory)
    _ = [*builder.info.splits], builder.info.features, builder.info.metadata
  except Exception as error:
    raise errors.UserError(
      f'the prepared data set in {directory} is damaged ({_reason(error)}); '
      'remove it and build it again'
    ) from error
  return builder


def _stored(split: str, metadata: dict[str, Any]) -> list[str]:
  """Stored splits of a split expression; `all` stands for those it joins."""
  parts = []
  for part in split.split('+'):
    if _base(part) == 'all':
      rest = part.removeprefix('all')
      parts += [name + rest for name in metadata['all']]
    else:
      parts.append(part)
  return parts


def _base(split: str) -> str:
  return split.split('[')[0]


def _decode(name: str, value: Any) -> Any:
  if name in _IMAGES:
    image = _imdecode(value, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
  if name == 'label' or name in _DEPTH:
    image = _imdecode(value, cv2.IMREAD_UNCHANGED)
    wanted = np.uint16 if name in _DEPTH else np.uint8
    if image.ndim != 2 or image.dtype != wanted:
      raise ValueError(f'{name} is {image.dtype} {image.shape}')
    return image[..., None]
  if isinstance(value, bytes):
    return value.decode()
  return value


def _imdecode(data: bytes, flags: int) -> np.ndarray:
  image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
  if image is None:
    raise ValueError('not an image')
  return image


def _reason(error: Exception) -> str:
  text = ' '.join(str(error).split())
  return (text[:120] + '...' if len(text) > 120 else text) or repr(error)
