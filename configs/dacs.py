"""DACS on any pair, with the control that its gain is measured against.

Tranheden et al., WACV 2021. Published with this network: GTA5 -> Cityscapes
52.14 mIoU (19 classes), SYNTHIA -> Cityscapes 48.34 (16) and 54.81 (13).

python -m jaxseg_da.main --config=configs/dacs.py --workdir=runs/dacs
"""

from __future__ import annotations

from jaxseg_da import config as config_lib
from jaxseg_da import pairs


def get_config(arg: str = ''):
  """ARG is `BENCHMARK[,key=value...]`."""
  config = pairs.apply(config_lib.base_config(), arg)
  config.method = 'dacs'
  if config.benchmark == 'streets':
    return _streets(config)
  return _paper(config)


def _streets(config):
  """A source-only stage, then as long again with mixing."""
  config.pipeline = ('source_only', 'dacs')
  config.stages.dacs = config_lib.stage('dacs', 500, init_from='source_only')
  config.control = True
  return config


def _paper(config):
  """The released configuration: one stage from COCO-pretrained weights."""
  config.pipeline = ('dacs',)
  config.stages.dacs = config_lib.stage('dacs', 250_000)
  config.batch_size = config.scale_reference_batch = 2
  config.data.source_size = (720, 1280)
  # Target images are halved with PIL bilinear, sources resized bicubic.
  config.data.target_resize = 'pil_bilinear'
  config.data.source_crop = config.data.target_crop = (512, 512)
  return config
