"""The source -> target pairs, with the sizes that the papers train them at.

`streets` is sized for two CPU cores. The others carry the constants that the
released code of the DeepLab-V2 line of papers shares (AdaptSegNet, ADVENT,
DACS): Caffe preprocessing, poly schedule over 250 000 steps, SGD with a ten
times faster classifier.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jaxseg_da import errors
from jaxseg_da.config import base

BENCHMARKS = base.PAIRS
PRESETS = ('easy', 'default', 'hard', 'extreme', 'appearance', 'content')

# (regex on parameter paths, learning-rate factor, weight-decay factor)
DEEPLAB_GROUPS = (
  # 'Frozen' BatchNorm of this literature: scale and bias are in no optimizer
  # group of the released code; statistics move all the same.
  (r'/(bn\d?|downsample_bn)/(scale|bias)$', 0.0, 0.0),
  (r'classifier/', 10.0, 1.0),
  (r'.', 1.0, 1.0),
)
# MaxSquare and CCDA leave out scale and bias of the stem's BatchNorm only.
TRAINED_NORM_GROUPS = (
  (r'backbone/bn1/(scale|bias)$', 0.0, 0.0),
  (r'classifier/', 10.0, 1.0),
  (r'.', 1.0, 1.0),
)
# Adam of BDL, FDA and LSE for FCN-8s: biases learn twice as fast; the bilinear
# kernels are no parameters.
FCN8S_GROUPS = (
  (r'/bias$', 2.0, 1.0),
  (r'.', 1.0, 1.0),
)
STREET_GROUPS = (
  (r'/(scale|bias)$', 1.0, 0.0),
  (r'.', 1.0, 1.0),
)


def parse_arg(arg: str | None) -> tuple[str, dict[str, str]]:
  """Splits `BENCHMARK[,key=value...]`; an empty argument means `streets`.

  Raises:
    UserError: unknown benchmark, or an option that is none.
  """
  name, *rest = (arg or 'streets').split(',')
  if name not in BENCHMARKS:
    raise errors.unknown('benchmark', name, BENCHMARKS)
  options = {}
  for item in rest:
    key, equals, value = item.partition('=')
    if not equals:
      raise errors.UserError(
        f'{item!r} in {arg!r} is not of the form key=value'
      )
    valid = ('preset', 'size') if name == 'streets' else ('size',)
    if key not in valid:
      raise errors.unknown(f'option of {name}', key, valid)
    options[key] = value
  return name, options


def take_option(
  arg: str | None, key: str, choices: Sequence[str], others: bool = False
) -> tuple[str, str]:
  """Takes an option of a config file itself out of its argument.

  Args:
    arg: `BENCHMARK[,key=value...]`.
    key: the option's name.
    choices: what it may be; the first is the default.
    others: whether it may be something else as well, such as a file.

  Returns:
    The argument without the option, and its value.

  Raises:
    UserError: a value that is none of the choices.
  """
  rest, chosen = [], choices[0]
  for item in (arg or 'streets').split(','):
    name, equals, value = item.partition('=')
    if name == key and equals:
      chosen = value
    else:
      rest.append(item)
  if not others and chosen not in choices:
    raise errors.unknown(key, chosen, choices)
  return ','.join(rest), chosen


def datasets(benchmark: str) -> tuple[str, str]:
  """Source and target of a benchmark as dataset specs."""
  if benchmark == 'streets':
    return 'streets', 'streets'
  source, target = benchmark.split('_to_')
  return {'gta5': 'gta5:all'}.get(source, f'{source}:train'), f'{target}:train'


def parse_size(text: str) -> tuple[int, int]:
  """`HxW` as two positive integers."""
  match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
  if not match:
    raise errors.UserError(f'size {text!r} is not of the form HxW, e.g. 96x192')
  return int(match[1]), int(match[2])


def apply(config, arg: str | None):
  """Sets data, sizes, model and optimizer of a benchmark; returns the config.

  Args:
    config: as made by `config.base_config`.
    arg: `BENCHMARK[,key=value...]`.
  """
  name, options = parse_arg(arg)
  config.pair = name
  if name == 'streets':
    _streets(config, options)
  else:
    _paper(config, name, options)
  return config


def _streets(config, options) -> None:
  """The embedded benchmark: small images, a small network, from scratch."""
  preset = options.get('preset', 'default')
  if preset not in PRESETS:
    raise errors.unknown('preset', preset, PRESETS)
  height, width = parse_size(options.get('size', '96x192'))
  suffix = '' if (height, width) == (96, 192) else f'-{height}x{width}'
  target = 'city' if preset == 'default' else f'city_{preset}'
  config.data.source = f'streets/gta{suffix}:train'
  config.data.target = f'streets/{target}{suffix}:train'
  config.data.source_size = config.data.target_size = (height, width)
  config.data.normalization = 'unit'
  config.model.name = 'street'
  config.augment.flip = True
  config.evaluate.source = True
  config.optim.main.update(
    name='adamw',
    learning_rate=8e-3,  # tuned on seed 10
    weight_decay=0.01,
    schedule='poly',
    power=0.9,
    warmup_steps=20,
    groups=STREET_GROUPS,
  )


def _paper(config, name: str, options) -> None:
  """A published pair, with the values of AdaptSegNet's released scripts.

  ADVENT and the methods after it kept them, where their configs do not say
  otherwise.
  """
  source, target = name.split('_to_')
  config.data.source, config.data.target = datasets(name)
  # --input-size, --input-size-target as W x H: GTA5 1280x720, SYNTHIA 1280x760,
  # Cityscapes 1024x512; CCDA's released code has IDD at 1280x720.
  config.data.source_size = {'gta5': (720, 1280), 'synthia': (760, 1280)}[
    source
  ]
  config.data.target_size = {'cityscapes': (512, 1024), 'idd': (720, 1280)}[
    target
  ]
  if 'size' in options:
    size = parse_size(options['size'])
    config.data.source_size = config.data.target_size = size
  config.evaluate.size = config.data.target_size
  # The data sets' classes: PIL bicubic, BGR minus the mean, no mirroring (the
  # flag exists, no published command sets it).
  config.data.resize = 'pil_bicubic'
  config.data.normalization = 'caffe_bgr'
  config.augment.flip = False
  config.batch_size = config.scale_reference_batch = 1  # --batch-size
  config.model.name = 'deeplabv2'
  config.model.aspp_branches = 2  # what the released network really sums
  config.optim.main.update(
    name='sgd',
    learning_rate=2.5e-4,  # --learning-rate
    momentum=0.9,  # --momentum
    weight_decay=5e-4,  # --weight-decay
    schedule='poly',
    power=0.9,  # --power
    horizon_steps=250_000,  # --num-steps
    groups=DEEPLAB_GROUPS,
    # Backbone weights are listed three or four times, once per module around.
    multiplicity='reference',
  )
  config.log_every = 100
  config.checkpoint.every_steps = 5000  # --save-pred-every
  config.evaluate.every_steps = 5000
  config.evaluate.batch_size = 1
