"""Prepares a data set: `python -m data_prep.build NAME --data_dir=OUT ...`.

Exit codes: 0 built or already there, 2 wrong usage or data (one line on
stderr). TensorFlow is neither needed nor imported.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from data_prep import flags, items, layouts, prepare
from jaxseg_da import errors
from jaxseg_da.data import depth, transforms

_STREETS_PAIR = ('gta', 'city')


def _parser() -> argparse.ArgumentParser:
  parser = flags.Parser(
    prog='data_prep.build', description=__doc__, allow_abbrev=False
  )
  add = parser.add_argument
  add('name', metavar='NAME', help=', '.join(prepare.NAMES))
  add(
    '--data_dir',
    default='~/tensorflow_datasets',
    help='folder of prepared data sets (default: %(default)s)',
  )
  add('--manual_dir', help='folder of the raw data: trees, zips, or both')
  add('--config', help='streets: DOMAIN[-HxW][-views] (default: gta and city)')
  add('--size', help='HxW to store (default: as it is)')
  add(
    '--resize',
    default='',
    help=f'{", ".join(transforms.MODES)} (default: as the papers do)',
  )
  add(
    '--encoding',
    default='keep',
    help=f'of images: {", ".join(items.ENCODINGS)} (default: %(default)s)',
  )
  add('--limit', help='at most N examples per split')
  add(
    '--list',
    action='append',
    default=[],
    help='FILE of image ids to take, or SPLIT=FILE; may be repeated',
  )
  add(
    '--known_bad',
    default='drop',
    help='drop, keep, or a FILE of lines "ID REASON" (default: %(default)s)',
  )
  add('--depth_dir', default='', help='folder of depth files')
  add(
    '--depth_kind',
    default='',
    help=f'of the files in --depth_dir: {", ".join(depth.KINDS)}',
  )
  add(
    '--features',
    help=f'of {", ".join(layouts.OPTIONAL)}, or none (default: what is there)',
  )
  add('--workers', help='processes (default: all cores)')
  return parser


def _options(args: argparse.Namespace) -> layouts.Options:
  features = None
  if args.features is not None:
    chosen = args.features if args.features != 'none' else ''
    features = tuple(filter(None, chosen.split(',')))
  return layouts.Options(
    size=items.parse_size(args.size) if args.size is not None else None,
    resize=args.resize,
    encoding=args.encoding,
    limit=flags.positive('--limit', args.limit),
    lists=tuple(args.list),
    known_bad=args.known_bad,
    depth_dir=args.depth_dir,
    depth_kind=args.depth_kind,
    features=features,
  )


def run(argv: Sequence[str]) -> None:
  """Builds what the arguments ask for; raises `errors.UserError`."""
  args = _parser().parse_args(argv)
  options = _options(args)
  num_workers = flags.positive('--workers', args.workers)
  configs: tuple[str | None, ...] = (args.config,)
  if args.name == 'streets' and args.config is None:
    configs = _STREETS_PAIR
  for config in configs:
    target, fresh = prepare.build(
      args.name,
      args.data_dir,
      manual_dir=args.manual_dir,
      config=config,
      options=options,
      num_workers=num_workers,
      progress=sys.stdout,
    )
    print(f'{"wrote" if fresh else "already prepared:"} {target}', flush=True)
    if fresh:
      _say_what_was_left_out(target)


def _say_what_was_left_out(target: pathlib.Path) -> None:
  dropped = json.loads((target / 'metadata.json').read_text())['dropped']
  for name, reason in list(dropped.items())[:10]:
    print(f'left out {name}: {reason}')
  if len(dropped) > 10:
    print(f'left out {len(dropped)} in all: see {target / "metadata.json"}')


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  try:
    run(sys.argv[1:] if argv is None else argv)
  except errors.UserError as error:
    message = str(error)
  except OSError as error:
    message = f'{error.filename or "data_prep.build"}: {error.strerror}'
  else:
    return 0
  print(f'error: {message}', file=sys.stderr)
  return 2


if __name__ == '__main__':
  sys.exit(main())
