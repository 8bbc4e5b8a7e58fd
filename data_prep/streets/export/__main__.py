"""`python -m data_prep.streets.export`."""

from __future__ import annotations

import sys

from data_prep.streets.export import cli

if __name__ == '__main__':
  sys.exit(cli.main())
