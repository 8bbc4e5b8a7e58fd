"""The embedded street benchmark: a procedural world and its data sets."""

from __future__ import annotations

# Of the prepared data. A world that renders other pixels needs another one:
# data of an older version is then not used, but built anew.
VERSION = '1.0.0'
