"""Where the files of IDD lie, and which split each belongs to."""

from __future__ import annotations

from data_prep import items, layouts, official, raw
from data_prep.idd import polygons
from jaxseg_da.classes import labels

_SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}
_FRAME = r'(train|val|test)/([^/]+)/([^/]+)'


def find(data: raw.Raw) -> layouts.Splits:
  """The frames of part I, of part II, or of both, by official split.

  An image is called DRIVE/NAME. The organisers have both parts extracted into
  one folder, so no two of their images share that name, wherever they lie.

  Raises:
    errors.UserError: no images, or two of one name.
  """
  images = data.find(
    rf'leftImg8bit/{_FRAME}_leftImg8bit\.(?:png|jpe?g)',
    lambda match: f'{match[2]}/{match[3]}',
  )
  if not images:
    raise layouts.nothing_found(
      data,
      f'IDD images in {data.root}: expected leftImg8bit/{{train,val,test}}/'
      'DRIVE/NAME_leftImg8bit.png or .jpg, and gtFine/{train,val}/DRIVE/'
      'NAME_gtFine_polygons.json, extracted or in a zip',
    )
  outlines = data.find(
    rf'gtFine/{_FRAME}_gtFine_polygons\.json',
    lambda match: '/'.join(match.groups()),
  )
  splits: layouts.Splits = {split: [] for split in _SPLITS.values()}
  for name, image in images.items():
    folder = image.path.split('/')[-3]
    splits[_SPLITS[folder]].append(
      items.Item(
        image_id=name,
        image=image,
        label_name=f'gtFine/{folder}/{name}_gtFine_polygons.json',
        label=outlines.get(f'{folder}/{name}'),
      )
    )
  return splits


LAYOUT = layouts.Layout(
  name='idd',
  find=find,
  read_label=polygons.read,
  to_train_id=labels.IDD_ID_TO_TRAIN_ID,
  labelled=('validation',),
  any_scale=True,
  resize='cv_area',  # CCDA
  # Of part I, the test split with 2029 left out: part II has about as many of
  # each again, how many exactly is not known, but no fewer of these two.
  expected={'train': 6993, 'validation': 981},
  official=official.Official(
    title='IDD',
    label_key=r'gtFine/(?:train|val)/([^/]+/[^/]+)_gtFine_polygons\.json',
    label_size=polygons.image_size,
  ),
)
