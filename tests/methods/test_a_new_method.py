"""A newcomer adds a method by following docs/adding_a_method.md.

Catches: a second place that has to know a method, and a page that has aged.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys

import pytest

from tests import support

PARTS = ('jaxseg_da', 'configs', 'data_prep')
REGISTRY = 'jaxseg_da/methods/__init__.py'


def blocks() -> dict[str, str]:
  """The page's code: file -> what stands in it."""
  page = (support.ROOT / 'docs/adding_a_method.md').read_text()
  steps = re.findall(
    r'\n\d\. [^`]*((?:`[^`]+`[^`]*)+?):\n+```python\n(.*?)```', page, re.S
  )
  return {re.findall(r'`([^`]+)`', names)[-1]: code for names, code in steps}


def digests(root) -> dict[str, str]:
  return {
    str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in root.rglob('*')
    if path.is_file() and '__pycache__' not in path.parts
  }


@pytest.mark.slow
def test_the_page_makes_a_method(tmp_path):
  for part in PARTS:
    skip = shutil.ignore_patterns('__pycache__', 'dummy_data')
    shutil.copytree(support.ROOT / part, tmp_path / part, ignore=skip)
  before = digests(tmp_path)
  code = blocks()
  module, config = 'jaxseg_da/methods/toy.py', 'configs/toy.py'
  assert set(code) == {module, REGISTRY, config}
  assert len(code[module].strip().splitlines()) <= 45
  for name in (module, config):
    (tmp_path / name).write_text(code[name])
  registry = (tmp_path / REGISTRY).read_text()
  line = code[REGISTRY].strip('\n')
  assert line.count('\n') == 0
  (tmp_path / REGISTRY).write_text(
    registry.replace('MODULES = {\n', f'MODULES = {{\n{line}\n', 1)
  )
  after = digests(tmp_path)
  changed = {name for name in after if after[name] != before.get(name)}
  assert changed == {module, REGISTRY, config}

  def run(*more: str):
    workdir = tmp_path / 'run'
    flags = support.flags(workdir, *more, config=str(tmp_path / config))
    process = subprocess.Popen(
      [sys.executable, '-m', 'jaxseg_da.main', *flags],
      env=support.environment(PYTHONPATH=str(tmp_path)),
      cwd=tmp_path,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    return workdir, *support.finish(process)

  _, code, out, err = run('--mode=explain')
  assert code == 0, err
  assert 'toy.weight = 0.01' in out and '1 toy: toy from source_only' in out
  _, code, _, err = run('--config.toy.weight=-1')
  assert code == 2 and 'config.toy.weight=-1' in err
  workdir, code, out, err = run(
    '--config.control=True',
    '--config.stages.source_only.steps=1',
    '--config.stages.toy.steps=2',
  )
  assert code == 0, err
  stages = support.results(workdir)['stages']
  updates = {s['name']: s['segmentation_updates'] for s in stages}
  assert updates == {'source_only': 1, 'toy': 2, 'control': 2}
  assert any('loss/entropy' in record for record in support.metrics(workdir))
