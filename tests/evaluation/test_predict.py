from __future__ import annotations

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.classes import class_set, hierarchy
from jaxseg_da.drawing import visual
from jaxseg_da.evaluation import evaluate, predict
from jaxseg_da.methods import ccda

HOT = 100.0 * np.eye(19, dtype=np.float32)


def predictor(images):
  """Class 10 (sky) where blue is high, else 0 (road); half resolution."""
  sky = images[..., 2] > 127
  return jnp.asarray(HOT[np.where(sky, 10, 0)])[:, ::2, ::2]


def picture(height=40, width=64):
  image = np.zeros((height, width, 3), np.uint8)
  image[: height // 2, :, 2] = 255
  return image


def save(path, image):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(visual.encode_png(image))


def load(path):
  image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
  return image if image.ndim == 2 else image[..., ::-1]


def names(folder):
  return sorted(
    str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file()
  )


def test_one_image_in_all_formats_at_native_size(tmp_path, capsys):
  image = picture(50, 70)
  save(tmp_path / 'street.1.png', image)
  out = tmp_path / 'new' / 'out'
  done = predict.run(
    predictor, str(tmp_path / 'street.1.png'), str(out), 'all', (16, 32)
  )
  assert done.images == 1
  assert names(out) == [
    'street.1_color.png',
    'street.1_label_ids.png',
    'street.1_overlay.png',
    'street.1_train_ids.png',
  ]
  ids = load(out / 'street.1_train_ids.png')
  assert ids.shape == (50, 70)
  assert (ids[:22] == 10).all()
  assert (ids[28:] == 0).all()
  raw = load(out / 'street.1_label_ids.png')
  np.testing.assert_array_equal(raw, np.where(ids == 10, 23, 7))
  np.testing.assert_array_equal(
    load(out / 'street.1_color.png'), visual.colourise(ids)
  )
  np.testing.assert_array_equal(
    load(out / 'street.1_overlay.png'), visual.overlay(image, ids)
  )
  assert f'predicted 1 images: 4 files in {out}' in capsys.readouterr().err


def test_a_folder_keeps_subfolders_and_ignores_results(tmp_path):
  for name in ('a.png', 'city/b.png', 'city/c_color.png'):
    save(tmp_path / 'in' / name, picture())
  done, jpg = cv2.imencode('.jpg', picture())
  assert done
  (tmp_path / 'in' / 'd.JPG').write_bytes(jpg.tobytes())
  (tmp_path / 'in' / 'notes.txt').write_text('no image')
  out = tmp_path / 'out'
  done = predict.run(
    predictor, str(tmp_path / 'in'), str(out), ['train_ids'], progress=False
  )
  assert done.images == 3
  assert names(out) == [
    'a_train_ids.png',
    'city/b_train_ids.png',
    'd_train_ids.png',
  ]
  assert load(out / 'a_train_ids.png').shape == (40, 64)


def test_a_glob(tmp_path):
  for name in ('x/a.png', 'y/b.png', 'y/other.png'):
    save(tmp_path / name, picture())
  out = tmp_path / 'out'
  predict.run(predictor, str(tmp_path / '*' / '?.png'), str(out), 'color')
  assert names(out) == ['a_color.png', 'b_color.png']


def test_an_unreadable_image_is_named_and_skipped(tmp_path, capsys):
  save(tmp_path / 'in' / 'good.png', picture())
  (tmp_path / 'in' / 'empty.png').write_bytes(b'')
  (tmp_path / 'in' / 'torn.jpg').write_bytes(b'\xff\xd8\xff\xe0 broken')
  done = predict.run(
    predictor, str(tmp_path / 'in'), str(tmp_path / 'out'), 'color'
  )
  assert [p.name for p in done.skipped] == ['empty.png', 'torn.jpg']
  error = capsys.readouterr().err
  assert f'{tmp_path / "in" / "torn.jpg"} is no readable image' in error
  assert 'predicted 1 images, 2 unreadable skipped' in error
  (tmp_path / 'in' / 'good.png').unlink()
  with pytest.raises(errors.UserError, match='none of the 2 files'):
    predict.run(predictor, str(tmp_path / 'in'), str(tmp_path / 'out'))


def test_wrong_inputs_are_named(tmp_path):
  out = str(tmp_path / 'out')
  with pytest.raises(errors.UserError, match=r'no image at .*nowhere'):
    predict.run(predictor, str(tmp_path / 'nowhere'), out)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(errors.UserError, match=r'no jpg or png image in .*empty'):
    predict.run(predictor, str(tmp_path / 'empty'), out)
  for name in ('x/a.png', 'y/a.png'):
    save(tmp_path / name, picture())
  with pytest.raises(errors.UserError, match='the same files'):
    predict.run(predictor, str(tmp_path / '*' / 'a.png'), out)
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.UserError, match='cannot create the output'):
    predict.run(
      predictor, str(tmp_path / 'x' / 'a.png'), str(tmp_path / 'file')
    )


def test_formats():
  assert predict.parse_formats('color, train_ids,color') == (
    'color',
    'train_ids',
  )
  assert predict.parse_formats('all') == predict.FORMATS
  with pytest.raises(errors.UserError, match="Did you mean 'color'"):
    predict.parse_formats('colour')
  with pytest.raises(errors.UserError, match='is empty'):
    predict.parse_formats('')


@pytest.mark.parametrize(
  ('format', 'train_id', 'reason'),
  [
    ('label_ids', 19, 'is none of them'),
    ('label_ids', -1, 'covers several train ids'),
    ('train_ids', -1, 'covers several train ids'),
  ],
)
def test_ids_need_cityscapes_classes(tmp_path, format, train_id, reason):
  save(tmp_path / 'a.png', picture())
  classes = class_set.CITYSCAPES._replace(train_ids=(*range(18), train_id))
  with pytest.raises(errors.UserError, match=f"{format}.*'bicycle' {reason}"):
    predict.run(
      predictor,
      str(tmp_path / 'a.png'),
      str(tmp_path / 'out'),
      format,
      classes=classes,
    )
  assert not (tmp_path / 'out').exists()


def test_classes_are_written_as_the_train_ids_they_are(tmp_path):
  """Of GTA5 -> IDD's 17 classes the 10th is sky, train id 10."""
  save(tmp_path / 'a.png', picture())
  classes = ccda.classes_of(hierarchy.GTA5_TO_IDD, 3)
  assert classes.names[9] == 'sky'
  hot = 100.0 * jnp.eye(17)
  predict.run(
    lambda images: hot[jnp.where(images[..., 2] > 127, 9, 0)],
    str(tmp_path / 'a.png'),
    str(tmp_path / 'out'),
    'all',
    classes=classes,
  )
  found = load(tmp_path / 'out/a_train_ids.png')
  assert set(np.unique(found)) == {0, 10} and found[0, 0] == 10
  assert load(tmp_path / 'out/a_label_ids.png')[0, 0] == 23
  assert load(tmp_path / 'out/a_color.png')[0, 0].tolist() == [0, 130, 180]


def test_windows_and_flip_reach_the_network(tmp_path):
  save(tmp_path / 'a.png', picture(32, 64))
  seen = []

  def spy(images):
    seen.append(images.shape)
    return predictor(images)

  options = evaluate.Options(
    mode='sliding', window=(32, 32), stride=(32, 32), flip=True
  )
  predict.run(
    spy, str(tmp_path / 'a.png'), str(tmp_path / 'out'), options=options
  )
  assert seen == [(1, 32, 32, 3)] * 4
