"""CLIP's image towers as dense networks: every cell in the space of text.

Each tower ends in a pooling over cells, by attention or a mean; up to its last attention it is run
as trained, and what the pooling would make of a cell alone is what that cell gets.

Legend: B images, (H, W) size of an image, (h, w) cells, L = h x w, D width, E embedding.
"""
from abc import ABC, abstractmethod
from typing import Dict, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clip_weights import import_open_clip
from .maskclip_blocks import LastBlock, block_parts


class DenseTower(nn.Module, ABC):
    """An image tower that keeps its cells.

    Attributes:
        visual: open_clip's tower, whose weights it uses.
        patch: (height, width) of a cell in pixels.
        has_keys: Whether it ends in an attention.
    """
    has_keys = True

    def __init__(self, visual: nn.Module, patch: Tuple[int, int]) -> None:
        super().__init__()
        self.visual = visual
        self.patch = (int(patch[0]), int(patch[1]))

    @abstractmethod
    def forward(self, images: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        """Features and keys of all cells.

        Args:
            images: (B, 3, H, W), normalised as the model wants it; H and W multiples of ``patch``.

        Returns:
            (B, E, h, w) features of any length; (B, D, h, w) keys of the last attention, or None
            where there is no attention.
        """


class ResNetTower(DenseTower):
    """CLIP's ResNets: value and output projection of the attention pooling at every cell."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__(visual, (32, 32))

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        """See :meth:`DenseTower.forward`."""
        net, pool = self.visual, self.visual.attnpool
        x = net.layer4(net.layer3(net.layer2(net.layer1(net.stem(images)))))
        size = x.shape[2:]
        native = round((len(pool.positional_embedding) - 1)**0.5)
        # The first position is that of the mean over cells, which only asks.
        positions = resize_positions(pool.positional_embedding[1:], (native, native), size)
        x = x.flatten(2).transpose(1, 2) + positions
        return as_map(pool.c_proj(pool.v_proj(x)), size), as_map(pool.k_proj(x), size)


class ConvNextTower(DenseTower):
    """CLIP's ConvNeXts: the pooling is a plain mean, and its head is run on every cell."""
    has_keys = False

    def __init__(self, visual: nn.Module) -> None:
        super().__init__(visual, (32, 32))

    def forward(self, images: Tensor) -> Tuple[Tensor, None]:
        """See :meth:`DenseTower.forward`."""
        x = self.visual.trunk.forward_features(images)
        cells = x.flatten(2).transpose(1, 2).flatten(0, 1)[:, :, None, None]
        out = self.visual.head(self.visual.trunk.forward_head(cells))
        return as_map(out.unflatten(0, (len(images), -1)), x.shape[2:]), None


class VitTower(DenseTower):
    """Vision transformers of open_clip itself: B/16, L/14 and their like, CoCa's pooling too."""

    def __init__(self, visual: nn.Module, last: LastBlock) -> None:
        super().__init__(visual, visual.patch_size)
        if getattr(visual, 'attn_pool_contrastive', None) is not None:
            raise ValueError(f'no value path is known for the {visual.attn_pool_type} pooling of '
                             f'two attentions; expected one attention or none')
        block_parts(visual.transformer.resblocks[-1])  # refuses unknown ones now
        self.last = last

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        """See :meth:`DenseTower.forward`."""
        net = self.visual
        x = net.conv1(images)
        size = x.shape[2:]
        positions = net.positional_embedding
        x = x.flatten(2).transpose(1, 2) + resize_positions(positions[1:], net.grid_size, size)
        first = (net.class_embedding + positions[0]).to(x.dtype).expand(len(x), 1, -1)
        x = net.ln_pre(torch.cat([first, x], dim=1))
        *blocks, last = net.transformer.resblocks
        for block in blocks:
            x = block(x)
        x, keys = self.last.run(block_parts(last), x)
        return as_map(self._project(x[:, 1:]), size), as_map(keys[:, 1:], size)

    def _project(self, x: Tensor) -> Tensor:
        """What the pooling makes of a token alone, (B, L, D) -> (B, L, E)."""
        pool = self.visual.attn_pool
        if pool is not None:
            weight = pool.attn.v_proj_weight
            if weight is None:  # torch joins the three where all widths are the same
                weight = pool.attn.in_proj_weight.chunk(3)[2]
            bias = pool.attn.in_proj_bias.chunk(3)[2]
            x = pool.attn.out_proj(F.linear(pool.ln_k(x), weight, bias))
        return self.visual.ln_post(x) @ self.visual.proj


class TimmVitTower(DenseTower):
    """Vision transformers of timm, with attention pooling (SigLIP), a class token or a mean.

    EVA and Perception Encoder, too, whose rotary positions are made for the size of the input.
    """

    def __init__(self, visual: nn.Module, last: LastBlock) -> None:
        trunk = visual.trunk
        super().__init__(visual, trunk.patch_embed.patch_size)
        if trunk.global_pool not in ('map', 'token', 'avg'):
            raise ValueError(f'no value path is known for the pooling {trunk.global_pool!r}; '
                             f"expected 'map', 'token' or 'avg'")
        block_parts(trunk.blocks[-1])  # refuses unknown ones now
        self.last = last

    def forward(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        """See :meth:`DenseTower.forward`."""
        trunk = self.visual.trunk
        x, size = self._embed(images)
        rotary = self._rotary(size)
        *blocks, last = trunk.blocks
        for block in blocks:
            x = block(x, **rotary)
        x, keys = self.last.run(block_parts(last, **rotary), x)
        start = trunk.num_prefix_tokens
        return as_map(self._project(x[:, start:]), size), as_map(keys[:, start:], size)

    def _embed(self, images: Tensor) -> Tuple[Tensor, Tuple[int, int]]:
        """Tokens with their positions, those without a place first; and (h, w)."""
        trunk = self.visual.trunk
        x = trunk.patch_embed.proj(images)
        size = x.shape[2:]
        x = trunk.patch_embed.norm(x.flatten(2).transpose(1, 2))
        first = [token.expand(len(x), -1, -1) for token in (trunk.cls_token, trunk.reg_token)
                 if token is not None]
        if trunk.pos_embed is not None:
            offset = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
            positions = trunk.pos_embed[0]
            x = x + resize_positions(positions[offset:], trunk.patch_embed.grid_size, size)
            if offset:
                first = [torch.cat(first, dim=1) + positions[:offset]]
        x = torch.cat([*(part.to(x.dtype) for part in first), x], dim=1)
        return trunk.norm_pre(x), size

    def _rotary(self, size: Tuple[int, int]) -> Dict[str, Tensor]:
        """Rotary positions of (h, w) cells as blocks take them; none where there are none."""
        rope = getattr(self.visual.trunk, 'rope', None)
        if rope is None:
            return {}
        rope.update_feat_shape(list(size))
        return dict(rope=rope.get_embed())

    def _project(self, x: Tensor) -> Tensor:
        """What the pooling makes of a token alone, (B, L, D) -> (B, L, E)."""
        trunk = self.visual.trunk
        x = trunk.norm(x)
        pool = trunk.attn_pool
        if pool is not None:
            x = pool.proj(pool.kv(x).chunk(2, -1)[1])
            if pool.mlp is not None:
                x = x + pool.mlp(pool.norm(x))
        return self.visual.head(trunk.head(trunk.fc_norm(x)))


def dense_tower(visual: nn.Module, last: LastBlock) -> DenseTower:
    """The dense form of an image tower of open_clip.

    Args:
        visual: The tower.
        last: What becomes of its last block, for towers of such blocks.

    Raises:
        ValueError: a tower without a value path that is known (FastViT, Swin, ViTamin ...), or
            another ``last`` than the default for a tower without such blocks.
    """
    open_clip = import_open_clip()
    trunk = getattr(visual, 'trunk', None)
    convolutional = (ResNetTower if isinstance(visual, open_clip.modified_resnet.ModifiedResNet)
                     else ConvNextTower if _is_convnext(trunk) else None)
    if convolutional is not None:
        if last != LastBlock():
            raise ValueError(f'{last} for {convolutional.__name__}, which has no transformer block')
        return convolutional(visual)
    if isinstance(visual, open_clip.transformer.VisionTransformer):
        return VitTower(visual, last)
    if _is_plain_timm(trunk):
        return TimmVitTower(visual, last)
    name = type(visual if trunk is None else trunk).__name__
    embedding = getattr(trunk, 'patch_embed', None)
    name += f' with {type(embedding).__name__}' if isinstance(embedding, nn.Module) else ''
    raise ValueError(f'no value path is known for the image tower {name}; expected a '
                     f"VisionTransformer of open_clip or timm with plain patches, CLIP's "
                     f'ModifiedResNet or a ConvNeXt')


def resize_positions(positions: Tensor, native: Tuple[int, int], size: Tuple[int, int]) -> Tensor:
    """Position embeddings of another number of cells, as open_clip resizes them.

    Args:
        positions: (native h x native w, D).
        native: Cells that the model was trained with; for this size nothing changes.
        size: (h, w).

    Returns:
        (h x w, D), bicubic.
    """
    if tuple(native) == tuple(size):
        return positions
    grid = positions.T.unflatten(1, tuple(native))[None]
    out = F.interpolate(grid, tuple(size), mode='bicubic', antialias=True, align_corners=False)
    return out[0].flatten(1).T


def as_map(x: Tensor, size: Tuple[int, int]) -> Tensor:
    """(B, h x w, C) -> (B, C, h, w)."""
    return x.transpose(1, 2).unflatten(2, tuple(size))


def _is_convnext(trunk: Optional[nn.Module]) -> bool:
    """Whether a trunk is timm's ConvNeXt with a mean for its pooling."""
    from timm.models.convnext import ConvNeXt
    return type(trunk) is ConvNeXt and trunk.head.global_pool.pool_type == 'avg'


def _is_plain_timm(trunk: Optional[nn.Module]) -> bool:
    """Whether a trunk is a vision transformer of timm's with plain embedding and pooling."""
    from timm.layers import AttentionPoolLatent, PatchEmbed, RotaryEmbeddingCat
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer
    return (type(trunk) in (VisionTransformer, Eva) and type(trunk.patch_embed) is PatchEmbed
            and type(getattr(trunk, 'rope', None)) in (type(None), RotaryEmbeddingCat)
            and (trunk.attn_pool is None or (type(trunk.attn_pool) is AttentionPoolLatent
                                             and trunk.attn_pool.pos_embed is None)))
