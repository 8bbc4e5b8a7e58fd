"""What is wrong with raw data or disk: one sentence, exit 2, no data set."""

from __future__ import annotations

import functools
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import time
import zipfile
import zlib

import pytest
from PIL import Image

from data_prep import build, raw
from jaxseg_da import errors
from jaxseg_da.data import sources
from tests import support, trees


def run(root, out, *more):
  flags = [f'--manual_dir={root}', f'--data_dir={out}', '--workers=1', *more]
  return build.main(['gta5', *flags])


def assert_one_line(capsys, message):
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1, lines
  assert re.search(message, lines[0]), lines[0]


def assert_nothing_prepared(out):
  assert not [*out.glob('gta5/*/dataset_info.json')]
  with pytest.raises(errors.UserError, match='no prepared data set'):
    sources.open_dataset('gta5', out)


def _label(root):
  return root / 'labels/00002.png'


def _image(root):
  return root / 'images/00002.png'


def _cut(path):
  path.write_bytes(path.read_bytes()[:-400])


def _colours(root):
  Image.open(_label(root)).convert('RGB').save(_label(root))


def _chunk(kind, data):
  code = zlib.crc32(kind + data)
  return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', code)


def _bomb(root):
  header = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)
  pixels = zlib.compress(bytes(1000))
  _image(root).write_bytes(
    b'\x89PNG\r\n\x1a\n'
    + _chunk(b'IHDR', header)
    + _chunk(b'IDAT', pixels)
    + _chunk(b'IEND', b'')
  )


def _copy(root):
  (root / 'more/images').mkdir(parents=True)
  shutil.copy(_image(root), root / 'more/images/00002.png')


DAMAGES = {
  'missing label': (
    lambda root: _label(root).unlink(),
    'images/00002.png has no label: expected labels/00002.png .1 of the 3',
  ),
  'label of another size': (
    lambda root: Image.new('P', (64, 30)).save(_label(root)),
    'labels/00002.png is 30x64 but its image .*images/00002.png is 32x64',
  ),
  'truncated image': (
    lambda root: _cut(_image(root)),
    'images/00002.png cannot be decoded: .*truncated',
  ),
  'truncated label': (
    lambda root: _cut(_label(root)),
    'labels/00002.png cannot be decoded',
  ),
  'no image': (
    lambda root: _image(root).write_text('hello'),
    'images/00002.png cannot be decoded: not an image',
  ),
  'empty file': (
    lambda root: _image(root).write_bytes(b''),
    'images/00002.png cannot be decoded: not an image',
  ),
  'label in colours': (
    _colours,
    'labels/00002.png is no label file: .* mode RGB; if the palette',
  ),
  'decompression bomb': (
    _bomb,
    'images/00002.png claims far too many megapixels',
  ),
  'duplicate id': (
    _copy,
    "images/00002.png and .*more/images/00002.png are two files for '00002'",
  ),
}


@pytest.mark.parametrize('name', DAMAGES)
def test_a_broken_pair_is_named_and_leaves_nothing(tmp_path, capsys, name):
  harm, message = DAMAGES[name]
  root = tmp_path / 'raw'
  trees.write_gta5(root, 3)
  harm(root)
  assert run(root, tmp_path) == 2
  assert_one_line(capsys, message)
  assert_nothing_prepared(tmp_path)


@pytest.mark.parametrize('name', ['truncated image', 'label in colours'])
def test_a_broken_pair_in_a_zip_or_a_worker_is_named(tmp_path, capfd, name):
  harm, message = DAMAGES[name]
  trees.write_gta5(tmp_path / 'tree', 130)  # Three shards.
  harm(tmp_path / 'tree')
  (tmp_path / 'raw').mkdir()
  shutil.make_archive(str(tmp_path / 'raw/all'), 'zip', tmp_path / 'tree')
  assert run(tmp_path / 'raw', tmp_path, '--workers=2') == 2
  assert_one_line(capfd, message.replace('images/', 'all.zip/images/', 1))
  assert_nothing_prepared(tmp_path)


def test_after_mending_the_build_goes_on(tmp_path, capsys):
  root = tmp_path / 'raw'
  trees.write_gta5(root, 130)
  last = root / 'images/00130.png'
  whole = last.read_bytes()
  last.write_bytes(b'x')
  assert run(root, tmp_path / 'a') == 2
  last.write_bytes(whole)
  assert run(root, tmp_path / 'a') == 0
  out = capsys.readouterr().out
  assert 'gta5: 86 examples of an earlier run kept' in out
  assert run(root, tmp_path / 'b') == 0
  files = [sorted(tmp_path.glob(f'{x}/gta5/*/*array_record*')) for x in 'ab']
  for one, other in zip(*files, strict=True):
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def test_kept_shards_of_other_files_or_options_are_not_taken(tmp_path, capsys):
  root = tmp_path / 'raw'
  trees.write_gta5(root, 130)
  last = root / 'labels/00130.png'
  whole = last.read_bytes()
  last.write_bytes(b'x')
  assert run(root, tmp_path) == 2
  last.write_bytes(whole)
  first = root / 'images/00001.png'
  Image.new('RGB', (64, 32), (1, 2, 3)).save(first)
  capsys.readouterr()
  assert run(root, tmp_path) == 0
  assert 'gta5: 43 examples of an earlier' in capsys.readouterr().out
  source = sources.open_dataset('gta5', tmp_path)
  assert (source[0]['image'] == [1, 2, 3]).all()


def _pack(path, name, data=b'x', **info):
  member = zipfile.ZipInfo(name)
  for key, value in info.items():
    setattr(member, key, value)
  with zipfile.ZipFile(path, 'a') as archive:
    archive.writestr(member, data)


@pytest.mark.parametrize(
  'name',
  ['../images/00001.png', 'a/../../x.png', '/images/x.png', 'C:/images/x.png'],
)
def test_unsafe_names_in_a_zip(tmp_path, capsys, name):
  root = tmp_path / 'raw'
  trees.write_gta5(root, 1)
  _pack(root / 'more.zip', name)
  assert run(root, tmp_path) == 2
  assert_one_line(capsys, f'more.zip holds the unsafe name {name!r}')
  assert_nothing_prepared(tmp_path)


def test_damaged_zips(tmp_path, capsys):
  root = tmp_path / 'raw'
  root.mkdir()
  trees.write_gta5(tmp_path / 'tree', 2)
  whole = shutil.make_archive(str(root / 'all'), 'zip', tmp_path / 'tree')
  data = pathlib.Path(whole).read_bytes()
  pathlib.Path(whole).write_bytes(data[: len(data) // 2])
  assert run(root, tmp_path) == 2
  assert_one_line(capsys, 'all.zip is no readable zip .*may be incomplete')
  middle = data.index(b'IDAT') + 200
  pathlib.Path(whole).write_bytes(data[:middle] + b'xxxx' + data[middle + 4 :])
  assert run(root, tmp_path) == 2
  assert_one_line(capsys, r'all.zip/\w+/0000\d.png cannot be unpacked')
  assert_nothing_prepared(tmp_path)


def test_a_member_that_claims_gigabytes_is_not_unpacked(tmp_path):
  entry = raw.Entry('images/00001.png', 'all.zip', True, 5 << 30, 0)
  with pytest.raises(errors.UserError, match=r'claims 5\.4 GB: no file of a'):
    raw.read(entry)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['gta6'], "unknown data set 'gta6'; valid: cityscapes, frames, gta5, idd"),
    ([], 'arguments are required: NAME'),
    (['gta5'], 'gta5 needs --manual_dir=RAW. Put'),
    (['gta5', '--manual_dir=/nowhere'], '/nowhere is no folder'),
    (['gta5', '--manual_dir={empty}'], 'is empty'),
    (['gta5', '--manual_dir={other}'], 'no GTA5 images in '),
    (['gta5', '--manual_dir={packed}'], 'x.rar cannot be read in place'),
    (['streets', '--size=96'], "bad size '96': expected HEIGHTxWIDTH"),
    (['streets', '--size=-1x5'], "bad size '-1x5'"),
    (['streets', '--limit=0'], '--limit=0: expected a positive number'),
    (['streets', '--workers=x'], '--workers=x: expected a positive'),
    (['streets', '--config=town'], "unknown domain of streets 'town'"),
    (['streets', '--encoding=jpeg95'], 'streets is rendered, not read'),
    (['gta5', '--manual_dir={other}', '--config=x'], 'gta5 has no configs'),
    (['streets', '--sizes=1x1'], 'unrecognized arguments: --sizes=1x1'),
    (['streets', 'gta'], 'unrecognized arguments: gta'),
    (['streets', '--data_dir={file}'], '{file}'),
    # No directory can be made there, not even by root.
    (['streets', '--data_dir=/sys/kernel/out'], '/sys/kernel/out.*ermitted'),
  ],
)
def test_wrong_usage_is_one_line_and_exit_2(
  tmp_path, capsys, arguments, message
):
  places = {name: tmp_path / name for name in ('empty', 'other', 'packed')}
  for place in places.values():
    place.mkdir()
  (places['other'] / 'x').mkdir()
  (places['packed'] / 'x.rar').write_bytes(b'Rar!')
  places['file'] = tmp_path / 'file'
  places['file'].write_text('x')
  arguments = [a.format(**places) for a in arguments]
  if not any(a.startswith('--data_dir') for a in arguments):
    arguments.append(f'--data_dir={tmp_path / "out"}')
  assert build.main(arguments) == 2
  assert_one_line(capsys, message.format(**places))


def command(root, out, *more):
  flags = [f'--manual_dir={root}', f'--data_dir={out}', *more]
  return [sys.executable, '-m', 'data_prep.build', 'gta5', *flags]


def shell(script, *arguments):
  """Runs a shell script in a mount table of its own, where that is allowed."""
  return subprocess.run(
    [*unshare(), 'sh', '-c', script, 'sh', *arguments],
    capture_output=True,
    text=True,
    check=False,
    cwd=support.ROOT,
    env=support.environment(),
  )


@functools.cache
def unshare():
  """A command to run others in a mount table of their own; [] without right."""
  for command in (['unshare', '-m'], ['unshare', '-m', '--map-root-user']):
    mount = 'mount -t tmpfs tmpfs /mnt'
    probe = subprocess.run(
      [*command, 'sh', '-c', mount], capture_output=True, check=False
    )
    if not probe.returncode:
      return command
  return []


def test_a_disk_that_is_too_small_is_refused_before_the_work(
  tmp_path, capsys, monkeypatch
):
  trees.write_gta5(tmp_path / 'raw', 3)
  usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
  assert run(tmp_path / 'raw', tmp_path) == 2
  assert_one_line(capsys, r'gta5 has 0 MB free, but the images need 0 MB: cho')
  assert_nothing_prepared(tmp_path)


def test_a_file_that_cannot_grow_is_named(tmp_path):
  """Any failing write; needs no rights to mount."""
  trees.write_gta5(tmp_path / 'raw', 70)
  build_it = command(tmp_path / 'raw', tmp_path, '--workers=1')
  done = shell('ulimit -f 200; "$@"', *build_it)
  assert done.returncode == 2
  assert len(done.stderr.splitlines()) == 1
  message = r'unsplit-00000 cannot be written: File too large; finished parts'
  assert re.search(message, done.stderr)
  assert_nothing_prepared(tmp_path)


@pytest.mark.parametrize('workers', (1, 2))
def test_a_full_disk_is_named_and_a_larger_one_goes_on(tmp_path, workers):
  trees.write_gta5(tmp_path / 'raw', 130)
  out = tmp_path / 'out'
  out.mkdir()
  # Resized images have no size that is known before.
  options = '--size=60x60', f'--workers={workers}'
  build_it = command(tmp_path / 'raw', out, *options)
  small = f'mount -t tmpfs -o size=700k tmpfs {out}'
  large = f'mount -o remount,size=64m {out}'
  reason = 'No space left on device'
  if not unshare():  # No right to mount: files that may not grow.
    small, large, reason = 'ulimit -S -f 900', 'ulimit -f 99999', 'File too'
  script = f"""
    {small}; "$@"; echo "first: $?"
    find {out} -name dataset_info.json
    {large}; "$@"; echo "second: $?"
  """
  done = shell(script, *build_it)
  assert 'first: 2\n' in done.stdout, done
  assert 'second: 0\n' in done.stdout, done
  assert 'dataset_info' not in done.stdout
  if workers == 1 and unshare():  # Two may fill it before a part is whole.
    assert 'examples of an earlier run kept' in done.stdout
  assert len(done.stderr.splitlines()) == 1
  assert f'cannot be written: {reason}' in done.stderr


def test_a_read_only_disk_is_named(tmp_path):
  trees.write_gta5(tmp_path / 'raw', 1)
  out = tmp_path / 'out'
  out.mkdir()
  script, reason = f'mount -t tmpfs -o ro tmpfs {out}; "$@"', 'Read-only file'
  if not unshare():  # No right to mount: a place where nobody may write.
    out, script, reason = pathlib.Path('/sys/kernel'), '"$@"', 'not permitted'
  done = shell(script, *command(tmp_path / 'raw', out))
  assert done.returncode == 2, done
  assert len(done.stderr.splitlines()) == 1
  assert re.search(f'{out}/gta5.*{reason}', done.stderr)


def test_a_killed_build_goes_on_to_the_same_result(tmp_path):
  trees.write_gta5(tmp_path / 'raw', 400, ((64, 128),))
  arguments = command(tmp_path / 'raw', tmp_path / 'a', '--workers=2')
  process = subprocess.Popen(
    arguments,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    cwd=support.ROOT,
  )
  deadline = time.monotonic() + 60
  while not [*tmp_path.glob('a/gta5/.unfinished/*.json')]:
    assert time.monotonic() < deadline
    assert process.poll() is None
    time.sleep(0.002)
  process.kill()
  process.communicate(timeout=60)  # Ends when its workers are gone, too.
  assert_nothing_prepared(tmp_path / 'a')
  done = subprocess.run(
    arguments, capture_output=True, text=True, check=True, cwd=support.ROOT
  )
  assert 'examples of an earlier run kept' in done.stdout
  assert run(tmp_path / 'raw', tmp_path / 'b') == 0
  files = [sorted(tmp_path.glob(f'{x}/gta5/1.0.0/*')) for x in 'ab']
  assert len(files[0]) == 7 + 3
  for one, other in zip(*files, strict=True):
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
  assert not [*tmp_path.glob('a/gta5/.unfinished')]
