"""The methods, found by name; a module is imported when it is asked for."""

from __future__ import annotations

import importlib

from jaxseg_da import errors

NAMES = {
  'source_only': 'jaxseg_da.methods.source_only',
  'oracle': 'jaxseg_da.methods.source_only',
  'adabn': 'jaxseg_da.methods.adabn',
  'dacs': 'jaxseg_da.methods.dacs',
  'lse': 'jaxseg_da.methods.lse',
  'cbst': 'jaxseg_da.methods.cbst',
  'adversarial': 'jaxseg_da.methods.adversarial',
  'cdga': 'jaxseg_da.methods.cdga',
  'maxsquare': 'jaxseg_da.methods.maxsquare',
  'ccda': 'jaxseg_da.methods.ccda',
  'ccda_skdc': 'jaxseg_da.methods.ccda',
  'ccda_mib': 'jaxseg_da.methods.ccda',
  'ccda_msiw': 'jaxseg_da.methods.ccda',
  'ccda_source_only': 'jaxseg_da.methods.ccda',
}
# Trained on the source alone, so that they need no control.
CONTROLS = ('source_only', 'ccda_source_only')
# Their host pass decides how many steps a stage has.
SELECTING = ('cbst', 'lse')


def make(config, stage):
  """The `Method` of one stage of a resolved config.

  Args:
    config: the whole configuration.
    stage: one of `config.stages`.

  Raises:
    UserError: the stage names a method that does not exist.
  """
  if stage.method not in NAMES:
    raise errors.unknown('method', stage.method, NAMES)
  return importlib.import_module(NAMES[stage.method]).make(config, stage)
