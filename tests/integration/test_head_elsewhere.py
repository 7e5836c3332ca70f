"""Recipes with LangOccHead on other trunks: built by config alone, they learn and predict."""
import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from langocc.structures import CameraRig
from voxelrender import RayBundle

RECIPES = {'imvoxelnet': 'detector.backbone', 'imvoxelnet-centerhead': 'detector.backbone',
           'bev': 'img_backbone', 'tpv': 'img_backbone'}


def load(repository, name):
    init_default_scope('mmdet3d')
    return Config.fromfile(
        repository / f'configs/langocc-{name}-tiny_r18_1xb1_synthetic-camera.py')


def make_rig():
    """Ahead and behind, one frame."""
    cam2img = torch.tensor([[150., 0, 127.5, 0], [0, 150., 71.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    ahead = torch.tensor([[0., 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    behind = torch.diag(torch.tensor([-1., -1, 1, 1])) @ ahead
    shape = (1, 2, 4, 4)
    return CameraRig(cam2img.expand(shape), torch.stack([ahead, behind])[None],
                     torch.eye(4).expand(shape), torch.eye(4).expand(shape), torch.eye(4))


def make_batch(num_rays=120):
    sample = Det3DDataSample(metainfo=dict(token='a', box_type_3d=LiDARInstance3DBoxes))
    sample.gt_rays = RayBundle(
        torch.tensor([[0., 0, 1.5]]).repeat(num_rays, 1),
        F.normalize(torch.randn(num_rays, 3) * torch.tensor([1, 1, 0.2]), dim=-1),
        targets=dict(lang_feats=F.normalize(torch.randn(num_rays, 512), dim=-1),
                     sky=torch.rand(num_rays) < 0.2, rgb=torch.rand(num_rays, 3)))
    boxes = torch.tensor([[10., 5, -1, 4, 2, 1.5, 0.3, 1, 0], [-20, -9, -1, 9, 2.5, 3, 2, 0, 0]])
    sample.gt_instances_3d = InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9),
                                          labels_3d=torch.tensor([0, 3]))
    inputs = dict(imgs=[torch.randint(0, 255, (1, 2, 3, 144, 256), dtype=torch.uint8)],
                  rig=[make_rig()], bev_aug_matrix=[torch.eye(4)])
    return dict(inputs=inputs, data_samples=[sample])


@pytest.mark.parametrize('name', RECIPES)
def test_losses_of_one_batch_fall_and_a_prediction(name, repository, data_roots):
    torch.manual_seed(0)
    model = MODELS.build(load(repository, name).model)
    model.init_weights()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    batch, logs = make_batch(), []
    for _ in range(8):
        data = model.data_preprocessor(copy.deepcopy(batch), True)
        loss, log = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        logs.append({key: float(value) for key, value in log.items()})
    assert 'loss_lang' in log and ('task0.loss_heatmap' in log) == ('centerhead' in name)
    for task in ('loss_', 'task0.'):  # of the head; of the detector
        first, *_, last = [sum(value for key, value in log.items() if key.startswith(task))
                           for log in logs]
        assert last < 0.85 * first or first == 0, (task, logs)
    backbone = model.get_submodule(RECIPES[name])
    assert all(p.grad.any() for n, p in backbone.named_parameters() if 'conv1.weight' in n)
    for module in (model.occ_head.density_decoder, model.occ_head.language_decoder):
        assert any(p.grad.any() for p in module.parameters())
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor(make_batch(), False)
        prediction = model(**data, mode='predict')[0]
    semantics = prediction.pred_occ.semantics
    assert tuple(semantics.shape) == model.occ_head.grid.grid_shape == (200, 200, 16)
    assert ('bboxes_3d' in prediction.get('pred_instances_3d', {})) == ('centerhead' in name)


@pytest.mark.parametrize('name', RECIPES)
def test_recipes_differ_from_the_camera_recipe_in_the_trunk_alone(name, repository, data_roots):
    init_default_scope('mmdet3d')
    recipe = load(repository, name)
    base = Config.fromfile(repository / 'configs/langocc-tiny_r18_1xb1_synthetic-camera.py')
    assert dict(recipe.model.occ_head, in_channels=0) == dict(base.model.occ_head, in_channels=0)
    assert recipe.optim_wrapper == base.optim_wrapper and recipe.train_cfg == base.train_cfg
    for cfg in (recipe.train_dataloader, recipe.val_dataloader, recipe.test_dataloader):
        assert tuple(cfg.dataset.multi_adj_frame_id_cfg) == (1, 1, 1) and not cfg.dataset.stereo
    pipeline = [t.type for t in recipe.train_dataloader.dataset.pipeline]
    extra = ['LoadEgoBoxes', 'ObjectRangeFilter'] if 'centerhead' in name else []
    ours = [t.type for t in base.train_dataloader.dataset.pipeline
            if t.get('name') != 'image_rays']  # these trunks have no image head
    assert pipeline == ours[:-1] + extra + ours[-1:]


def test_boxes_start_quietly(repository, data_roots):
    """The recipe's heatmap begins at the bias that it asks for."""
    cfg = load(repository, 'imvoxelnet-centerhead').model.detector.bbox_head
    head = MODELS.build(dict(cfg, train_cfg=None, test_cfg=None))
    head.init_weights()
    for task in head.task_heads:
        assert (task.heatmap[-1].bias == cfg.separate_head.init_bias).all()


def test_the_tasks_have_one_order_of_classes(repository, data_roots):
    cfg = load(repository, 'imvoxelnet-centerhead')
    head = cfg.model.detector.bbox_head
    names = [name for task in head.tasks for name in task.class_names]
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert list(loader.dataset.metainfo.classes) == names
