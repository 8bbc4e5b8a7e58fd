"""Dummy data of the builders: it builds, and its README says how it was made.

What is compared are pixels and documents, not files: how a PNG is compressed
depends on the version of a library.
"""

from __future__ import annotations

import json
import pathlib
import re
import shlex

import numpy as np
import pytest

from data_prep import build, codecs, prepare
from data_prep.streets import export
from jaxseg_da.data import sources

ROOT = pathlib.Path(__file__).parents[2] / 'data_prep'
NAMES = sorted(path.parent.name for path in ROOT.glob('*/dummy_data'))
MAX_BYTES = 100_000
_COMMAND = re.compile(r'python -m data_prep\.streets\.export (.*)')


def files(folder):
  paths = (path for path in folder.rglob('*') if path.is_file())
  return {path.relative_to(folder).as_posix(): path for path in paths}


def content(path):
  """What a file says, without how it is packed."""
  data = path.read_bytes()
  if path.suffix in ('.png', '.jpg'):
    pixels = codecs.decode_deep(data, str(path))
    return pixels.dtype, pixels.shape, pixels.tobytes()
  return json.loads(data) if path.suffix == '.json' else data


def test_names():
  assert {'gta5', 'idd', 'synthia'} <= {*NAMES} <= {*prepare.RAW_NAMES}


@pytest.mark.parametrize('name', NAMES)
def test_it_builds(tmp_path, name):
  raw = ROOT / name / 'dummy_data'
  command = [name, f'--manual_dir={raw}', f'--data_dir={tmp_path}']
  assert build.main([*command, '--workers=1']) == 0
  first = sources.open_dataset(name, tmp_path)
  for split in first.metadata['labelled']:
    source = sources.open_dataset(
      name if split in first.metadata['all'] else f'{name}:{split}', tmp_path
    )
    assert len(source)
    for example in source:
      height, width, _ = example['image'].shape
      assert example['label'].shape == (height, width, 1)
      classes = np.unique(example['label'])
      assert {*classes.tolist()} <= {*range(19), 255}
      assert (len(classes) > 1) == source.labelled


@pytest.mark.parametrize('name', NAMES)
def test_it_is_small_and_made_by_the_command_in_the_readme(tmp_path, name):
  stored = files(ROOT / name / 'dummy_data')
  assert sum(path.stat().st_size for path in stored.values()) < MAX_BYTES
  text = (ROOT / name / 'README.md').read_text().replace('\\\n', ' ')
  (command,) = _COMMAND.findall(text)
  layout, out, *more = shlex.split(command)
  assert (layout, out) == (name, f'data_prep/{name}/dummy_data')
  assert export.main([layout, str(tmp_path), *more]) == 0
  made = files(tmp_path)
  assert made.keys() == stored.keys()
  for path, file in made.items():
    assert content(file) == content(stored[path]), path
