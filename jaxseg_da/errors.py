"""The one exception that means: the user has to change something.

`main` prints its message as one line on stderr and exits with code 2, without
a traceback. Messages name the key or path, what is wrong, and valid choices.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
  """Wrong usage, configuration or data."""


def unknown(kind: str, name: object, choices: Iterable[object]) -> UserError:
  """An error for a name that is none of `choices`, with the nearest one."""
  known = sorted(str(c) for c in choices)
  near = difflib.get_close_matches(str(name), known, 1)
  hint = f' Did you mean {near[0]!r}?' if near else ''
  return UserError(f'unknown {kind} {name!r}; valid: {", ".join(known)}.{hint}')
