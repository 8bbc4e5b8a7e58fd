"""What a key is: its default, what it may be, what it means, where it is from.

A block of keys is a dictionary `name -> Key`, a nested block, or `Entries`:
blocks of one form under names that the config chooses. `defaults` makes the
`ConfigDict` that runs carry, `check` holds one against its schema.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from jaxseg_da import errors

ConfigDict = ml_collections.ConfigDict
FREE, STEPS, DECAY = 'free', 'steps', 'decay'


@dataclasses.dataclass(frozen=True)
class Rule:
  """What values a key takes.

  Attributes:
    text: completes "must be ...".
    holds: whether a value of the right type is valid.
    wrong: values of the right type that are not; tests try them.
    choices: all valid values, where they can be listed.
    kind: `steps` is scaled by `steps_scale`, `decay` is an average's decay per
      step, which `scale_rule` adapts to the batch; the rest is left alone.
  """

  text: str
  holds: Callable[[Any], bool]
  wrong: tuple
  choices: tuple = ()
  kind: str = FREE


@dataclasses.dataclass(frozen=True)
class Key:
  """One key.

  Attributes:
    default: its value where no config says otherwise; its type is the key's.
    rule: what it may be.
    meaning: in a few words, with the unit.
    source: of the default: paper, section, table, or released file.
  """

  default: Any
  rule: Rule
  meaning: str
  source: str = ''


@dataclasses.dataclass(frozen=True)
class Entries:
  """Blocks of one form: `optim.NAME`, `stages.NAME`.

  Attributes:
    block: the schema of each.
    defaults: the entries that there are from the start.
  """

  block: Mapping[str, Any]
  defaults: Mapping[str, Mapping[str, Any]]


Block = Mapping[str, Any]


def choice(*values) -> Rule:
  """One of a few."""
  text = f'one of {", ".join(map(str, values))}'
  wrong = max(values) + 1 if isinstance(values[0], int) else 'nonsense'
  return Rule(text, lambda v: v in values, (wrong,), values)


def real(
  low: float = 0.0,
  high: float = math.inf,
  above: bool = False,
  below: bool = False,
) -> Rule:
  """A finite number from `low` to `high`; `above`, `below` exclude the ends."""
  if math.isinf(high):
    text = f'a finite number {"above" if above else "from"} {low:g}'
    text += '' if above else ' on'
  else:
    text = f'a number {"above" if above else "from"} {low:g} '
    text += f'{"and below" if below else "to"} {high:g}'

  def holds(v):
    return (
      math.isfinite(v)
      and (v > low if above else v >= low)
      and (v < high if below else v <= high)
    )

  wrong = (low if above else low - 1.0, math.nan, math.inf)
  return Rule(text, holds, wrong)


def whole(low: int = 0, high: int = 10**9, kind: str = FREE) -> Rule:
  """An integer from `low` to `high`."""
  text = f'a whole number from {low} to {high}'
  holds = lambda v: low <= v <= high
  return Rule(text, holds, (low - 1, high + 1), kind=kind)


def text(pattern: str, said: str) -> Rule:
  """A text of a form.

  Args:
    pattern: regular expression for all of it.
    said: the form, in words.
  """
  return Rule(said, lambda v: bool(re.fullmatch(pattern, v)), ('!\n',))


def pair(rule: Rule, said: str = '(A, B)') -> Rule:
  """Two values of one rule."""
  first = rule.wrong[0]
  return Rule(
    f'{said}, each {rule.text}',
    lambda v: len(v) == 2 and all(map(rule.holds, v)),
    ((first, first), ()),
  )


def interval(low: float, high: float) -> Rule:
  """(A, B): the ends of a range of numbers, A no larger than B."""
  end = real(low, high)
  return Rule(
    f'(A, B) with A no larger than B, both {end.text}',
    lambda v: len(v) == 2 and all(map(end.holds, v)) and v[0] <= v[1],
    ((low - 1.0, low), (high, low), (low,)),
  )


def each(rule: Rule, least: int = 0, most: int = 10**6) -> Rule:
  """A tuple of values of one rule, from `least` to `most` of them."""
  count = f'at least {least}' if most == 10**6 else f'{least} to {most}'
  count = f'{least}' if least == most else count
  wrong = ((rule.wrong[0],) * max(least, 1),)
  return Rule(
    f'a tuple of {count} values, each {rule.text}',
    lambda v: least <= len(v) <= most and all(map(rule.holds, v)),
    wrong + (((),) if least else ()),
  )


def size(low: int, optional: bool = False) -> Rule:
  """(H, W) in pixels, both at least `low`; optionally (0, 0) for none."""
  high = 16384
  none = ', or (0, 0)' if optional else ''

  def holds(v):
    if optional and tuple(v) == (0, 0):
      return True
    return len(v) == 2 and all(low <= n <= high for n in v)

  wrong = ((low - 1, low - 1), (low, 0), (low,), (low, low, low), (10**6, low))
  return Rule(f'(H, W), both from {low} to {high}{none}', holds, wrong)


def _is_groups(rows) -> bool:
  for pattern, *factors in rows:
    try:
      re.compile(pattern)
    except re.error:
      return False
    if not all(0 <= f < math.inf for f in factors):
      return False
  return bool(rows)


FLAG = Rule('True or False', lambda v: True, ())  # its type says it all
PROBABILITY = real(0.0, 1.0)
MOMENTUM = real(0.0, 1.0, below=True)
EMA_DECAY = dataclasses.replace(PROBABILITY, kind=DECAY)
WEIGHT = real()
POSITIVE = real(above=True)
STEP_COUNT = whole(kind=STEPS)
STEP_INTERVAL = whole(1, kind=STEPS)
NAME = text(r'[\w.-]+', 'a name of letters, digits, dots, dashes, underscores')
NAME_OR_NONE = text(r'[\w.-]*', NAME.text + ', or empty')
PATH = text(r'[^\0\n]+', 'a path')
PATH_OR_NONE = text(r'[^\0\n]*', 'a path, or empty')
DATASET = text(
  r'[\w.-]+(/[\w.-]+)?(:[\w.%:\[\]+-]+)?', 'NAME[/CONFIG][:SPLIT] of a data set'
)
GROUPS = Rule(
  'rows (regular expression, learning-rate factor, weight-decay factor), '
  'factors finite and not negative',
  _is_groups,
  ((('(', 1.0, 1.0),), (('.', -1.0, 1.0),), ()),
)


def defaults(block: Block) -> ConfigDict:
  """The config of a block in which every key has its default."""
  config = ConfigDict()
  for name, entry in block.items():
    if isinstance(entry, Key):
      config[name] = entry.default
    elif isinstance(entry, Entries):
      config[name] = ConfigDict()
      for label, values in entry.defaults.items():
        config[name][label] = defaults(entry.block)
        config[name][label].update(values)
    else:
      config[name] = defaults(entry)
  return config


def keys(config: ConfigDict, block: Block, prefix: str = ''):
  """All `(dotted key, value, Key)` of a config, in its order.

  What the schema does not know has None for its `Key`.
  """
  for name, value in config.items():
    entry = block.get(name)
    if isinstance(value, ConfigDict):
      inner: Block = entry if isinstance(entry, Mapping) else {}
      if isinstance(entry, Entries):
        inner = dict.fromkeys(value, entry.block)
      yield from keys(value, inner, f'{prefix}{name}.')
    else:
      yield prefix + name, value, entry if isinstance(entry, Key) else None


def missing(
  config: ConfigDict, block: Block, prefix: str = ''
) -> Iterator[str]:
  """Keys of the schema that a config has not."""
  for name, entry in block.items():
    if name not in config:
      yield prefix + name
    elif isinstance(entry, Entries):
      for label, inner in config[name].items():
        yield from missing(inner, entry.block, f'{prefix}{name}.{label}.')
    elif not isinstance(entry, Key):
      yield from missing(config[name], entry, f'{prefix}{name}.')


def check(config: ConfigDict, block: Block) -> None:
  """Holds a config against its schema.

  Raises:
    UserError: a key that does not exist or is not there, a value of another
      type or out of range; names the key, the value and what is valid.
  """
  found = list(keys(config, block))
  known = [name for name, _, key in found if key is not None]
  for name, value, key in found:
    if key is None:
      raise unknown_key(name, known)
    check_value(name, value, key)
  for name in missing(config, block):
    raise errors.UserError(f'config.{name} is missing from the config')


def check_value(name: str, value: Any, key: Key) -> None:
  """Holds one value against its key; see `check`."""
  if not same_type(value, key.default):
    raise errors.UserError(
      f'config.{name}={value!r} is not of the type of {key.default!r}; it must '
      f'be {key.rule.text}'
    )
  if key.rule.holds(value):
    return
  if key.rule.choices:
    raise errors.unknown(f'config.{name}', value, key.rule.choices)
  raise errors.UserError(f'config.{name}={value!r} must be {key.rule.text}')


def unknown_key(key: str, known: Iterable[str]) -> errors.UserError:
  """An error for a key that is none of `known`, with the nearest ones."""
  near = difflib.get_close_matches(key, list(known), 3, 0.4)
  hint = f'; did you mean {" or ".join(near)}?' if near else ''
  return errors.UserError(f'unknown config key {key!r}{hint}')


def same_type(value: Any, default: Any) -> bool:
  """Whether a value may replace a default; integers serve as floats."""
  if isinstance(default, tuple):
    if not isinstance(value, (tuple, list)):
      return False
    if not default:  # no example of what it may hold
      return all(isinstance(v, (str, int)) for v in value)
    first = default[0]
    if isinstance(first, tuple):  # rows of one form
      return all(
        isinstance(v, (tuple, list))
        and len(v) == len(first)
        and all(map(same_type, v, first))
        for v in value
      )
    return all(same_type(v, first) for v in value)
  if isinstance(default, float):
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  return type(value) is type(default)
