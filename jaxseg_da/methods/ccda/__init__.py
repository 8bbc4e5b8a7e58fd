"""CCDA: continual coarse-to-fine adaptation, one stage per step of a hierarchy.

Shenaj et al., "Continual coarse-to-fine domain adaptation in semantic
segmentation", Image and Vision Computing 121 (2022) 104426. At each step some
classes are split, and only the new ones are labelled. One training step:

1. cross-entropy on source images, whose labels are brought to the classes of
   the step; what was definitive before is ignored;
2. maximum squares on target images, weighted by how often classes are predicted
   in the whole batch;
3. the frozen network of the step before teaches the sums over the children of
   each of its classes: on target images, or without 2 on source images.

A stage starts from the one before, with its class-wise tensors handed down to
the children. The baselines leave parts out: see `VARIANTS`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg_da import errors, models
from jaxseg_da.classes import class_set, hierarchy, hierarchy_file
from jaxseg_da.drawing import hierarchy_picture, visual
from jaxseg_da.losses import distillation, maxsquare, terms
from jaxseg_da.methods import supervised, two_domains
from jaxseg_da.methods.ccda.keys import settings
from jaxseg_da.models import base as models_base
from jaxseg_da.models import grow
from jaxseg_da.training import contract

__all__ = ['make', 'settings']


class Variant(NamedTuple):
  """What a method of this module does.

  Attributes:
    adapt: maximum squares on the target.
    distil: how the teacher is followed: `children`, `merged` (MiB), or not.
    shift: whether biases are lowered when classes are split, so that the
      network predicts what it did before.
  """

  adapt: bool
  distil: str
  shift: bool


# MiB's initialisation is not published with its numbers; without a shift, as
# the other baselines.
VARIANTS = {
  'ccda': Variant(adapt=True, distil='children', shift=True),
  'ccda_skdc': Variant(adapt=False, distil='children', shift=True),
  'ccda_mib': Variant(adapt=False, distil='merged', shift=False),
  'ccda_msiw': Variant(adapt=True, distil='', shift=False),
  'ccda_source_only': Variant(adapt=False, distil='', shift=False),
}
# Runs of these are the starting points and the control of the others.
_SHARED = ('ccda_source_only', 'ccda_msiw')


class Recipe(NamedTuple):
  """Networks and constants of one stage; see `config.ccda`."""

  variant: Variant
  network: models_base.Network
  teacher: models_base.Network | None
  children: tuple[tuple[int, ...], ...]
  table: np.ndarray
  aux_weight: float
  uda_weight: float
  ratio: float
  skip: int
  kd_weight: float
  kd_refined_weight: float


def segment(
  recipe: Recipe, variables, context: contract.Context
) -> two_domains.Outputs:
  """Source images through the network, and target images where it adapts."""
  if recipe.variant.adapt:
    return two_domains.segment(recipe.network, variables, context)
  keys = context.keys.examples('dropout/source')
  images = context.batch['source']['image']
  source, stats = recipe.network.apply(variables, images, True, keys)
  return two_domains.Outputs(source, {}, stats)


def loss(
  variables, context: contract.Context, *, recipe: Recipe
) -> contract.Output:
  """The sum of the losses of one step, and what is logged."""
  outputs = segment(recipe, variables['segmenter'], context)
  labels = context.batch['source']['label']
  known = jnp.asarray(recipe.table)[labels].astype(jnp.int32)
  losses = supervised.loss_terms(outputs.source, known, recipe.aux_weight)
  adapt, metrics = recipe.variant.adapt, {}
  images = context.batch['target' if adapt else 'source']['image']
  found = outputs.target if adapt else outputs.source
  logits = models.upsample(found['logits'], images.shape[1:3])
  if adapt:
    p = jax.nn.softmax(logits)
    classes = two_domains.effective_classes(p, context.axis_name)
    metrics['target_classes'] = classes
    squares = maxsquare.iw_maxsquare(
      p, recipe.ratio, 'batch', context.axis_name
    )
    weight = jnp.where(context.step >= recipe.skip, recipe.uda_weight, 0.0)
    losses['maxsquare'] = terms.Term(*squares, weight)
  if recipe.teacher is not None:
    losses |= distil(recipe, context.extra['teacher'], images, logits)
  return contract.Output(
    losses, {'segmenter': outputs.batch_stats}, metrics=metrics
  )


def distil(
  recipe: Recipe, teacher: Mapping[str, Any], images, logits: jax.Array
) -> dict[str, terms.Term]:
  """The teacher's terms: one for parents that stay, one for those that split.

  Args:
    recipe: see there.
    teacher: its variables.
    images: normalised `[b, H, W, 3]`.
    logits: float `[b, H, W, C]` of the student on them.
  """
  if recipe.teacher is None:
    raise ValueError('a recipe without teacher')
  outputs, _ = recipe.teacher.apply(teacher, images, False)
  taught = models.upsample(outputs['logits'], images.shape[1:3])
  if recipe.variant.distil == 'merged':
    merged = distillation.merged_background(logits, taught, recipe.children)
    return {'merged': terms.Term(*merged, recipe.kd_weight)}
  definitive, refined = distillation.coarse_to_fine_parts(
    logits, taught, recipe.children
  )
  return {
    'definitive': terms.Term(*definitive, recipe.kd_weight),
    'refined': terms.Term(*refined, recipe.kd_refined_weight),
  }


def adopt(previous, fresh, *, recipe: Recipe, parents, model):
  """Grows the network of the step before, which also becomes the teacher."""
  variables = previous.variables()['segmenter']
  grown = grow.grow(variables, parents, model, recipe.variant.shift)
  extra = {}
  if recipe.teacher is not None:
    # A copy: the state is donated, and what is not class-wise is in both.
    extra['teacher'] = jax.tree.map(jnp.copy, variables)
  return fresh.replace(
    params={'segmenter': grown['params']},
    batch_stats={'segmenter': grown['batch_stats']},
    extra=extra,
  )


def init_extra(variables, artifacts, *, recipe: Recipe):
  """A teacher of the right shape, for states that are restored."""
  del variables, artifacts
  if recipe.teacher is None:
    return {}
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  return {'teacher': recipe.teacher.init(jax.random.key(0), images)}


def draw(context: contract.StageContext, *, tree: hierarchy.Hierarchy) -> None:
  """Leaves a picture of the hierarchy for the report."""
  if jax.process_index() == 0:
    context.folder.mkdir(parents=True, exist_ok=True)
    picture = visual.encode_png(hierarchy_picture.draw(tree))
    (context.folder / 'hierarchy.png').write_bytes(picture)


def classes_of(tree: hierarchy.Hierarchy, step: int) -> class_set.Classes:
  """What logits of a step mean; every class of it counts in evaluation."""
  covered = [c.train_ids for c in tree.steps[step]]
  return class_set.Classes(
    tree.names(step),
    tree.colours(step),
    tree.table(step),
    tuple(ids[0] if len(ids) == 1 else -1 for ids in covered),
    {},
    step,
    tuple(tree.names(step)[i] for i in tree.ignored(step)),
  )


def verdict(records) -> str | None:
  """Says where the whole target has become one class, the surest of all."""
  return two_domains.one_class(records, 'lower config.ccda.uda_weight')


def make(config, stage) -> contract.Method:
  """One step of `ccda` or of a baseline, by the stage's method and level.

  Raises:
    errors.UserError: the hierarchy is none, or the stage is not at a step of it
      after the one that it starts from.
  """
  tree = hierarchy_file.get(config.ccda.hierarchy)
  step = stage.level
  _check(config, stage, tree)
  variant, settings = VARIANTS[stage.method], config.ccda
  network = supervised.segmenter(config, tree.num_classes(step))
  teacher = None
  if step and variant.distil:
    teacher = supervised.segmenter(config, tree.num_classes(step - 1))
  recipe = Recipe(
    variant=variant,
    network=network,
    teacher=teacher,
    children=tree.children(step) if step else (),
    table=tree.table(step, training=True),
    aux_weight=config.model.aux_weight,
    uda_weight=settings.uda_weight,
    ratio=settings.ratio,
    # Released: 'iterations > 100', so that the first one has the index 101.
    skip=0 if step else settings.uda_skip_steps + 1,
    kd_weight=settings.kd_weight,
    kd_refined_weight=settings.kd_refined_weight,
  )
  domains = two_domains.streams(config)
  if not variant.adapt:
    del domains['target']
  method = contract.Method(
    name=stage.method,
    domains=domains,
    networks={'segmenter': network},
    phases=(
      contract.Phase(
        'segmenter', ('segmenter',), functools.partial(loss, recipe=recipe)
      ),
    ),
    init_extra=functools.partial(init_extra, recipe=recipe),
    verdict=verdict,
    shared=stage.method in _SHARED,
    baseline=not (variant.adapt or variant.distil),
    classes=classes_of(tree, step),
  )
  if not step:
    return dataclasses.replace(
      method, after_stage=functools.partial(draw, tree=tree)
    )
  return dataclasses.replace(
    method,
    adopt=functools.partial(
      adopt, recipe=recipe, parents=tree.parents(step), model=config.model
    ),
  )


def _check(config, stage, tree: hierarchy.Hierarchy) -> None:
  step, name = stage.level, config.ccda.hierarchy
  last = len(tree.steps) - 1
  if not 0 <= step <= last:
    raise errors.UserError(
      f'a stage has level {step}, but {name} has the steps 0 to {last}'
    )
  if step and config.model.name not in grow.CLASS_WISE:  # here, not after hours
    raise errors.unknown(
      'model that can grow', config.model.name, grow.CLASS_WISE
    )
  for c in tree.steps[0]:
    for train_id in c.train_ids:
      if train_id >= config.data.num_classes:
        raise errors.UserError(
          f'config.ccda.hierarchy={name!r} has train id {train_id} in '
          f'{c.name!r}, but config.data.num_classes is '
          f'{config.data.num_classes}'
        )
  before = config.stages[stage.init_from] if stage.init_from else None
  if not step and before is None:
    return
  if (
    not step
    or before is None
    or (before.method, before.level)
    not in [(method, step - 1) for method in VARIANTS]
  ):
    wanted = (
      f'must start from one at level {step - 1}' if step else 'starts afresh'
    )
    raise errors.UserError(
      f'a stage of {stage.method} at level {step} {wanted}; its init_from is '
      f'{stage.init_from!r}'
    )
