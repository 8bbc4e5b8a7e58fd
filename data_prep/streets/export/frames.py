"""Short videos: folders of consecutive frames with their intrinsics."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from data_prep import codecs
from data_prep.streets.export import scenes, writer

PACKAGES = ()

_ARCHIVE = 'frames.zip'
_VIEWS = ('image_prev', 'image', 'image_next')


def export_frames(
  directory: str | os.PathLike[str],
  n: int,
  size: scenes.Size,
  domain: str = 'city',
  *,
  packages: Collection[str] = (),
  zipped: bool = False,
) -> None:
  """Writes `seq_00/000000.png` to `000002.png` and `seq_00/intrinsics.txt`.

  The text has one line: fx fy cx cy in pixels.

  Args:
    directory: where to; made where it is missing.
    n: number of sequences, of three frames each.
    size: (height, width).
    domain: a domain of the street world.
    packages: none are known.
    zipped: write `frames.zip` instead.

  Raises:
    errors.UserError: an unknown name, or the folder cannot be written.
  """
  scenes.check_packages('frames', packages, PACKAGES)
  scenery = scenes.domain(domain)

  def files() -> Iterator[writer.File]:
    rendered = scenes.render(scenery, 'train', range(n), size, views=True)
    for index, scene in enumerate(rendered):
      folder = f'seq_{index:02d}'
      for number, view in enumerate(_VIEWS):
        data = codecs.encode_png(scene[view])
        yield writer.File(_ARCHIVE, f'{folder}/{number:06d}.png', data)
      # Nine digits bring every float32 back as it was.
      line = ' '.join(f'{value:.9g}' for value in scene['intrinsics'])
      path = f'{folder}/intrinsics.txt'
      yield writer.File(_ARCHIVE, path, f'{line}\n'.encode())

  writer.write(directory, files(), zipped=zipped)
