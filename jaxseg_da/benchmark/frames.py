"""The same frames in three stored forms, in memory, for the real loader.

Decoding is what a host spends its time on, and that depends on how the frames
are stored. In memory, because a disk would be measured with them otherwise.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from data_prep import codecs
from jaxseg_da import errors
from jaxseg_da.data import sources, transforms
from jaxseg_da.training import contract

Pair = tuple[np.ndarray, np.ndarray | None]

# Labels are PNG in all of them.
FORMS = {
  'raw_png': 'raw-size PNG',
  'resized_png': 'pre-resized PNG',
  'resized_jpeg95': 'pre-resized JPEG-95',
}
# Dataset -> the street domain that stands in for it, and its (height, width).
STAND_INS = {
  'gta5': ('gta', (1052, 1914)),
  'synthia': ('gta', (760, 1280)),
  'cityscapes': ('city', (1024, 2048)),
  'idd': ('city', (1080, 1920)),
}


# Grain's shuffle walks until it meets an index that exists: milliseconds for
# one of 32 examples, microseconds for one of thousands, as real data have.
_LENGTH = 4096


class Stored(sources.DatasetSource):
  """Encoded examples in memory, read by the code that reads prepared data.

  They repeat, up to the length of a real data set.

  Args:
    spec: the dataset that they are of.
    records: `image` and perhaps `label`, encoded.
    labelled: whether the records have labels.
  """

  def __init__(
    self, spec: str, records: Sequence[sources.Example], labelled: bool
  ):
    self.spec, self.split = spec, spec.partition(':')[2]
    self.directory = pathlib.Path()
    self.metadata = {}
    self.labelled = labelled
    self._records = [*records] * -(-_LENGTH // len(records))
    self._files = [(len(self._records), 'memory')]
    self._sizes = None

  @property
  def bytes_per_image(self) -> float:
    """Mean size of an encoded image, labels not counted."""
    sizes = [len(record['image']) for record in self._records]
    return sum(sizes) / len(sizes)


@dataclasses.dataclass(frozen=True)
class Frames:
  """Frames of one stream.

  Attributes:
    origin: 'prepared', or 'rendered' where nothing was prepared.
    raw_sizes: the (height, width) that occur at raw size.
    size: (height, width) of the pre-resized forms; None where that is the
      raw size, whatever it is.
    count: number of frames.
    forms: the frames in each of `FORMS`.
  """

  origin: str
  raw_sizes: frozenset[transforms.Size]
  size: transforms.Size | None
  count: int
  forms: dict[str, Stored]

  @property
  def same_size(self) -> bool:
    """Whether resizing changes nothing: the forms are then alike."""
    return self.size is None or self.raw_sizes == {self.size}


def collect(
  domain: contract.Domain,
  open_dataset: Callable[[str], sources.DatasetSource],
  data_dir: pathlib.Path,
  count: int,
) -> Frames:
  """Takes the first frames of a stream, and encodes them in every form.

  Street frames of the official size stand in for a data set of the papers that
  is not prepared.

  Args:
    domain: the stream; labels are taken where it is labelled.
    open_dataset: `(spec) -> source`, for what is prepared.
    data_dir: where prepared data sets are.
    count: at most so many frames.

  Raises:
    UserError: the data set is neither prepared nor one of the papers', or is
      damaged or empty.
  """
  name, labelled = domain.spec.partition(':')[0], domain.labelled
  if name in STAND_INS and not (data_dir / name).exists():
    origin, pairs = 'rendered', _rendered(name, labelled, count)
  else:
    source = open_dataset(domain.spec)
    labelled = labelled and source.labelled
    origin, pairs = 'prepared', _prepared(source, labelled, count)
  size = domain.size if any(domain.size) else None
  records: dict[str, list[sources.Example]] = {form: [] for form in FORMS}
  raw_sizes = set()
  for image, label in pairs:
    raw_sizes.add(image.shape[:2])
    for form, record in _encode(image, label, size, domain.resize).items():
      records[form].append(record)
  if not raw_sizes:
    raise errors.UserError(f'{domain.spec} is empty')
  forms = {
    form: Stored(domain.spec, found, labelled)
    for form, found in records.items()
  }
  count = len(records['raw_png'])
  return Frames(origin, frozenset(raw_sizes), size, count, forms)


def _prepared(
  source: sources.DatasetSource, labelled: bool, count: int
) -> Iterator[Pair]:
  """The first examples of a prepared data set."""
  features = ('image', 'label') if labelled else ('image',)
  for index in range(min(count, len(source))):
    example = source.read(index, features)
    yield example['image'], example.get('label')


def _rendered(name: str, labelled: bool, count: int) -> Iterator[Pair]:
  """Street scenes in the size of a data set of the papers."""
  from data_prep.streets import world

  scenery, size = STAND_INS[name]
  domain = world.domain(scenery)
  for index in range(count):
    scene = world.render_example(domain, 'train', index, size)
    yield scene['image'], scene['label'] if labelled else None


def _encode(
  image: np.ndarray,
  label: np.ndarray | None,
  size: transforms.Size | None,
  mode: str,
) -> dict[str, sources.Example]:
  """The records of one frame, by form.

  Args:
    image: u8 `[H, W, 3]`.
    label: u8 `[H, W]` or `[H, W, 1]`, or None.
    size: (height, width) of the pre-resized forms; None keeps the frame's.
    mode: resize mode of the image.
  """
  size = size or image.shape[:2]
  small = transforms.resize(image, size, mode)
  records = {
    'raw_png': {'image': codecs.encode_png(image)},
    'resized_png': {'image': codecs.encode_png(small)},
    'resized_jpeg95': {'image': codecs.encode_jpeg(small, 95)},
  }
  if label is not None:
    resized = codecs.encode_png(transforms.nearest(label, size))
    for form, record in records.items():
      raw = form == 'raw_png'
      record['label'] = codecs.encode_png(label) if raw else resized
  return records
