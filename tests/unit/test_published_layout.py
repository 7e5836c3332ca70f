"""Configs of the paper build models with the published parameters, name by name."""
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from langocc.models.langocc import PUBLISHED_PREFIXES, published_name

PARTS = dict(img_backbone=23508032, img_neck=1377024, img_view_transformer=5840638,
             img_bev_encoder_backbone=4122688, img_bev_encoder_neck=7232, pre_process_net=83136,
             final_conv=221440, density_decoder=197633, language_decoder=328960)


def build(repository, recipe):
    init_default_scope('mmdet3d')
    cfg = Config.fromfile(repository / f'configs/langocc-{recipe}_r50_4xb4-18e_nus-occ3d.py')
    return MODELS.build(cfg.model)


def published(shared_root):
    text = (shared_root / 'design' / 'published_state_dict.txt').read_text()
    lines = [line.split(' ', 1) for line in text.splitlines() if not line.startswith('#')]
    return {name: tuple(int(n) for n in shape.strip('() ').split(',') if n.strip())
            for name, shape in lines}


def test_full_model_has_the_published_state_dict(repository, shared_root, data_roots):
    model = build(repository, 'full')
    ours = {published_name(name): tuple(value.shape)
            for name, value in model.state_dict().items()}
    assert ours == published(shared_root)
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        counts[published_name(name).split('.')[0]] += parameter.numel()
    assert counts == PARTS and sum(counts.values()) == 35686783
    assert set(PUBLISHED_PREFIXES) == {'occ_head.final_conv', 'occ_head.density_decoder',
                                       'occ_head.language_decoder', 'occ_head.predicter'}


def test_reduced_model_adds_only_the_frozen_reducer(repository, shared_root, data_roots):
    model = build(repository, 'reduced')
    assert sum(p.numel() for p in model.parameters()) == 35588095
    extra = {published_name(n) for n in model.state_dict()} - set(published(shared_root))
    assert extra == {'occ_head.reducer.matrix'}
    assert model.state_dict()['occ_head.reducer.matrix'].numel() == 65536


def test_rgb_model_builds_without_teacher_or_text(repository, data_roots):
    model = build(repository, 'rgb')
    assert model.occ_head.vocabulary is None and list(model.occ_head.decoder_names) == ['rgb']
