"""The demo: source-only, then DACS, beside control, AdaBN and the oracle.

python -m jaxseg_da.main --config=configs/demo.py --workdir=runs/demo
"""

from __future__ import annotations

from jaxseg_da import config as config_lib
from jaxseg_da import errors, methods
from jaxseg_da.config import pairs


def get_config(arg: str = ''):
  """ARG is `streets[,preset=...][,size=HxW]`."""
  config = pairs.apply(methods.base_config('dacs'), arg)
  if config.pair != 'streets':
    raise errors.UserError(
      f'configs/demo.py runs on streets, not on {config.pair}'
    )
  config.method = 'dacs'
  source, dacs = 500, 500
  config.stages.source_only.steps = source
  stage = config_lib.stage
  config.stages.adabn = stage(
    'adabn', 100, init_from='source_only', role='reference'
  )
  config.stages.dacs = stage('dacs', dacs, init_from='source_only')
  config.stages.oracle = stage('oracle', source + dacs, role='reference')
  config.pipeline = ('source_only', 'adabn', 'dacs', 'oracle')
  config.control = True
  return config
