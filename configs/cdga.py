"""CDGA: alignment of the domains group by group.

Kim et al., AAAI 2021. Published for GTA5 -> Cityscapes with DeepLab-V2: 51.5
mIoU as other papers list it, probably from a stronger base than AdaptSegNet's
42.4: what counts is the gain over the same base with one group.

python -m jaxseg_da.main --config=configs/cdga.py --workdir=runs/cdga
"""

from __future__ import annotations

from jaxseg_da import config as config_lib
from jaxseg_da import methods
from jaxseg_da.config import pairs

# The grouping network learns as fast as a classifier (our choice).
_GROUPING = (r'^grouping/', 10.0, 1.0)


def get_config(arg: str = ''):
  """ARG is `BENCHMARK[,key=value...]`."""
  config = pairs.apply(methods.base_config('cdga', 'dacs'), arg)
  config.method = 'cdga'
  if config.pair == 'streets':
    return _streets(config)
  return _paper(config)


def _streets(config):
  """Source-only, then with groups; a small discriminator saves minutes.

  `base` stands beside: the same without groups, which is AdaptSegNet.
  """
  stage = config_lib.stage
  config.adversarial.aux_weight = 0.0
  config.adversarial.discriminator_width = 8
  config.stages.base = stage(
    'adversarial', 300, init_from='source_only', role='reference'
  )
  config.stages.cdga = stage('cdga', 300, init_from='source_only')
  # To start from: --config.pipeline="('source_only','dacs','cdga')"
  # --config.stages.cdga.init_from=dacs, or from base with that role as well.
  config.stages.dacs = stage('dacs', 500, init_from='source_only')
  config.pipeline = ('source_only', 'base', 'cdga')
  config.control = True
  return config


def _paper(config):
  """AdaptSegNet's released configuration, which the article builds on.

  One level is grouped; the second classifier keeps its plain alignment.
  """
  config.model.aux_head = True
  config.optim.main.groups = (_GROUPING, *pairs.DEEPLAB_GROUPS)
  config.optim.discriminator.horizon_steps = 250_000
  config.stages.cdga = config_lib.stage('cdga', 150_000)
  config.pipeline = ('cdga',)
  return config
