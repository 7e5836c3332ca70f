"""configs/published: the same recipes with every published behaviour, and nothing else."""
import pytest
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from langocc.checkpoints import target_of

SWITCHES = {
    'model.data_preprocessor.bgr': True, 'model.img_view_transformer.truncate': True,
    'model.img_view_transformer.published_invalid': True,
    'train_dataloader.dataset.key_ego': 'first_camera',
    'val_dataloader.dataset.key_ego': 'first_camera',
    'test_dataloader.dataset.key_ego': 'first_camera'}
OF_RENDERING = {
    'model.occ_head.grid.alignment': 'edges', 'model.occ_head.renderer.jitter_at_test': True,
    'model.occ_head.renderer.weight_threshold': 0., 'teacher.parity_half_pixel': True,
    'train_dataloader.dataset.pipeline.2.parity_half_pixel': True,
    'train_dataloader.dataset.pipeline.2.teacher.parity_half_pixel': True,
    'train_pipeline.2.parity_half_pixel': True, 'train_pipeline.2.teacher.parity_half_pixel': True}


def leaves(value, place=''):
    """Dotted place -> value of everything in a config."""
    if isinstance(value, (dict, list, tuple)) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, inner in items
                for name, leaf in leaves(inner, f'{place}.{key}' if place else str(key)).items()}
    return {place: value}


@pytest.mark.parametrize('name', ['langocc-full_r50_4xb4-18e_nus-occ3d',
                                  'langocc-reduced_r50_4xb4-18e_nus-occ3d',
                                  'bevstereo-occ_r50_4xb4-24e_nus-occ3d'])
def test_switches_and_nothing_else(name, repository, data_roots):
    init_default_scope('mmdet3d')
    ours, published = (Config.fromfile(repository / f'configs/{folder}{name}.py')
                       for folder in ('', 'published/'))
    plain = leaves(ours.to_dict())
    changed = {place: value for place, value in leaves(published.to_dict()).items()
               if plain.get(place) != value}
    assert changed == {**SWITCHES, **(OF_RENDERING if name.startswith('langocc') else {})}
    assert not set(plain) - set(leaves(published.to_dict()))
    theirs, mine = target_of(published, name), target_of(ours, name)
    assert theirs.shapes == mine.shapes and theirs.bgr and not mine.bgr
    model = MODELS.build(published.model)
    assert model.img_view_transformer.truncate and model.img_view_transformer.published_invalid
    if name.startswith('langocc'):
        assert model.occ_head.grid.alignment == 'edges'
        assert model.occ_head.renderer.march_config.jitter_at_test
        assert model.occ_head.renderer.weight_threshold == 0
