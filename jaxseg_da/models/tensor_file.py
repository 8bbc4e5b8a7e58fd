"""Named tensors of a weight file, whatever its format."""

from __future__ import annotations

import json
import os
import pathlib
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from jaxseg_da import errors

_SAFETENSORS = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': ml_dtypes.bfloat16,
  'I64': np.int64,
  'I32': np.int32,
  'I16': np.int16,
  'I8': np.int8,
  'U64': np.uint64,
  'U32': np.uint32,
  'U16': np.uint16,
  'U8': np.uint8,
  'BOOL': np.bool_,
}
# Entries of a training checkpoint that hold the network, best first: a student
# before its average.
_NESTED = ('model', 'state_dict', 'model_state_dict', 'net', 'ema_model')


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads `.npz`, `.safetensors`, `.pth`, `.pt` or `.pkl`; executes nothing.

  Of a training checkpoint that nests state dicts, the entry `model` is taken,
  else `state_dict`. A common prefix `module.` (left by a parallel wrapper) is
  dropped.

  Returns:
    `{name: array}`, read-only arrays in the file's dtypes; bfloat16 as float32.

  Raises:
    UserError: the file is missing, damaged, of another format, or its pickle
      asks for a global that a table of tensors has no use for.
  """
  path = pathlib.Path(path)
  readers = {
    '.npz': _read_npz,
    '.safetensors': _read_safetensors,
    '.pth': _read_torch,
    '.pt': _read_torch,
    '.pkl': _read_torch,
  }
  if not path.is_file():
    raise errors.UserError(f'weight file {str(path)!r} does not exist.')
  if path.suffix not in readers:
    raise errors.unknown('weight file format', path.suffix, readers)
  tensors = dict(readers[path.suffix](path))
  if not tensors:
    raise errors.UserError(f'{path} holds no tensors.')
  while all(name.startswith('module.') for name in tensors):
    tensors = {k.removeprefix('module.'): v for k, v in tensors.items()}
  return {
    k: v.astype(np.float32) if v.dtype == ml_dtypes.bfloat16 else v
    for k, v in tensors.items()
  }


def _read_npz(path) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as arrays:
      return {name: arrays[name] for name in arrays.files}
  except (ValueError, zipfile.BadZipFile, AttributeError, EOFError) as error:
    raise errors.UserError(f'{path}: not an .npz of tensors: {error}') from None


def _read_safetensors(path) -> dict[str, np.ndarray]:
  """A header of JSON behind its 8-byte length, then the raw tensors."""
  raw = path.read_bytes()
  try:
    (length,) = struct.unpack('<Q', raw[:8])
    header = json.loads(raw[8 : 8 + length])
    body = memoryview(raw)[8 + length :]
    tensors = {}
    for name, entry in header.items():
      if name == '__metadata__':
        continue
      dtype = np.dtype(_SAFETENSORS[entry['dtype']])
      start, end = entry['data_offsets']
      if not 0 <= start <= end <= len(body):
        raise ValueError(f'{name} reaches beyond the end of the file')
      flat = np.frombuffer(body[start:end], dtype)
      tensors[name] = flat.reshape(entry['shape'])
    return tensors
  except (struct.error, ValueError, KeyError, TypeError, AttributeError) as e:
    raise errors.UserError(
      f'{path}: not a safetensors file that can be read: {e!r}'
    ) from None


def _read_torch(path) -> Mapping[str, np.ndarray]:
  from jaxseg_da.models import torch_file

  root = torch_file.read(path)
  node: Any = root
  while isinstance(node, dict) and not _holds_tensors(node):
    nested = [key for key in _NESTED if isinstance(node.get(key), dict)]
    if not nested:
      break
    node = node[nested[0]]
  if not isinstance(node, dict) or not _holds_tensors(node):
    keys = sorted(map(str, root)) if isinstance(root, dict) else type(root)
    raise errors.UserError(f'{path} holds no table of tensors, only {keys}.')
  odd = [k for k, v in node.items() if not isinstance(v, np.ndarray)]
  if odd:
    raise errors.UserError(f'{path}: no tensors: {", ".join(map(str, odd))}.')
  return {str(k): v for k, v in node.items()}


def _holds_tensors(node: dict) -> bool:
  return any(isinstance(v, np.ndarray) for v in node.values())
