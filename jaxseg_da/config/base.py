"""Every configuration key, with its type and a comment.

Config files in `configs/` change values of `base_config()` and add nothing.
Keys that count steps are called `steps`, `*_steps` or `*_every`: that is what
`steps_scale` scales, outside of `benchmark`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import ml_collections

ConfigDict = ml_collections.ConfigDict

STEP_KEY = re.compile(r'(^|_)(steps|every)(_steps)?$')


def optimizer(**values) -> ConfigDict:
  """One optimizer; entries of `config.optim` are named by stages and phases."""
  block = ConfigDict()
  block.name = 'adamw'  # sgd | adam | adamw
  block.learning_rate = 1e-3
  block.momentum = 0.9  # sgd
  block.b1 = 0.9  # adam, adamw
  block.b2 = 0.999
  block.weight_decay = 0.0  # coupled for sgd and adam, decoupled for adamw
  block.schedule = 'poly'  # poly | constant | step
  block.power = 0.9  # of poly
  block.horizon_steps = 0  # where poly reaches zero; 0: the stage's steps
  block.decay_steps = 0  # of step: interval between two decays
  block.decay_rate = 0.1  # of step: factor of each
  block.warmup_steps = 0
  block.grad_clip = 0.0  # global norm; 0: off
  # (regex on NETWORK/PATH, learning-rate factor, weight-decay factor), first
  # match wins; factor 0 freezes.
  block.groups = ((r'.', 1.0, 1.0),)
  block.multiplicity = 'none'  # none | reference (duplicated SGD parameters)
  # Momentum of duplicates in step 1: fresh (recent PyTorch) | recursive (1.7).
  block.first_step = 'fresh'
  block.update(values)
  return block


def stage(method: str, steps: int, init_from: str = '', **values) -> ConfigDict:
  """One stage of the pipeline."""
  block = ConfigDict()
  block.method = method  # a name in jaxseg_da.methods
  block.steps = steps  # updates; 0: as many as the method's host pass says
  # As many steps as these stages made segmentation updates; empty: `steps`.
  block.updates_of = ()
  block.init_from = init_from  # an earlier stage; empty: fresh
  # main | control (gains are measured against it) | reference (only printed)
  block.role = 'main'
  block.optim = 'main'  # entry of config.optim
  block.level = 0  # ccda: the step of ccda.hierarchy, 0 is the coarsest
  block.update(values)
  return block


def base_config() -> ConfigDict:
  """All keys; see the comments for types, units and choices."""
  c = ConfigDict()
  c.method = 'source_only'  # what the run is about; names it in results.json
  c.pair = 'streets'  # source and target, set by the config's argument
  c.seed = 0  # of weights, data order and augmentation; at least 0
  c.data_dir = '~/tensorflow_datasets'  # prepared datasets
  c.cache_dir = ''  # shared baseline runs; empty: DATA_DIR/jaxseg_da_cache
  c.backend = 'pmap'  # pmap | shard_map
  c.deterministic = False  # XLA flags for bit-exact GPU runs
  c.distributed = False  # jax.distributed.initialize() before the first device
  c.batch_size = 4  # global, per domain
  c.bn = 'sync'  # sync | per_device | groups:N (devices per group)
  c.scale_rule = 'none'  # none | linear | sqrt: learning rate, steps, EMA
  c.scale_reference_batch = 4  # batch that the constants were made for
  c.steps_scale = 1.0  # factor of every key measured in steps
  c.control = False  # append the equal-update control
  c.log_every = 20  # steps between lines of metrics.jsonl
  c.tensorboard = True  # write WORKDIR/tensorboard too

  c.data = ConfigDict()
  c.data.source = 'streets/gta:train'  # NAME[/CONFIG][:SPLIT]
  c.data.target = 'streets/city:train'  # labels: for the oracle alone
  c.data.resize = 'pil_bicubic'  # pil_bilinear | cv_area | cv_linear | nearest
  c.data.target_resize = ''  # empty: as data.resize
  c.data.source_size = (96, 192)  # (H, W) after resizing
  c.data.target_size = (96, 192)  # (H, W), as source_size
  c.data.source_crop = (0, 0)  # (H, W) of a random crop; (0, 0): none
  c.data.target_crop = (0, 0)  # (H, W), as source_crop
  c.data.num_classes = 19  # 19 Cityscapes classes
  c.data.normalization = 'unit'  # unit | caffe_bgr | imagenet_rgb

  c.augment = ConfigDict()
  c.augment.flip = True  # left-right, probability one half
  c.augment.blur_probability = 0.0  # of an image, before normalisation
  # Largest sigma of source and target, in pixels of the network's input; drawn
  # uniformly from 0 on.
  c.augment.blur_sigma = (1.0, 1.0)

  c.model = ConfigDict()
  c.model.name = 'street'  # street | deeplabv2 | deeplabv3 | fcn8s
  # full | reduced (width / 8, of a ResNet one block per stage)
  c.model.preset = 'full'
  c.model.layers = (3, 4, 23, 3)  # deeplabv2, v3: blocks per stage
  c.model.aspp_branches = 2  # deeplabv2: 2 | 4 summed dilations
  c.model.aux_head = False  # deeplabv2: second classifier on stage 3
  c.model.aux_weight = 0.1  # of the second classifier's loss
  c.model.width = 96  # street: channels at stride 8; 0.75 M parameters
  c.model.compute_dtype = 'float32'  # float32 | bfloat16; params are float32

  c.init = ConfigDict()
  c.init.weights = ''  # .npz, .safetensors or .pth with published names

  c.optim = ConfigDict()
  c.optim.main = optimizer()
  # Of the discriminators; AdaptSegNet and ADVENT: Adam at 1e-4, poly.
  c.optim.discriminator = optimizer(
    name='adam', learning_rate=1e-4, b1=0.9, b2=0.99
  )

  c.pipeline = ('source_only',)  # stages, in order
  c.stages = ConfigDict()
  c.stages.source_only = stage('source_only', 500)

  c.dacs = ConfigDict()
  c.dacs.threshold = 0.968  # released code: trainUDA.py
  c.dacs.weight_mode = 'threshold_uniform'  # threshold | none
  c.dacs.mixed_weight = 1.0  # lambda of the mixed loss
  c.dacs.ema_decay = 0.99  # hard-coded in the released code
  c.dacs.mix_ignore = True  # 255 counts as a class when classes are drawn
  c.dacs.jitter = 0.25  # colour jitter strength
  c.dacs.jitter_probability = 0.8  # once per iteration
  c.dacs.blur_probability = 0.5  # once per iteration
  c.dacs.blur_sigma = (0.15, 1.15)  # pixels, drawn uniformly
  c.dacs.teacher_train_mode = True  # teacher normalises by batch statistics

  c.lse = ConfigDict()
  # Part of the target images that a round selects from; released code: LSE.py.
  c.lse.portion_start = 0.10
  c.lse.portion_increment = 0.05  # per round
  c.lse.portion_stop = 0.40  # of the last round
  c.lse.divisor = 19  # of the portion, per class; 19 for SYNTHIA as well
  c.lse.skip_classes = ()  # train ids; SYNTHIA: 9, 14, 16
  c.lse.patches = 4  # windows per selected image
  c.lse.epochs = 2  # of a round, over all windows
  c.lse.window = (256, 512)  # (H, W) pixels, half of the image
  c.lse.enlarge = True  # windows to the size of the image (the paper's idea)
  c.lse.use_thresholds = True  # ignore what is less certain than its class's
  c.lse.focal = 'pixel'  # pixel (FCN-8s) | batch (DeepLab) | none
  c.lse.gamma = 3.0  # focal exponent; 5 in the notebook for DeepLab on GTA5
  c.lse.beta = 0.1  # weight of the focal term
  c.lse.quantise = True  # cut patches to 8 bits, as the released PNG files
  # once: every selected image | released: one visit more, with repetition
  c.lse.visits = 'once'

  c.cbst = ConfigDict()
  # Portions are (first round, growth per round, limit); released code: CRST's
  # crst_seg.py with its scripts.
  c.cbst.target_portion = (0.20, 0.05, 0.5)  # of each class's pixels
  c.cbst.source_portion = (0.03, 0.0025, 0.06)  # of the source images
  # cbst: threshold per class | mxnet: the same in CBST's own code, whose lists
  # have one zero too many | global: one threshold (plain self-training)
  c.cbst.policy = 'cbst'
  # Passes over the target images per round: all of `data.target`, while the
  # released list has 505 of 2975 (prepare the data with its --list for that).
  # A step has as many source as target images; the released loop shuffles both
  # into one list, so a batch there is mixed at random.
  c.cbst.epochs = 2
  c.cbst.scale = 0.9  # of the labelled images: test_scale
  c.cbst.flip = True  # labels average both mirrored views: test_flipping
  # (H, W) of a window of the images, scaled by 0.5 .. 1.5; (0, 0): their size
  c.cbst.crop = (0, 0)
  c.cbst.mining = 0.8  # probability of a window around a rare class
  c.cbst.mine_share = 1e-3  # of all pixels; a class with less is rare
  c.cbst.regulariser = 'none'  # none (CBST) | mrkld | lrent (CRST)
  c.cbst.mrkld_alpha = 0.1  # mrkld.sh
  # Weight of MRKLD. released: alpha ** 2, it is multiplied twice | paper: alpha
  c.cbst.mrkld_effective = 'released'
  c.cbst.lrent_alpha = 0.25  # lrent.sh; towards 0 labels become hard
  c.cbst.frozen_bn = False  # train the network in evaluation mode; CRST does

  c.adversarial = ConfigDict()  # AdaptSegNet, ADVENT
  # What is aligned: adaptsegnet (probabilities) | advent (self-information) |
  # minent (nothing: entropy is minimised directly)
  c.adversarial.kind = 'adaptsegnet'
  c.adversarial.objective = 'bce'  # bce | least_squares
  c.adversarial.weight = 1e-3  # main classifier; lambda_adv2, LAMBDA_ADV_MAIN
  c.adversarial.aux_weight = 2e-4  # second one; 0: it is not aligned
  c.adversarial.discriminator_width = 64  # channels of its first layer

  # CDGA has no public code, and its text was not at hand. `recalled` values are
  # from memory of the article, `chosen` ones ours: docs/methods/cdga.md.
  c.cdga = ConfigDict()
  c.cdga.groups = 8  # K; recalled. 1: AdaptSegNet on one level
  c.cdga.weight = 1e-3  # of the alignment; recalled, AdaptSegNet's
  c.cdga.consistency_weight = 1e-3  # recalled, unsure
  c.cdga.orthogonality_weight = 1e-3  # recalled, unsure
  c.cdga.class_weight = 1e-4  # of class equivalence; recalled, unsure
  c.cdga.tau = 0.05  # a class is present above; recalled, unsure
  # What is grouped by: probabilities (recalled) | logits | features
  c.cdga.group_input = 'probabilities'
  c.cdga.hidden = 64  # channels of the grouping network; chosen
  c.cdga.kernel = 1  # size of its convolutions; chosen
  c.cdga.resolution = 'input'  # input | logits (saves memory); chosen
  c.cdga.discriminator = 'shared'  # shared | per_group; chosen
  # The alignment over groups: mean (chosen) | sum, then `weight` per group
  c.cdga.adv_reduction = 'mean'
  # Class distributions of groups: by their mass (chosen) | by all pixels
  c.cdga.q_normalisation = 'mass'  # mass | pixels
  c.cdga.co_distance = 'l2sq'  # l2sq (recalled) | l1
  c.cdga.orth_domains = 'both'  # both (recalled, unsure) | source | target
  c.cdga.cl_form = 'bce'  # bce (recalled, unsure) | positive_only
  c.cdga.cl_target = 'hard'  # hard: source above tau (recalled, unsure) | soft
  # First steps of plain alignment, while predictions say little; chosen
  c.cdga.warmup_steps = 0

  c.maxsquare = ConfigDict()  # released code: README, tools/solve_gta5.py
  # On target predictions: maxsquare | iw (image-wise weighted) | entropy |
  # iw_entropy | hard (pseudo-labels)
  c.maxsquare.loss = 'maxsquare'
  c.maxsquare.weight = 0.1  # lambda_target; 0.09 with guidance
  c.maxsquare.ratio = 0.2  # iw: 0 weighs all pixels alike, 1 all classes
  c.maxsquare.per = 'image'  # iw: whose pixels count; batch, as in CCDA
  # Pseudo-labels for the second classifier; times model.aux_weight
  c.maxsquare.multi = False
  c.maxsquare.threshold = 0.95  # of pseudo-labels: hard, multi

  c.ccda = ConfigDict()  # released code: README, utils/losses.py
  # Classes by step: gta5_to_cityscapes | gta5_to_idd | FILE.yaml
  c.ccda.hierarchy = 'gta5_to_cityscapes'
  c.ccda.digest = ''  # of the tree in a file; set when a run begins
  c.ccda.uda_weight = 0.1  # of maximum squares on the target
  c.ccda.ratio = 0.2  # alpha: 0 weighs all pixels alike, 1 all classes
  c.ccda.uda_skip_steps = 100  # at level 0 it starts after these and one more
  c.ccda.kd_weight = 10.0  # distillation of classes that stay as they are
  c.ccda.kd_refined_weight = 10.0  # of classes that are split; 1 for IDD

  c.checkpoint = ConfigDict()
  c.checkpoint.every_steps = 200  # and after the last step
  c.checkpoint.keep = 2  # the newest ones

  c.evaluate = ConfigDict()
  c.evaluate.every_steps = 0  # 0: after a stage only
  c.evaluate.batch_size = 4  # images, of all devices together
  c.evaluate.size = (0, 0)  # network input; (0, 0): native
  c.evaluate.mode = 'whole'  # whole | sliding
  c.evaluate.window = (512, 1024)  # sliding
  c.evaluate.stride = (341, 683)  # sliding: (H, W) between windows
  c.evaluate.scales = (1.0,)  # of the input; probabilities are averaged
  c.evaluate.flip = False  # average with the mirrored image
  # logits | probabilities: what is brought to the size of the label
  c.evaluate.upsample = 'logits'
  c.evaluate.labels = 'native'  # native | input: brought to evaluate.size
  c.evaluate.source = False  # also the source's validation split
  c.evaluate.limit = 0  # images; 0: all
  c.evaluate.checkpoint = 'last'  # last | best | STEP (--mode=evaluate)

  c.predict = ConfigDict()
  c.predict.input = ''  # file, folder or glob
  c.predict.output = ''  # folder
  c.predict.format = 'color,overlay,train_ids'  # also label_ids
  c.predict.checkpoint = 'last'  # last | best | STEP

  c.benchmark = ConfigDict()
  c.benchmark.input_only = False  # how fast the host makes batches
  c.benchmark.images = 32  # frames per dataset, held in memory
  c.benchmark.repeats = 3  # timed windows per stored form
  c.benchmark.seconds = 5.0  # of a window of the loader alone, at least
  c.benchmark.steps = 20  # of a window of training; 0: the loader alone

  c.report = ConfigDict()
  c.report.images = 4  # validation pictures
  return c


def leaves(config, prefix: str = '') -> Iterator[tuple[str, Any]]:
  """All `(dotted key, value)` of a config, in order."""
  for key in config:
    value = config[key]
    if isinstance(value, ConfigDict):
      yield from leaves(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def to_dict(config: ConfigDict) -> dict:
  """Plain nested dictionary; tuples become lists, as JSON has them."""

  def plain(value):
    if isinstance(value, (tuple, list)):
      return [plain(v) for v in value]
    return value

  def walk(block):
    return {
      k: walk(v) if isinstance(v, ConfigDict) else plain(v)
      for k, v in block.items()
    }

  return walk(config)


def from_dict(values: dict) -> ConfigDict:
  """The inverse of `to_dict`."""

  def typed(value: Any) -> Any:
    if isinstance(value, list):
      return tuple(typed(v) for v in value)
    if isinstance(value, dict):
      return {k: typed(v) for k, v in value.items()}
    return value

  return ConfigDict(typed(values))
