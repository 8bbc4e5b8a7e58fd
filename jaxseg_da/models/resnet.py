"""ResNet with bottlenecks, as adaptation papers use it below DeepLab-V2.

He et al., "Deep Residual Learning", arXiv 1512.03385, in the Caffe layout that
DeepLab (Chen et al., arXiv 1606.00915) dilates to output stride 8:
- the stride of a stage sits on the first block's 1x1 convolution;
- stage 3 has dilation 2 and stage 4 dilation 4 in every block, stride 1;
- every stage's first block projects its shortcut;
- the stem's max-pool rounds sizes up, so 512 pixels become 129, then 65.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import linen as nn

from jaxseg_da.models import initializers, layers
from jaxseg_da.ops import pooling

EXPANSION = 4
STRIDES = (1, 2, 1, 1)
DILATIONS = (1, 1, 2, 4)

_normal = initializers.normal(0.01)


class Bottleneck(nn.Module):
  """1x1 (with the stride), dilated 3x3, 1x1 to four times the width; residual.

  Attributes:
    planes: width of the 3x3 convolution; the output has four times as many.
    stride: of the first convolution and of the projection.
    dilation: of the 3x3 convolution.
    project: whether the shortcut is a 1x1 convolution with normalisation.
    options: dtypes and normalisation axis.
  """

  planes: int
  stride: int
  dilation: int
  project: bool
  options: layers.Options

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """`[B, H, W, C]` to `[B, h, w, 4 * planes]`."""
    o = self.options
    wide = self.planes * EXPANSION

    def conv(name, features, size, stride=1, dilation=1):
      return layers.Conv(
        features, size, _normal, stride, dilation, options=o, name=name
      )

    y = conv('conv1', self.planes, 1, self.stride)(x)
    y = nn.relu(o.batch_norm('bn1')(y, train))
    y = conv('conv2', self.planes, 3, dilation=self.dilation)(y)
    y = nn.relu(o.batch_norm('bn2')(y, train))
    y = conv('conv3', wide, 1)(y)
    y = o.batch_norm('bn3')(y, train)
    if self.project:
      x = conv('downsample_conv', wide, 1, self.stride)(x)
      x = o.batch_norm('downsample_bn')(x, train)
    return nn.relu(y + x)


class ResNet(nn.Module):
  """The dilated backbone, output stride 8.

  Attributes:
    blocks: per stage; (3, 4, 23, 3) is ResNet-101.
    planes: bottleneck width per stage.
    stem: channels of the first convolution.
    options: dtypes and normalisation axis.
  """

  blocks: Sequence[int] = (3, 4, 23, 3)
  planes: Sequence[int] = (64, 128, 256, 512)
  stem: int = 64
  options: layers.Options = layers.Options()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> dict[str, jax.Array]:
    """Features of `images` `[B, H, W, 3]`: `pool` and `layer1` to `layer4`."""
    o = self.options
    x = layers.Conv(self.stem, 7, _normal, 2, options=o, name='conv1')(images)
    x = nn.relu(o.batch_norm('bn1')(x, train))
    x = pooling.max_pool_ceil(x)
    features = {'pool': x}
    stages = zip(self.blocks, self.planes, STRIDES, DILATIONS, strict=True)
    for stage, (count, planes, stride, dilation) in enumerate(stages, 1):
      for i in range(count):
        x = Bottleneck(
          planes,
          stride if i == 0 else 1,
          dilation,
          project=i == 0,
          options=o,
          name=f'layer{stage}_{i}',
        )(x, train)
      features[f'layer{stage}'] = x
    return features
