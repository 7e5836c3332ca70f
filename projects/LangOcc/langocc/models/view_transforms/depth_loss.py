"""Supervision of the lift's depth distributions (BEVDepth, Li et al., AAAI 2023).

Legend: B batch, N cameras, D depth bins, H/W image and h/w feature height and width.
"""
import torch
import torch.nn.functional as F
from torch import Tensor


def downsample_depth(gt_depth: Tensor, downsample: int) -> Tensor:
    """Nearest known depth of each patch.

    Args:
        gt_depth: (B, N, H, W) z-depth in metres; 0 = unknown.
        downsample: patch side, pixels. A patch cut by the image border keeps what is inside.

    Returns:
        (B, N, ceil(H/downsample), ceil(W/downsample)) metres; 0 = nothing known.
    """
    known = torch.where(gt_depth > 0, gt_depth, torch.inf)
    height, width = gt_depth.shape[-2:]
    known = F.pad(known, (0, -width % downsample, 0, -height % downsample), value=torch.inf)
    nearest = -F.max_pool2d(-known, downsample)
    return torch.where(torch.isinf(nearest), 0., nearest)


def depth_bins(gt_depth: Tensor, edges: Tensor) -> Tensor:
    """Bin of each depth.

    Args:
        gt_depth: any shape, metres.
        edges: (D + 1,) metres, increasing; bin i is [edges[i], edges[i+1]).

    Returns:
        long, the same shape; -1 where the depth is outside the edges.
    """
    bins = torch.bucketize(gt_depth.double(), edges.to(gt_depth.device).double(), right=True) - 1
    return torch.where(bins < len(edges) - 1, bins, -1)


def depth_distribution_loss(gt_depth: Tensor, depth: Tensor, edges: Tensor,
                            downsample: int) -> Tensor:
    """Binary cross-entropy between depth probabilities and one-hot bins.

    Summed over bins, averaged over the feature cells whose depth is known and in range.

    Args:
        gt_depth: (B, N, H, W) z-depth in metres; 0 = unknown.
        depth: (B, N, D, h, w) probabilities.
        edges: (D + 1,) metres.
        downsample: image pixels a feature cell.

    Returns:
        Scalar, float32. Zero, and still connected to ``depth``, where no depth is known.

    Raises:
        ValueError: the depth maps do not come down to the size of the features.
    """
    bins = depth_bins(downsample_depth(gt_depth, downsample), edges)
    if bins.shape[:2] != depth.shape[:2] or bins.shape[2:] != depth.shape[3:]:
        raise ValueError(f'depth loss: gt_depth {tuple(gt_depth.shape)} at stride {downsample} is '
                         f'{tuple(bins.shape)}, but depth (B, N, D, h, w) is {tuple(depth.shape)}')
    known = bins >= 0
    probs = depth.float().movedim(2, -1)[known]
    target = F.one_hot(bins[known], depth.shape[2]).to(probs)
    with torch.autocast(depth.device.type, enabled=False):
        loss = F.binary_cross_entropy(probs, target, reduction='sum')
    return loss / max(1, len(target))
