"""One name space for trees and zips; what is safe to read, and what is seen."""

from __future__ import annotations

import os
import pathlib
import zipfile

import cv2
import numpy as np
import pytest

from data_prep import codecs, known_bad, lists, raw
from jaxseg_da import errors

IMAGE = r'images/(\d+)\.png'


def write(root: pathlib.Path, *names: str, data: bytes = b'abc') -> None:
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(data)


def pack(path: pathlib.Path, *names: str, data: bytes = b'abc') -> None:
  with zipfile.ZipFile(path, 'a', zipfile.ZIP_DEFLATED) as archive:
    for name in names:
      archive.writestr(name, data)


def test_trees_and_zips_are_one_folder(tmp_path):
  write(tmp_path, 'images/2.png', 'deep/er/images/10.png', 'notimages/3.png')
  pack(tmp_path / '01_images.zip', 'images/1.png', 'top/images/4.png')
  write(tmp_path, 'sub/readme.txt')
  pack(tmp_path / 'sub/more.ZIP', 'images/5.png')
  found = raw.Raw(tmp_path).find(IMAGE)
  assert list(found) == ['1', '10', '2', '4', '5']  # Sorted as text.
  assert str(found['2']) == f'{tmp_path}/images/2.png'
  assert str(found['4']) == f'{tmp_path}/01_images.zip/top/images/4.png'
  assert [entry.zipped for entry in found.values()] == [
    True,
    False,
    False,
    True,
    True,
  ]
  for entry in found.values():
    assert (entry.size, raw.read(entry)) == (3, b'abc')
  assert len(raw.Raw(tmp_path)) == len([*raw.Raw(tmp_path)]) == 7


def test_keys_may_be_made_of_several_groups(tmp_path):
  write(tmp_path, 'a/images/1.png', 'b/images/1.png')
  pattern = r'(\w)/images/(\d)\.png'
  found = raw.Raw(tmp_path).find(pattern, lambda m: f'{m[1]}{m[2]}')
  assert list(found) == ['a1', 'b1']


def test_what_other_programs_leave_behind_is_not_seen(tmp_path):
  strays = (
    'images/._1.png',
    'images/Thumbs.db',
    '__MACOSX/images/1.png',
    '.trash/images/1.png',
    'images/.DS_Store',
  )
  write(tmp_path, 'images/1.png', *strays)
  pack(tmp_path / 'x.zip', 'images/2.png', *strays)
  data = raw.Raw(tmp_path)
  assert [*data] == ['images/1.png', 'images/2.png']


def test_links_are_followed_once(tmp_path):
  write(tmp_path / 'disk', 'images/1.png')
  (tmp_path / 'raw').mkdir()
  os.symlink(tmp_path / 'disk/images', tmp_path / 'raw/images')
  os.symlink(tmp_path / 'raw', tmp_path / 'raw/loop')
  assert [*raw.Raw(tmp_path / 'raw')] == ['images/1.png']


def test_an_archive_may_lie_beside_its_content(tmp_path):
  write(tmp_path, 'images/1.png')
  pack(tmp_path / 'x.zip', 'images/1.png')
  assert not raw.Raw(tmp_path).find(IMAGE)['1'].zipped


@pytest.mark.parametrize('case', ['other size', 'two trees', 'two zips'])
def test_two_files_for_one_key_are_both_named(tmp_path, case):
  if case == 'two zips':
    pack(tmp_path / 'a.zip', 'images/1.png')
  else:
    write(tmp_path, 'images/1.png')
  if case == 'two trees':
    write(tmp_path, 'copy/images/1.png')
  else:
    pack(tmp_path / 'b.zip', 'images/1.png', data=b'other')
  data = raw.Raw(tmp_path)
  with pytest.raises(errors.UserError, match=r"two files for '1': remove one"):
    data.find(IMAGE)


def test_names_made_on_windows(tmp_path):
  pack(tmp_path / 'x.zip', 'images/1.png')
  whole = (tmp_path / 'x.zip').read_bytes()
  (tmp_path / 'x.zip').write_bytes(
    whole.replace(b'images/1.png', b'images\\1.png')
  )
  assert raw.read(raw.Raw(tmp_path).find(IMAGE)['1']) == b'abc'


def test_a_zip_that_changed_is_read_anew(tmp_path):
  path = tmp_path / 'x.zip'
  pack(path, 'images/1.png')
  assert raw.read(raw.Raw(tmp_path).find(IMAGE)['1']) == b'abc'
  path.unlink()
  pack(path, 'images/0.png', 'images/1.png', data=b'new')
  os.utime(path, (1, 1))
  assert raw.read(raw.Raw(tmp_path).find(IMAGE)['1']) == b'new'


def test_encrypted_members_and_lost_files_are_named(tmp_path):
  path = tmp_path / 'x.zip'
  pack(path, 'images/1.png')
  whole = bytearray(path.read_bytes())
  whole[6] |= 1  # The flag of encryption, in both headers.
  whole[whole.index(b'PK\1\2') + 8] |= 1
  path.write_bytes(bytes(whole))
  write(tmp_path, 'images/2.png')
  found = raw.Raw(tmp_path).find(IMAGE)
  with pytest.raises(errors.UserError, match=r'x.zip/images/1.png .*encrypted'):
    raw.read(found['1'])
  (tmp_path / 'images/2.png').unlink()
  with pytest.raises(errors.UserError, match=r'images/2.png: No such file'):
    raw.read(found['2'])


def test_other_archives_are_remembered(tmp_path):
  write(tmp_path, 'idd.tar.gz', 'x.rar', 'y.txt')
  found = raw.Raw(tmp_path).other_archives
  assert found == [f'{tmp_path}/idd.tar.gz', f'{tmp_path}/x.rar']


def test_sixteen_bit_channels_keep_their_order_and_high_byte():
  for channels in (1, 3, 4):
    values = np.arange(2 * 3 * channels, dtype=np.uint16) * 2000
    values = values.reshape(2, 3, channels)
    order = [2, 1, 0, 3][:channels] if channels > 1 else [0]
    _, data = cv2.imencode('.png', values[..., order])
    found = codecs.decode_deep(data.tobytes(), 'x.png')
    np.testing.assert_array_equal(found.reshape(values.shape), values)


def test_rules_of_known_bad_frames(tmp_path):
  drop = known_bad.rules('gta5')
  assert {*drop.ids} == {'15188', '17705'} and drop.one_class
  keep = known_bad.rules('gta5', 'keep')
  assert not keep.ids and not keep.one_class and '15188' in keep.forgiven
  assert known_bad.rules('synthia') == ({}, '', {})
  (tmp_path / 'own').write_text('# mine\n7 too dark # really\n\n')
  own = known_bad.rules('gta5', str(tmp_path / 'own'))
  assert own.ids == {'7': 'too dark'}


def test_digests_of_lists_follow_their_content(tmp_path):
  (tmp_path / 'a').write_text('1\n2\n')
  (tmp_path / 'b').write_text('1 # one\n\n2 x\n')
  digest = lists.digest(f'{tmp_path}/a')
  assert lists.digest(f'{tmp_path}/b') == digest
  assert lists.digest(f'train={tmp_path}/b') == f'train={digest}'
  (tmp_path / 'b').write_text('2\n1\n')
  assert lists.digest(f'{tmp_path}/b') != digest
