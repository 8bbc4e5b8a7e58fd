"""The keys of CDGA."""

from __future__ import annotations

from jaxseg_da.config import schema
from jaxseg_da.config.schema import Key, choice, whole
from jaxseg_da.training import contract


def settings() -> contract.Settings:
  """The constants of CDGA.

  It has no public code, and its text was not at hand: `recalled` values are
  from memory of the article, `chosen` ones ours (docs/methods/cdga.md).
  """
  unsure = 'recalled, unsure'
  return contract.Settings(
    {
      'groups': Key(
        8, whole(1, 256), 'K; 1 is AdaptSegNet on one level', 'recalled'
      ),
      'weight': Key(
        1e-3, schema.WEIGHT, 'of the alignment', "recalled, AdaptSegNet's"
      ),
      'consistency_weight': Key(1e-3, schema.WEIGHT, 'of consistency', unsure),
      'orthogonality_weight': Key(
        1e-3, schema.WEIGHT, 'of orthogonality', unsure
      ),
      'class_weight': Key(1e-4, schema.WEIGHT, 'of class equivalence', unsure),
      'tau': Key(0.05, schema.PROBABILITY, 'a class is present above', unsure),
      'group_input': Key(
        'probabilities',
        choice('probabilities', 'logits', 'features'),
        'what is grouped by',
        'recalled',
      ),
      'hidden': Key(
        64, whole(1, 4096), 'channels of the grouping network', 'chosen'
      ),
      'kernel': Key(1, whole(1, 31), 'size of its convolutions', 'chosen'),
      'resolution': Key(
        'input', choice('input', 'logits'), 'logits saves memory', 'chosen'
      ),
      'discriminator': Key(
        'shared', choice('shared', 'per_group'), 'of the groups', 'chosen'
      ),
      'adv_reduction': Key(
        'mean',
        choice('mean', 'sum'),
        'alignment over groups; sum: `weight` is per group',
        'chosen',
      ),
      'q_normalisation': Key(
        'mass',
        choice('mass', 'pixels'),
        "class distributions of groups: by a group's mass, or all pixels",
        'chosen',
      ),
      'co_distance': Key(
        'l2sq', choice('l2sq', 'l1'), 'of consistency', 'recalled'
      ),
      'orth_domains': Key(
        'both', choice('both', 'source', 'target'), 'of orthogonality', unsure
      ),
      'cl_form': Key(
        'bce', choice('bce', 'positive_only'), 'of class equivalence', unsure
      ),
      'cl_target': Key(
        'hard',
        choice('hard', 'soft'),
        'of class equivalence; hard: source above tau',
        unsure,
      ),
      'warmup_steps': Key(
        0,
        schema.STEP_COUNT,
        'plain alignment first, while predictions say little',
        'chosen',
      ),
    },
    reads=('adversarial',),
  )
