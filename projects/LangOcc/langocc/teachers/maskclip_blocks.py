"""The last block of a vision transformer, taken apart so that its attention can be replaced.

MaskCLIP (Zhou, Loy, Dai; ECCV 2022): CLIP's last attention gathers an image into one token and so
mixes its places; without it every token keeps what its own value says, in the space of text.

Legend: B images, L tokens, D width, heads x d = D.
"""
from dataclasses import dataclass
from typing import Callable, Dict, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clip_weights import import_open_clip

ATTENTIONS = ('identity', 'query-query', 'key-key', 'full')


@dataclass(frozen=True)
class LastBlock:
    """What becomes of the last block.

    Attributes:
        attention: What mixes the values. 'identity': nothing, every token takes its own
            (MaskCLIP). 'query-query' and 'key-key': softmax of the queries', or the keys', products
            with each other, which looks at like things (ClearCLIP; Lan et al., ECCV 2024). 'full':
            the attention as trained.
        residual: Add the block's input to what the attention gives.
        mlp: Run the block's second half. ClearCLIP is ``attention='query-query'`` with neither.

    Raises:
        ValueError: an unknown ``attention``.
    """
    attention: str = 'identity'
    residual: bool = True
    mlp: bool = True

    def __post_init__(self) -> None:
        if self.attention not in ATTENTIONS:
            raise ValueError(f'last_block: attention is {self.attention!r}, expected one of '
                             f'{ATTENTIONS}')

    def run(self, parts: 'BlockParts', x: Tensor) -> Tuple[Tensor, Tensor]:
        """The block on tokens (B, L, D); returns tokens and keys, (B, L, D) each."""
        normed = parts.norm(x)
        q, k, v = parts.split(normed)
        mixed = v
        if self.attention != 'identity':
            asks, answers = parts.turn(q), parts.turn(k)
            by = dict(zip(ATTENTIONS[1:], ((asks, asks), (answers, answers), (asks, answers))))
            mixed = F.scaled_dot_product_attention(*by[self.attention], v)
        out = parts.merge(mixed, normed)
        if self.residual:
            out = x + out
        if self.mlp:
            out = out + parts.mlp(out)
        return out, join_heads(k)


@dataclass(frozen=True)
class BlockParts:
    """The steps of a block ``x = x + merge(attention(split(norm(x)))); x = x + mlp(x)``.

    Attributes:
        norm: (B, L, D) -> (B, L, D).
        split: normed tokens -> queries, keys and values, (B, heads, L, d) each.
        merge: (mixed values (B, heads, L, d), normed tokens) -> (B, L, D).
        mlp: (B, L, D) -> (B, L, D), its own norm included.
        turn: queries or keys -> those that are multiplied, turned by their places where the model
            has rotary positions.
    """
    norm: Callable[[Tensor], Tensor]
    split: Callable[[Tensor], Tuple[Tensor, Tensor, Tensor]]
    merge: Callable[[Tensor, Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]
    turn: Callable[[Tensor], Tensor] = lambda x: x


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, heads x d) -> (B, heads, L, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, heads, L, d) -> (B, L, heads x d)."""
    return x.transpose(1, 2).flatten(2)


def block_parts(block: nn.Module, rope: Optional[Tensor] = None) -> BlockParts:
    """The parts of a transformer block of open_clip or timm.

    Args:
        block: The block.
        rope: Rotary positions, for models that have them, as timm's blocks take them.

    Raises:
        ValueError: a block of another kind.
    """
    kinds = _known_blocks()
    attn = getattr(block, 'attn', None)
    found = kinds.get((type(block), type(attn)))
    special = getattr(attn, 'logit_scale', None) is not None
    if found is None or special or getattr(attn, 'num_kv_groups', 1) != 1:
        known = sorted({kind.__name__ for kind, _ in kinds})
        raise ValueError(f'no value path is known for the block {type(block).__name__} with '
                         f'{type(attn).__name__}; expected one of {known} with plain attention')
    return found(block, rope)


def _known_blocks() -> Dict[Tuple[type, type], Callable[..., BlockParts]]:
    transformer = import_open_clip().transformer
    from timm.layers import Attention, AttentionRope
    from timm.models.eva import EvaAttention, EvaBlock
    from timm.models.vision_transformer import Block
    return {
        (transformer.ResidualAttentionBlock, nn.MultiheadAttention): _plain_parts,
        (transformer.CustomResidualAttentionBlock, transformer.Attention): _custom_parts,
        (Block, Attention): _timm_parts,
        (EvaBlock, EvaAttention): _eva_parts,
        (EvaBlock, AttentionRope): _eva_parts,
    }


def _plain_parts(block: nn.Module, _: None) -> BlockParts:
    """open_clip's blocks with torch's attention: CLIP as published."""
    attn = block.attn

    def split(y: Tensor) -> Tuple[Tensor, ...]:
        qkv = F.linear(y, attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
        return tuple(split_heads(part, attn.num_heads) for part in qkv)

    def merge(mixed: Tensor, y: Tensor) -> Tensor:
        return block.ls_1(attn.out_proj(join_heads(mixed)))

    return BlockParts(block.ln_1, split, merge, lambda x: block.ls_2(block.mlp(block.ln_2(x))))


def _custom_parts(block: nn.Module, _: None) -> BlockParts:
    """open_clip's blocks with normalised queries and keys, scaled heads or further norms."""
    attn = block.attn

    def split(y: Tensor) -> Tuple[Tensor, ...]:
        qkv = F.linear(y, attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
        q, k, v = (split_heads(part, attn.num_heads) for part in qkv)
        return attn.ln_q(q), attn.ln_k(k), v

    def merge(mixed: Tensor, y: Tensor) -> Tensor:
        scaled = mixed if attn.head_scale is None else mixed * attn.head_scale
        return block.ls_1(block.ln_attn(attn.out_proj(attn.ln_inner(join_heads(scaled)))))

    return BlockParts(block.ln_1, split, merge, lambda x: block.ls_2(block.mlp(block.ln_2(x))))


def _timm_parts(block: nn.Module, _: None) -> BlockParts:
    """timm's vision transformers: SigLIP."""
    split, merge = _timm_attention(block.attn)
    return BlockParts(block.norm1, split, lambda mixed, y: block.ls1(merge(mixed, y)),
                      lambda x: block.ls2(block.mlp(block.norm2(x))))


def _eva_parts(block: nn.Module, rope: Optional[Tensor]) -> BlockParts:
    """timm's EVA and Perception Encoder."""
    from timm.layers import apply_rot_embed_cat
    attn = block.attn
    split, merge = _timm_attention(attn)

    def scaled(x: Tensor, by: Optional[Tensor]) -> Tensor:
        return x if by is None else x * by

    def turn(x: Tensor) -> Tensor:
        if rope is None:
            return x
        first, rest = x[:, :, :attn.num_prefix_tokens], x[:, :, attn.num_prefix_tokens:]
        turned = apply_rot_embed_cat(rest, rope, half=attn.rotate_half)
        return torch.cat([first, turned], dim=2).type_as(x)

    return BlockParts(block.norm1, split, lambda mixed, y: scaled(merge(mixed, y), block.gamma_1),
                      lambda x: scaled(block.mlp(block.norm2(x)), block.gamma_2), turn)


def _timm_attention(attn: nn.Module) -> Tuple[Callable, Callable]:
    """``split`` and ``merge`` of timm's attentions."""

    def project(y: Tensor) -> Tuple[Tensor, ...]:
        if attn.qkv is None:
            return attn.q_proj(y), attn.k_proj(y), attn.v_proj(y)
        if getattr(attn, 'q_bias', None) is None:
            return attn.qkv(y).chunk(3, -1)
        bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
        return F.linear(y, attn.qkv.weight, bias).chunk(3, -1)

    def split(y: Tensor) -> Tuple[Tensor, ...]:
        q, k, v = (split_heads(part, attn.num_heads) for part in project(y))
        return attn.q_norm(q), attn.k_norm(k), v

    def merge(mixed: Tensor, y: Tensor) -> Tensor:
        out = attn.norm(join_heads(mixed))
        if attn.gate is not None:
            out = out * attn.gate(y).sigmoid()
        return attn.proj(out)

    return split, merge


def smooth_by_keys(features: Tensor, keys: Tensor) -> Tensor:
    """MaskCLIP's key smoothing: the sum over all places j of cos(key_i, key_j) feature_j.

    The paper smooths predictions, which are products of unit features with text; the sum of
    products is the product of the sum, so that smoothing unit features does the same for every text
    at once. No softmax comes between, so that two matrix products do for all pairs of places.

    Args:
        features: (B, E, h, w), of any length.
        keys: (B, D, h, w).

    Returns:
        (B, E, h, w) float32, not normalised.
    """
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features.float(), dim=1).flatten(2)
        like = F.normalize(keys.float(), dim=1).flatten(2)
        return (unit @ like.transpose(1, 2) @ like).view_as(features)
