"""Every configuration key, with its type, and what makes a config valid.

Config files in `configs/` change values of `base_config()` and add nothing.
Keys that count steps are called `steps`, `*_steps` or `*_every`: that is what
`steps_scale` scales.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import ml_collections

from jaxseg_da import errors

ConfigDict = ml_collections.ConfigDict

_STEP_KEY = re.compile(r'(^|_)(steps|every)(_steps)?$')
# Other numbers that 0 switches off.
_COUNTS = ('seed', 'evaluate.limit', 'report.images')
ROLES = ('main', 'reference')
RESIZE_MODES = (
  'pil_bicubic',
  'pil_bilinear',
  'cv_area',
  'cv_linear',
  'nearest',
)
# A resumed run may differ in these: they change no number that training makes.
FREE = re.compile(
  r'^(data_dir|cache_dir|log_every|tensorboard|distributed|'
  r'(evaluate|predict|report|checkpoint|benchmark_mode)(\..*)?)$'
)


def optimizer(**values) -> ConfigDict:
  """One optimizer; entries of `config.optim` are named by stages and phases."""
  block = ConfigDict()
  block.name = 'adamw'  # sgd | adam | adamw
  block.learning_rate = 1e-3
  block.momentum = 0.9  # sgd
  block.b1 = 0.9  # adam, adamw
  block.b2 = 0.999
  block.weight_decay = 0.0  # coupled for sgd and adam, decoupled for adamw
  block.schedule = 'poly'  # poly | constant | step
  block.power = 0.9  # of poly
  block.horizon_steps = 0  # where poly reaches zero; 0: the stage's steps
  block.decay_steps = 0  # of step: interval between two decays
  block.decay_rate = 0.1  # of step: factor of each
  block.warmup_steps = 0
  block.grad_clip = 0.0  # global norm; 0: off
  # (regex on NETWORK/PATH, learning-rate factor, weight-decay factor), first
  # match wins; factor 0 freezes.
  block.groups = ((r'.', 1.0, 1.0),)
  block.multiplicity = 'none'  # none | reference (duplicated SGD parameters)
  block.update(values)
  return block


def stage(method: str, steps: int, init_from: str = '', **values) -> ConfigDict:
  """One stage of the pipeline."""
  block = ConfigDict()
  block.method = method  # a name in jaxseg_da.methods
  block.steps = steps  # updates
  block.init_from = init_from  # an earlier stage; empty: fresh
  block.role = 'main'  # main | reference (baselines that tables print)
  block.optim = 'main'  # entry of config.optim
  block.update(values)
  return block


def base_config() -> ConfigDict:
  """All keys; see the comments for types, units and choices."""
  c = ConfigDict()
  c.method = 'source_only'  # what the run is about; names it in results.json
  c.benchmark = 'streets'  # set by the config's argument
  c.seed = 0  # of weights, data order and augmentation; at least 0
  c.data_dir = '~/tensorflow_datasets'  # prepared datasets
  c.cache_dir = ''  # shared baseline runs; empty: DATA_DIR/jaxseg_da_cache
  c.backend = 'pmap'  # pmap | shard_map
  c.deterministic = False  # XLA flags for bit-exact GPU runs
  c.distributed = False  # jax.distributed.initialize() before the first device
  c.batch_size = 4  # global, per domain
  c.bn = 'sync'  # sync | per_device | groups:N (devices per group)
  c.scale_rule = 'none'  # none | linear | sqrt: learning rate, steps, EMA
  c.scale_reference_batch = 4  # batch that the constants were made for
  c.steps_scale = 1.0  # factor of every key measured in steps
  c.control = False  # append the equal-update control
  c.log_every = 20  # steps between lines of metrics.jsonl
  c.tensorboard = True  # write WORKDIR/tensorboard too

  c.data = ConfigDict()
  c.data.source = 'streets/gta:train'  # NAME[/CONFIG][:SPLIT]
  c.data.target = 'streets/city:train'  # labels: for the oracle alone
  c.data.resize = 'pil_bicubic'  # pil_bilinear | cv_area | cv_linear | nearest
  c.data.target_resize = ''  # empty: as data.resize
  c.data.source_size = (96, 192)  # (H, W) after resizing
  c.data.target_size = (96, 192)  # (H, W), as source_size
  c.data.source_crop = (0, 0)  # (H, W) of a random crop; (0, 0): none
  c.data.target_crop = (0, 0)  # (H, W), as source_crop
  c.data.num_classes = 19  # 19 Cityscapes classes
  c.data.normalization = 'unit'  # unit | caffe_bgr

  c.augment = ConfigDict()
  c.augment.flip = True  # left-right, probability one half

  c.model = ConfigDict()
  c.model.name = 'street'  # street | deeplabv2
  c.model.preset = 'full'  # full | reduced (one block per stage, width / 8)
  c.model.layers = (3, 4, 23, 3)  # deeplabv2: blocks per stage
  c.model.aspp_branches = 2  # deeplabv2: 2 | 4 summed dilations
  c.model.aux_head = False  # deeplabv2: second classifier on stage 3
  c.model.aux_weight = 0.1  # of the second classifier's loss
  c.model.width = 96  # street: channels at stride 8; 0.75 M parameters
  c.model.compute_dtype = 'float32'  # float32 | bfloat16; params are float32

  c.init = ConfigDict()
  c.init.weights = ''  # .npz, .safetensors or .pth with published names

  c.optim = ConfigDict()
  c.optim.main = optimizer()

  c.pipeline = ('source_only',)  # stages, in order
  c.stages = ConfigDict()
  c.stages.source_only = stage('source_only', 500)

  c.dacs = ConfigDict()
  c.dacs.threshold = 0.968  # released code: trainUDA.py
  c.dacs.weight_mode = 'threshold_uniform'  # threshold | none
  c.dacs.mixed_weight = 1.0  # lambda of the mixed loss
  c.dacs.ema_decay = 0.99  # hard-coded in the released code
  c.dacs.mix_ignore = True  # 255 counts as a class when classes are drawn
  c.dacs.jitter = 0.25  # colour jitter strength
  c.dacs.jitter_probability = 0.8  # once per iteration
  c.dacs.blur_probability = 0.5  # once per iteration
  c.dacs.blur_sigma = (0.15, 1.15)  # pixels, drawn uniformly
  c.dacs.teacher_train_mode = True  # teacher normalises by batch statistics

  c.checkpoint = ConfigDict()
  c.checkpoint.every_steps = 200  # and after the last step
  c.checkpoint.keep = 2  # the newest ones

  c.evaluate = ConfigDict()
  c.evaluate.every_steps = 0  # 0: after a stage only
  c.evaluate.batch_size = 4  # images, of all devices together
  c.evaluate.size = (0, 0)  # network input; (0, 0): native
  c.evaluate.mode = 'whole'  # whole | sliding
  c.evaluate.window = (512, 1024)  # sliding
  c.evaluate.stride = (341, 683)  # sliding: (H, W) between windows
  c.evaluate.scales = (1.0,)  # of the input; probabilities are averaged
  c.evaluate.flip = False  # average with the mirrored image
  c.evaluate.source = False  # also the source's validation split
  c.evaluate.limit = 0  # images; 0: all
  c.evaluate.checkpoint = 'last'  # last | best | STEP (--mode=evaluate)

  c.predict = ConfigDict()
  c.predict.input = ''  # file, folder or glob
  c.predict.output = ''  # folder
  c.predict.format = 'color,overlay,train_ids'  # also label_ids
  c.predict.checkpoint = 'last'  # last | best | STEP

  c.report = ConfigDict()
  c.report.images = 4  # validation pictures
  return c


def leaves(config, prefix: str = '') -> Iterator[tuple[str, Any]]:
  """All `(dotted key, value)` of a config, in order."""
  for key in config:
    value = config[key]
    if isinstance(value, ConfigDict):
      yield from leaves(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def to_dict(config: ConfigDict) -> dict:
  """Plain nested dictionary; tuples become lists, as JSON has them."""

  def plain(value):
    if isinstance(value, (tuple, list)):
      return [plain(v) for v in value]
    return value

  def walk(block):
    return {
      k: walk(v) if isinstance(v, ConfigDict) else plain(v)
      for k, v in block.items()
    }

  return walk(config)


def from_dict(values: dict) -> ConfigDict:
  """The inverse of `to_dict`."""

  def typed(value: Any) -> Any:
    if isinstance(value, list):
      return tuple(typed(v) for v in value)
    if isinstance(value, dict):
      return {k: typed(v) for k, v in value.items()}
    return value

  return ConfigDict(typed(values))


def scaled(config: ConfigDict, factor: float) -> ConfigDict:
  """A copy with every key measured in steps scaled, at least 1 where not 0."""
  config = copy.deepcopy(config)

  def walk(block):
    for key, value in block.items():
      if isinstance(value, ConfigDict):
        walk(value)
      elif _STEP_KEY.search(key) and isinstance(value, int) and value:
        block[key] = max(1, round(value * factor))

  with config.unlocked():
    walk(config)
  return config


def check_types(config: ConfigDict) -> None:
  """Compares every key with `base_config`, for configs read from files.

  Raises:
    UserError: a key that does not exist, or a value of another type; names it.
  """
  known = base_config()
  with known.unlocked():
    known.optim.update({n: optimizer() for n in config.optim})
    known.stages.update({n: stage('', 1) for n in config.stages})
  defaults = dict(leaves(known))
  for key, value in leaves(config):
    if key not in defaults:
      raise unknown_key(key, defaults)
    if not _same_type(value, defaults[key]):
      raise errors.UserError(
        f'config.{key}={value!r} is not of the type of {defaults[key]!r}'
      )


def unknown_key(key: str, keys: Iterable[str]) -> errors.UserError:
  """An error for a key that is none of `keys`, with the nearest ones."""
  near = difflib.get_close_matches(key, list(keys), 3, 0.4)
  hint = f'; did you mean {" or ".join(near)}?' if near else ''
  return errors.UserError(f'unknown config key {key!r}{hint}')


def _same_type(value, default) -> bool:
  """Whether a value may replace a default; integers serve as floats."""
  if isinstance(default, tuple):
    if not isinstance(value, (tuple, list)):
      return False
    first = default[0]
    if isinstance(first, tuple):  # rows of one form
      return all(
        isinstance(v, (tuple, list))
        and len(v) == len(first)
        and all(map(_same_type, v, first))
        for v in value
      )
    return all(_same_type(v, first) for v in value)
  if isinstance(default, float):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  return type(value) is type(default)


def batch_ratio(config: ConfigDict) -> float:
  """The batch over the one that the constants were made for; 1 without rule."""
  if config.scale_rule == 'none':
    return 1.0
  return config.batch_size / config.scale_reference_batch


def resolve(config: ConfigDict) -> ConfigDict:
  """Applies `control`, `steps_scale` and `scale_rule`: what really runs.

  With k = batch_size / scale_reference_batch, both batch rules divide step
  counts by k (as many examples as before) and raise EMA decays to the power k
  (the same horizon in examples); learning rates grow by k (linear) or by its
  root (sqrt, the rule for adaptive optimizers).

  Raises:
    UserError: a number or a stage with which that makes no sense.
  """
  _validate_numbers(config)
  _validate_pipeline(config)
  config = copy.deepcopy(config)
  with config.unlocked():
    if config.control and 'control' not in config.pipeline:
      _append_control(config)
    ratio = batch_ratio(config)
    for block in config.optim.values():
      block.learning_rate *= (
        ratio**0.5 if config.scale_rule == 'sqrt' else ratio
      )
    config.dacs.ema_decay **= ratio
  return scaled(config, config.steps_scale / ratio)


def _append_control(config: ConfigDict) -> None:
  """Adds the control after the stages that it controls for."""
  main = [n for n in config.pipeline if config.stages[n].role == 'main']
  first = main[0]
  starts_from_source = config.stages[first].method == 'source_only'
  later = main[1:] if starts_from_source else main
  if not later:
    return  # nothing that a control could be compared with
  last = config.stages[main[-1]]
  config.stages.control = stage(
    'source_only',
    sum(config.stages[name].steps for name in later),
    init_from=first if starts_from_source else '',
    role='reference',
    optim=last.optim,
  )
  at = config.pipeline.index(main[-1]) + 1
  config.pipeline = (*config.pipeline[:at], 'control', *config.pipeline[at:])


def validate(config: ConfigDict, num_devices: int) -> None:
  """Checks a resolved config before anything is compiled.

  Raises:
    UserError: names the key, its value and what would be valid.
  """
  from jaxseg_da import evaluate, methods, pairs, parallel

  one_of = (
    ('backend', parallel.BACKENDS),
    ('scale_rule', ('none', 'linear', 'sqrt')),
    ('model.name', ('street', 'deeplabv2')),
    ('model.preset', ('full', 'reduced')),
    ('model.aspp_branches', (2, 4)),
    ('model.compute_dtype', ('float32', 'bfloat16', 'float64')),
    ('data.normalization', ('unit', 'caffe_bgr')),
    ('data.resize', RESIZE_MODES),
    ('data.target_resize', ('', *RESIZE_MODES)),
    ('evaluate.mode', ('whole', 'sliding')),
    ('dacs.weight_mode', ('threshold_uniform', 'threshold', 'none')),
  )
  values = dict(leaves(config))
  for key, choices in one_of:
    if values[key] not in choices:
      raise errors.unknown(f'config.{key}', values[key], choices)
  _validate_numbers(config)
  _validate_bn(config.bn, num_devices)
  _validate_batch(config.batch_size, num_devices)
  _validate_sizes(config)
  _validate_pipeline(config)
  _validate_stages(config, methods.NAMES)
  evaluate.check(config.evaluate)
  if config.benchmark not in pairs.BENCHMARKS:
    raise errors.unknown('config.benchmark', config.benchmark, pairs.BENCHMARKS)


def _validate_numbers(config) -> None:
  values = dict(leaves(config))
  positive = (
    'batch_size',
    'log_every',
    'scale_reference_batch',
    'evaluate.batch_size',
    'checkpoint.every_steps',
    'checkpoint.keep',
    'model.width',
    'data.num_classes',
    'steps_scale',
  )
  for key in positive:
    if not 0 < values[key] < float('inf'):
      raise errors.UserError(
        f'config.{key}={values[key]} must be greater than 0'
      )
  for key, value in values.items():
    counts = _STEP_KEY.search(key.rsplit('.', 1)[-1]) or key in _COUNTS
    if counts and value < 0:
      raise errors.UserError(f'config.{key}={value} must not be negative')


def _validate_bn(bn: str, num_devices: int) -> None:
  match = re.fullmatch(r'sync|per_device|groups:([1-9]\d*)', bn)
  if not match:
    raise errors.UserError(
      f'config.bn={bn!r} is none of sync, per_device, groups:N'
    )
  if match[1] and num_devices % int(match[1]):
    raise errors.UserError(
      f'config.bn={bn!r}: {num_devices} devices do not split into groups of '
      f'{match[1]}'
    )


def _validate_batch(batch_size: int, num_devices: int) -> None:
  if batch_size % num_devices:
    low = batch_size // num_devices * num_devices
    valid = [n for n in (low, low + num_devices) if n > 0]
    raise errors.UserError(
      f'config.batch_size={batch_size} is not divisible by the {num_devices} '
      f'devices; nearest valid: {" or ".join(map(str, valid))}'
    )


def _validate_sizes(config) -> None:
  for domain in ('source', 'target'):
    size, crop = config.data[f'{domain}_size'], config.data[f'{domain}_crop']
    for key, value in (('size', size), ('crop', crop)):
      if len(value) != 2 or (any(value) and min(value) < 16):
        raise errors.UserError(
          f'config.data.{domain}_{key}={value} must be (H, W) with both at '
          'least 16, or (0, 0)'
        )
    if any(c > s > 0 for c, s in zip(crop, size, strict=True)):
      raise errors.UserError(
        f'config.data.{domain}_crop={crop} is larger than '
        f'config.data.{domain}_size={size}'
      )


def _validate_pipeline(config) -> None:
  for name in config.pipeline:
    if name not in config.stages:
      raise errors.unknown('stage in config.pipeline', name, config.stages)
    role = config.stages[name].role
    if role not in ROLES:
      raise errors.unknown(f'config.stages.{name}.role', role, ROLES)
  if len({*config.pipeline}) < len(config.pipeline):
    raise errors.UserError(
      f'config.pipeline={tuple(config.pipeline)} names a stage twice'
    )
  if not any(config.stages[name].role == 'main' for name in config.pipeline):
    raise errors.UserError(
      'config.pipeline has no stage whose role is main; there has to be one'
    )


def _validate_stages(config, methods) -> None:
  seen = []
  for name in config.pipeline:
    block = config.stages[name]
    if block.method not in methods:
      raise errors.unknown('method', block.method, methods)
    if block.init_from and block.init_from not in seen:
      raise errors.UserError(
        f'config.stages.{name}.init_from={block.init_from!r} is no earlier '
        f'stage; valid: {", ".join(seen) or "(none)"}'
      )
    if block.optim not in config.optim:
      raise errors.unknown(
        f'config.stages.{name}.optim', block.optim, config.optim
      )
    if block.steps < 1:
      raise errors.UserError(f'config.stages.{name}.steps must be at least 1')
    seen.append(name)


def differences(old: dict, new: dict) -> list[str]:
  """Keys on which two resolved configs differ, free keys left out.

  Args:
    old: `to_dict` of the config that a workdir was made with.
    new: the one that wants to go on.
  """
  a = dict(leaves(ConfigDict(old)))
  b = dict(leaves(ConfigDict(new)))
  keys = sorted(set(a) | set(b))
  missing = object()
  return [
    k
    for k in keys
    if a.get(k, missing) != b.get(k, missing) and not FREE.match(k)
  ]
