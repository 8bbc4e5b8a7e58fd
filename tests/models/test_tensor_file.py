from __future__ import annotations

import collections
import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest

from jaxseg_da import errors
from jaxseg_da.models import tensor_file

_STORAGES = {
  'float32': 'FloatStorage',
  'float64': 'DoubleStorage',
  'float16': 'HalfStorage',
  'bfloat16': 'BFloat16Storage',
  'int64': 'LongStorage',
}


class View:
  """A tensor: a strided view of a flat array, as PyTorch pickles it."""

  def __init__(self, flat, size=None, stride=None, offset=0, parameter=False):
    self.flat = np.ascontiguousarray(flat).reshape(-1)
    self.size = tuple(np.shape(flat) if size is None else size)
    steps = [int(np.prod(self.size[i + 1 :])) for i in range(len(self.size))]
    self.stride = tuple(steps if stride is None else stride)
    self.offset = offset
    self.parameter = parameter


class Storage:
  def __init__(self, flat):
    self.flat = flat


@pytest.fixture
def torch(monkeypatch):
  """Stand-ins for the globals that a checkpoint's pickle names."""
  root, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')

  def define(module, name):
    def function(*args):
      raise AssertionError('only named, never called')

    function.__module__, function.__qualname__ = module.__name__, name
    setattr(module, name, function)

  for name in _STORAGES.values():
    define(root, name)
  for name in ('_rebuild_tensor_v2', '_rebuild_parameter'):
    define(utils, name)
  monkeypatch.setitem(sys.modules, 'torch', root)
  monkeypatch.setitem(sys.modules, 'torch._utils', utils)
  return types.SimpleNamespace(root=root, utils=utils)


def _pickle(node, torch, legacy):
  """The pickle of `node`, and its storages by key."""
  keys, kept = {}, []

  class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
      if not isinstance(obj, Storage):
        return None
      key = keys.setdefault(id(obj.flat), str(len(keys)))
      kept.append(obj.flat)
      kind = getattr(torch.root, _STORAGES[obj.flat.dtype.name])
      pid = ('storage', kind, key, 'cpu', obj.flat.size)
      return (*pid, None) if legacy else pid

    def reducer_override(self, obj):
      if not isinstance(obj, View):
        return NotImplemented
      hooks = collections.OrderedDict()
      if obj.parameter:
        plain = View(obj.flat, obj.size, obj.stride, obj.offset)
        return torch.utils._rebuild_parameter, (plain, True, hooks)
      arguments = (Storage(obj.flat), obj.offset, obj.size, obj.stride)
      return torch.utils._rebuild_tensor_v2, (*arguments, False, hooks)

  file = io.BytesIO()
  Pickler(file, 2).dump(node)
  flats = {keys[id(flat)]: flat for flat in kept}
  return file.getvalue(), flats


def _write_zip(path, node, torch, pickled=None):
  data, flats = _pickle(node, torch, legacy=False)
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', pickled or data)
    archive.writestr('archive/byteorder', 'little')
    for key, flat in flats.items():
      archive.writestr(f'archive/data/{key}', flat.tobytes())
    archive.writestr('archive/version', '3\n')


def _write_legacy(path, node, torch):
  data, flats = _pickle(node, torch, legacy=True)
  with open(path, 'wb') as file:
    pickle.dump(0x1950A86A20F9469CFC6C, file, 2)
    pickle.dump(1001, file, 2)
    pickle.dump({'protocol_version': 1001, 'little_endian': True}, file, 2)
    file.write(data)
    pickle.dump(sorted(flats), file, 2)
    for key in sorted(flats):
      file.write(struct.pack('<q', flats[key].size))
      file.write(flats[key].tobytes())


WRITERS = {'zip': _write_zip, 'legacy': _write_legacy}


@pytest.mark.parametrize('form', WRITERS)
def test_torch_layouts(form, torch, tmp_path):
  path = tmp_path / 'weights.pth'
  base_array = np.arange(24, dtype=np.float32)
  state = collections.OrderedDict(
    whole=View(np.arange(6, dtype=np.float64).reshape(2, 3)),
    transposed=View(base_array, (3, 2), (1, 3), offset=4),
    shared=View(base_array, (2, 2), (12, 1), offset=1),
    parameter=View(np.asarray([1.5, -2], np.float16), parameter=True),
    brain=View(np.asarray([1.5, 3], ml_dtypes.bfloat16)),
    scalar=View(np.asarray(7, np.int64)),
    empty=View(np.zeros((0, 3), np.float32)),
  )
  state._metadata = collections.OrderedDict(version=1)
  WRITERS[form](path, state, torch)
  tensors = tensor_file.read(path)
  assert list(tensors) == list(state)
  np.testing.assert_array_equal(tensors['whole'], [[0, 1, 2], [3, 4, 5]])
  assert tensors['whole'].dtype == np.float64
  np.testing.assert_array_equal(tensors['transposed'], [[4, 7], [5, 8], [6, 9]])
  np.testing.assert_array_equal(tensors['shared'], [[1, 2], [13, 14]])
  np.testing.assert_array_equal(tensors['parameter'], [1.5, -2])
  np.testing.assert_array_equal(tensors['brain'], [1.5, 3])
  assert tensors['brain'].dtype == np.float32
  assert tensors['scalar'] == 7 and tensors['scalar'].shape == ()
  assert tensors['empty'].shape == (0, 3)


@pytest.mark.parametrize('form', WRITERS)
def test_checkpoints_give_the_student(form, torch, tmp_path):
  path = tmp_path / 'checkpoint.pth'
  student = {'module.conv1.weight': View(np.ones((1, 1), np.float32))}
  teacher = {'module.conv1.weight': View(np.zeros((1, 1), np.float32))}
  momentum = {'state': {0: {'buffer': View(np.zeros(2, np.float32))}}}
  node = {
    'iteration': 3,
    'config': {'name': 'run', 'rates': [0.1, None, True]},
    'optimizer': momentum,
    'ema_model': teacher,
    'model': student,
  }
  WRITERS[form](path, node, torch)
  assert tensor_file.read(path) == {'conv1.weight': np.ones((1, 1))}
  WRITERS[form](path, {'epoch': 1, 'state_dict': teacher}, torch)
  assert tensor_file.read(path) == {'conv1.weight': np.zeros((1, 1))}
  WRITERS[form](path, {'epoch': 1, 'rates': [2]}, torch)
  with pytest.raises(errors.UserError, match=r'no table of tensors.*epoch'):
    tensor_file.read(path)
  WRITERS[form](path, {'a': View(np.ones(1, np.float32)), 'b': 2}, torch)
  with pytest.raises(errors.UserError, match=r'no tensors: b'):
    tensor_file.read(path)


class Malicious:
  """Unpickled by the standard library, this writes a file."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return os.mkdir, (self.path,)


@pytest.mark.parametrize('form', WRITERS)
def test_a_malicious_pickle_is_not_executed(form, torch, tmp_path):
  path, trace = tmp_path / 'evil.pth', tmp_path / 'executed'
  WRITERS[form](path, {'a': Malicious(trace)}, torch)
  with pytest.raises(errors.UserError, match=r'evil\.pth.*posix\.mkdir'):
    tensor_file.read(path)
  assert not trace.exists()
  # The same bytes do harm where nothing restricts them.
  pickle.loads(pickle.dumps(Malicious(trace)))
  assert trace.is_dir()


@pytest.mark.parametrize(
  'name',
  [
    *('builtins.eval', 'builtins.getattr', 'os.system', 'torch.load'),
    *('torch._utils._rebuild_wrapper', 'numpy.core.multiarray._reconstruct'),
    'collections.namedtuple',
  ],
)
def test_forbidden_globals_are_named(name, torch, tmp_path):
  path = tmp_path / 'evil.pth'
  module, _, attribute = name.rpartition('.')
  code = f'c{module}\n{attribute}\n(S"1"\ntR.'.encode()
  _write_zip(path, {}, torch, pickled=code)
  with pytest.raises(errors.UserError, match=name.replace('.', r'\.')):
    tensor_file.read(path)


@pytest.mark.parametrize('form', WRITERS)
@pytest.mark.parametrize(
  'view',
  [
    View(np.zeros(4, np.float32), (2, 2), (3, 1)),
    View(np.zeros(4, np.float32), (4,), (1,), offset=1),
    View(np.zeros(4, np.float32), (2,), (-1,), offset=3),
    View(np.zeros(4, np.float32), (2, 2), (1,)),
    View(np.zeros(4, np.float32), (-2, -2), (1, 1)),
  ],
)
def test_views_beyond_their_storage_are_refused(form, view, torch, tmp_path):
  WRITERS[form](tmp_path / 'bad.pt', {'a': view}, torch)
  with pytest.raises(errors.UserError, match=r'bad\.pt: a tensor'):
    tensor_file.read(tmp_path / 'bad.pt')


def test_damaged_files(torch, tmp_path):
  path = tmp_path / 'cut.pth'
  _write_legacy(path, {'a': View(np.zeros(4, np.float32))}, torch)
  path.write_bytes(path.read_bytes()[:-3])
  with pytest.raises(errors.UserError, match='shorter than it says'):
    tensor_file.read(path)
  for name in ('x.pth', 'x.npz', 'x.safetensors'):
    (tmp_path / name).write_bytes(b'not a weight file at all')
    with pytest.raises(errors.UserError, match=name):
      tensor_file.read(tmp_path / name)
  with pytest.raises(errors.UserError, match='does not exist'):
    tensor_file.read(tmp_path / 'absent.npz')
  (tmp_path / 'x.ckpt').write_bytes(b'')
  with pytest.raises(errors.UserError, match=r"format '\.ckpt'; valid: \.npz"):
    tensor_file.read(tmp_path / 'x.ckpt')


def _write_safetensors(path, tensors, header=None):
  names = {
    'float32': 'F32',
    'float64': 'F64',
    'float16': 'F16',
    'bfloat16': 'BF16',
    'int64': 'I64',
    'uint8': 'U8',
  }
  body, entries = b'', {'__metadata__': {'format': 'pt'}}
  for name, value in tensors.items():
    start, body = len(body), body + value.tobytes()
    entries[name] = {
      'dtype': names[value.dtype.name],
      'shape': value.shape,
      'data_offsets': [start, len(body)],
    }
  text = json.dumps(header or entries).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + body)


def test_safetensors(tmp_path):
  path = tmp_path / 'w.safetensors'
  tensors = {
    'a': np.arange(6, dtype=np.float32).reshape(2, 3),
    'b': np.asarray(2, np.int64),
    'c': np.asarray([1.5, 2], ml_dtypes.bfloat16),
    'd': np.asarray([[0.5]], np.float16),
    'e': np.asarray([1.25], np.float64),
    'f': np.asarray([3, 4], np.uint8),
  }
  _write_safetensors(path, tensors)
  actual = tensor_file.read(path)
  assert list(actual) == list(tensors)
  for name, value in tensors.items():
    np.testing.assert_array_equal(actual[name], value)
    wide = np.float32 if name == 'c' else value.dtype
    assert actual[name].dtype == wide
  entry = {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 800]}
  _write_safetensors(path, tensors, {'a': entry})
  with pytest.raises(errors.UserError, match='beyond the end'):
    tensor_file.read(path)
