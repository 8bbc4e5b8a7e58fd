"""Values that cannot be meant: exit 2, one sentence, before anything compiles.

Generated from the schema: keys that can be wrong get a value that their rule
says is wrong. Catches a key whose rule is not enforced, and a
refusal that comes late: CPU seconds are counted, which do not depend on what
else a machine does.
"""

from __future__ import annotations

import concurrent.futures
import resource

import pytest

from jaxseg_da import methods
from jaxseg_da.config import schema
from tests import support

SECONDS = 5
AT_ONCE = 2
FEWEST = 60


def config_of(key: str) -> str:
  """A config that reads a key."""
  block = key.partition('.')[0]
  if key.startswith('optim.discriminator'):
    return 'adversarial'
  return block if block in methods.MODULES else 'dacs'


def written(value) -> str:
  """A value as a command line has it."""
  return value if isinstance(value, str) else repr(value)


def wrong_values() -> dict[str, str]:
  """Key -> a wrong value: every second key that has one.

  All of them are tried in `test_config.py`, without a process each.
  """
  config = methods.base_config(*methods.NAMES)
  found = {}
  for key, _, entry in schema.keys(config, methods.schema_of(config)):
    if entry.rule.wrong:
      found[key] = written(entry.rule.wrong[0])
  return dict([*found.items()][::2])


def refuse(key: str, value: str, folder) -> None:
  """Runs the command."""
  path = f'{support.ROOT}/configs/{config_of(key)}.py'
  flags = [f'--config={path}', f'--workdir={folder / "run"}']
  out, err = support.run([*flags, f'--config.{key}={value}'], expected=2)
  assert not out and err.startswith('error: ') and err.count('\n') == 1, err
  assert key in err and 'Traceback' not in err, err


def cpu_seconds() -> float:
  """Of all children that have ended."""
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


@pytest.mark.slow
def test_keys_refuse_their_wrong_values(tmp_path):
  found = wrong_values()
  assert len(found) > FEWEST
  before = cpu_seconds()
  with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
    waiting = [
      pool.submit(refuse, key, value, tmp_path) for key, value in found.items()
    ]
    for future in waiting:
      future.result()
  assert (cpu_seconds() - before) / len(found) < SECONDS
  assert not (tmp_path / 'run').exists()
