"""The command line of the exporter."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from data_prep import flags, items
from data_prep.streets.export import cityscapes, frames, gta5, idd, synthia
from jaxseg_da import errors

_LAYOUTS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
  'gta5': (gta5.export_gta5, gta5.PACKAGES),
  'synthia': (synthia.export_synthia, synthia.PACKAGES),
  'cityscapes': (cityscapes.export_cityscapes, cityscapes.PACKAGES),
  'idd': (idd.export_idd, idd.PACKAGES),
  'frames': (frames.export_frames, frames.PACKAGES),
}
# They have training and validation frames; the others have frames.
_SPLIT = ('cityscapes', 'idd')


def _parser() -> argparse.ArgumentParser:
  known = '; '.join(
    f'{name}: {", ".join(packages)}'
    for name, (_, packages) in _LAYOUTS.items()
    if packages
  )
  parser = flags.Parser(
    prog='data_prep.streets.export',
    description='Writes street scenes in the exact layout of real data sets.',
    allow_abbrev=False,
  )
  parser.add_argument('layout', metavar='LAYOUT', help=', '.join(_LAYOUTS))
  parser.add_argument('out', metavar='OUT', help='folder to write to')
  parser.add_argument(
    '--n', default='4', help='frames per split (default: %(default)s)'
  )
  parser.add_argument(
    '--size', default='96x192', help='HxW (default: %(default)s)'
  )
  parser.add_argument('--domain', help='domain of the street world')
  parser.add_argument(
    '--with',
    default='',
    dest='packages',
    metavar='NAME,...',
    help=f'optional packages ({known})',
  )
  parser.add_argument(
    '--no_train_labels',
    action='store_true',
    help='leave the labels of training frames out (cityscapes, idd)',
  )
  parser.add_argument(
    '--zip', action='store_true', help='write the official archives instead'
  )
  return parser


def run(argv: Sequence[str]) -> str:
  """Writes what the arguments ask for; returns the folder.

  Raises:
    errors.UserError: wrong arguments, or the folder cannot be written.
  """
  args = _parser().parse_args(argv)
  if args.layout not in _LAYOUTS:
    raise errors.unknown('layout', args.layout, _LAYOUTS)
  counts = [flags.positive('--n', args.n)]
  options: dict[str, Any] = {
    'packages': tuple(filter(None, args.packages.split(','))),
    'zipped': args.zip,
  }
  if args.domain is not None:
    options['domain'] = args.domain
  if args.layout in _SPLIT:
    counts *= 2
    options['train_labels'] = not args.no_train_labels
  elif args.no_train_labels:
    raise errors.UserError(
      f'--no_train_labels is for {" and ".join(_SPLIT)} only, not for '
      f'{args.layout}'
    )
  export, _ = _LAYOUTS[args.layout]
  export(args.out, *counts, items.parse_size(args.size), **options)
  return args.out


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  try:
    out = run(sys.argv[1:] if argv is None else argv)
  except errors.UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  print(f'wrote {out}')
  return 0
