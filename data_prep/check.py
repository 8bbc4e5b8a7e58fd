"""Looks at raw data: `python -m data_prep.check NAME --manual_dir=RAW`.

Exit codes: 0 nothing is wrong, 2 something is, or wrong usage (one line on
stderr). Nothing is written to the raw data.
"""

from __future__ import annotations

import argparse
import importlib
import pathlib
import sys
from collections.abc import Sequence

from data_prep import flags, layouts, prepare
from data_prep.checks import findings, page, verdicts, words
from jaxseg_da import errors

_SAMPLE = 200


def _parser() -> argparse.ArgumentParser:
  parser = flags.Parser(
    prog='data_prep.check',
    description='Looks at raw data and says what is wrong with it.',
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('name', metavar='NAME', help=', '.join(prepare.RAW_NAMES))
  add('--manual_dir', required=True, metavar='RAW', help='the raw data')
  add('--html', metavar='FILE', help='also write a page with pictures')
  add(
    '--sample',
    metavar='N',
    help=f'frames to read and decode (default: {_SAMPLE})',
  )
  add(
    '--all',
    action='store_true',
    help='look up the sizes of all files, not only of those frames',
  )
  add(
    '--expect',
    default='official',
    choices=('official', 'any'),
    help='any: do not compare with the counts, ids and sizes of the official '
    'download (default: %(default)s)',
  )
  return parser


def run(argv: Sequence[str]) -> verdicts.Verdict:
  """Checks what the arguments name, prints the report; returns the verdict.

  Raises:
    errors.UserError: wrong usage, or the page cannot be written.
  """
  args = _parser().parse_args(argv)
  if args.name not in prepare.RAW_NAMES:
    raise errors.unknown('data set', args.name, prepare.RAW_NAMES)
  count = flags.positive('--sample', args.sample)
  root = pathlib.Path(args.manual_dir).expanduser()
  if not root.is_dir():
    raise errors.UserError(f'--manual_dir={root} is no folder')
  target = pathlib.Path(args.html).expanduser() if args.html else None
  if target:
    page.check_target(target)
  module = importlib.import_module(f'data_prep.{args.name}.layout')
  layout: layouts.Layout = module.LAYOUT
  try:
    found = findings.gather(
      layout,
      root,
      count=count or _SAMPLE,
      measure_all=args.all,
      official=args.expect == 'official',
      progress=sys.stdout,
    )
  except errors.UserError as error:
    found, verdict = None, verdicts.Verdict(str(error), False)
  else:
    verdict = verdicts.judge(found)
    print('\n'.join(words.report(found)), end='\n\n')
  if target:
    page.write(target, layout, str(root), verdict, found)
    print(f'wrote {target}')
  print(f'verdict: {verdict.text}', flush=True)
  return verdict


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  try:
    verdict = run(sys.argv[1:] if argv is None else argv)
  except errors.UserError as error:
    message = str(error)
  else:
    if verdict.good:
      return 0
    message = verdict.text
  print(f'error: {message}', file=sys.stderr)
  return 2


if __name__ == '__main__':
  sys.exit(main())
