"""The house: imports go one way, and methods are named in one place.

Catches an import that runs back up between wings (also inside of a function), a
circle of modules, a chain of wings that grows, and a method that is known
outside of its room.
"""

from __future__ import annotations

import ast
import functools
import pathlib
import re

import jaxseg_da
from jaxseg_da import methods

ROOT = pathlib.Path(__file__).parents[1]
LONGEST = 9
DOOR = ('main', 'modes', 'seeds')
WINGS = jaxseg_da.WINGS
# Texts that are called as a method and mean something else.
NOT_METHODS = {
  'jaxseg_da.config.base': {'source_only'},  # the default pipeline
  'jaxseg_da.data.pseudo_labels': {'cbst'},  # a rule for thresholds
  'jaxseg_da.losses': {'adversarial', 'maxsquare'},  # modules in __all__
}


def imports(path: pathlib.Path) -> set[str]:
  """Modules that a file imports, wherever in it; names may be no modules."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


def wing(module: str) -> str:
  """The wing of a module: a folder or file of the package, or data_prep."""
  package, *rest = module.split('.')
  name = package if package == 'data_prep' else (rest or [''])[0]
  return 'main' if name in DOOR else name


def modules() -> dict[str, pathlib.Path]:
  """Dotted name -> file, of both packages."""
  found = {}
  for package in ('jaxseg_da', 'data_prep'):
    for path in sorted((ROOT / package).rglob('*.py')):
      parts = path.relative_to(ROOT).with_suffix('').parts
      name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
      found[name] = path
  return found


@functools.cache
def arrows() -> frozenset[tuple[str, str]]:
  """Module -> module that it imports, both ours."""
  files, found = modules(), set()
  for name, path in files.items():
    for target in imports(path):
      while target and target not in files:
        target = target.rpartition('.')[0]
      if target and target not in ('jaxseg_da', 'data_prep', name):
        found.add((name, target))
  return frozenset(found)


def climbing(pairs) -> list[str]:
  """Imports that do not lead to a wing below."""
  found = []
  for name, target in sorted(pairs):
    here, there = wing(name), wing(target)
    if here != there and WINGS.index(here) <= WINGS.index(there):
      found.append(f'{name} imports {target}')
  return found


def longest(pairs) -> list[str]:
  """The longest chain of wings, from the top down; errors.py is no wing."""
  below = {w: set() for w in WINGS}
  for name, target in pairs:
    if wing(name) != wing(target) and wing(target) != 'errors':
      below[wing(name)].add(wing(target))

  @functools.cache
  def chain(w: str) -> tuple[str, ...]:
    return (w, *max(map(chain, below[w]), key=len, default=()))

  return [*max(map(chain, WINGS), key=len)]


def test_every_folder_is_a_wing():
  top = {wing(name) for name in modules()} - {''}
  assert top == set(WINGS)
  for name in top:
    folder = ROOT / 'jaxseg_da' / name
    if folder.is_dir():
      doc = ast.get_docstring(ast.parse((folder / '__init__.py').read_text()))
      assert doc, f'{name} does not say what may enter'


def test_imports_go_one_way():
  assert len(arrows()) > 300
  assert climbing(arrows()) == []


def test_an_import_that_climbs_is_found(tmp_path):
  file = tmp_path / 'x.py'
  file.write_text('def f():\n  from jaxseg_da.methods import dacs\n')
  assert imports(file) == {'jaxseg_da.methods.dacs'}
  up = ('jaxseg_da.training.step', 'jaxseg_da.methods.dacs')
  assert climbing([up]) == [f'{up[0]} imports {up[1]}']
  assert climbing([up[::-1]]) == []


def test_no_circle_of_modules():
  below = {name: set() for name in modules()}
  for name, target in arrows():
    below[name].add(target)
  done, open_ = set(), []

  def visit(name: str) -> None:
    assert name not in open_, ' -> '.join([*open_, name])
    if name in done:
      return
    open_.append(name)
    for target in sorted(below[name]):
      # A package's own parts are imported by its `__init__`.
      if not name.startswith(f'{target}.'):
        visit(target)
    open_.pop()
    done.add(name)

  for name in below:
    visit(name)


def test_the_longest_chain_of_wings():
  chain = longest(arrows())
  assert len(chain) <= LONGEST, ' -> '.join(chain)


def test_a_method_is_named_in_one_place():
  """No other wing imports a method or has its name as a text."""
  parts = {f'jaxseg_da.methods.{module}' for module in methods.MODULES}
  for name, target in arrows():
    if wing(name) != 'methods':
      assert not any(target == p or target.startswith(f'{p}.') for p in parts)
  for name, path in modules().items():
    if wing(name) == 'methods':
      continue
    texts = {
      node.value
      for node in ast.walk(ast.parse(path.read_text()))
      if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not (texts & set(methods.NAMES)) - NOT_METHODS.get(name, set()), name


def test_the_page_shows_the_wings_in_order():
  page = (ROOT / 'docs/design.md').read_text()
  table = page[page.index('## Wings') :].split('\n\n')[2]
  named = re.findall(r'^\| `(\w+)', table, re.M)
  assert named == [*WINGS]
