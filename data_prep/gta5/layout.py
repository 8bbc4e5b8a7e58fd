"""Where the files of GTA5 lie, and which split each belongs to."""

from __future__ import annotations

from data_prep import items, layouts, matlab, official, raw
from jaxseg_da import errors
from jaxseg_da.classes import labels

# The authors' lists in split.mat -> our names.
_LISTS = {'train': 'trainIds', 'validation': 'valIds', 'test': 'testIds'}


def find(data: raw.Raw) -> layouts.Splits:
  """All pairs as `unsplit`, or as the authors split them if split.mat is there.

  Raises:
    errors.UserError: no images, or a split.mat that does not fit them.
  """
  images = data.find(r'images/(\d{5})\.png')
  ids = data.find(r'labels/(\d{5})\.png')
  if not images:
    raise layouts.nothing_found(
      data,
      f'GTA5 images in {data.root}: expected images/00001.png and so on, and '
      'the same names in labels/, extracted or in 01_images.zip ...',
    )
  pairs = {
    name: items.Item(
      image_id=name,
      image=image,
      label_name=f'labels/{name}.png',
      label=ids.get(name),
    )
    for name, image in images.items()
  }
  lists = data.find(r'(split)\.mat')
  if not lists:
    return {'unsplit': [*pairs.values()]}
  return _split(pairs, lists['split'])


def _split(
  pairs: dict[str, items.Item], file: raw.Entry
) -> dict[str, list[items.Item]]:
  splits: layouts.Splits = {}
  listed: set[str] = set()
  for split, variable in _LISTS.items():
    names = {f'{number:05d}' for number in _numbers(file, variable)}
    splits[split] = [pair for name, pair in pairs.items() if name in names]
    listed |= names
  for name in pairs:
    if name not in listed:
      raise errors.UserError(f'{file} names no split for image {name}')
  return splits


def _numbers(file: raw.Entry, variable: str) -> list[int]:
  found = matlab.load(raw.read(file), str(file), variable)
  return [int(number) for number in found.ravel()]


LAYOUT = layouts.Layout(
  name='gta5',
  find=find,
  to_train_id=labels.GTA5_ID_TO_TRAIN_ID,
  labelled=('unsplit', *_LISTS),
  depth_key=r'(\d{5})\.(?:png|mat)',
  resize='pil_bicubic',  # AdaptSegNet, ADVENT, DACS
  union=('unsplit', *_LISTS),
  expected={
    'unsplit': 24966,
    'train': 12403,
    'validation': 6382,
    'test': 6181,
  },
  official=official.Official(
    title='GTA5',
    ids=range(1, 24967),
    sizes=((1052, 1914),),
    label_key=r'labels/(\d{5})\.png',
  ),
)
