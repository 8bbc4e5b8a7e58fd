"""Tensors of PyTorch checkpoint files, without PyTorch and without execution.

A pickle is a program. This reader lets it build tensors, containers and plain
values, and refuses every other global by name. Layouts: the zip archive that
PyTorch writes since 1.6, and the stream of pickles before. Both describe a
tensor as offset, size and strides within a flat storage; these are checked
against the storage's length before any memory is viewed.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import pickle
import struct
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from jaxseg_da import errors

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_STORAGES = {
  'DoubleStorage': np.float64,
  'FloatStorage': np.float32,
  'HalfStorage': np.float16,
  'BFloat16Storage': ml_dtypes.bfloat16,
  'LongStorage': np.int64,
  'IntStorage': np.int32,
  'ShortStorage': np.int16,
  'CharStorage': np.int8,
  'ByteStorage': np.uint8,
  'BoolStorage': np.bool_,
}
_DTYPES = (
  *('float64', 'float32', 'float16', 'bfloat16'),
  *('int64', 'int32', 'int16', 'int8', 'uint8', 'bool'),
)


@dataclasses.dataclass(eq=False)
class _Storage:
  """A flat array, filled once its bytes have been read."""

  dtype: np.dtype
  length: int
  data: np.ndarray | None = None

  def fill(self, raw: bytes, order: str) -> None:
    if len(raw) < self.length * self.dtype.itemsize:
      raise errors.UserError('a tensor storage is shorter than it says')
    data = np.frombuffer(raw, self.dtype, self.length)
    native = order == 'little' or self.dtype.itemsize == 1
    self.data = data if native else data.byteswap()


@dataclasses.dataclass(frozen=True, eq=False)
class _Tensor:
  """A strided view of a storage, as the pickle describes it."""

  storage: _Storage
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]

  def array(self) -> np.ndarray:
    data, numbers = self.storage.data, (self.offset, *self.size, *self.stride)
    whole = all(type(n) is int and n >= 0 for n in numbers)
    if data is None or not whole or len(self.size) != len(self.stride):
      raise errors.UserError('a tensor has no data, or an invalid shape')
    if math.prod(self.size) == 0:
      return np.zeros(self.size, data.dtype)
    steps = zip(self.size, self.stride, strict=True)
    last = self.offset + sum((n - 1) * step for n, step in steps)
    if last >= len(data):
      raise errors.UserError('a tensor reaches beyond its storage')
    return np.lib.stride_tricks.as_strided(
      data[self.offset :],
      self.size,
      [step * data.itemsize for step in self.stride],
      writeable=False,
    )


def read(path) -> Any:
  """The object in a `.pth` file, with NumPy arrays in place of tensors.

  Raises:
    UserError: the file asks for a forbidden global, or is no such file.
  """
  try:
    reader = _read_zip if zipfile.is_zipfile(path) else _read_legacy
    return _resolve(reader(path))
  except errors.UserError as error:
    raise errors.UserError(f'{path}: {error}') from None
  except (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error),
    *(EOFError, KeyError, IndexError, TypeError, ValueError),
    *(AttributeError, ImportError, OverflowError, RecursionError),
  ) as error:
    raise errors.UserError(
      f'{path}: not a PyTorch checkpoint that can be read: {error}'
    ) from None


class _Unpickler(pickle.Unpickler):
  """Finds only what tensors and containers are made of."""

  def __init__(self, file, storages):
    super().__init__(file, encoding='utf-8')
    self._storages = storages

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if (module, name) == ('torch', 'Size'):
      return tuple
    if module == 'torch._utils':
      # New functions every time: a pickle can set attributes of what it gets.
      if name == '_rebuild_tensor_v2':
        return lambda storage, offset, size, stride, *_: _Tensor(
          storage, offset, tuple(size), tuple(stride)
        )
      if name == '_rebuild_tensor':
        return lambda storage, offset, size, stride: _Tensor(
          storage, offset, tuple(size), tuple(stride)
        )
      if name == '_rebuild_parameter':
        return lambda data, *_: data
    if module == 'torch' and (name in _STORAGES or name in _DTYPES):
      return name
    raise errors.UserError(
      f'the pickle asks for {module}.{name}, which is not a tensor or a'
      ' container; nothing was executed'
    )

  def persistent_load(self, pid: Any) -> _Storage:
    if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == 'storage'):
      raise errors.UserError('the pickle refers to something but a storage')
    _, kind, key, _, length, *view = pid
    plain = kind in _STORAGES and type(length) is int and length >= 0
    if not plain or any(v is not None for v in view):
      raise errors.UserError('the pickle holds a storage of an unknown kind')
    dtype = np.dtype(_STORAGES[kind])
    known = self._storages.setdefault(str(key), _Storage(dtype, length))
    if (known.dtype, known.length) != (dtype, length):
      raise errors.UserError('one storage is described in two ways')
    return known


def _read_zip(path) -> Any:
  with zipfile.ZipFile(path) as archive:
    names = [n for n in archive.namelist() if n.endswith('/data.pkl')]
    if len(names) != 1:
      raise errors.UserError('the archive has no data.pkl')
    prefix = names[0].removesuffix('data.pkl')
    order = 'little'
    if f'{prefix}byteorder' in archive.namelist():
      order = archive.read(f'{prefix}byteorder').decode().strip()
    storages: dict[str, _Storage] = {}
    root = _Unpickler(io.BytesIO(archive.read(names[0])), storages).load()
    for key, storage in storages.items():
      storage.fill(archive.read(f'{prefix}data/{key}'), order)
  return root


def _read_legacy(path) -> Any:
  storages: dict[str, _Storage] = {}
  with open(path, 'rb') as file:
    load = lambda: _Unpickler(file, storages).load()
    if (load(), load()) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
      raise errors.UserError('neither a zip archive nor a PyTorch stream')
    system = load()
    order = 'little' if system.get('little_endian', True) else 'big'
    sign = '<' if order == 'little' else '>'
    root = load()
    for key in load():
      storage = storages[str(key)]
      (length,) = struct.unpack(f'{sign}q', file.read(8))
      if length != storage.length:
        raise errors.UserError('a tensor storage differs from its description')
      storage.fill(file.read(length * storage.dtype.itemsize), order)
  return root


def _resolve(node: Any) -> Any:
  """Replaces tensors by arrays in nested containers."""
  if isinstance(node, _Tensor):
    return node.array()
  if isinstance(node, dict):
    return {key: _resolve(value) for key, value in node.items()}
  if isinstance(node, (list, tuple)):
    return [_resolve(value) for value in node]
  return node
