"""BEVDet's occupancy config -> ours: keys keep their meaning, the result builds, nothing is run."""
import re
import runpy
import sys

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope

from langocc.checkpoints import difference, read_config_values, translate

# As BEVDet writes them: values by names and arithmetic, a loop over the data sets at the end.
BEVDET = '''"""BEVDet's occupancy network."""
_base_ = ['../_base_/datasets/nus-3d.py', '../_base_/default_runtime.py']
class_names = ['car', 'truck']
data_config = {
    'cams': ['CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_LEFT', 'CAM_BACK',
             'CAM_BACK_RIGHT'],
    'Ncams': 6, 'input_size': (256, 704), 'src_size': (900, 1600),
    'resize': (-0.06, 0.11), 'rot': (-5.4, 5.4), 'flip': True, 'crop_h': (0.0, 0.0),
    'resize_test': 0.00}
grid_config = {'x': [-40, 40, 0.4], 'y': [-40, 40, 0.4], 'z': [-1, 5.4, 0.4],
               'depth': [1.0, 45.0, 0.5]}
numC_Trans = 32
multi_adj_frame_id_cfg = (1, 1 + 1, 1)
lifted = len(range(*multi_adj_frame_id_cfg)) + 1
model = dict(
    type='BEVStereo4DOCC', align_after_view_transfromation=False, num_adj=lifted - 1,
    img_backbone=dict(
        type='ResNet', pretrained='torchvision://resnet50', depth=50, num_stages=4,
        out_indices=(0, 2, 3), frozen_stages=-1, norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False, with_cp=True, style='pytorch'),
    img_neck=dict(type='CustomFPN', in_channels=[1024, 2048], out_channels=256, num_outs=1,
                  start_level=0, out_ids=[0]),
    img_view_transformer=dict(
        type='LSSViewTransformerBEVStereo', grid_config=grid_config,
        input_size=data_config['input_size'], in_channels=256, out_channels=numC_Trans, sid=False,
        collapse_z=False, loss_depth_weight=0.05, downsample=16,
        depthnet_cfg=dict(use_dcn=False, aspp_mid_channels=96, stereo=True, bias=5.)),
    img_bev_encoder_backbone=dict(
        type='CustomResNet3D', numC_input=numC_Trans * lifted, num_layer=[1, 2, 4], with_cp=False,
        num_channels=[numC_Trans, numC_Trans * 2, numC_Trans * 4], stride=[1, 2, 2],
        backbone_output_ids=[0, 1, 2]),
    img_bev_encoder_neck=dict(type='LSSFPN3D', in_channels=numC_Trans * 7,
                              out_channels=numC_Trans),
    pre_process=dict(type='CustomResNet3D', numC_input=numC_Trans, with_cp=False, num_layer=[1],
                     num_channels=[numC_Trans], stride=[1], backbone_output_ids=[0]),
    loss_occ=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    use_mask=True)
bda_aug_conf = dict(rot_lim=(-0., 0.), scale_lim=(1., 1.), flip_dx_ratio=0.5, flip_dy_ratio=0.5)
share_data_config = dict(type='NuScenesDatasetOccpancy', classes=class_names)
data = dict(samples_per_gpu=4, workers_per_gpu=4, train=dict(data_root='x'), val={}, test={})
for key in ['val', 'train', 'test']:
    data[key].update(share_data_config)
optimizer = dict(type='AdamW', lr=1e-4, weight_decay=1e-2)
optimizer_config = dict(grad_clip=dict(max_norm=5, norm_type=2))
lr_config = dict(policy='step', warmup='linear', warmup_iters=200, warmup_ratio=0.001, step=[24, ])
runner = dict(type='EpochBasedRunner', max_epochs=24)
custom_hooks = [dict(type='MEGVIIEMAHook', init_updates=10560)]
load_from = 'bevdet-r50-4d-stereo-cbgs.pth'
'''
PUBLISHED = 'configs/published/bevstereo-occ_r50_4xb4-24e_nus-occ3d.py'


@pytest.fixture
def convert(tmp_path, repository, monkeypatch, data_roots):
    """Text of a config -> the converted one, loaded."""
    def run(text, *arguments):
        (tmp_path / 'theirs.py').write_text(text)
        monkeypatch.setattr(sys, 'argv', ['convert_config', str(tmp_path / 'theirs.py'),
                                          str(tmp_path / 'ours.py'), *map(str, arguments)])
        runpy.run_path(str(repository / 'tools/convert_config.py'), run_name='__main__')
        return Config.fromfile(tmp_path / 'ours.py')
    return run


def test_bevdets_own_config_is_our_published_recipe(convert, repository, capsys):
    cfg, ours = convert(BEVDET), Config.fromfile(repository / PUBLISHED)
    # BEVDet says these, our recipe leaves them to their defaults, which are the same.
    said = dict(sid=False, collapse_z=False)
    assert {key: cfg.model.img_view_transformer.pop(key) for key in said} == said
    assert difference(cfg.to_dict(), ours.to_dict()) == {}
    text = capsys.readouterr().out
    assert '576 tensors' in text and 'load_from bevdet-r50-4d-stereo-cbgs.pth: convert it' in text
    assert "['class_names', 'custom_hooks', 'key', 'lifted', 'numC_Trans', 'share" in text
    assert '_base_ ../_base_/datasets/nus-3d.py is not there' in text


def test_changes_arrive_where_they_belong(convert):
    text = BEVDET.replace("'input_size': (256, 704)", "'input_size': (512, 1408)")
    text = text.replace('[1.0, 45.0, 0.5]', '[1.0, 61.0, 1.0]').replace("0.4], 'y'", "0.8], 'y'")
    text = text.replace('use_mask=True', 'use_mask=False, out_dim=48').replace('1 + 1, 1)', '3, 1)')
    text = text.replace('samples_per_gpu=4', 'samples_per_gpu=2').replace('lr=1e-4', 'lr=2e-4')
    text = text.replace('step=[24, ]', 'step=[9]').replace('max_epochs=24', 'max_epochs=12')
    cfg = convert(text)
    model, data = cfg.model, cfg.train_dataloader
    assert model.num_adj == 2 and model.img_bev_encoder_backbone.numC_input == 96
    assert model.img_view_transformer.input_size == (512, 1408)
    assert model.img_view_transformer.truncate  # ours alone: stays
    assert model.occ_head.grid == dict(point_cloud_range=[-40, -40, -1, 40, 40, 5.4],
                                       voxel_size=[0.8, 0.4, 0.4])
    assert (model.occ_head.mask, model.occ_head.feat_channels) == ('none', 48)
    transforms = {transform.type: transform for transform in data.dataset.pipeline}
    assert transforms['PrepareImageInputs'].data_config.input_size == (512, 1408)
    assert transforms['PointToMultiViewDepth'].grid_config.depth == [1, 61, 1]
    assert data.batch_size == 2 and data.dataset.multi_adj_frame_id_cfg == (1, 3, 1)
    assert cfg.test_dataloader.dataset.multi_adj_frame_id_cfg == (1, 3, 1)
    assert cfg.optim_wrapper.optimizer.lr == 2e-4 and cfg.train_cfg.max_epochs == 12
    assert cfg.param_scheduler[1].milestones == [9] and cfg.param_scheduler[0].end == 200
    init_default_scope('mmdet3d')
    assert MODELS.build(model).num_adj == 2


def converted(text, tmp_path, repository):
    """What differs from the published recipe, applied to it; the notes."""
    (tmp_path / 'theirs.py').write_text(text)
    base = Config.fromfile(repository / PUBLISHED)
    changes, notes = translate(read_config_values(tmp_path / 'theirs.py'), base)
    base.merge_from_dict(changes)
    return base, ' | '.join(notes)


def test_a_runner_of_iterations(tmp_path, repository):
    text = BEVDET.replace("type='EpochBasedRunner', max_epochs=24",
                          "type='IterBasedRunner', max_iters=9000")
    cfg, notes = converted(text.replace('step=[24, ]', 'step=[6000, 9000]'), tmp_path, repository)
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=9000, val_interval=9000)
    step = cfg.param_scheduler[1]
    assert (step.milestones, step.by_epoch, step.end) == ([6000], False, 9000)
    assert not cfg.log_processor.by_epoch and not cfg.default_hooks.checkpoint.by_epoch
    assert cfg.default_hooks.checkpoint.interval == 9000
    assert cfg.default_hooks.checkpoint.save_best == 'geo_IoU'  # the recipe's own stays
    assert '9000 iterations, evaluated at their end' in notes
    cfg, notes = converted(text.replace("policy='step'", "policy='step', by_epoch=True"), tmp_path,
                           repository)
    assert 'lr_config with by_epoch=True under a runner of iterations is not conv' in notes
    cfg, notes = converted(BEVDET.replace(', max_epochs=24', ''), tmp_path, repository)
    assert "the recipe's 24 epochs stay" in notes and cfg.train_cfg.max_epochs == 24


def rates(schedulers, iterations, epoch):
    """Learning rates that mmengine's schedulers give, of 1, an epoch of so many iterations."""
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=1.)
    built = [PARAM_SCHEDULERS.build(dict(config, optimizer=optimizer)) for config in schedulers]
    found = []
    for index in range(iterations):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in built:
            if not scheduler.by_epoch or (index + 1) % epoch == 0:
                scheduler.step()
    return found


@pytest.mark.parametrize('kind, expected', [
    ('exp', lambda i: 0.01**(1 - min(i, 8) / 8)), ('constant', lambda i: 0.01 if i < 8 else 1.),
    # mmengine's ends an iteration earlier, as the recipes' own does
    ('linear', lambda i: 1 - (1 - min(i, 7) / 7) * 0.99)])
@pytest.mark.parametrize('step, milestones', [('[2, 5]', (2, 5)), ('3', (3,))])
def test_rates_are_mmcvs(kind, expected, step, milestones, tmp_path, repository):
    text = BEVDET.replace(
        "warmup='linear', warmup_iters=200, warmup_ratio=0.001, step=[24, ]",
        f"warmup='{kind}', warmup_iters=8, warmup_ratio=0.01, gamma=0.5, step={step}")
    cfg, _ = converted(text.replace('max_epochs=24', 'max_epochs=6'), tmp_path, repository)
    found = rates(cfg.to_dict()['param_scheduler'], 24, 4)
    steps = [0.5**sum(i // 4 >= milestone for milestone in milestones) for i in range(24)]
    assert found == pytest.approx([expected(i) * steps[i] for i in range(24)], rel=1e-9)


@pytest.mark.parametrize('change, note', [
    (("warmup='linear'", "warmup='cosine'"), "lr_config with warmup='cosine'"),
    (("policy='step'", "policy='poly'"), "lr_config with policy 'poly' is not converted"),
    (("policy='step'", "policy='step', min_lr=1e-6"), 'lr_config with min_lr=1e-06 is not'),
    (("policy='step'", "policy='step', warmup_by_epoch=True"), 'with warmup_by_epoch=True is'),
    (('lr_config =', 'other ='), 'lr_config is not given: the recipe keeps'),
    (('optimizer_config =', 'other ='), "optimizer_config is not given: the recipe's clipping"),
    (('grad_clip=dict(max', 'cumulative_iters=2, grad_clip=dict(max'),
     r"not read of optimizer_config: \['cumulative_iters'\]"),
    (('samples_per_gpu=4', "samples_per_gpu=int(open('x').read())"),
     r"'data' depends on .*open.*, which is not followed: the recipe's batch size of 4 stays"),
    (('samples_per_gpu=4, ', ''), "data.samples_per_gpu is None: the recipe's batch size of 4")])
def test_what_keeps_the_recipes_own_is_named(change, note, tmp_path, repository):
    cfg, notes = converted(BEVDET.replace(*change), tmp_path, repository)
    assert re.search(note, notes), notes
    ours = Config.fromfile(repository / PUBLISHED)
    assert cfg.param_scheduler == ours.param_scheduler
    assert cfg.optim_wrapper == ours.optim_wrapper
    assert cfg.train_dataloader.batch_size == 4


def test_what_the_optimizer_says_elsewhere(tmp_path, repository):
    text = BEVDET.replace('grad_clip=dict(max_norm=5, norm_type=2)', 'grad_clip=None').replace(
        'weight_decay=1e-2', 'weight_decay=1e-2, paramwise_cfg=dict(norm_decay_mult=0.)')
    text = text.replace('dict(samples_per_gpu=4', 'dict(train_dataloader=dict(samples_per_gpu=3)')
    cfg, notes = converted(text, tmp_path, repository)
    assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.)
    assert 'paramwise_cfg' not in cfg.optim_wrapper.optimizer
    assert cfg.optim_wrapper.clip_grad is None and cfg.train_dataloader.batch_size == 3


def test_another_recipe_can_be_the_base(convert, repository):
    cfg = convert(BEVDET, '--base', repository / PUBLISHED.replace('published/', ''))
    assert not cfg.model.img_view_transformer.get('truncate', False)


def test_a_config_that_inherits(convert, tmp_path):
    (tmp_path / 'parent.py').write_text(BEVDET)
    cfg = convert("_base_ = './parent.py'\nmodel = dict(num_adj=1, img_neck=dict(out_channels=64),"
                  ' img_view_transformer=dict(in_channels=64))\n')
    assert cfg.model.img_neck.out_channels == 64 and cfg.model.img_neck.num_outs == 1


@pytest.mark.parametrize('change, message', [
    (("'BEVStereo4DOCC'", "'BEVDet'"), "model.type is 'BEVDet', expected 'BEVStereo4DOCC'"),
    (("type='CustomFPN'", "type='FPN_LSS'"), "model.img_neck is 'FPN_LSS', expected 'CustomFPN'"),
    (("type='ResNet'", "type='SwinTransformer'"), "img_backbone is 'SwinTransformer'"),
    (('sid=False', 'accelerate=True'), "does not build.*accelerate"),
    (('grid_config = {', 'other = {'), "theirs.py:24: 'model' depends on 'grid_config'"),
    (('numC_Trans = 32', "numC_Trans = int(open('/etc/hostname').read())"), "'model' depends on"),
    (('class_names = [', 'class_names = ['.ljust(20) + '('), 'is not Python'),
    (('align_after_view_transfromation=False', 'align_after_view_transfromation=True'),
     'no counterpart')])
def test_bad_input_is_one_line(change, message, convert, capsys, tmp_path):
    with pytest.raises(SystemExit) as exit_info:
        convert(BEVDET.replace(*change))
    line = capsys.readouterr().err.strip()
    assert exit_info.value.code == 2 and line.startswith('convert_config: ')
    assert re.search(message, line), line
    assert not (tmp_path / 'ours.py').exists()


def test_a_config_is_not_run(tmp_path):
    mark = tmp_path / 'mark'
    (tmp_path / 'x.py').write_text(
        f'import os\nos.mkdir({str(mark)!r})\nx = 1\ny = __import__("os").mkdir({str(mark)!r})\n'
        f'z = [x, y]\nwith open({str(mark)!r}, "w") as file:\n    pass\nw = x.real\n')
    found = read_config_values(tmp_path / 'x.py')
    assert not mark.exists() and found.values == {'x': 1}
    assert set(found.unread) >= {'y', 'z', 'w', 'file'}
    with pytest.raises(ValueError, match=r"x.py:4: 'y' depends on '__import__"):
        found.get('y')


def test_what_python_can_say(tmp_path):
    (tmp_path / 'x.py').write_text(
        'a = {**dict(b=1), "c": (2, -3)}\nd = [*range(3), *a["c"]][1:]\na["e"] = d[-1] // 2\n'
        'f = g = dict(a, b=not True)\nf.update(h=len(d))\nfor i in (1, 2):\n    a.update({i: i})\n')
    found = read_config_values(tmp_path / 'x.py').values
    expected = {}
    exec((tmp_path / 'x.py').read_text(), expected)
    assert found == {name: value for name, value in expected.items() if name != '__builtins__'}


@pytest.mark.parametrize('text', [
    'x = [0] * 10**9', 'x = [0] * 999999999', 'x = range(10000000)', 'x = list(range(99999999))',
    'x = 9**9**9',
    'x = [0] * 9000\nx = x + x',
    'for i in range(9999):\n    for j in range(9999):\n        x = j',
    'for i in range(99999999):\n    x = i'])
def test_what_would_take_the_machine_is_not_followed(text, tmp_path):
    (tmp_path / 'x.py').write_text(text)
    assert 'x' in read_config_values(tmp_path / 'x.py').unread


def test_what_nests_too_deep_is_refused(tmp_path):
    (tmp_path / 'x.py').write_text('x = ' + 'not ' * 3000 + '1')
    with pytest.raises(ValueError, match='x.py is not Python'):
        read_config_values(tmp_path / 'x.py')
    (tmp_path / 'x.py').write_text('x = ' + 'not ' * 600 + '1\ny = 2')
    found = read_config_values(tmp_path / 'x.py')
    assert found.values['y'] == 2
