"""CCDA: continual coarse-to-fine adaptation, a stage per step of a class tree.

Shenaj et al., IVC 121 (2022) 104426. Published, after the last of four steps:
GTA5 -> Cityscapes 33.1 mIoU (continual source-only 4.5, SKDC 30.4), GTA5 -> IDD
33.0 (6.1, 32.4).

python -m jaxseg_da.main --config=configs/ccda.py --workdir=runs/ccda
python -m jaxseg_da.main \
  --config=configs/ccda.py:gta5_to_cityscapes,variant=skdc --workdir=runs/skdc
python -m jaxseg_da.main \
  --config=configs/ccda.py:streets,hierarchy=mine.yaml --workdir=runs/mine
"""

from __future__ import annotations

from jaxseg_da import config as config_lib
from jaxseg_da import methods
from jaxseg_da.classes import hierarchy_file
from jaxseg_da.config import pairs

VARIANTS = ('ccda', 'skdc', 'mib', 'msiw', 'source_only')
NETWORKS = ('deeplabv3', 'deeplabv2')
# What a variant's first step is: where nothing is distilled they are the same.
FIRST = {'ccda': 'msiw', 'skdc': 'source_only', 'mib': 'source_only'}
# Updates of the first step, and of each that follows.
STREET_STEPS = (1000, 500)
# utils/train_initializer.py; README.
PAPER_STEPS = (50_000, 25_000)
NATIVE_WIDTHS = {'gta5': 1914, 'synthia': 1280, 'cityscapes': 2048, 'idd': 1920}


def get_config(arg: str = ''):
  """ARG is `BENCHMARK[,variant=VARIANT][,hierarchy=FILE.yaml][,key=value...]`.

  `baselines=all` adds msiw and skdc to the run, for one table of all. Papers'
  pairs take `model=` and `split=` as well.
  """
  arg, variant = pairs.take_option(arg, 'variant', VARIANTS)
  arg, baselines = pairs.take_option(arg, 'baselines', ('none', 'all'))
  benchmark = pairs.parse_arg(arg.partition(',')[0])[0]
  network = split = ''
  if benchmark != 'streets':
    arg, network = pairs.take_option(arg, 'model', NETWORKS)
    arg, split = pairs.take_option(arg, 'split', ('released', 'all'))
  tree = 'gta5_to_idd' if benchmark == 'gta5_to_idd' else 'gta5_to_cityscapes'
  arg, tree = pairs.take_option(arg, 'hierarchy', (tree,), others=True)
  config = pairs.apply(methods.base_config('ccda'), arg)
  config.ccda.hierarchy = tree
  config.optim.refine = config_lib.optimizer()
  if config.pair == 'streets':
    _streets(config)
    steps = STREET_STEPS
  else:
    _paper(config, arg, network, split)
    steps = PAPER_STEPS
  pipeline = _chain(config, variant, steps, 'main')
  if variant != 'source_only':  # joins the pipeline where config.control is set
    _chain(config, 'source_only', steps, 'control')
  if baselines == 'all':
    for baseline in ('msiw', 'skdc'):
      pipeline += _chain(config, baseline, steps, 'reference')
  config.pipeline = tuple(dict.fromkeys(pipeline))
  # A tree of one step has nothing to distil: its stage is another variant's.
  main = [n for n in config.pipeline if config.stages[n].role == 'main']
  config.method = config.stages[main[-1]].method
  return config


def _chain(config, variant: str, steps: tuple[int, int], role: str):
  """Adds the stages of a variant, each from the one before; their names.

  A stage that another chain has already added keeps its role.
  """
  names, before = [], ''
  levels = len(hierarchy_file.get(config.ccda.hierarchy).steps)
  for level in range(levels):
    what = variant if level else FIRST.get(variant, variant)
    name = f'{what}_{level}'
    if name not in config.stages:  # chains may share their first
      config.stages[name] = config_lib.stage(
        what if what == 'ccda' else f'ccda_{what}',
        steps[min(level, 1)],
        init_from=before,
        level=level,
        role=role,
        optim='refine' if level else 'main',
      )
    names.append(name)
    before = name
  return names


def _streets(config) -> None:
  """Few updates, and so less distillation and a rate that does not fall.

  AdamW divides by the whole gradient: with the published weight of 10 and 0.4
  of the first rate, new classes are hardly learned. Chosen on seed 10.
  """
  config.ccda.kd_weight = 3.0
  config.ccda.kd_refined_weight = 0.1
  config.optim.refine.update(config.optim.main)
  config.evaluate.source = False
  config.control = True


def _paper(config, arg: str, network: str, split: str) -> None:
  """The published commands of the released README."""
  source, target = config.pair.split('_to_')
  idd = target == 'idd'
  data, options = config.data, pairs.parse_arg(arg)[1]
  if 'size' not in options and not idd:
    data.target_size = config.evaluate.size = (640, 1280)
  data.resize = 'cv_area'
  if split == 'released':
    # The lists of the released code leave out images for validation, at random:
    # 1000 of GTA5's 24966, 496 of Cityscapes' 2975, 50 of IDD's 6993. The rest
    # of Cityscapes comes with the 19998 images that have coarse labels only.
    data.source = {'gta5': 'gta5:all[:96%]'}.get(source, data.source)
    data.target = {
      'cityscapes': 'cityscapes:train[:83%]+train_extra',
      'idd': 'idd:train[:99%]',
    }[target]
  config.batch_size = config.scale_reference_batch = 1 if idd else 2
  config.augment.flip = True
  # Sigma is 0 to 5 pixels before images are resized (datasets/dataset_base.py).
  config.augment.blur_probability = 1.0
  config.augment.blur_sigma = (
    5 * data.source_size[1] / NATIVE_WIDTHS[source],
    5 * data.target_size[1] / NATIVE_WIDTHS[target],
  )
  config.ccda.kd_refined_weight = 1.0 if idd else 10.0
  config.model.name = network
  config.model.aspp_branches = 4
  config.optim.main.update(
    weight_decay=1e-4,  # of every tensor, BatchNorm's too
    horizon_steps=250_000 // config.batch_size,  # begins anew at each step
    groups=pairs.TRAINED_NORM_GROUPS,
  )
  config.optim.refine.update(config.optim.main)
  config.optim.refine.learning_rate = 1e-4
  config.checkpoint.every_steps = config.evaluate.every_steps = 2500
  config.evaluate.labels = 'input'
