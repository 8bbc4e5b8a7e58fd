"""Where the files of SYNTHIA-RAND-CITYSCAPES lie."""

from __future__ import annotations

from data_prep import items, layouts, official, raw
from data_prep.synthia import ids
from jaxseg_da.classes import labels

# Folders of labels. They hold the same labels, so they are no duplicates: the
# original has 16 bits, the others are copies of its classes in 8. The first
# that is there is taken. `GT/COLOR` is for the eye, its edges are blended.
_LABELS = ('GT/LABELS', 'parsed_LABELS', 'synthia_mapped_to_cityscapes')


def find(data: raw.Raw) -> layouts.Splits:
  """All frames as `train`; depth where it is there.

  Raises:
    errors.UserError: no images.
  """
  images = data.find(r'RGB/(\d{7})\.png')
  if not images:
    raise layouts.nothing_found(
      data,
      f'SYNTHIA images in {data.root}: expected RGB/0000000.png and so on, and '
      'the same names in GT/LABELS/, extracted or in '
      'SYNTHIA_RAND_CITYSCAPES.zip',
    )
  folder, files = _labels(data)
  # Also `Depth/Depth`, as in the archive: any folder may come first.
  depth = data.find(r'Depth/(\d{7})\.png')
  return {
    'train': [
      items.Item(
        image_id=name,
        image=image,
        label_name=f'{folder}/{name}.png',
        label=files.get(name),
        depth=depth.get(name),
      )
      for name, image in images.items()
    ]
  }


def _labels(data: raw.Raw) -> tuple[str, dict[str, raw.Entry]]:
  """The folder of the labels to take, and its files by image id."""
  for folder in _LABELS:
    files = data.find(rf'{folder}/(\d{{7}})\.png')
    if files:
      return folder, files
  return _LABELS[0], {}


LAYOUT = layouts.Layout(
  name='synthia',
  find=find,
  read_label=ids.read,
  to_train_id=labels.SYNTHIA_ID_TO_TRAIN_ID,
  labelled=('train', 'validation'),  # The latter is made by a list.
  # 65535 is the far plane, 655.35 m: a value as any other.
  depth_kind='metric',
  depth_key=r'(\d{7})\.(?:png|mat)',
  resize='pil_bicubic',  # AdaptSegNet, ADVENT, DACS
  expected={'train': 9400},
  official=official.Official(
    title='SYNTHIA',
    ids=range(9400),
    sizes=((760, 1280),),
    label_key=r'GT/LABELS/(\d{7})\.png',
    label_bits=16,
    reference='SYNTHIA',
  ),
)
