"""CDGA: cross-domain grouping and alignment.

Kim et al., Cross-Domain Grouping and Alignment for Domain Adaptive Semantic
Segmentation (AAAI 2021). No code was published; what is remembered of the
article and what is our choice is said at the keys of `config.cdga`. One step:

1. a grouping network, shared by the domains, assigns every pixel softly to K
   groups by what the segmenter predicts there;
2. segmenter and grouping network learn together: cross-entropy on the source,
   alignment of the domains *group by group*, groups that hold the same classes
   in both domains (consistency) and others than their neighbours do
   (orthogonality), and classes that are present in a group of the source are
   present in that of the target, however small they are (class equivalence);
3. the discriminator learns from the same groups, with their gradient stopped.

All gradients are taken at the parameters from before the step.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg_da import errors, models
from jaxseg_da.losses import adversarial as losses
from jaxseg_da.losses import grouping, terms
from jaxseg_da.methods import adversarial, supervised, two_domains
from jaxseg_da.methods.cdga import pictures
from jaxseg_da.methods.cdga.keys import settings
from jaxseg_da.models import base as models_base
from jaxseg_da.models import grouping as grouping_model
from jaxseg_da.models import layers
from jaxseg_da.training import contract

__all__ = ['make', 'settings']
CRITIC, GROUPING = 'discriminator', 'grouping'
DOMAINS = ('source', 'target')


class Recipe(NamedTuple):
  """Networks and constants of a run; see `config.cdga`."""

  network: models_base.Network
  grouping: models_base.Network
  critics: dict[str, models_base.Network]
  aux_weight: float
  objective: str
  adversarial_aux_weight: float
  groups: int
  weight: float
  consistency_weight: float
  orthogonality_weight: float
  class_weight: float
  tau: float
  group_input: str
  resolution: str
  adv_reduction: str
  q_normalisation: str
  co_distance: str
  orth_domains: str
  cl_form: str
  cl_target: str
  warmup_steps: int


def assign(
  recipe: Recipe, variables, outputs, size
) -> tuple[jax.Array, jax.Array]:
  """Class probabilities and soft groups of one domain.

  Args:
    recipe: see there.
    variables: of the grouping network.
    outputs: of the segmenter.
    size: (H, W) of the images.

  Returns:
    P `[b, h, w, C]` and H `[b, h, w, K]`, each of which sums to 1 over its last
    axis; (h, w) is `size`, or that of the logits (`config.cdga.resolution`).
  """
  logits = outputs['logits']
  if recipe.resolution == 'logits':
    size = logits.shape[1:3]
  logits = models.upsample(logits, size)
  probabilities = jax.nn.softmax(logits)
  seen = {**outputs, 'logits': logits, 'probabilities': probabilities}
  found, _ = recipe.grouping.apply(variables, seen[recipe.group_input], True)
  return probabilities, jax.nn.softmax(models.upsample(found['logits'], size))


def group_terms(
  recipe: Recipe,
  maps: Mapping[str, tuple[jax.Array, jax.Array]],
  active: jax.Array,
  axis_name: str,
) -> tuple[dict[str, terms.Term], dict[str, jax.Array]]:
  """The three losses that shape the groups.

  Args:
    recipe: see there.
    maps: domain -> P and H, from `assign`.
    active: 0 in the warm-up, else 1.
    axis_name: the axis that the global batch is spread over.

  Returns:
    The terms, and domain -> the groups' shares of all pixels `[K]`.
  """
  q, masses, present = {}, {}, {}
  for domain in DOMAINS:
    q[domain], masses[domain] = grouping.class_distribution(
      *maps[domain], recipe.q_normalisation, axis_name
    )
    present[domain] = grouping.presence(*maps[domain], axis_name)
  consistency = grouping.consistency(
    q['source'], q['target'], recipe.co_distance
  )
  chosen = DOMAINS if recipe.orth_domains == 'both' else (recipe.orth_domains,)
  orthogonality = sum(grouping.orthogonality(q[domain]) for domain in chosen)
  classes = grouping.class_equivalence(
    present['source'],
    present['target'],
    recipe.tau,
    recipe.cl_form,
    recipe.cl_target,
  )
  weighted = {
    'consistency': (consistency, recipe.consistency_weight),
    'orthogonality': (orthogonality, recipe.orthogonality_weight),
    'classes': (classes, recipe.class_weight),
  }
  found = {
    name: terms.Term(jnp.asarray(value), 1.0, weight * active)
    for name, (value, weight) in weighted.items()
  }
  return found, masses


def generate(variables, context: contract.Context, *, recipe: Recipe):
  """The loss of segmenter and grouping network."""
  axis = context.axis_name
  outputs = two_domains.segment(recipe.network, variables['segmenter'], context)
  labels = context.batch['source']['label']
  result = supervised.loss_terms(outputs.source, labels, recipe.aux_weight)
  maps = {
    domain: assign(
      recipe,
      variables[GROUPING],
      getattr(outputs, domain),
      context.batch[domain]['image'].shape[1:3],
    )
    for domain in DOMAINS
  }
  dtype = maps['source'][0].dtype
  active = (context.step >= recipe.warmup_steps).astype(dtype)
  shaping, masses = group_terms(recipe, maps, active, axis)
  result |= shaping

  # Until then a group is the whole image, which is what AdaptSegNet aligns.
  folded = {
    domain: grouping.decompose(p, active * h + (1 - active))
    for domain, (p, h) in maps.items()
  }
  logits = adversarial.judge(
    recipe.critics[CRITIC], variables[CRITIC], folded['target']
  )
  loss = losses.domain_loss(logits, losses.SOURCE, recipe.objective)
  weight = recipe.weight
  if recipe.adv_reduction == 'sum':
    weight *= 1 + (recipe.groups - 1) * active
  result['adversarial'] = terms.Term(*loss, weight)
  seen = {CRITIC: folded}
  if 'discriminator_aux' in recipe.critics:
    seen |= _align_aux(recipe, variables, outputs, context, result)

  classes = two_domains.effective_classes(maps['target'][0], axis)
  metrics = {'target_classes': classes}
  for domain, shares in masses.items():
    for k, share in enumerate(shares):
      metrics[f'group_mass_{domain}/{k}'] = terms.Term(share, 1.0)
  return contract.Output(
    terms=result,
    batch_stats={'segmenter': outputs.batch_stats},
    carry={'maps': seen},
    metrics=metrics,
  )


def _align_aux(recipe: Recipe, variables, outputs, context, result):
  """Plain alignment of the second classifier, as in AdaptSegNet."""
  name = 'discriminator_aux'
  maps = adversarial.probabilities(outputs, context, 'aux_logits')
  logits = adversarial.judge(
    recipe.critics[name], variables[name], maps['target']
  )
  loss = losses.domain_loss(logits, losses.SOURCE, recipe.objective)
  result['adversarial_aux'] = terms.Term(*loss, recipe.adversarial_aux_weight)
  return {name: maps}


def predict(variables, extra, images, *, recipe: Recipe):
  """The segmenter's outputs, and `groups` `[b, H, W, K]` for the pictures.

  Only the segmenter counts at test time; groups that nobody asks for are not
  computed.
  """
  del extra
  outputs, _ = recipe.network.apply(variables['segmenter'], images, False)
  size = images.shape[1:3]
  _, groups = assign(recipe, variables[GROUPING], outputs, size)
  return {**outputs, 'groups': groups}


def per_group(critic: models_base.Network, groups: int) -> models_base.Network:
  """K discriminators of their own, for maps with the groups folded in."""

  def init(key, images):
    keys = jax.random.split(key, groups)
    return jax.vmap(lambda k: critic.init(k, images))(keys)

  def apply(variables, maps, train, keys=None):
    del keys
    split = maps.reshape(groups, -1, *maps.shape[1:])
    one = lambda v, x: critic.apply(v, x, train)[0]
    outputs = jax.vmap(one)(variables, split)
    joined = lambda x: x.reshape(-1, *x.shape[2:])
    return jax.tree.map(joined, outputs), variables['batch_stats']

  return models_base.Network(init, apply)


def _grouping_network(config, network) -> models_base.Network:
  """The grouping network, for what it is fed with.

  Raises:
    errors.UserError: the model shows no features.
  """
  settings, channels = config.cdga, config.data.num_classes
  if settings.kernel % 2 == 0:
    raise errors.UserError(f'config.cdga.kernel={settings.kernel} must be odd')
  if settings.group_input == 'features':
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)

    def forward(key, images):
      return network.apply(network.init(key, images), images, False)[0]

    key = jax.eval_shape(lambda: jax.random.key(0))
    found = jax.eval_shape(forward, key, images)
    if 'features' not in found:
      raise errors.UserError(
        f'config.cdga.group_input=features: the model {config.model.name} '
        'shows none; valid: probabilities, logits'
      )
    channels = found['features'].shape[-1]
  dtype = jnp.dtype(config.model.compute_dtype)
  options = layers.Options(dtype, jnp.promote_types(dtype, jnp.float32))
  return grouping_model.network(
    channels, settings.groups, settings.hidden, settings.kernel, options
  )


def make(config, stage) -> contract.Method:
  """The method, with the constants of `config.cdga`."""
  adversarial.check(config)
  settings, network = config.cdga, supervised.segmenter(config)
  critics = adversarial.critics(config, adversarial.levels_of(config))
  if settings.discriminator == 'per_group':
    critics[CRITIC] = per_group(critics[CRITIC], settings.groups)
  recipe = Recipe(
    network=network,
    grouping=_grouping_network(config, network),
    critics=critics,
    aux_weight=config.model.aux_weight,
    objective=config.adversarial.objective,
    adversarial_aux_weight=config.adversarial.aux_weight,
    **{name: settings[name] for name in Recipe._fields if name in settings},
  )
  discriminate = functools.partial(
    adversarial.discriminate, critics=critics, objective=recipe.objective
  )
  domains = two_domains.streams(config)
  return contract.Method(
    name=stage.method,
    domains=domains,
    networks={'segmenter': network, GROUPING: recipe.grouping, **critics},
    phases=(
      contract.Phase(
        'segmenter',
        ('segmenter', GROUPING),
        functools.partial(generate, recipe=recipe),
      ),
      contract.Phase(
        'discriminator',
        tuple(critics),
        discriminate,
        optimizer='discriminator',
      ),
    ),
    predict=functools.partial(predict, recipe=recipe),
    after_stage=functools.partial(pictures.write, domains=domains),
    verdict=adversarial.verdict,
  )
