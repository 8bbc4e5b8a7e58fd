"""Stages in order: host passes, step counts that data decide, their control."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxseg_da import main, methods, modes
from jaxseg_da.drawing import visual
from jaxseg_da.methods import source_only
from jaxseg_da.training import checkpoint, contract
from tests import support

# ml_collections loads config files through a method that Python deprecates.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)

CALLS = []


def select(context: contract.StageContext) -> contract.Artifacts:
  """A selection in small: labels the target once and decides three steps."""
  images = context.open_dataset(context.config.data.target)
  first = np.stack([images[i]['image'] for i in range(2)])
  predict = context.predictor(lambda forward, x: forward(x)['logits'])
  logits = predict(first)
  labels = np.asarray(logits).argmax(-1).astype(np.uint8)
  CALLS.append(context.stage)
  context.folder.mkdir(parents=True, exist_ok=True)
  path = context.folder / 'labels.npy'
  np.save(path, labels)
  return contract.Artifacts({'labels': path}, 3)


def keep(variables, artifacts: contract.Artifacts):
  """What the pass left becomes part of the state."""
  del variables
  return {'labels': jax.numpy.asarray(np.load(artifacts.files['labels']))}


def draw(context: contract.StageContext) -> None:
  """A picture of what the finished stage predicts."""
  predict = context.predictor(lambda forward, x: forward(x)['logits'])
  image = context.open_dataset(context.config.data.target)[0]['image']
  classes = np.asarray(predict(image[None]))[0].argmax(-1)
  picture = visual.encode_png(visual.colourise(classes))
  checkpoint.write_bytes(context.folder / 'classes.png', picture)


def complain(records) -> str | None:
  """Speaks up from the third record on."""
  steps = [record['loss'] for record in records]
  return f'{len(steps)} records' if len(steps) > 2 else None


def make(config, stage) -> contract.Method:
  method = source_only.make(config, stage)
  if stage.method != 'adabn':
    return method
  # In the place of a registered name: a method with a host pass.
  return dataclasses.replace(
    method,
    before_stage=select,
    after_stage=draw,
    verdict=complain,
    init_extra=keep,
    shared=False,
    decides_steps=True,
    baseline=False,
  )


@pytest.fixture
def selecting(monkeypatch):
  monkeypatch.setattr(methods, 'make', make)
  CALLS.clear()


def flags(workdir):
  return [
    'main',
    *support.flags(
      workdir,
      '--config.control=True',
      '--config.batch_size=8',
      '--config.stages.source_only.steps=1',
      '--config.method=adabn',
      '--config.stages.dacs.method=adabn',
      '--config.stages.dacs.steps=0',
    ),
  ]


def test_a_host_pass_decides_the_steps_and_the_control_follows(
  selecting, tmp_path, capfd
):
  """And a verdict is printed once, kept, and shown."""
  assert main.main([*flags(tmp_path), '--config.log_every=1']) == main.DONE
  printed = capfd.readouterr().err
  assert printed.count('warning: dacs at step 3: 3 records') == 1
  found = json.loads((tmp_path / 'results.json').read_text())
  steps = {s['name']: s['segmentation_updates'] for s in found['stages']}
  assert steps == {'source_only': 1, 'dacs': 3, 'control': 3}
  assert CALLS == ['dacs']
  folder = tmp_path / 'stages' / '01_dacs'
  record = checkpoint.read_json(folder / 'artifacts' / 'artifacts.json')
  assert record == {'files': {'labels': 'labels.npy'}, 'steps': 3}

  config, workdir, _ = main.parse(flags(tmp_path))
  opened = modes.open_run(config, workdir)
  state = opened.restore('dacs')
  assert (folder / 'artifacts' / 'classes.png').exists()
  labels = np.load(folder / 'artifacts' / 'labels.npy')
  np.testing.assert_array_equal(state.extra['labels'], labels)
  assert opened.steps('control') == 3
  warnings = {s['name']: s['warning'] for s in found['stages']}
  assert warnings == {
    'source_only': None,
    'dacs': '3 records',
    'control': None,
  }
  assert '3 records' in (tmp_path / 'report.html').read_text()


@pytest.mark.slow
def test_an_interrupted_run_does_not_repeat_the_host_pass(
  selecting, tmp_path, monkeypatch
):
  stop = iter([False, False, True])

  real = modes.open_run

  def interrupted(config, workdir, _):
    opened = real(config, workdir)
    opened.stop = lambda: next(stop, True)
    return opened

  monkeypatch.setattr(modes, 'open_run', interrupted)
  assert main.main(flags(tmp_path)) == main.PREEMPTED
  monkeypatch.setattr(modes, 'open_run', real)
  assert CALLS == ['dacs']
  assert not (tmp_path / 'results.json').exists()
  assert main.main(flags(tmp_path)) == main.DONE
  assert CALLS == ['dacs']
