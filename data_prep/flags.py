"""What the command lines of this package share."""

from __future__ import annotations

import argparse
from typing import Any

from jaxseg_da import errors


class Parser(argparse.ArgumentParser):
  """A parser whose complaints are `errors.UserError`, one line each."""

  def error(self, message: str) -> Any:
    """See base class."""
    raise errors.UserError(message)


def positive(flag: str, text: str | None) -> int | None:
  """A positive number, or None where there is none."""
  if text is None:
    return None
  if not (text.isascii() and text.isdigit() and int(text) > 0):
    raise errors.UserError(f'{flag}={text}: expected a positive number')
  return int(text)
