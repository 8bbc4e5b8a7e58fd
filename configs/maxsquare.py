"""MaxSquare: the maximum squares loss, alone, weighted, and with guidance.

Chen et al., ICCV 2019. Published for GTA5 -> Cityscapes with DeepLab-V2, by the
authors' code: source 36.9, entropy 42.2, maximum squares 44.3, image-wise
weighted 45.2, with multi-level guidance 46.4.

python -m jaxseg_da.main --config=configs/maxsquare.py --workdir=runs/maxsquare
python -m jaxseg_da.main \
  --config=configs/maxsquare.py:gta5_to_cityscapes,variant=multi \
  --workdir=runs/maxsquare_multi
"""

from __future__ import annotations

from jaxseg_da import config as config_lib
from jaxseg_da import methods
from jaxseg_da.config import pairs

# `multi` is the weighted loss with multi-level guidance.
VARIANTS = ('maxsquare', 'iw', 'multi', 'entropy', 'iw_entropy', 'hard')
EPOCH = 2975  # Cityscapes' training images, one per step


def get_config(arg: str = ''):
  """ARG is `BENCHMARK[,variant=VARIANT][,key=value...]`."""
  arg, variant = pairs.take_option(arg, 'variant', VARIANTS)
  config = pairs.apply(methods.base_config('maxsquare'), arg)
  config.method = 'maxsquare'
  config.maxsquare.loss = 'iw' if variant == 'multi' else variant
  config.maxsquare.multi = config.model.aux_head = variant == 'multi'
  config.pipeline = ('source_only', 'maxsquare')
  config.stages.maxsquare = config_lib.stage(
    'maxsquare', 500, init_from='source_only'
  )
  if config.pair == 'streets':
    config.control = True
    return config
  return _paper(config, arg)


def _paper(config, arg: str):
  """The released scripts: train_source.py, then solve_gta5.py.

  Not as there: the adaptation starts from the last source weights in every
  variant, while released commands take the best on source validation for
  `multi`.
  """
  if config.maxsquare.multi:
    config.maxsquare.weight = 0.09
    if 'size' not in pairs.parse_arg(arg)[1]:
      config.data.target_size = config.evaluate.size = (640, 1280)
  config.augment.flip = True
  # Half of the images, after resizing, by a radius of 0 to 1 pixel.
  config.augment.update(blur_probability=0.5, blur_sigma=(1.0, 1.0))
  # Source training stops after 80 000 steps of a schedule of 200 000; the
  # adaptation takes ten epochs, with a schedule that is ten steps longer.
  config.optim.main.update(
    groups=pairs.TRAINED_NORM_GROUPS, horizon_steps=200_000
  )
  config.stages.source_only.steps = 80_000
  config.optim.maxsquare = config_lib.optimizer()
  config.optim.maxsquare.update(config.optim.main)
  config.optim.maxsquare.horizon_steps = 10 * (EPOCH + 1)
  config.stages.maxsquare.update(steps=10 * EPOCH, optim='maxsquare')
  # After every epoch; the best is what the paper reports, of images of the
  # training size and with labels brought to it.
  config.checkpoint.every_steps = config.evaluate.every_steps = EPOCH
  config.evaluate.flip = True
  config.evaluate.labels = 'input'
  return config
