"""mmdet3d's SeparateHead with the start that its ``init_bias`` promises."""
import torch
from mmdet3d.models.dense_heads.centerpoint_head import SeparateHead
from mmdet3d.registry import MODELS


@MODELS.register_module()
class BiasedSeparateHead(SeparateHead):
    """A task head of CenterHead whose heatmap starts at ``init_bias``.

    mmdet3d sets the bias in ``init_weights``, which nobody calls: CenterHead keeps its task heads
    in a torch ModuleList, and mmengine enters children with ``init_weights`` alone. A heatmap then
    starts at a probability of 0.5 in every cell, and its loss, a sum over all cells divided by the
    number of boxes, is some 90 times that of a start at 0.1 (the bias -2.19). Here the bias is set
    when the head is built, as in CenterPoint's own program; weights start as torch's do.

    Args:
        kwargs: see mmdet3d's SeparateHead. ``init_bias``: logit of a box anywhere, default -2.19.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        with torch.no_grad():
            self.heatmap[-1].bias.fill_(self.init_bias)
