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
from langocc.teachers import TextEncoder, Vocabulary

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'unit'))
from nusc_factory import CAMERAS, VERSION, NuScenesFactory  # noqa: E402
from tiny_teachers import TinyDenseTeacher  # noqa: E402

RECIPE = 'configs/langocc-full_r50_4xb4-18e_nus-occ3d_online-maskclip.py'
CAMERA_RECIPE = 'configs/langocc-full_r50_4xb4-18e_nus-occ3d_camera-maskclip.py'


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


class OneHotText(TextEncoder):
    """Every prompt a direction of its own."""
    embed_dims = 512

    def encode(self, prompts):
        return torch.eye(len(prompts), 512)


def without_lidar(results):
    for info in [results, *(frame['info'] for frame in results['ray_frames'])]:
        info.pop('lidar_points', None)  # frames share infos
    return results


@pytest.mark.parametrize('recipe', [RECIPE, CAMERA_RECIPE])
def test_its_pipeline_with_a_tiny_teacher(recipe, cfg, repository, tmp_path):
    from langocc.datasets import NuScenesOccDataset
    from langocc.datasets.nuscenes_prepare import prepare_infos
    root = NuScenesFactory(tmp_path / 'data').write().root
    prepare_infos(root, VERSION, root, splits='all', prefix='tiny')
    cfg = Config.fromfile(repository / recipe)
    dataset = NuScenesOccDataset(str(root), 'tiny_infos_all.json', camera_names=CAMERAS,
                                 ray_frame_ids=cfg.train_dataloader.dataset.ray_frame_ids)
    rays = next(t for t in cfg.train_dataloader.dataset.pipeline if t.type == 'PrepareRays')
    assert rays.teacher == 'online' and rays.num_rays == 8192 and rays.source.num_images == 8
    results, teacher = dataset.get_data_info(1), dict(embed_dims=512)
    if recipe == CAMERA_RECIPE:
        results = without_lidar(results)
        teacher.update({key: cfg.teacher[key] for key in ('class_names', 'sky_classes')},
                       text_encoder=OneHotText())
    results = TRANSFORMS.build(rays)(results)
    sample = Det3DDataSample(metainfo=dict(token=results['token']))
    sample.gt_rays, sample.ray_images = results['rays'], results['ray_images']
    assert 1 <= len(sample.ray_images.images) <= 6 and len(sample.gt_rays)  # three frames, two eyes
    eye = torch.eye(4).expand(1, 2, 4, 4)
    inputs = dict(imgs=[torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8)],
                  rig=[CameraRig(eye, eye, eye, eye, torch.eye(4))],
                  bev_aug_matrix=[torch.eye(4)])
    preprocessor = MODELS.build(dict(cfg.model.data_preprocessor,
                                     online_teacher=TinyDenseTeacher(**teacher))).train()
    filled, = preprocessor(dict(inputs=inputs, data_samples=[sample]), True)['data_samples']
    targets = filled.gt_rays.targets
    feats = targets['lang_feats']
    assert feats.shape == (len(filled.gt_rays), 512) and 'ray_images' not in filled
    torch.testing.assert_close(feats.norm(dim=1), torch.ones(len(feats)))
    assert feats.std(dim=0).max() > 1e-3
    asks_for_sky = any(loss.type == 'SkyLoss' for loss in cfg.model.occ_head.losses.values())
    assert asks_for_sky == (recipe == CAMERA_RECIPE)
    assert set(targets) == {'lang_feats', *(['sky'] if asks_for_sky else [])}
    if asks_for_sky:
        nearest = feats[:, :len(cfg.class_names)].argmax(dim=1)
        assert torch.equal(targets['sky'], nearest == cfg.class_names.index('sky'))
        assert targets['sky'].any() and not targets['sky'].all()


def test_the_camera_recipe_asks_for_the_vocabularys_words_only(repository, data_roots):
    """So that the file that embed_text.py makes of the vocabulary is all it needs."""
    cfg = Config.fromfile(repository / CAMERA_RECIPE)
    assert set(cfg.class_names) <= set(Vocabulary('occ3d_nuscenes').prompts)
    assert cfg.teacher == cfg.model.data_preprocessor.online_teacher
    assert cfg.teacher.text_encoder == cfg.text_encoder


def test_the_store_recipe_reads_what_extraction_writes(repository, monkeypatch):
    monkeypatch.setenv('NUSCENES_ROOT', '/nus')
    cfg = Config.fromfile(repository / 'configs/langocc-full_r50_4xb4-18e_nus-occ3d_store.py')
    store = dict(type='StoreTeacher', root='/nus/features')
    assert cfg.train_dataloader.dataset.pipeline[2].teacher == store == cfg.teacher
    assert cfg.extract.type == 'MaskClipTeacher'  # what fills it
