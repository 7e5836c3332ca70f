"""Dense towers against plain float64 computations, and against the towers' own attention.

The models are open_clip's and timm's classes with small random weights; nothing is fetched. All
parameters are drawn anew, so that what libraries start at zero or one (norms, layer scales,
positions) counts. One cell at a time is the plain form of "without mixing".
"""
import copy
import math

import pytest
import torch
import torch.nn.functional as F

from langocc.teachers.maskclip_blocks import LastBlock, block_parts, smooth_by_keys
from langocc.teachers.maskclip_towers import dense_tower, resize_positions

open_clip = pytest.importorskip('open_clip')
VIT = dict(image_size=64, patch_size=16, width=32, head_width=8, layers=3)
CUSTOM = dict(qk_norm=True, scale_heads=True, scale_attn_inner=True, scale_attn=True, scale_fc=True,
              ls_init_value=0.1)
TOWERS = {
    'clip': VIT,
    'oblong': dict(VIT, image_size=(64, 32), patch_size=(16, 8)),
    'late norm': dict(VIT, pool_type='avg', final_ln_after_pool=True, no_ln_pre=True),
    'custom': dict(VIT, **CUSTOM),
    'scaled layers': dict(VIT, ls_init_value=0.1),
    'coca': dict(VIT, attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=4),
    'coca of one width': dict(VIT, width=24, attentional_pool=True, attn_pooler_queries=4),
    'class token': dict(timm_model_name='test_vit', timm_pool='token', timm_proj='linear'),
    'class token without a place': dict(timm_model_name='vit_tiny_bare', timm_pool='token',
                                        timm_proj='linear'),
    'register': dict(timm_model_name='test_vit2', timm_pool='avg', timm_proj='linear'),
    'attention pooling': dict(timm_model_name='test_vit3', timm_pool='map', timm_proj='none'),
    'eva': dict(timm_model_name='eva_tiny', timm_pool='token', timm_proj='linear'),
    'eva02': dict(timm_model_name='eva02_tiny', timm_pool='token', timm_proj='linear'),
    'perception encoder': dict(timm_model_name='pe_tiny', timm_pool='map', timm_proj=None),
    'mlp head': dict(timm_model_name='test_vit4', timm_pool='avg', timm_proj='mlp'),
}


@pytest.fixture(scope='module', autouse=True)
def tiny_evas():
    """EVA, EVA-02, Perception Encoder and a ViT whose class token and registers have no positions,
    as timm has them, at a size that tests can take."""
    from timm.models import _registry
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer
    size = dict(img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2)
    rotary = dict(use_rot_pos_emb=True, ref_feat_shape=(5, 5))
    options = dict(
        eva_tiny=dict(init_values=0.1), eva02_tiny=dict(
            rotary, qkv_fused=False, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True),
        pe_tiny=dict(rotary, attn_type='rope', use_pre_transformer_norm=True, rope_grid_offset=1.,
                     rope_grid_indexing='xy', attn_pool_num_heads=4),
        vit_tiny_bare=dict(kind=VisionTransformer, reg_tokens=2, no_embed_class=True))
    for name, own in options.items():
        def make(pretrained=False, own=own, pretrained_cfg=None, pretrained_cfg_overlay=None,
                 cache_dir=None, **settings):
            arguments = {**size, **own, **settings}
            model = arguments.pop('kind', Eva)(**arguments)
            model.default_cfg = {}
            return model
        _registry._model_entrypoints[name] = make
    yield
    for name in options:
        del _registry._model_entrypoints[name]


def build(vision, quick_gelu=False):
    """A tower in float64 with random weights everywhere."""
    tower = open_clip.model._build_vision_tower(24, vision, quick_gelu).double().eval()
    for name, value in (*tower.named_parameters(), *tower.named_buffers()):
        if value.is_floating_point():
            value.data = 0.3 * torch.randn_like(value)
            if value.dim() < 2:
                value.data += 1 if name.endswith('weight') or 'gamma' in name else 0
            if name.endswith('running_var'):
                value.data = value.abs() + 0.5
    return tower


def own_last_block(tower, images, mixing=True):
    """(B, P + L, D) tokens after the tower's own last block; without mixing by a mask of its own
    attention that lets every token see itself only."""
    options = {}
    if hasattr(tower, 'trunk'):
        trunk, blocks = tower.trunk, tower.trunk.blocks
        x = trunk._pos_embed(trunk.patch_embed(images))
        if isinstance(x, tuple):
            x, options['rope'] = x
        x = trunk.norm_pre(x)
    else:
        x, blocks = tower._embeds(images), tower.transformer.resblocks
    for block in blocks[:-1]:
        x = block(x, **options)
    mask = None
    if not mixing:
        mask = torch.full((x.shape[1], x.shape[1]), -math.inf, dtype=x.dtype).fill_diagonal_(0)
    return blocks[-1](x, attn_mask=mask, **options)


def own_pooling(tower, token):
    """What the tower's own pooling makes of one token (B, D): (B, E)."""
    if hasattr(tower, 'trunk'):
        trunk = tower.trunk
        x = trunk.norm(token[:, None])
        x = x[:, 0] if trunk.attn_pool is None else trunk.attn_pool(x)
        return tower.head(trunk.head(trunk.fc_norm(x)))
    x = token[:, None]
    x = tower.ln_post(x if tower.attn_pool is None else tower.attn_pool(x))
    return x[:, 0] @ tower.proj


def native_size(tower):
    return tower.trunk.patch_embed.img_size if hasattr(tower, 'trunk') else tower.image_size


@pytest.mark.parametrize('name', TOWERS)
def test_cells_are_the_tower_with_the_attention_replaced_by_the_identity(name):
    torch.manual_seed(1)
    tower = build(TOWERS[name], quick_gelu=name == 'clip')
    height, width = native_size(tower)
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    dense = dense_tower(tower, LastBlock())
    h, w = height // dense.patch[0], width // dense.patch[1]
    for last, mixing in ((LastBlock(), False), (LastBlock('full'), True)):
        features, keys = dense_tower(tower, last)(images)
        tokens = own_last_block(tower, images, mixing)
        tokens = tokens[:, tokens.shape[1] - h * w:]
        expected = torch.stack([own_pooling(tower, tokens[:, i]) for i in range(h * w)], dim=2)
        torch.testing.assert_close(features, expected.view(2, -1, h, w), atol=1e-10, rtol=1e-10)
        assert keys.shape[0] == 2 and keys.shape[2:] == (h, w)
    without, _ = dense(images)
    assert (F.cosine_similarity(without, features) < 0.99).any()  # mixing is not nothing


def test_norms_and_gates_of_timms_attention():
    """Options of timm's attention that come after the mixing."""
    tower = build(TOWERS['class token'])
    attn = tower.trunk.blocks[-1].attn
    attn.norm, attn.gate = torch.nn.LayerNorm(64).double(), torch.nn.Linear(64, 64).double()
    torch.nn.init.normal_(attn.norm.weight)
    images = torch.randn(1, 3, *native_size(tower), dtype=torch.float64)
    out, _ = dense_tower(tower, LastBlock())(images)
    tokens = own_last_block(tower, images, mixing=False)[:, 1:]
    expected = torch.stack([own_pooling(tower, tokens[:, i]) for i in range(100)], dim=2)
    torch.testing.assert_close(out.flatten(2), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize('name', ['clip', 'custom', 'coca', 'class token', 'attention pooling',
                                  'perception encoder'])
def test_where_all_tokens_are_alike_every_cell_is_the_image(name):
    """Attention over equal tokens is the identity: the tower's own feature is each cell's."""
    tower = build(TOWERS[name])
    if hasattr(tower, 'trunk'):
        trunk = tower.trunk
        trunk.patch_embed.proj.weight.data.zero_()
        alike = 0 if trunk.patch_embed.proj.bias is None else trunk.patch_embed.proj.bias
        trunk.pos_embed.data[:] = trunk.pos_embed.data[:, :1].clone()
        for token in (trunk.cls_token, trunk.reg_token):
            if token is not None:
                token.data[:] = alike
    else:
        tower.conv1.weight.data.zero_()
        tower.class_embedding.data.zero_()
        tower.positional_embedding.data[:] = tower.positional_embedding.data[:1].clone()
    images = torch.randn(2, 3, *native_size(tower), dtype=torch.float64)
    expected = tower(images)
    out, _ = dense_tower(tower, LastBlock())(images)
    torch.testing.assert_close(out, expected[..., None, None].expand_as(out), atol=1e-9, rtol=1e-9)
    assert expected.abs().max() > 0.1


def test_one_patch_without_a_class_token_is_the_image():
    """SigLIP on an image of one patch: one token, so that no attention can mix."""
    tower = open_clip.model.TimmModel('test_vit3', 24, image_size=16, pool='map', proj='none')
    tower.trunk.set_input_size((16, 16))
    tower.trunk.reg_token = None
    tower.trunk.num_prefix_tokens = 0
    tower.trunk.pos_embed = torch.nn.Parameter(torch.randn(1, 1, 96))
    tower = tower.eval()
    images = torch.randn(3, 3, 16, 16)
    for last in (LastBlock(), LastBlock('full'), LastBlock('key-key'), LastBlock('query-query')):
        out, _ = dense_tower(tower, last)(images)
        assert out.shape == (3, 96, 1, 1)
        torch.testing.assert_close(out[..., 0, 0], tower(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', ['class token', 'attention pooling', 'eva02',
                                  'perception encoder'])
def test_timms_towers_at_another_size_are_timms_own(name):
    """Positions, rotary ones too, are those of a tower that timm itself sets to the size."""
    tower = build(TOWERS[name])
    other = copy.deepcopy(tower)
    other.trunk.set_input_size((48, 80))
    other.trunk.dynamic_img_size = False
    other.trunk.patch_embed.strict_img_size = True
    if name == 'class token':  # it keeps the grid, for positions that it resizes itself
        other.trunk.patch_embed.flatten = True
        other.trunk.patch_embed.output_fmt = type(other.trunk.patch_embed.output_fmt)('NCHW')
    images = torch.randn(2, 3, 48, 80, dtype=torch.float64)
    tokens = own_last_block(other, images)
    out, keys = dense_tower(tower, LastBlock('full'))(images)
    expected = torch.stack([own_pooling(other, tokens[:, i - 15]) for i in range(15)], dim=2)
    # timm resizes positions in float32
    torch.testing.assert_close(out.flatten(2), expected, atol=1e-5, rtol=1e-5)
    again, _ = dense_tower(tower, LastBlock('full'))(torch.randn(1, 3, 64, 64).double())
    assert again.shape[2:] == (4, 4) and keys.shape[2:] == (3, 5)


def naive_norm(x, norm):
    centred = x - x.mean()
    return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias


def naive_vit(tower, image, last):
    """One image of any multiple of the patch, token by token, in plain steps: cells to features."""
    patch, grid = tower.patch_size[0], tower.grid_size
    h, w = image.shape[1] // patch, image.shape[2] // patch
    positions = tower.positional_embedding[1:].T.reshape(1, -1, *grid)
    positions = F.interpolate(positions, (h, w), mode='bicubic', antialias=True)[0]
    tokens = [tower.class_embedding + tower.positional_embedding[0]]
    for y in range(h):
        for x in range(w):
            cut = image[:, y * patch:(y + 1) * patch, x * patch:(x + 1) * patch]
            tokens.append((tower.conv1.weight * cut).sum((1, 2, 3)) + positions[:, y, x])
    tokens = [naive_norm(token, tower.ln_pre) for token in tokens]
    blocks = tower.transformer.resblocks
    for block in blocks:
        final = block is blocks[-1]
        kind = last.attention if final else 'full'
        normed = [naive_norm(token, block.ln_1) for token in tokens]
        weight, bias = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
        q, k, v = ([weight[i] @ token + bias[i] for token in normed] for i in range(3))
        asks, answers = dict(full=(q, k), identity=(q, k)).get(
            kind, (q, q) if kind == 'query-query' else (k, k))
        size = block.attn.head_dim
        out = []
        for i, token in enumerate(tokens):
            joined = []
            for head in range(block.attn.num_heads):
                part = slice(head * size, (head + 1) * size)
                logits = torch.stack([asks[i][part] @ key[part] for key in answers]) / size**0.5
                weights = logits.softmax(0)
                if kind == 'identity':
                    weights = torch.eye(len(tokens), dtype=logits.dtype)[i]
                joined.append(sum(weights[j] * v[j][part] for j in range(len(tokens))))
            value = block.attn.out_proj.weight @ torch.cat(joined) + block.attn.out_proj.bias
            out.append(value + token if last.residual or not final else value)
        tokens = out
        if last.mlp or not final:
            for i, token in enumerate(tokens):
                hidden = block.mlp.c_fc.weight @ naive_norm(token, block.ln_2) + block.mlp.c_fc.bias
                hidden = hidden * (1.702 * hidden).sigmoid()
                tokens[i] = token + block.mlp.c_proj.weight @ hidden + block.mlp.c_proj.bias
    features = [naive_norm(token, tower.ln_post) @ tower.proj for token in tokens[1:]]
    return torch.stack(features, 1).view(-1, h, w), torch.stack(k[1:], 1).view(-1, h, w)


@pytest.mark.parametrize('last', [
    LastBlock(), LastBlock('full'), LastBlock('query-query', residual=False, mlp=False),
    LastBlock('key-key', residual=False), LastBlock('identity', mlp=False)], ids=str)
def test_a_vit_of_another_size_against_naive_float64(last):
    tower = build(VIT, quick_gelu=True)
    images = torch.randn(2, 3, 48, 80, dtype=torch.float64)
    features, keys = dense_tower(tower, last)(images)
    assert features.shape == (2, 24, 3, 5)
    for image, values, key in zip(images, features, keys):
        expected, expected_keys = naive_vit(tower, image, last)
        torch.testing.assert_close(values, expected, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(key, expected_keys, atol=1e-9, rtol=1e-9)


def test_positions_are_open_clips():
    tower = build(VIT)
    native = tower.positional_embedding[1:]
    assert resize_positions(native, (4, 4), (4, 4)) is native
    other = open_clip.model._build_vision_tower(24, dict(VIT, image_size=(48, 80)))
    state = {'visual.positional_embedding': tower.positional_embedding.detach()}
    open_clip.model.resize_pos_embed(state, torch.nn.ModuleDict(dict(visual=other)))
    expected = state['visual.positional_embedding'][1:]
    assert torch.equal(resize_positions(native, (4, 4), (3, 5)).detach(), expected)
    constant = torch.ones(16, 7)
    torch.testing.assert_close(resize_positions(constant, (4, 4), (9, 2)), torch.ones(18, 7))


RESNET = dict(layers=(1, 1, 1, 1), width=8, head_width=32, image_size=64)


def test_a_resnets_cells_against_naive_float64():
    tower = build(RESNET)
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    features, keys = dense_tower(tower, LastBlock())(images)
    before = tower.forward_intermediates(images, indices=[4], intermediates_only=True)
    before, pool = before['image_intermediates'][0], tower.attnpool
    positions = F.interpolate(pool.positional_embedding[1:].T.reshape(1, -1, 2, 2), (2, 3),
                              mode='bicubic', antialias=True)[0]
    for b in range(2):
        for y in range(2):
            for x in range(3):
                cell = before[b, :, y, x] + positions[:, y, x]
                value = pool.v_proj.weight @ cell + pool.v_proj.bias
                expected = pool.c_proj.weight @ value + pool.c_proj.bias
                torch.testing.assert_close(features[b, :, y, x], expected, atol=1e-10, rtol=1e-10)
                torch.testing.assert_close(keys[b, :, y, x],
                                           pool.k_proj.weight @ cell + pool.k_proj.bias)


def test_a_resnets_single_cell_is_its_pooling():
    """Mean and cell are the same and so are their positions: the pooling cannot mix anything."""
    tower = build(dict(RESNET, image_size=32))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    out, _ = dense_tower(tower, LastBlock())(images)
    assert (out[..., 0, 0] - tower(images)).abs().max() > 1e-3
    tower.attnpool.positional_embedding.data[0] = tower.attnpool.positional_embedding.data[1]
    torch.testing.assert_close(out[..., 0, 0], tower(images), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize('proj', ['linear', 'mlp'])
def test_a_convnexts_cells_are_its_head_on_each(proj):
    tower = build(dict(timm_model_name='test_convnext', timm_pool='', timm_proj=proj))
    dense = dense_tower(tower, LastBlock())
    one = torch.randn(2, 3, 32, 32, dtype=torch.float64)  # one cell: the mean of one is itself
    torch.testing.assert_close(dense(one)[0][..., 0, 0], tower(one), atol=1e-10, rtol=1e-10)
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    out, keys = dense(images)
    before = tower.trunk.forward_features(images)
    assert keys is None and out.shape == (2, 24, 2, 3) and not dense.has_keys
    for y in range(2):
        for x in range(3):
            cell = before[:, :, y:y + 1, x:x + 1]
            expected = tower.head(tower.trunk.forward_head(cell))
            torch.testing.assert_close(out[:, :, y, x], expected, atol=1e-10, rtol=1e-10)


def test_key_smoothing_is_the_papers_sum_for_every_text():
    features, keys = torch.randn(2, 6, 3, 4), torch.randn(2, 5, 3, 4)
    text = F.normalize(torch.randn(7, 6, dtype=torch.float64), dim=1)
    out = smooth_by_keys(features, keys)
    for b in range(2):
        places = [(y, x) for y in range(3) for x in range(4)]
        for place in places:
            key = keys[b][:, place[0], place[1]].double()
            expected = torch.zeros(7, dtype=torch.float64)
            for y, x in places:
                other = keys[b][:, y, x].double()
                prediction = text @ F.normalize(features[b][:, y, x].double(), dim=0)
                expected += key @ other / key.norm() / other.norm() * prediction
            got = text @ out[b][:, place[0], place[1]].double()
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert out.shape == features.shape and out.dtype == torch.float32
    with torch.autocast('cpu', torch.bfloat16):  # products of many places stay in float32
        assert torch.equal(smooth_by_keys(features, keys), out)


def test_the_real_size():
    """ViT-B/16 as published in size: the diagonal mask again, in float32."""
    config = open_clip.get_model_config('ViT-B-16')
    tower = open_clip.model._build_vision_tower(512, config['vision_cfg'], True).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        features, keys = dense_tower(tower, LastBlock())(images)
        tokens = own_last_block(tower, images, mixing=False)[:, 1:]
        expected = (tower.ln_post(tokens) @ tower.proj).transpose(1, 2).reshape(1, 512, 14, 14)
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)
    assert keys.shape == (1, 768, 14, 14)


@pytest.mark.parametrize('name, cells', [
    ('ViT-B-16', (28, 50)), ('ViT-L-14', (32, 57)), ('ViT-H-14-378-quickgelu', (32, 57)),
    ('ViT-B-16-SigLIP', (28, 50)), ('ViT-SO400M-14-SigLIP2', (32, 57)), ('EVA02-B-16', (28, 50)),
    ('PE-Core-B-16', (28, 50)), ('coca_ViT-B-32', (14, 25)), ('RN50', (14, 25)),
    ('RN50x4', (14, 25)), ('convnext_base_w', (14, 25))])
def test_open_clips_models_at_the_recipes_input(name, cells):
    """As open_clip configures them, on a device without values: shapes alone."""
    config = open_clip.get_model_config(name)
    with torch.device('meta'):
        tower = open_clip.model._build_vision_tower(config['embed_dim'], config['vision_cfg'])
        dense = dense_tower(tower.eval(), LastBlock())
        size = [cell * patch for cell, patch in zip(cells, dense.patch)]
        features, keys = dense(torch.zeros(1, 3, *size))
    assert features.shape == (1, config['embed_dim'], *cells)
    assert (keys is None) != dense.has_keys and (keys is None or keys.shape[2:] == cells)


def test_unknown_towers_and_blocks_are_named():
    with pytest.raises(ValueError, match="last_block: attention is 'none', expected one of"):
        LastBlock('none')
    with pytest.raises(ValueError, match=r'no transformer block'):
        dense_tower(build(RESNET), LastBlock('full'))
    for name, shown in (('test_resnet', 'ResNet'), ('test_mambaout', 'MambaOut'),
                        ('test_efficientnet', 'EfficientNet')):
        with pytest.raises(ValueError, match=f'image tower {shown}; expected a VisionTransformer'):
            dense_tower(open_clip.model.TimmModel(name, 24), LastBlock())
    hybrid = open_clip.model.TimmModel('test_vit', 24)
    hybrid.trunk.patch_embed = torch.nn.Identity()
    with pytest.raises(ValueError, match='VisionTransformer with Identity; expected'):
        dense_tower(hybrid, LastBlock())
    with pytest.raises(ValueError, match='no value path is known for the block Linear'):
        block_parts(torch.nn.Linear(2, 2))
    scaled = open_clip.transformer.CustomResidualAttentionBlock(32, 4, scale_cosine_attn=True)
    with pytest.raises(ValueError, match='CustomResidualAttentionBlock with Attention; .* plain'):
        block_parts(scaled)
    from timm.layers import AttentionRope
    grouped = build(TOWERS['perception encoder']).trunk.blocks[-1]
    block_parts(grouped)
    grouped.attn = AttentionRope(32, num_heads=4, num_kv_heads=2, qkv_fused=False)
    with pytest.raises(ValueError, match='EvaBlock with AttentionRope; .* plain attention'):
        block_parts(grouped)
    pooled = build(TOWERS['class token'])
    pooled.trunk.global_pool = 'max'
    with pytest.raises(ValueError, match="pooling 'max'; expected 'map', 'token' or 'avg'"):
        dense_tower(pooled, LastBlock())
    placed = build(TOWERS['attention pooling'])  # its pooling knows places
    placed.trunk.attn_pool.pos_embed = torch.nn.Parameter(torch.zeros(100, 96))
    with pytest.raises(ValueError, match='no value path is known for the image tower'):
        dense_tower(placed, LastBlock())
    largest = open_clip.model.TimmModel('test_convnext', 24)
    largest.trunk.head.global_pool.pool_type = 'max'
    with pytest.raises(ValueError, match='image tower ConvNeXt; expected'):
        dense_tower(largest, LastBlock())
    cascade = dict(VIT, attentional_pool='cascade')
    with pytest.raises(ValueError, match='cascade pooling of two attentions'):
        dense_tower(build(cascade), LastBlock())
