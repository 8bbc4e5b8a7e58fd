"""Source-only training: what every adaptation method starts from.

python -m jaxseg_da.main --config=configs/source_only.py --workdir=runs/source
"""

from __future__ import annotations

from jaxseg_da import config as config_lib
from jaxseg_da.config import pairs


def get_config(arg: str = ''):
  """ARG is `BENCHMARK[,key=value...]`."""
  config = pairs.apply(config_lib.base_config(), arg)
  config.method = 'source_only'
  config.pipeline = ('source_only',)
  if config.pair != 'streets':
    # Where AdaptSegNet's released scripts stop (--num-steps-stop), before the
    # schedule ends.
    config.stages.source_only.steps = 150_000
  return config
