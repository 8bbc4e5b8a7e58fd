"""LSE: self-training on scale-invariant examples, in rounds.

Subhani and Ali, ECCV 2020. Published: GTA5 -> Cityscapes 39.0 mIoU (VGG16
FCN-8s), 47.5 (DeepLab-V2); SYNTHIA -> Cityscapes 40.0 and 42.6 (16 classes).

python -m jaxseg_da.main --config=configs/lse.py --workdir=runs/lse
"""

from __future__ import annotations

from jaxseg_da import config as config_lib
from jaxseg_da import methods
from jaxseg_da.config import pairs
from jaxseg_da.data import selection

NETWORKS = ('fcn8s', 'deeplabv2')


def get_config(arg: str = ''):
  """ARG is `BENCHMARK[,key=value...]`; papers' pairs take `model=` as well."""
  arg, network = pairs.take_option(arg, 'model', NETWORKS)
  config = pairs.apply(methods.base_config('lse'), arg)
  config.method = 'lse'
  if config.pair == 'streets':
    return _streets(config)
  return _paper(config, network)


def _rounds(config, init_from: str) -> tuple[str, ...]:
  """Adds one stage per portion, each from the one before."""
  names = []
  count = len(
    selection.portions(
      config.lse.portion_start,
      config.lse.portion_increment,
      config.lse.portion_stop,
    )
  )
  for number in range(1, count + 1):
    name = f'round_{number}'
    config.stages[name] = config_lib.stage('lse', 0, init_from=init_from)
    names.append(name)
    init_from = name
  return tuple(names)


def _streets(config):
  """Twice the source training of other methods, then four short rounds.

  Labels have to be worth learning from; a round has half of the epochs.

  AdaBN stands beside: unlike the paper's FCN-8s this network has BatchNorm, and
  the rounds move its statistics towards the target, too.
  """
  height, width = config.data.target_size
  config.lse.window = (height // 2, width // 2)
  config.lse.portion_increment = 0.10
  config.lse.epochs = 1
  config.lse.quantise = False
  config.optim.lse = config_lib.optimizer()
  config.optim.lse.update(config.optim.main)
  config.stages.source_only.steps = 1000
  # As far below the source training's as in the paper: 1e-6 to 2.5e-4.
  config.optim.lse.learning_rate = 3e-5
  config.stages.adabn = config_lib.stage(
    'adabn', 100, init_from='source_only', role='reference'
  )
  rounds = _rounds(config, 'source_only')
  for name in rounds:
    config.stages[name].optim = 'lse'
  config.pipeline = ('source_only', 'adabn', *rounds)
  config.control = True
  return config


def _paper(config, network: str):
  """The released configuration, and the notebooks' for DeepLab (section 6)."""
  config.model.name = network
  height, width = config.data.target_size
  config.lse.window = (height // 2, width // 2)  # 256x512 of 512x1024
  if config.pair.startswith('synthia'):
    config.lse.skip_classes = (9, 14, 16)  # terrain, truck, train
  config.evaluate.upsample = 'probabilities'  # eval.py
  main = config.optim.main
  if network == 'fcn8s':
    main.update(
      name='adam',
      learning_rate=1e-6,
      b1=0.9,
      b2=0.99,
      weight_decay=0.0,
      schedule='step',
      decay_steps=50_000,
      decay_rate=0.1,
      groups=pairs.FCN8S_GROUPS,
      multiplicity='none',
    )
  else:
    # SGD, poly over the steps of a round; weights are listed repeatedly.
    main.update(learning_rate=1e-6, horizon_steps=0)
    config.lse.focal = 'batch'
    if config.pair.startswith('gta5'):
      config.lse.gamma = 5.0  # the checkpointed notebook
  config.pipeline = ('source_only', *_rounds(config, 'source_only'))
  # The authors' own source training: stopped after 120 000 steps of a schedule
  # of 250 000, poly, learning rate 0.95e-4 (segmentation.ipynb, DeepLab).
  config.optim.source = config_lib.optimizer()
  config.optim.source.update(main)
  config.optim.source.update(learning_rate=0.95e-4)
  if network == 'deeplabv2':
    config.optim.source.horizon_steps = 250_000
  config.stages.source_only.steps = 120_000
  config.stages.source_only.optim = 'source'
  return config
