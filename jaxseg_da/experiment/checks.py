"""What makes a config valid; whatever is not is named in one sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from jaxseg_da import config as config_lib
from jaxseg_da import errors

# Other numbers that 0 switches off.
_COUNTS = ('seed', 'evaluate.limit', 'report.images')
ROLES = ('main', 'reference', 'control')
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
  r'(evaluate|predict|report|checkpoint|benchmark)(\..*)?)$'
)


def check_types(config: config_lib.ConfigDict) -> None:
  """Compares every key with `base_config`, for configs read from files.

  Raises:
    UserError: a key that does not exist, or a value of another type; names it.
  """
  known = config_lib.base_config()
  with known.unlocked():
    known.optim.update({n: config_lib.optimizer() for n in config.optim})
    known.stages.update({n: config_lib.stage('', 1) for n in config.stages})
  defaults = dict(config_lib.leaves(known))
  for key, value in config_lib.leaves(config):
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
    if not default:  # no example of what it may hold
      return all(isinstance(v, (str, int)) for v in value)
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


def validate(config: config_lib.ConfigDict, num_devices: int) -> None:
  """Checks a resolved config before anything is compiled.

  Raises:
    UserError: names the key, its value and what would be valid.
  """
  from jaxseg_da.config import pairs
  from jaxseg_da.evaluation import evaluate
  from jaxseg_da.training import parallel

  one_of = (
    ('backend', parallel.BACKENDS),
    ('scale_rule', ('none', 'linear', 'sqrt')),
    ('model.name', ('street', 'deeplabv2', 'deeplabv3', 'fcn8s')),
    ('model.preset', ('full', 'reduced')),
    ('model.aspp_branches', (2, 4)),
    ('model.compute_dtype', ('float32', 'bfloat16', 'float64')),
    ('data.normalization', ('unit', 'caffe_bgr', 'imagenet_rgb')),
    ('data.resize', RESIZE_MODES),
    ('data.target_resize', ('', *RESIZE_MODES)),
    ('evaluate.mode', ('whole', 'sliding')),
    ('lse.focal', ('pixel', 'batch', 'none')),
    ('lse.visits', ('once', 'released')),
    ('cbst.policy', ('cbst', 'mxnet', 'global')),
    ('cbst.regulariser', ('none', 'mrkld', 'lrent')),
    ('cbst.mrkld_effective', ('released', 'paper')),
    ('adversarial.kind', ('adaptsegnet', 'advent', 'minent')),
    ('adversarial.objective', ('bce', 'least_squares')),
    ('cdga.group_input', ('probabilities', 'logits', 'features')),
    ('cdga.resolution', ('input', 'logits')),
    ('cdga.discriminator', ('shared', 'per_group')),
    ('cdga.adv_reduction', ('mean', 'sum')),
    ('cdga.q_normalisation', ('mass', 'pixels')),
    ('cdga.co_distance', ('l2sq', 'l1')),
    ('cdga.orth_domains', ('both', 'source', 'target')),
    ('cdga.cl_form', ('bce', 'positive_only')),
    ('cdga.cl_target', ('hard', 'soft')),
    (
      'maxsquare.loss',
      ('maxsquare', 'iw', 'entropy', 'iw_entropy', 'hard'),
    ),
    ('maxsquare.per', ('image', 'batch')),
    ('dacs.weight_mode', ('threshold_uniform', 'threshold', 'none')),
  )
  values = dict(config_lib.leaves(config))
  for key, choices in one_of:
    if values[key] not in choices:
      raise errors.unknown(f'config.{key}', values[key], choices)
  validate_numbers(config)
  _validate_bn(config.bn, num_devices)
  _validate_batch(config.batch_size, num_devices)
  _validate_sizes(config)
  _validate_blur(config.augment)
  validate_pipeline(config)
  _validate_stages(config)
  evaluate.check(config.evaluate)
  if config.pair not in pairs.BENCHMARKS:
    raise errors.unknown('config.pair', config.pair, pairs.BENCHMARKS)


def validate_numbers(config) -> None:
  """Checks that counts, intervals and factors are in range."""
  values = dict(config_lib.leaves(config))
  positive = (
    'batch_size',
    'log_every',
    'scale_reference_batch',
    'evaluate.batch_size',
    'benchmark.images',
    'benchmark.seconds',
    'benchmark.repeats',
    'checkpoint.every_steps',
    'checkpoint.keep',
    'model.width',
    'adversarial.discriminator_width',
    'cdga.groups',
    'cdga.hidden',
    'cdga.kernel',
    'data.num_classes',
    'steps_scale',
  )
  for key in positive:
    if not 0 < values[key] < float('inf'):
      raise errors.UserError(
        f'config.{key}={values[key]} must be greater than 0'
      )
  for key, value in values.items():
    counts = (
      config_lib.STEP_KEY.search(key.rsplit('.', 1)[-1]) or key in _COUNTS
    )
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


def _validate_blur(augment) -> None:
  probability, sigma = augment.blur_probability, augment.blur_sigma
  if not 0 <= probability <= 1:
    raise errors.UserError(
      f'config.augment.blur_probability={probability} must be from 0 to 1'
    )
  if len(sigma) != 2 or not all(0 <= s < float('inf') for s in sigma):
    raise errors.UserError(
      f'config.augment.blur_sigma={sigma} must be (SOURCE, TARGET), both at '
      'least 0'
    )


def validate_pipeline(config) -> None:
  """Checks that the pipeline names stages, once each, and has a main one."""
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


def _validate_stages(config) -> None:
  from jaxseg_da import methods

  seen = []
  for name in config.pipeline:
    block = config.stages[name]
    if block.method not in methods.NAMES:
      raise errors.unknown('method', block.method, methods.NAMES)
    if block.init_from and block.init_from not in seen:
      raise errors.UserError(
        f'config.stages.{name}.init_from={block.init_from!r} is no earlier '
        f'stage; valid: {", ".join(seen) or "(none)"}'
      )
    if block.optim not in config.optim:
      raise errors.unknown(
        f'config.stages.{name}.optim', block.optim, config.optim
      )
    decided = block.updates_of or block.method in methods.SELECTING
    if block.steps < (0 if decided else 1):
      raise errors.UserError(
        f'config.stages.{name}.steps={block.steps} must be at least 1'
      )
    for other in block.updates_of:
      if other not in seen:
        raise errors.UserError(
          f'config.stages.{name}.updates_of names {other!r}, which is no '
          f'earlier stage; valid: {", ".join(seen) or "(none)"}'
        )
    seen.append(name)


def differences(old: dict, new: dict) -> list[str]:
  """Keys on which two resolved configs differ, free keys left out.

  Args:
    old: `to_dict` of the config that a workdir was made with.
    new: the one that wants to go on.
  """
  a = dict(config_lib.leaves(config_lib.ConfigDict(old)))
  b = dict(config_lib.leaves(config_lib.ConfigDict(new)))
  keys = sorted(set(a) | set(b))
  missing = object()
  return [
    k
    for k in keys
    if a.get(k, missing) != b.get(k, missing) and not FREE.match(k)
  ]
