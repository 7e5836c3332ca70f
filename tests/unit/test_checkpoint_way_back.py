"""Ours to theirs: what is written is a network of the family, to the last name and shape."""
import dataclasses

import pytest
import torch
from mmengine.config import Config
from published_checkpoints import (
    DETECTOR_ONLY, bevdet_occ_shapes, bevdet_shapes, langocc_shapes, reduced_shapes, without_memory
)

from langocc.checkpoints import (
    FAMILIES, back_family, check_complete, from_ours, networks_of, target_of
)

LANGOCC = 'langocc-full_r50_4xb4-18e_nus-occ3d'
OCCUPANCY = 'bevstereo-occ_r50_4xb4-24e_nus-occ3d'
FLASH = 'flashocc_r50_4xb4-24e_nus-occ3d'
RENDER = 'renderocc_r50_4xb4-18e_nus-occ3d'
SMALL = 'langocc-tiny_r18_1xb2-70i_pandaset-camera'  # LangOcc's parts, of other sizes


@pytest.fixture(scope='module')
def targets(repository):
    """Recipe -> target."""
    recipes = {name: Config.fromfile(repository / f'configs/{name}.py')
               for name in (LANGOCC, OCCUPANCY, FLASH, RENDER, SMALL)}
    recipes[SMALL].merge_from_dict({'model.occ_head.decoders.lang.norm_input': False})
    del recipes[SMALL].model.occ_head['reducer']
    return {name: target_of(cfg, name) for name, cfg in recipes.items()}


@pytest.fixture(scope='module')
def networks(repository):
    """Family -> its published networks."""
    return {name: networks_of(family, repository / 'configs') for name, family in FAMILIES.items()}


@pytest.fixture
def back(networks):
    """Our names and shapes, or tensors -> the conversion to a family, every tensor accounted for.
    """
    def run(ours, family, wanted=None):
        tensors = {name: value if isinstance(value, torch.Tensor) else
                   torch.empty(value, device='meta') for name, value in ours.items()}
        result = from_ours(tensors, FAMILIES[family], wanted or networks[family], 'file')
        assert set(result.mapped) | set(result.unused) == set(tensors)
        assert not set(result.mapped) & set(result.unused)
        assert set(result.mapped.values()) == set(result.tensors)
        return result
    return run


def theirs(network, family):
    return {FAMILIES[family].theirs(name): shape for name, shape in network.shapes.items()}


def test_networks_are_the_published_ones(networks, shared_root):
    full, reduced = networks['langocc']
    assert theirs(full, 'langocc') == langocc_shapes(shared_root)
    assert dict(theirs(reduced, 'langocc'), some_matrix=(512, 128)) == reduced_shapes(shared_root)
    assert (full.reducer_dims, reduced.reducer_dims) == (None, 128)
    occupancy, = networks['bevdet-occ']
    assert theirs(occupancy, 'bevdet-occ') == bevdet_occ_shapes(shared_root)
    detector, = networks['bevdet']
    expected = bevdet_shapes(shared_root)
    assert {name: expected.get(name) for name, shape in detector.shapes.items()
            if expected.get(name) not in (None, shape)} == {}
    assert set(expected) - set(detector.shapes) == {name for name in DETECTOR_ONLY
                                                    if name.startswith('pts_bbox_head.')}


def test_the_head_must_be_the_familys(targets, back, networks):
    assert back_family(without_memory(targets[OCCUPANCY].shapes)) is FAMILIES['bevdet-occ']
    with pytest.raises(ValueError, match=r'cannot become a published LangOcc.*predicter'):
        back(targets[OCCUPANCY].shapes, 'langocc')
    with pytest.raises(ValueError, match=r'no occ_head.language_decoder.*semantic_decoder'):
        back(targets[RENDER].shapes, 'langocc')
    for name in (RENDER, FLASH):
        assert back_family(without_memory(targets[name].shapes)) is FAMILIES['bevdet']
    assert back_family({'detector.backbone.conv1.weight': torch.ones(1)}) is None


@pytest.mark.parametrize('family, recipe', [('bevdet-occ', OCCUPANCY), ('langocc', LANGOCC)])
def test_what_is_not_that_network_is_refused(family, recipe, targets, back):
    shapes = targets[recipe].shapes
    with pytest.raises(ValueError, match='img_bev_encoder_neck.conv.*: missing'):
        back({name: shape for name, shape in shapes.items()
              if not name.startswith('img_bev_encoder_neck.')}, family)
    with pytest.raises(ValueError, match=r'occ_head.final_conv.conv.bias: \(7,\), .* has \('):
        back(dict(shapes, **{'occ_head.final_conv.conv.bias': (7,)}), family)
    with pytest.raises(ValueError, match='layer3.6.conv1.weight: no such tensor.* --config') as e:
        back(dict(shapes, **{'img_backbone.layer3.6.conv1.weight': (256, 1024, 1, 1)}), family)
    assert '\n' not in str(e.value)
    for place, value in [('img_neck.fpn_convs.0.conv.bias', torch.full((256,), torch.nan))]:
        with pytest.raises(ValueError, match=f'file: {place} .* not finite'):
            back(dict(shapes, **{place: value}), family)


def test_parts_that_the_family_never_had_are_listed(targets, back):
    extra = {'image_head.layers.1.weight': (8, 8), 'occ_head.losses.road.steps': (),
             'occ_head.rgb_decoder.layers.0.weight': (8, 8), 'extra.weight': (3,)}
    result = back({**targets[LANGOCC].shapes, **extra}, 'langocc')
    assert result.unused == dict.fromkeys(extra, 'published LangOcc has no such part')
    assert len(result.mapped) == 588
    with pytest.raises(ValueError, match='density_decoder.layers.12.weight: no such tensor'):
        back({**targets[LANGOCC].shapes, 'occ_head.density_decoder.layers.12.weight': (1, 1)},
             'langocc')


def test_flashocc_is_no_bevstereo4docc(targets, back, repository):
    with pytest.raises(ValueError, match=r'cannot become a BEVDet occ.*\(bevdet-occ-r50-4d-stereo'):
        back(targets[FLASH].shapes, 'bevdet-occ')
    with pytest.raises(ValueError, match='no BEVDet occ.*pre_process_net is CustomResNet, theirs'):
        networks_of(FAMILIES['bevdet-occ'], repository / 'configs', targets[FLASH])


def test_flashoccs_trunk_is_a_detectors(targets, back):
    result = back(targets[FLASH].shapes, 'bevdet')
    encoder = [name for name in targets[FLASH].shapes
               if name.startswith(('pre_process_net.', 'img_bev_encoder'))]
    assert len(encoder) == 112 and set(encoder) <= set(result.mapped)
    left = {name: reason for name, reason in result.unused.items()
            if not name.startswith('occ_head.')}
    assert 'img_view_transformer.depth_net.depth_conv.4.bias' in left and len(left) < 20
    assert set(left.values()) >= {'(88,), bevdet-r50-4d-stereo-cbgs has (59,)'}
    assert set(result.missing) == set(left)


def test_volumes_have_no_place_in_a_detector(targets, back):
    result = back(targets[LANGOCC].shapes, 'bevdet')
    assert {name.split('.')[0] for name in result.mapped} == {
        'img_backbone', 'img_neck', 'img_view_transformer'}
    name = 'pre_process_net.layers.0.0.conv1.bn.running_mean'
    assert name in targets[LANGOCC].shapes
    assert result.unused[name] == 'works on volumes, bevdet-r50-4d-stereo-cbgs on the BEV plane'


def test_a_recipe_names_the_sizes(targets, back, repository):
    shapes = targets[SMALL].shapes
    for family in ('langocc', 'torchvision'):
        with pytest.raises(ValueError, match=f'{FAMILIES[family].title} .*--config names the rec'):
            back(shapes, family)
    for family, count in (('langocc', len(shapes)), ('torchvision', 120)):
        found = networks_of(FAMILIES[family], repository / 'configs', targets[SMALL])
        result = back(shapes, family, found)
        assert len(result.mapped) == count
    found = networks_of(FAMILIES['bevdet'], repository / 'configs', targets[SMALL])
    taken = {name.split('.')[0] for name in back(shapes, 'bevdet', found).mapped}
    assert taken == {'img_backbone', 'img_neck', 'img_view_transformer'}


@pytest.mark.parametrize('part, kind, family', [
    ('volume_skip', 'True', 'langocc'), ('img_view_transformer', 'LiftBySampling', 'bevdet-occ'),
    ('occ_head.density_decoder', 'DensityDecoder with norm_input=True', 'langocc'),
    ('img_backbone', 'ResNet with style=caffe', 'torchvision'), ('img_neck', None, 'bevdet')])
def test_a_recipe_of_other_parts_is_refused(part, kind, family, targets, repository):
    target = targets[OCCUPANCY if family == 'bevdet-occ' else LANGOCC]
    target = dataclasses.replace(target, kinds={**target.kinds, part: kind})
    with pytest.raises(ValueError, match=f'{target.name} describes no .*{part} is {kind}, theirs'):
        networks_of(FAMILIES[family], repository / 'configs', target)


def test_types_of_a_recipes_parts(targets, repository):
    assert targets[LANGOCC].kinds == {
        'img_backbone': 'ResNet', 'img_neck': 'CustomFPN', 'volume_skip': 'False',
        'img_view_transformer': 'LSSViewTransformerBEVStereo', 'pre_process_net': 'CustomResNet3D',
        'img_bev_encoder_backbone': 'CustomResNet3D', 'img_bev_encoder_neck': 'LSSFPN3D',
        'occ_head': 'LangOccHead', 'occ_head.density_decoder': 'DensityDecoder',
        'occ_head.decoders.lang': 'LanguageDecoder'}
    cfg = Config.fromfile(repository / f'configs/{LANGOCC}.py')
    cfg.merge_from_dict({'model.occ_head.decoders.lang.norm_input': True,
                         'model.img_backbone.style': 'caffe'})
    kinds = target_of(cfg, 'changed').kinds
    assert kinds['occ_head.decoders.lang'] == 'LanguageDecoder with norm_input=True'
    assert kinds['img_backbone'] == 'ResNet with style=caffe'


def test_what_the_recipe_misses_is_named(targets):
    ours = without_memory(targets[OCCUPANCY].shapes)
    del ours['occ_head.predicter.2.bias']
    with pytest.raises(ValueError, match='occ_head.predicter.2.bias: missing'):
        check_complete(ours, targets[OCCUPANCY], 'file')
