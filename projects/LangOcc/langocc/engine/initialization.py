"""ImageNet weights, with a message that helps where there is no network."""
from urllib.error import URLError

from mmdet3d.registry import WEIGHT_INITIALIZERS
from mmengine.model import PretrainedInit
from torch import nn


@WEIGHT_INITIALIZERS.register_module()
class BackboneInit(PretrainedInit):
    """mmengine's ``Pretrained`` that says what to do when the weights cannot be had.

    ``init_cfg=dict(type='BackboneInit', checkpoint='torchvision://resnet50')``; ``checkpoint`` may
    be a local file (a torchvision state dict fits as it is).
    """

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into ``module``; RuntimeError names checkpoint and remedies."""
        try:
            super().__call__(module)
        except (URLError, FileNotFoundError, ConnectionError) as error:
            raise RuntimeError(
                f"backbone weights '{self.checkpoint}' cannot be had here ({error}). Either fetch "
                'the file on a machine with a network and name it: --cfg-options '
                'model.img_backbone.init_cfg.checkpoint=/path/resnet50.pth ; or start from random '
                'weights: --cfg-options model.img_backbone.init_cfg=None') from error
