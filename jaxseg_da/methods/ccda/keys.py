"""The keys of CCDA."""

from __future__ import annotations

from jaxseg_da.classes import hierarchy_file
from jaxseg_da.config import schema
from jaxseg_da.config.schema import Key
from jaxseg_da.training import contract


def settings() -> contract.Settings:
  """The constants of CCDA; sources are files of the released code."""
  return contract.Settings(
    {
      'hierarchy': Key(
        'gta5_to_cityscapes',
        schema.PATH,
        'classes by step: gta5_to_cityscapes, gta5_to_idd, or FILE.yaml',
      ),
      'digest': Key(
        '', schema.NAME_OR_NONE, 'of the tree in a file; set when a run begins'
      ),
      'uda_weight': Key(
        0.1, schema.WEIGHT, 'of maximum squares on the target', 'released code'
      ),
      'ratio': Key(
        0.2,
        schema.PROBABILITY,
        'alpha: 0 weighs all pixels alike, 1 all classes',
        'released code',
      ),
      'uda_skip_steps': Key(
        100,
        schema.STEP_COUNT,
        'at level 0 it starts after these and one more',
      ),
      'kd_weight': Key(
        10.0,
        schema.WEIGHT,
        'distillation of classes that stay as they are',
        'released code',
      ),
      'kd_refined_weight': Key(
        10.0,
        schema.WEIGHT,
        'of classes that are split; 1 for IDD',
        'released code',
      ),
    },
    complete=_complete,
  )


def _complete(block) -> None:
  """A run that goes on, or takes a baseline, must have had the same tree."""
  block.digest = hierarchy_file.digest(block.hierarchy)
