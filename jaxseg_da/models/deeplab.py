"""DeepLab-V2 with a ResNet backbone, in the variants that papers published.

| code base | heads | branches summed |
|---|---|---|
| AdaptSegNet, single level | main | 2 |
| AdaptSegNet, multi level | main and auxiliary | 2 |
| ADVENT | main, optionally auxiliary | 4 |
| DACS, ClassMix | main | 2 |

The auxiliary head reads stage 3, the main head stage 4. Logits have output
stride 8 and are upsampled with aligned corners before any loss or arg-max.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import linen as nn

from jaxseg_da.models import aspp, layers, resnet


class DeepLab(nn.Module):
  """Backbone `backbone`, heads `classifier` and `aux_classifier`.

  Attributes:
    num_classes: channels of the logits.
    blocks: per stage of the backbone.
    planes: bottleneck width per stage.
    stem: channels of the first convolution.
    aspp_branches: branches summed by each head, 2 or 4.
    aux_head: whether there is a head on stage 3.
    options: dtypes and normalisation axis.
  """

  num_classes: int
  blocks: Sequence[int] = (3, 4, 23, 3)
  planes: Sequence[int] = (64, 128, 256, 512)
  stem: int = 64
  aspp_branches: int = 4
  aux_head: bool = False
  options: layers.Options = layers.Options()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> dict[str, jax.Array]:
    """Logits and features of `images` `[B, H, W, 3]`: BGR minus the mean."""
    o = self.options
    features = resnet.ResNet(
      self.blocks, self.planes, self.stem, o, name='backbone'
    )(images, train)

    def head(name):
      return aspp.ASPP(self.num_classes, self.aspp_branches, o, name=name)

    last = features['layer4']
    outputs = {'logits': head('classifier')(last), 'features': last}
    if self.aux_head:
      outputs['aux_logits'] = head('aux_classifier')(features['layer3'])
    return outputs
