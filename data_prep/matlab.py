"""Variables of MATLAB files, through SciPy."""

from __future__ import annotations

import io
import math

import numpy as np
import scipy.io

from data_prep import codecs
from jaxseg_da import errors


def load(data: bytes, where: str, name: str) -> np.ndarray:
  """A numeric variable of a MATLAB file of version 4 to 7.

  Args:
    data: the file's bytes.
    where: its path, for messages.
    name: of the variable.

  Returns:
    Its numbers, at least 2-D, as SciPy gives them.

  Raises:
    errors.UserError: no such file or variable, or one of an absurd size.
  """
  try:
    declared = scipy.io.whosmat(io.BytesIO(data))
    shapes = {key: shape for key, shape, _ in declared}
    count = math.prod(shapes.get(name, ()))
    if name in shapes and count <= codecs.MAX_PIXELS:
      return scipy.io.loadmat(io.BytesIO(data), variable_names=[name])[name]
  except NotImplementedError as error:
    raise errors.UserError(
      f'{where} is a MATLAB v7.3 file (HDF5), which is not supported: save it '
      'again with -v7'
    ) from error
  except Exception as error:  # SciPy raises many types for broken files.
    raise errors.UserError(
      f'{where} cannot be decoded as a MATLAB file: {error or type(error)}'
    ) from error
  if name in shapes:
    size = 'x'.join(map(str, shapes[name]))
    raise errors.UserError(
      f'{where}: {name!r} claims {size} numbers: no driving scene, it is not '
      'read'
    )
  found = ', '.join(map(repr, shapes)) or 'nothing'
  raise errors.UserError(f'{where} has no variable {name!r}, it holds {found}')
