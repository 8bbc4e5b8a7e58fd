"""The keys that every run has; methods bring their own.

A block says of each key its default, what it may be, what it means and where
the default is from. Config files in `configs/` change values and add nothing.
"""

from __future__ import annotations

from jaxseg_da.config import schema
from jaxseg_da.config.schema import Entries, Key, choice, real, whole

ConfigDict = schema.ConfigDict

RESIZE_MODES = (
  'pil_bicubic',
  'pil_bilinear',
  'cv_area',
  'cv_linear',
  'nearest',
)
PAIRS = (
  'streets',
  'gta5_to_cityscapes',
  'synthia_to_cityscapes',
  'gta5_to_idd',
)
ROLES = ('main', 'reference', 'control')
_CHECKPOINT = schema.text(r'last|best|\d+', 'last, best, or a step')

OPTIMIZER = {
  'name': Key(
    'adamw',
    choice('sgd', 'adam', 'adamw'),
    'weight decay is coupled for sgd and adam, decoupled for adamw',
  ),
  'learning_rate': Key(1e-3, schema.WEIGHT, 'at the start; 0: no update'),
  'momentum': Key(0.9, schema.MOMENTUM, 'of sgd'),
  'b1': Key(0.9, schema.MOMENTUM, 'decay of the mean: adam, adamw'),
  'b2': Key(0.999, schema.MOMENTUM, 'decay of the mean square: adam, adamw'),
  'weight_decay': Key(0.0, schema.WEIGHT, 'coefficient'),
  'schedule': Key(
    'poly', choice('poly', 'constant', 'step'), 'of the learning rate'
  ),
  'power': Key(0.9, schema.WEIGHT, 'of poly', 'arXiv 1606.00915, 3.1'),
  'horizon_steps': Key(
    0, schema.STEP_COUNT, "where poly reaches zero; 0: the stage's steps"
  ),
  'decay_steps': Key(
    0, schema.STEP_COUNT, 'of the schedule step: between two decays'
  ),
  'decay_rate': Key(0.1, schema.PROBABILITY, 'of step: factor of each'),
  'warmup_steps': Key(0, schema.STEP_COUNT, 'linear, from 0'),
  'grad_clip': Key(0.0, schema.WEIGHT, 'global norm; 0: off'),
  'groups': Key(
    ((r'.', 1.0, 1.0),),
    schema.GROUPS,
    'by the first regex that finds NETWORK/PATH; factor 0 freezes',
  ),
  'multiplicity': Key(
    'none',
    choice('none', 'reference'),
    'reference: SGD repeats parameters as the released DeepLab-V2 lists do',
  ),
  'first_step': Key(
    'fresh',
    choice('fresh', 'recursive'),
    'momentum of repeated parameters in step 1: recent PyTorch, or 1.7',
  ),
}

STAGE = {
  'method': Key('source_only', schema.NAME, 'which method this stage runs'),
  'steps': Key(
    500,
    schema.STEP_COUNT,
    'updates; 0 where the method decides before the stage',
  ),
  'updates_of': Key(
    (),
    schema.each(schema.NAME),
    'as many steps as these stages made segmentation updates; empty: steps',
  ),
  'init_from': Key('', schema.NAME_OR_NONE, 'earlier stage; empty: fresh'),
  'role': Key(
    'main',
    choice(*ROLES),
    'gains are measured against control; reference is only printed',
  ),
  'optim': Key('main', schema.NAME, 'entry of config.optim'),
  'level': Key(0, whole(0, 99), 'step of a class tree, 0 is the coarsest'),
}

SCHEMA = {
  'method': Key(
    'source_only',
    schema.NAME,
    'what the run is about: of a main stage; names it in results.json',
  ),
  'pair': Key('streets', choice(*PAIRS), 'source and target, set by ARG'),
  'seed': Key(
    0, whole(0, 2**32 - 1), 'of weights, data order and augmentation'
  ),
  'data_dir': Key('~/tensorflow_datasets', schema.PATH, 'prepared data sets'),
  'cache_dir': Key(
    '',
    schema.PATH_OR_NONE,
    'shared baseline runs; empty: DATA_DIR/jaxseg_da_cache',
  ),
  'backend': Key('pmap', choice('pmap', 'shard_map'), 'compiler of the step'),
  'deterministic': Key(
    False, schema.FLAG, 'XLA flags for bit-exact runs on GPU'
  ),
  'distributed': Key(
    False, schema.FLAG, 'jax.distributed.initialize() before the first device'
  ),
  'batch_size': Key(4, whole(1, 65536), 'global, images per domain'),
  'bn': Key(
    'sync',
    schema.text(
      r'sync|per_device|groups:[1-9]\d*',
      'sync, per_device, or groups:N (devices per group)',
    ),
    'over what BatchNorm takes its statistics',
  ),
  'scale_rule': Key(
    'none',
    choice('none', 'linear', 'sqrt'),
    'how learning rate, steps and EMA follow the batch',
  ),
  'scale_reference_batch': Key(
    4, whole(1, 65536), 'batch that the constants were made for'
  ),
  'steps_scale': Key(
    1.0, real(0, 1e4, above=True), 'factor of every key measured in steps'
  ),
  'control': Key(False, schema.FLAG, 'append the equal-update control'),
  'log_every': Key(
    20, schema.STEP_INTERVAL, 'steps between lines of metrics.jsonl'
  ),
  'tensorboard': Key(True, schema.FLAG, 'write WORKDIR/tensorboard too'),
  'data': {
    'source': Key('streets/gta:train', schema.DATASET, 'labelled stream'),
    'target': Key(
      'streets/city:train',
      schema.DATASET,
      'unlabelled stream; its labels are for the oracle alone',
    ),
    'resize': Key('pil_bicubic', choice(*RESIZE_MODES), 'of images'),
    'target_resize': Key(
      '', choice('', *RESIZE_MODES), 'of target images; empty: as resize'
    ),
    'source_size': Key(
      (96, 192),
      schema.size(16, optional=True),
      'resized to; (0, 0): native',
    ),
    'target_size': Key(
      (96, 192), schema.size(16, optional=True), 'as source_size'
    ),
    'source_crop': Key(
      (0, 0), schema.size(16, optional=True), 'random crop; (0, 0): none'
    ),
    'target_crop': Key(
      (0, 0), schema.size(16, optional=True), 'as source_crop'
    ),
    'num_classes': Key(19, choice(19), 'Cityscapes train ids'),
    'normalization': Key(
      'unit', choice('unit', 'caffe_bgr', 'imagenet_rgb'), "network's input"
    ),
  },
  'augment': {
    'flip': Key(True, schema.FLAG, 'left-right, probability one half'),
    'blur_probability': Key(
      0.0, schema.PROBABILITY, 'of an image, before normalisation'
    ),
    'blur_sigma': Key(
      (1.0, 1.0),
      schema.pair(real(0, 100), '(SOURCE, TARGET)'),
      "largest sigma in pixels of the network's input; drawn from 0 on",
    ),
  },
  'model': {
    'name': Key(
      'street', choice('street', 'deeplabv2', 'deeplabv3', 'fcn8s'), 'network'
    ),
    'preset': Key(
      'full',
      choice('full', 'reduced'),
      'reduced: width / 8, of a ResNet one block per stage',
    ),
    'layers': Key(
      (3, 4, 23, 3),
      schema.each(whole(1, 100), 4, 4),
      'deeplabv2, deeplabv3: blocks per stage',
    ),
    'aspp_branches': Key(2, choice(2, 4), 'deeplabv2: summed dilations'),
    'aux_head': Key(
      False, schema.FLAG, 'deeplabv2: second classifier on stage 3'
    ),
    'aux_weight': Key(
      0.1, schema.WEIGHT, "of the second classifier's loss", 'AdaptSegNet'
    ),
    'width': Key(
      96,
      schema.Rule(
        'a multiple of 4 from 4 to 4096',
        lambda v: 4 <= v <= 4096 and v % 4 == 0,
        (0, 6, 10**7),
      ),
      'street: channels at stride 8; 96 makes 0.75 M parameters',
    ),
    'compute_dtype': Key(
      'float32',
      choice('float32', 'bfloat16', 'float64'),
      'of convolutions and activations; parameters are float32',
    ),
  },
  'init': {
    'weights': Key(
      '',
      schema.PATH_OR_NONE,
      '.npz, .safetensors or .pth with published names',
    ),
  },
  'optim': Entries(OPTIMIZER, {'main': {}}),
  'pipeline': Key(
    ('source_only',), schema.each(schema.NAME, 1), 'stages, in order'
  ),
  'stages': Entries(STAGE, {'source_only': {}}),
  'checkpoint': {
    'every_steps': Key(200, schema.STEP_INTERVAL, 'and after the last step'),
    'keep': Key(2, whole(1, 1000), 'the newest ones'),
  },
  'evaluate': {
    'every_steps': Key(0, schema.STEP_COUNT, '0: after a stage only'),
    'batch_size': Key(4, whole(1, 65536), 'images, of all devices together'),
    'size': Key(
      (0, 0), schema.size(16, optional=True), "network's input; (0, 0): native"
    ),
    'mode': Key('whole', choice('whole', 'sliding'), 'of prediction'),
    'window': Key((512, 1024), schema.size(16), 'sliding'),
    'stride': Key((341, 683), schema.size(1), 'sliding: between windows'),
    'scales': Key(
      (1.0,),
      schema.each(real(1 / 16, 16), 1, 16),
      'of the input; probabilities are averaged',
    ),
    'flip': Key(False, schema.FLAG, 'average with the mirrored image'),
    'upsample': Key(
      'logits',
      choice('logits', 'probabilities'),
      'what is brought to the size of the label',
    ),
    'labels': Key(
      'native', choice('native', 'input'), 'input: brought to evaluate.size'
    ),
    'source': Key(False, schema.FLAG, "also the source's validation split"),
    'limit': Key(0, whole(), 'images; 0: all'),
    'checkpoint': Key('last', _CHECKPOINT, 'for --mode=evaluate'),
  },
  'predict': {
    'input': Key('', schema.PATH_OR_NONE, 'file, folder or glob'),
    'output': Key('', schema.PATH_OR_NONE, 'folder'),
    'format': Key(
      'color,overlay,train_ids',
      schema.text(r'[\w, ]+', 'names separated by commas'),
      'of color, overlay, train_ids, label_ids; or all',
    ),
    'checkpoint': Key('last', _CHECKPOINT, 'for --mode=predict'),
  },
  'benchmark': {
    'input_only': Key(False, schema.FLAG, 'how fast the host makes batches'),
    'images': Key(32, whole(1, 10**6), 'frames per data set, held in memory'),
    'repeats': Key(3, whole(1, 1000), 'timed windows per stored form'),
    'seconds': Key(
      5.0, schema.POSITIVE, 'of a window of the loader alone, at least'
    ),
    'steps': Key(
      20, whole(0, 10**6), 'of a window of training; 0: the loader alone'
    ),
  },
  'report': {'images': Key(4, whole(0, 1000), 'validation pictures')},
}


def optimizer(**values) -> ConfigDict:
  """One optimizer; entries of `config.optim` are named by stages and phases."""
  block = schema.defaults(OPTIMIZER)
  block.update(values)
  return block


def stage(method: str, steps: int, init_from: str = '', **values) -> ConfigDict:
  """One stage of the pipeline."""
  block = schema.defaults(STAGE)
  block.update(method=method, steps=steps, init_from=init_from, **values)
  return block


def base_config() -> ConfigDict:
  """Every key of `SCHEMA` at its default."""
  return schema.defaults(SCHEMA)
