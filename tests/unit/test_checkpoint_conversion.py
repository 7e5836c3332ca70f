"""Converting checkpoints at full size, by names and shapes: nothing is lost without a reason."""
import pytest
import torch
from mmengine.config import Config
from published_checkpoints import (
    SHAPES, bevdet_occ_shapes, bevdet_shapes, langocc_shapes, reduced_shapes, torchvision_shapes,
    without_memory
)

from langocc.checkpoints import (
    FAMILIES, back_family, check_complete, describe, detect_family, from_ours, networks_of,
    target_of, to_ours
)

LANGOCC = 'langocc-full_r50_4xb4-18e_nus-occ3d'
REDUCED = 'langocc-reduced_r50_4xb4-18e_nus-occ3d'
OCCUPANCY = 'bevstereo-occ_r50_4xb4-24e_nus-occ3d'
FLASH = 'flashocc_r50_4xb4-24e_nus-occ3d'


@pytest.fixture(scope='module')
def targets(repository):
    """Recipe -> target; no file of a data root is there."""
    return {name: target_of(Config.fromfile(repository / f'configs/{name}.py'), name)
            for name in (LANGOCC, REDUCED, OCCUPANCY, FLASH)}


@pytest.fixture(scope='module')
def networks(repository):
    """Family -> its published networks."""
    return {name: networks_of(family, repository / 'configs') for name, family in FAMILIES.items()}


def convert(shapes, target, **kwargs):
    tensors = without_memory(shapes)
    family = detect_family(tensors, 'file')
    result = to_ours(tensors, family, target, 'file', **kwargs)
    assert set(result.mapped) | set(result.unused) == set(shapes)  # every tensor accounted for
    assert not set(result.mapped) & set(result.unused)
    assert set(result.mapped.values()) | set(result.filled) == set(result.tensors)
    assert set(result.tensors) | set(result.missing) == set(target.names())
    return result


@pytest.mark.parametrize('family', SHAPES)
def test_families_are_told_apart(family, shared_root):
    assert detect_family(SHAPES[family](shared_root), 'file') is FAMILIES[family]


@pytest.mark.parametrize('name, count', [(LANGOCC, 588), (OCCUPANCY, 576)])
def test_complete_models_fit_to_the_last_tensor(name, count, targets, networks, shared_root):
    shapes = (langocc_shapes if name == LANGOCC else bevdet_occ_shapes)(shared_root)
    result = convert(shapes, targets[name])
    assert len(result.mapped) == len(shapes) == count
    assert not (result.unused or result.missing or result.filled)
    family = back_family(result.tensors)
    back = from_ours(result.tensors, family, networks[family.name], 'file')
    assert {n: tuple(t.shape) for n, t in back.tensors.items()} == shapes and not back.unused
    assert all(back.tensors[n] is result.tensors[ours] for n, ours in result.mapped.items())


@pytest.mark.parametrize('transposed', [False, True])
def test_the_matrix_of_the_reduced_model_is_found_by_its_shape(transposed, targets, networks,
                                                               shared_root):
    shapes = reduced_shapes(shared_root)
    if transposed:
        shapes['some_matrix'] = (128, 512)
    result = convert(shapes, targets[REDUCED])
    assert result.mapped['some_matrix'] == 'occ_head.reducer.matrix'
    assert tuple(result.tensors['occ_head.reducer.matrix'].shape) == (512, 128)
    assert result.reducer_name == 'some_matrix' and not result.missing
    check_complete(result.tensors, targets[REDUCED], 'file')
    langocc = FAMILIES['langocc'], networks['langocc']
    back = from_ours(result.tensors, *langocc, 'file', 'some_matrix')
    assert 'some_matrix' in back.tensors and not back.unused
    nameless = from_ours(result.tensors, *langocc, 'file')
    assert '--reducer-name' in nameless.unused['occ_head.reducer.matrix']


def test_the_reduced_model_without_its_matrix_is_named(targets, shared_root):
    shapes = reduced_shapes(shared_root)
    del shapes['some_matrix']
    with pytest.raises(ValueError, match='occ_head.reducer.matrix: missing'):
        convert(shapes, targets[REDUCED])


def test_a_detector_gives_its_image_trunk(targets, shared_root):
    """paper.md: backbone, FPN and most of the depth net fit, nothing 3D does."""
    result = convert(bevdet_shapes(shared_root), targets[LANGOCC])
    taken = set(result.mapped.values())
    for part in ('img_backbone.', 'img_neck.'):
        assert all(name in taken for name in targets[LANGOCC].shapes if name.startswith(part))
    depth_net = [name for name in targets[LANGOCC].shapes
                 if name.startswith('img_view_transformer.')]
    left = [name for name in depth_net if name in result.missing]
    assert all('cost_volumn_net' in name or name.split('.', 2)[2] in (
        'context_conv.weight', 'context_conv.bias', 'depth_conv.0.conv1.weight',
        'depth_conv.0.downsample.weight', 'depth_conv.4.weight', 'depth_conv.4.bias')
               for name in left)
    assert 10 < len(left) < 0.2 * len(depth_net)
    assert 'of another shape' in result.missing['img_view_transformer.depth_net.depth_conv.4.bias']
    assert '(59,)' in result.unused['img_view_transformer.depth_net.depth_conv.4.bias']
    name = 'pre_process_net.layers.0.0.conv1.weight'
    assert result.unused[name] == f'works on the BEV plane, {LANGOCC} on volumes'
    assert result.unused['pts_bbox_head.shared_conv.conv.weight'] == 'detection head'
    assert all(name in result.missing for name in targets[LANGOCC].shapes
               if name.startswith(('occ_head.', 'pre_process_net.', 'img_bev_encoder')))


def test_what_works_on_another_plane_is_not_called_misshapen(targets, shared_root):
    """A norm of the same name and size as one behind 3D convolutions is left out all the same."""
    name = next(name for name in targets[LANGOCC].shapes if name.startswith('pre_process_net.')
                and name.endswith('running_mean'))
    result = convert(dict(bevdet_shapes(shared_root), **{name: (32,)}), targets[LANGOCC])
    assert result.unused[name] == f'works on the BEV plane, {LANGOCC} on volumes'
    assert result.missing[name] == f"the file's works on the BEV plane, {LANGOCC} on volumes"


def test_a_detector_starts_flashocc_with_its_bev_encoder(targets, shared_root):
    trunk = {name: shape for name, shape in targets[FLASH].shapes.items()
             if not name.startswith('occ_head.')}
    result = convert(dict(trunk, **bevdet_shapes(shared_root)), targets[FLASH])
    encoder = {name for name in trunk if name.startswith(('pre_process', 'img_bev_encoder'))}
    assert len(encoder) == 112 and encoder <= set(result.mapped)
    assert {name.split('.')[0] for name in result.missing} == {'img_view_transformer', 'occ_head'}
    wide = {'img_bev_encoder_neck.conv.0.weight': (256, 800, 3, 3)}
    other = convert(dict(trunk, **wide), targets[FLASH])
    assert encoder - set(other.mapped) == set(wide)
    assert '(256, 800, 3, 3), flashocc' in other.unused[next(iter(wide))]


def test_an_occupancy_network_starts_langocc(targets, shared_root):
    result = convert(bevdet_occ_shapes(shared_root), targets[LANGOCC])
    assert {name.split('.')[0] for name in result.missing} == {'occ_head'}
    assert set(result.unused) == {name for name in bevdet_occ_shapes(shared_root)
                                  if name.startswith(('final_conv', 'predicter'))}


def test_torchvision_fills_the_backbone(targets, networks, shared_root):
    shapes = torchvision_shapes(shared_root)
    result = convert(shapes, targets[LANGOCC])
    assert set(result.unused) == {'fc.weight', 'fc.bias'}
    assert len(result.filled) == 53 and all(n.endswith('num_batches_tracked')
                                            for n in result.filled)
    assert not any(name.startswith('img_backbone.') for name in result.missing)
    back = from_ours(result.tensors, FAMILIES['torchvision'], networks['torchvision'], 'file')
    assert set(shapes) - set(back.tensors) == {'fc.weight', 'fc.bias'}


def test_torchvisions_own_names(targets, networks):
    """Against the installed torchvision, which loads what comes back."""
    from torchvision.models import resnet50
    with torch.device('meta'):
        theirs = resnet50()
    result = convert({n: tuple(t.shape) for n, t in theirs.state_dict().items()}, targets[LANGOCC])
    back = from_ours(result.tensors, FAMILIES['torchvision'], networks['torchvision'],
                     'file').tensors
    missing, unexpected = theirs.load_state_dict(back, strict=False, assign=True)
    assert set(missing) == {'fc.weight', 'fc.bias'} and not unexpected


def test_geometry_and_a_second_set_of_weights_are_left_out(targets, shared_root):
    shapes = dict(langocc_shapes(shared_root), ema_final_conv_conv_bias=(256,))
    shapes['img_view_transformer.frustum'] = (88, 16, 44, 3)
    result = convert(shapes, targets[LANGOCC])
    assert set(result.unused) == {'ema_final_conv_conv_bias', 'img_view_transformer.frustum'}
    assert not result.missing


@pytest.mark.parametrize('change, message', [
    ({'final_conv.conv.bias': None}, 'occ_head.final_conv.conv.bias: missing'),
    ({'final_conv.conv.bias': (255,)}, r'final_conv.conv.bias: \(255,\), .* has \(256,\)'),
    ({'img_backbone.layer3.6.conv1.weight': (256, 1024, 1, 1)},
     'img_backbone.layer3.6.conv1.weight: no such tensor in langocc-full')])
def test_what_does_not_fit_is_refused_unless_asked_for(change, message, targets, shared_root):
    shapes = {name: shape for name, shape in {**langocc_shapes(shared_root), **change}.items()
              if shape is not None}
    with pytest.raises(ValueError, match=message):
        convert(shapes, targets[LANGOCC])
    assert len(convert(shapes, targets[LANGOCC], partial=True).mapped) > 580


def test_a_complaint_is_one_line_and_counts(targets, shared_root):
    with pytest.raises(ValueError, match='and 5 more') as error:  # 8 tensors of the decoder
        convert({name: shape for name, shape in langocc_shapes(shared_root).items()
                 if not name.startswith('language_decoder')}, targets[LANGOCC])
    assert '\n' not in str(error.value) and '--partial' in str(error.value)


def test_numbers_that_are_none_are_refused(targets):
    tensors = {'conv1.weight': torch.full((64, 3, 7, 7), torch.nan)}
    with pytest.raises(ValueError, match=r'conv1.weight \(64, 3, 7, 7\) has values that are not'):
        to_ours(tensors, FAMILIES['torchvision'], targets[LANGOCC], 'file')


@pytest.mark.parametrize('names, message', [
    (['visual.conv1.weight', 'transformer.resblocks.0.ln_1.bias'], 'a CLIP model'),
    (['backbone.conv1.weight', 'rpn_head.rpn_conv.weight'], 'mmdet model'),
    (['pts_bbox_head.transformer.x', 'img_backbone.conv1.weight'], 'query-based'),
    (['occ_head.final_conv.conv.bias'], "this project's own layout"),
    (['occ_head.final_conv.conv.bias', 'occ_head.transformer.layers.0.bias'], "another project's"),
    (['a', 'b.c'], r"begin with \['a', 'b'\]")])
def test_wrong_families_are_named(names, message):
    with pytest.raises(ValueError, match=f'file is of no family .*bevdet-occ.*{message}'):
        detect_family(names, 'file')


def test_the_description_counts_everything(targets, shared_root):
    text = describe(convert(torchvision_shapes(shared_root), targets[LANGOCC]))
    assert 'taken: 265 tensors' in text and 'img_backbone   318 tensors' in text
    assert '2 (classifier of ImageNet): fc.weight, fc.bias' in text
    assert ' numbers (53 set to 0)\n' in text
    assert 'set to 0: 53' in text and '(not in the file)' in text
