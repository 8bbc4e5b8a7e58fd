"""DACS on any pair, with the control that its gain is measured against.

Tranheden et al., WACV 2021. Published with this network: GTA5 -> Cityscapes
52.14 mIoU (19 classes), SYNTHIA -> Cityscapes 48.34 (16) and 54.81 (13).

python -m jaxseg_da.main --config=configs/dacs.py --workdir=runs/dacs
"""

from __future__ import annotations

from jaxseg_da import config as config_lib
from jaxseg_da import methods
from jaxseg_da.config import pairs


def get_config(arg: str = ''):
  """ARG is `BENCHMARK[,key=value...]`."""
  config = pairs.apply(methods.base_config('dacs'), arg)
  config.method = 'dacs'
  if config.pair == 'streets':
    return _streets(config)
  return _paper(config, arg)


def _streets(config):
  """A source-only stage, then as long again with mixing."""
  config.pipeline = ('source_only', 'dacs')
  config.stages.dacs = config_lib.stage('dacs', 500, init_from='source_only')
  config.control = True
  return config


def _paper(config, arg: str):
  """The released configuration: one stage from COCO-pretrained weights."""
  config.pipeline = ('dacs',)
  # configUDA.json: num_iterations, batch_size, input_size (the crop).
  config.stages.dacs = config_lib.stage('dacs', 250_000)
  config.batch_size = config.scale_reference_batch = 2
  data = config.data
  if 'size' not in pairs.parse_arg(arg)[1]:
    data.source_size = (720, 1280)  # gta5_dataset, synthia_dataset: both
  for domain in ('source', 'target'):
    size = data[f'{domain}_size']
    data[f'{domain}_crop'] = (min(512, size[0]), min(512, size[1]))
  # Sources are resized bicubic; target images are halved with PIL bilinear.
  data.target_resize = 'pil_bilinear'
  return config
