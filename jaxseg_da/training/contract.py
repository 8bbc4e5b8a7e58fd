"""What a method is: networks, phases of one step, and what surrounds a stage.

A method module has two functions, `settings() -> Settings` (its keys) and
`make(config, stage) -> Method`. All functions below are pure; configuration is
bound with `functools.partial`. The training loop and `step.py` know this page
and nothing about any particular method.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxseg_da.classes import class_set
from jaxseg_da.losses import terms
from jaxseg_da.models import base as models_base
from jaxseg_da.ops import rng
from jaxseg_da.training import train_state as train_state_lib

Tree = Any
Variables = Mapping[str, Any]


class Settings(NamedTuple):
  """What a method module adds to a config: its `settings()`.

  Attributes:
    keys: the schema of its block, which is called as the module; may be empty.
    reads: blocks of other modules that it reads as well.
    optimizers: entries of `config.optim` that its phases name.
    complete: fills in what a run depends on outside of the config, such as a
      file's digest; gets the block, when a run begins.
  """

  keys: Mapping[str, Any] = {}
  reads: tuple[str, ...] = ()
  optimizers: Mapping[str, Mapping[str, Any]] = {}
  complete: Callable[[Any], None] = lambda block: None


class Domain(NamedTuple):
  """One stream of training images.

  Attributes:
    spec: prepared dataset, `NAME[/CONFIG][:SPLIT]`.
    labelled: whether labels are read; otherwise they arrive as 255.
    size: `(H, W)` images are resized to, `(0, 0)` for native.
    crop: `(H, W)` of a random crop after resizing, `(0, 0)` for none.
    resize: resize mode, a name in `data.transforms`.
    rows: key in `Artifacts.files` of an `.npz` with `index` i32 `[N]`: the
      examples to stream, instead of all; its other arrays `[N, ...]` come with
      them into the batch. Empty: all examples.
  """

  spec: str
  labelled: bool
  size: tuple[int, int] = (0, 0)
  crop: tuple[int, int] = (0, 0)
  resize: str = 'pil_bicubic'
  rows: str = ''


class Context(NamedTuple):
  """What a phase sees on one device.

  Attributes:
    batch: domain -> `image` float `[b, H, W, 3]` (normalised, augmented),
      `label` i32 `[b, H, W]`, and what `Domain.rows` adds, `[b, ...]`.
    extra: the method's own state.
    carry: outputs of earlier phases of this iteration, gradient-stopped.
    step: i32 scalar, 0 before the first update.
    keys: random keys of this step.
    axis_name: the axis that devices reduce over.
  """

  batch: Mapping[str, Mapping[str, jax.Array]]
  extra: Mapping[str, Tree]
  carry: Mapping[str, Tree]
  step: jax.Array
  keys: rng.Keys
  axis_name: str


class Output(NamedTuple):
  """What a phase's loss returns.

  Attributes:
    terms: loss terms; the phase's loss is the sum of weight * total / count.
    batch_stats: network -> new running statistics, of networks that ran in
      train mode.
    carry: handed to later phases and to `post_update`.
    averaged: pytree that is averaged over devices in the all-reduce of the
      gradients and joins the carry under `averaged`.
    metrics: scalars to log, as terms without gradient.
  """

  terms: Mapping[str, terms.Term]
  batch_stats: Mapping[str, Tree] = {}
  carry: Mapping[str, Tree] = {}
  averaged: Mapping[str, Tree] = {}
  metrics: Mapping[str, terms.Term] = {}


@dataclasses.dataclass(frozen=True)
class Phase:
  """One optimizer update inside the compiled step.

  Attributes:
    name: key of its optimizer state; also the metrics' prefix.
    train: networks whose parameters it updates; empty: statistics only.
    loss: `(variables, context) -> Output`, variables by network name.
    at: 'old' sees the parameters from before this iteration, 'updated' those
      that earlier phases of the iteration wrote.
    optimizer: entry of `config.optim`; empty for the stage's own.
  """

  name: str
  train: tuple[str, ...]
  loss: Callable[[Variables, Context], Output]
  at: str = 'old'
  optimizer: str = ''


class Artifacts(NamedTuple):
  """Result of a stage's host pass: files, and the step count they imply."""

  files: Mapping[str, pathlib.Path] = {}
  steps: int | None = None


NO_ARTIFACTS = Artifacts()


@dataclasses.dataclass(frozen=True)
class StageContext:
  """What a host pass may use: `before_stage`, or `after_stage`.

  Attributes:
    config: the resolved configuration.
    stage: name of the stage.
    folder: where artefacts go; what is there already was written before.
    previous: state that `init_from` named, or None; after the stage its own.
    predictor: `(function) -> predict` of that state; `predict` takes images u8
      `[b, H, W, 3]`, split over local devices, and gives what the pure
      `function(forward, images)` makes of them normalised, a pytree of
      `[b, ...]`; `forward` is `Method.forward`, a dict with `logits`
      `[b, h, w, C]`. None without `previous`.
    open_dataset: `(spec) -> source` of decoded examples.
    say: prints a line, once per run.
  """

  config: Any
  stage: str
  folder: pathlib.Path
  previous: train_state_lib.TrainState | None
  predictor: Callable[[Callable], Callable[[Any], Any]] | None
  open_dataset: Callable[[str], Any]
  say: Callable[[str], None]


def no_extra(variables: Variables, artifacts: Artifacts) -> Tree:
  """A method without state of its own."""
  del variables, artifacts
  return {}


def keep_extra(extra: Tree, variables: Variables, carry: Tree, step) -> Tree:
  """Nothing moves after the update."""
  del variables, carry, step
  return extra


def no_artifacts(context: StageContext) -> Artifacts:
  """No host pass."""
  del context
  return NO_ARTIFACTS


def no_pictures(context: StageContext) -> None:
  """Nothing to show."""
  del context


def no_verdict(records: Sequence[Mapping[str, float]]) -> str | None:
  """Nothing is known that could go wrong."""
  del records


def adopt_networks(
  previous: train_state_lib.TrainState, fresh: train_state_lib.TrainState
) -> train_state_lib.TrainState:
  """Takes over every network of the same name; optimizer and extra are new.

  Raises:
    ValueError: a network of the same name has other shapes (a grown head needs
      an `adopt` of its own).
  """
  params, batch_stats = dict(fresh.params), dict(fresh.batch_stats)
  for name in params:
    if name not in previous.params:
      continue
    shapes = [
      jax.tree.map(lambda x: x.shape, tree[name])
      for tree in (previous.params, fresh.params)
    ]
    if shapes[0] != shapes[1]:
      raise ValueError(f'network {name!r} changes shape between stages')
    params[name] = previous.params[name]
    batch_stats[name] = previous.batch_stats[name]
  return fresh.replace(params=params, batch_stats=batch_stats)


@dataclasses.dataclass(frozen=True)
class Method:
  """One stage's recipe.

  Attributes:
    name: as in `config.stages.NAME.method`.
    domains: batch key -> stream; `source` carries labels, `target` does not.
    networks: name -> network; `segmenter` is the one that is evaluated.
    phases: in order, all inside one compiled step.
    init_extra: `(variables, artifacts) -> extra`, after `adopt`.
    post_update: `(extra, variables, carry, step) -> extra`.
    predict: `(variables, extra, images) -> {'logits': [b, h, w, C]}`, images
      normalised; what evaluate, predict and `before_stage` call.
    adopt: `(previous, fresh) -> state`, what `init_from` takes over.
    before_stage: resumable host pass before the first step.
    after_stage: host pass after the last; pictures `*.png` that it leaves in
      the folder are shown in the report.
    verdict: what has gone wrong, in one sentence, or None; reads the last
      records of the log. It is printed, and kept in results.json.
    shared: whether runs of it are cached and shared between methods.
    baseline: trained on the labelled source alone: it needs no control.
    decides_steps: `before_stage` says how many steps there are, so that the
      config may say 0.
    classes: what its logits mean.
  """

  name: str
  domains: Mapping[str, Domain]
  networks: Mapping[str, models_base.Network]
  phases: tuple[Phase, ...]
  init_extra: Callable[[Variables, Artifacts], Tree] = no_extra
  post_update: Callable[..., Tree] = keep_extra
  predict: Callable[..., Mapping[str, jax.Array]] | None = None
  adopt: Callable[..., train_state_lib.TrainState] = adopt_networks
  before_stage: Callable[[StageContext], Artifacts] = no_artifacts
  after_stage: Callable[[StageContext], None] = no_pictures
  verdict: Callable[[Sequence[Mapping[str, float]]], str | None] = no_verdict
  shared: bool = False
  baseline: bool = False
  decides_steps: bool = False
  classes: class_set.Classes = class_set.CITYSCAPES

  def segmentation_updates(self, steps: int) -> int:
    """Updates of the segmenter that `steps` steps make."""
    return steps * sum('segmenter' in p.train for p in self.phases)

  def forward(self, variables: Variables, extra: Tree, images: jax.Array):
    """`predict`, or by default the segmenter in evaluation mode."""
    if self.predict is not None:
      return self.predict(variables, extra, images)
    outputs, _ = self.networks['segmenter'].apply(
      variables['segmenter'], images, False
    )
    return outputs
