"""Adversarial alignment of outputs: AdaptSegNet, AdvEnt, MinEnt.

Tsai et al., CVPR 2018; Vu et al., CVPR 2019. Published for GTA5 -> Cityscapes
with DeepLab-V2: AdaptSegNet 42.4 (two levels), AdvEnt 43.8, MinEnt 42.3.

python -m jaxseg_da.main --config=configs/adversarial.py --workdir=runs/adv
python -m jaxseg_da.main \
  --config=configs/adversarial.py:gta5_to_cityscapes,variant=advent \
  --workdir=runs/advent
"""

from __future__ import annotations

from jaxseg_da import config as config_lib
from jaxseg_da import methods
from jaxseg_da.config import pairs

VARIANTS = ('multi', 'single', 'single_ls', 'advent', 'minent')


def get_config(arg: str = ''):
  """ARG is `BENCHMARK[,variant=VARIANT][,key=value...]`."""
  arg, variant = pairs.take_option(arg, 'variant', VARIANTS)
  config = pairs.apply(methods.base_config('adversarial'), arg)
  config.method = 'adversarial'
  if config.pair == 'streets':
    return _streets(config, variant)
  return _paper(config, variant)


def _variant(config, variant: str) -> None:
  """What the variants differ in; weights as released."""
  settings = config.adversarial
  if variant in ('advent', 'minent'):
    settings.kind = variant
    config.model.aspp_branches = 4
  if variant.startswith('single'):
    config.model.aux_head = False
    settings.aux_weight = 0.0
  if variant == 'single_ls':
    settings.objective = 'least_squares'
    settings.weight = 0.01  # README of AdaptSegNet


def _streets(config, variant: str):
  """A source-only stage, then as long again with alignment."""
  _variant(config, variant)
  config.adversarial.discriminator_width = 16
  config.pipeline = ('source_only', 'adversarial')
  config.stages.adversarial = config_lib.stage(
    'adversarial', 500, init_from='source_only'
  )
  config.control = True
  return config


def _paper(config, variant: str):
  """The released configurations: one stage from pretrained weights."""
  config.model.aux_head = True
  _variant(config, variant)
  # Of 250 000 that the schedule is made for: --num-steps-stop, EARLY_STOP.
  steps = 120_000 if variant in ('advent', 'minent') else 150_000
  config.stages.adversarial = config_lib.stage('adversarial', steps)
  config.pipeline = ('adversarial',)
  config.optim.discriminator.horizon_steps = 250_000
  if variant in ('advent', 'minent'):
    config.checkpoint.every_steps = 2000  # SAVE_PRED_EVERY
    config.evaluate.every_steps = 2000  # the best is what they report
  return config
