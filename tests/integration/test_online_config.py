"""The recipe with MaskCLIP on the spot: what it needs, and what it does with another teacher."""
import argparse
import sys
from pathlib import Path

import pytest
import torch
from mmdet3d.registry import MODELS, TRANSFORMS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope

from langocc.apis.extraction_arguments import add_source_arguments, read_source
from langocc.structures import CameraRig

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'unit'))
from nusc_factory import CAMERAS, VERSION, NuScenesFactory  # noqa: E402
from tiny_teachers import TinyDenseTeacher  # noqa: E402

RECIPE = 'configs/langocc-full_r50_4xb4-18e_nus-occ3d_online-maskclip.py'


@pytest.fixture
def cfg(repository, data_roots, monkeypatch):
    monkeypatch.delenv('LANGOCC_CLIP_WEIGHTS', raising=False)
    init_default_scope('mmdet3d')
    return Config.fromfile(repository / RECIPE)


def test_training_without_weights_says_how_they_are_named(cfg):
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    preprocessor.eval()  # predicting needs none
    with pytest.raises((FileNotFoundError, ValueError), match='LANGOCC_CLIP_WEIGHTS'):
        preprocessor.train()
    assert cfg.teacher == cfg.model.data_preprocessor.online_teacher
    assert 'root' not in cfg.teacher  # of the teacher from files


def test_what_is_extracted_is_named_in_the_recipes(repository, monkeypatch):
    """As shipped, tools/extract_features.py needs the weights alone."""
    monkeypatch.delenv('LANGOCC_CLIP_WEIGHTS', raising=False)
    recipe = repository / 'configs/langocc-full_r50_4xb4-18e_nus-occ3d.py'
    parser = argparse.ArgumentParser()
    add_source_arguments(parser)
    with pytest.raises(FileNotFoundError, match='no CLIP weights.*LANGOCC_CLIP_WEIGHTS'):
        read_source(parser.parse_args([str(recipe)]))
    extract = Config.fromfile(recipe).extract
    assert extract.type == 'MaskClipTeacher' and tuple(extract.input_size) == (448, 800)


def test_its_pipeline_with_a_tiny_teacher(cfg, tmp_path):
    from langocc.datasets import NuScenesOccDataset
    from langocc.datasets.nuscenes_prepare import prepare_infos
    root = NuScenesFactory(tmp_path / 'data').write().root
    prepare_infos(root, VERSION, root, splits='all', prefix='tiny')
    dataset = NuScenesOccDataset(str(root), 'tiny_infos_all.json', camera_names=CAMERAS,
                                 ray_frame_ids=cfg.train_dataloader.dataset.ray_frame_ids)
    rays = next(t for t in cfg.train_dataloader.dataset.pipeline if t.type == 'PrepareRays')
    assert rays.teacher == 'online' and rays.num_rays == 8192 and rays.source.num_images == 8
    results = TRANSFORMS.build(rays)(dataset.get_data_info(1))
    sample = Det3DDataSample(metainfo=dict(token=results['token']))
    sample.gt_rays, sample.ray_images = results['rays'], results['ray_images']
    assert 1 <= len(sample.ray_images.images) <= 6 and len(sample.gt_rays)  # three frames, two eyes
    eye = torch.eye(4).expand(1, 2, 4, 4)
    inputs = dict(imgs=[torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8)],
                  rig=[CameraRig(eye, eye, eye, eye, torch.eye(4))],
                  bev_aug_matrix=[torch.eye(4)])
    preprocessor = MODELS.build(dict(cfg.model.data_preprocessor,
                                     online_teacher=TinyDenseTeacher(embed_dims=512))).train()
    filled, = preprocessor(dict(inputs=inputs, data_samples=[sample]), True)['data_samples']
    feats = filled.gt_rays.targets['lang_feats']
    assert feats.shape == (len(sample.gt_rays), 512) and 'ray_images' not in filled
    torch.testing.assert_close(feats.norm(dim=1), torch.ones(len(feats)))
    assert feats.std(dim=0).max() > 1e-3
