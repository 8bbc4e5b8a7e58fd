"""A round's selection, in one process or in several; run by a test.

python -m tests.one_selection FOLDER
"""

from __future__ import annotations

import pathlib
import sys

from jaxseg_da.methods.lse import host_pass
from jaxseg_da.training import parallel
from tests.methods import test_lse


def main(folder: str) -> None:
  """Selects, and leaves the artefacts in the folder."""
  parallel.start_processes(False)
  config, stage, state = test_lse.started()
  context, _ = test_lse.context(pathlib.Path(folder), config, stage, state)
  host_pass.run(context)
  parallel.barrier('written')


if __name__ == '__main__':
  main(*sys.argv[1:])
