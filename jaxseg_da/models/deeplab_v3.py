"""DeepLab-V3 as CCDA trains it, with normalised pooling and logits.

Chen et al., "Rethinking Atrous Convolution", arXiv 1706.05587, in the variant
of Shenaj et al., IVC 121 (2022) 104426: dilations 12, 24 and 32, no activation
in the head, and logits that are normalised, so that the shift of that
normalisation is the classifier's bias. The backbone is DeepLab-V2's.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxseg_da.models import initializers, layers, norm, resnet

HIDDEN = 256
# Kernel size and dilation of the parallel convolutions.
BRANCHES = ((1, 1), (3, 12), (3, 24), (3, 32))

_normal = initializers.normal(0.01)


class DeepLabV3(nn.Module):
  """Backbone `backbone`, head `classifier`; logits at output stride 8.

  Attributes:
    num_classes: channels of the logits.
    blocks: per stage of the backbone.
    planes: bottleneck width per stage.
    stem: channels of the first convolution.
    hidden: channels of each branch of the head.
    options: dtypes and normalisation axis.
  """

  num_classes: int
  blocks: Sequence[int] = (3, 4, 23, 3)
  planes: Sequence[int] = (64, 128, 256, 512)
  stem: int = 64
  hidden: int = HIDDEN
  options: layers.Options = layers.Options()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> dict[str, jax.Array]:
    """Logits and features of `images` `[B, H, W, 3]`: BGR minus the mean."""
    o = self.options
    features = resnet.ResNet(
      self.blocks, self.planes, self.stem, o, name='backbone'
    )(images, train)['layer4']
    head = Head(self.num_classes, self.hidden, o, name='classifier')
    return {'logits': head(features, train), 'features': features}


class Head(nn.Module):
  """Four dilated branches and a pooled one, each with its classifier.

  Both classifiers are 1x1 convolutions without bias; their sum, the logits, is
  normalised. All of it from pooling on is in float32 at least: pooled values of
  a batch hardly differ, and normalisation keeps only what does.
  """

  num_classes: int
  hidden: int
  options: layers.Options

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """`[B, h, w, C]` features to `[B, h, w, num_classes]` logits."""
    o = self.options
    exact = o._replace(dtype=jnp.promote_types(o.dtype, jnp.float32))

    def conv(name, features, x, size=1, dilation=1, options=o):
      return layers.Conv(
        features, size, _normal, 1, dilation, options=options, name=name
      )(x)

    branches = [
      conv(f'branch{i}', self.hidden, x, size, dilation)
      for i, (size, dilation) in enumerate(BRANCHES)
    ]
    y = o.batch_norm('branches_bn')(jnp.concatenate(branches, -1), train)
    y = conv('logits', self.num_classes, y).astype(exact.dtype)

    pooled = jnp.mean(x.astype(exact.dtype), axis=(1, 2), keepdims=True)
    pooled = conv('pooled', self.hidden, pooled, options=exact)
    pooled = PooledBatchNorm(exact, name='pooled_bn')(pooled, train)
    pooled = conv('pooled_logits', self.num_classes, pooled, options=exact)
    return exact.batch_norm('logits_bn')(y + pooled, train)


class PooledBatchNorm(nn.Module):
  """Batch normalisation that also works where the batch is one value.

  Besides the running statistics there are those of all values that it was ever
  trained on. At every step these move the running ones. A batch of several is
  then normalised as by `norm.BatchNorm`, which moves them once more. A batch of
  one is normalised by the running ones, constants for the gradient; before
  there are two values, it is only scaled and shifted.

  Attributes:
    options: dtypes and normalisation axis; devices hold batches of one size.
  """

  options: layers.Options

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Normalises `[B, 1, 1, C]`; with `train`, into its statistics as well."""
    o, shape = self.options, x.shape[-1:]

    def stat(name, make, shape=shape):
      return self.variable('batch_stats', name, make, shape, o.param_dtype)

    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    scale = self.param('scale', ones, shape, o.param_dtype)
    bias = self.param('bias', zeros, shape, o.param_dtype)
    running = stat('mean', jnp.zeros), stat('var', jnp.ones)
    history = (
      stat('all_count', jnp.zeros, ()),  # a float: devices average statistics
      stat('all_mean', jnp.zeros),
      stat('all_square', jnp.zeros),
    )

    count, moments = x.shape[0], None
    if train and not self.is_initializing():
      moments = norm.moments(x, o.bn_axis, o.bn_group)
      count = moments[-1]
      update(running, history, moments)
    if moments and count > 1:
      mean, variance, _ = moments
    else:
      mean, variance = (r.value for r in running)
    y = (x - mean) * (scale * lax.rsqrt(variance + norm.EPSILON)) + bias
    if count == 1:
      y = jnp.where(history[0].value > 1, y, x * scale + bias)
    return y.astype(o.dtype)


def update(running, history, moments: tuple) -> None:
  """Moves the variables of a `PooledBatchNorm` by one batch.

  The batch is merged into the history as a whole (Chan, Golub and LeVeque,
  "Updating formulae", 1979), so that neither the order of values nor the number
  of devices matters.

  Args:
    running: mean and variance `[C]`.
    history: number of values, their mean, and the sum of the squared deviations
      from it, `[C]`.
    moments: of the batch, as `norm.moments` gives them; no gradient flows.
  """
  mean, variance, count = moments
  mean, variance = lax.stop_gradient((mean, variance))
  seen, all_mean, all_square = (h.value for h in history)
  total, offset = seen + count, mean - all_mean
  all_mean = all_mean + offset * (count / total)
  all_square += count * (variance + offset**2 * (seen / total))
  averages = [(all_mean, all_square / total)]
  if count > 1:
    averages.append((mean, variance * (count / (count - 1))))
  for values in averages:
    for variable, value in zip(running, values, strict=True):
      old = variable.value
      new = (1 - norm.MOMENTUM) * old + norm.MOMENTUM * value
      variable.value = jnp.where(total > 1, new, old).astype(old.dtype)
  for variable, value in zip(
    history, (total, all_mean, all_square), strict=True
  ):
    variable.value = value.astype(variable.value.dtype)
