"""tools/convert_checkpoint.py: what it prints, and one line for every bad input."""
import os
import re
import runpy
import sys

import pytest
import torch
from mmengine.config import Config

from langocc.checkpoints import fold_colors, read_checkpoint, write_checkpoint

SHAPES = {'conv1.weight': (4, 3, 7, 7), 'bn1.weight': (4,), 'bn1.running_mean': (4,)}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A config of a small model, and a ResNet of its size in torchvision's names."""
    from mmdet3d.registry import MODELS
    from mmengine.registry import init_default_scope
    folder = tmp_path_factory.mktemp('files')
    init_default_scope('mmdet3d')
    grid = dict(x=[-8, 8, 1.], y=[-8, 8, 1.], z=[-2, 2, 1.], depth=[1., 9., 1.])
    cfg = Config(dict(default_scope='mmdet3d', model=dict(
        type='LangOcc', num_adj=0, stereo=False, data_preprocessor=dict(type='OccDataPreprocessor'),
        img_backbone=dict(type='mmdet.ResNet', depth=18, base_channels=4, stem_channels=4,
                          out_indices=(2, 3)),
        img_neck=dict(type='CustomFPN', in_channels=[16, 32], out_channels=8),
        img_view_transformer=dict(type='LSSViewTransformer', grid_config=grid, input_size=(32, 64),
                                  in_channels=8, out_channels=4),
        img_bev_encoder_backbone=dict(type='CustomResNet3D', numC_input=4, num_layer=[1],
                                      num_channels=[4], stride=[1]),
        img_bev_encoder_neck=dict(type='LSSFPN3D', in_channels=4, out_channels=4),
        occ_head=dict(type='BEVOccHead', in_channels=4, feat_channels=4, grid=dict(
            point_cloud_range=[-8, -8, -2, 8, 8, 2], voxel_size=[1., 1., 1.])))))
    cfg.dump(folder / 'small.py')
    backbone = MODELS.build(cfg.model.img_backbone).state_dict()
    write_checkpoint(folder / 'resnet.safetensors', {
        **{name: value for name, value in backbone.items() if 'batches' not in name},
        'fc.weight': torch.ones(1000, 32), 'fc.bias': torch.ones(1000)}, {})
    return folder


@pytest.fixture
def tool(monkeypatch, repository):
    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['convert_checkpoint', *map(str, arguments)])
        runpy.run_path(str(repository / 'tools/convert_checkpoint.py'), run_name='__main__')
    return run


@pytest.fixture
def complaint(tool, capsys):
    """Runs the tool, which must fail; returns the line it prints."""
    def run(*arguments):
        with pytest.raises(SystemExit) as exit_info:
            tool(*arguments)
        assert exit_info.value.code == 2
        line = capsys.readouterr().err.strip()
        assert '\n' not in line and line.startswith('convert_checkpoint: ')
        return line
    return run


def test_what_a_file_is(files, tool, capsys):
    tool(files / 'resnet.safetensors')
    assert "torchvision's ResNet, 102 tensors" in capsys.readouterr().out
    assert sorted(file.name for file in files.iterdir()) == ['resnet.safetensors', 'small.py']


def test_there_and_back(files, tool, capsys, tmp_path):
    out, back = tmp_path / 'ours.pth', tmp_path / 'back.safetensors'
    tool(files / 'resnet.safetensors', out, '--config', files / 'small.py')
    text = capsys.readouterr().out
    assert 'taken: 100 tensors' in text and '2 (classifier of ImageNet)' in text
    assert 'not in the file' in text and 'BGR' not in text
    assert read_checkpoint(out).conversion['family'] == 'torchvision'
    tool(out, back, '--to', 'torchvision', '--config', files / 'small.py')
    theirs, ours = read_checkpoint(files / 'resnet.safetensors').tensors, read_checkpoint(back)
    assert set(theirs) - set(ours.tensors) == {'fc.weight', 'fc.bias'}
    assert all(torch.equal(ours.tensors[name], value) for name, value in theirs.items()
               if not name.startswith('fc.'))


def test_bgr_images_are_mentioned(files, tool, capsys, tmp_path):
    source = tmp_path / 'bevdet.pth'
    backbone = read_checkpoint(files / 'resnet.safetensors').tensors
    tensors = {f'img_backbone.{name}': value for name, value in backbone.items()
               if not name.startswith('fc.')}
    for index, channels in enumerate((16, 32)):
        tensors[f'img_neck.lateral_convs.{index}.conv.weight'] = torch.ones(8, channels, 1, 1)
        tensors[f'img_neck.lateral_convs.{index}.conv.bias'] = torch.ones(8)
    tensors['img_neck.fpn_convs.0.conv.weight'] = torch.ones(8, 8, 3, 3)
    tensors['img_neck.fpn_convs.0.conv.bias'] = torch.ones(8)
    tensors['img_view_transformer.depth_net.weight'] = torch.ones(139, 8, 1, 1)
    torch.save(dict(state_dict=tensors), source)
    tool(source, tmp_path / 'x.pth', '--config', files / 'small.py')
    text = capsys.readouterr().out
    assert 'trained on BGR images, small.py sees RGB: give --rgb' in text
    assert '(139, 8, 1, 1), small.py has (12, 8, 1, 1)): img_view_transformer.depth' in text
    bgr = ('--cfg-options', 'model.data_preprocessor.bgr=True')
    tool(source, tmp_path / 'x.pth', '--config', files / 'small.py', *bgr)
    assert 'BGR' not in capsys.readouterr().out
    tool(source, tmp_path / 'x.pth', '--config', files / 'small.py', '--rgb', *bgr)
    assert 'small.py sees BGR: leave one of the two' in capsys.readouterr().out
    tool(source, tmp_path / 'x.pth', '--config', files / 'small.py', '--rgb')
    assert 'BGR' not in capsys.readouterr().out
    tool(tmp_path / 'x.pth', tmp_path / 'back.pth', '--to', 'bevdet', '--config',
         files / 'small.py', '--rgb')
    assert 'note' not in capsys.readouterr().out
    back, folded = (read_checkpoint(tmp_path / f'{name}.pth').tensors for name in ('back', 'x'))
    for name in ('img_backbone.conv1.weight', 'img_backbone.bn1.running_mean'):
        assert not torch.allclose(folded[name], tensors[name], atol=1e-3)
        torch.testing.assert_close(back[name], tensors[name], atol=1e-6, rtol=1e-6)


def ours(files, path, **meta):
    """A checkpoint of the small recipe's model, as a training saves it."""
    from langocc.apis import init_model
    state = init_model(Config.fromfile(files / 'small.py')).state_dict()
    torch.save(dict(state_dict=state, meta=meta), path)
    return path


@pytest.mark.parametrize('note, options, message', [
    ({}, [], 'ours.pth sees RGB images, a BEVDet detector .* BGR: give --rgb'),
    ({}, ['--rgb'], None),
    ({}, ['model.data_preprocessor.bgr=True'], None),
    ({}, ['--rgb', 'model.data_preprocessor.bgr=True'], 'sees BGR images, .* BGR: leave out --rgb'),
    (dict(cfg='model = dict(\n    data_preprocessor=dict(bgr=True, type=1))'), [], None),
    (dict(cfg="model = dict(\n    data_preprocessor=dict(type='x'), b=dict(bgr=True))"), [],
     'sees RGB images'),
    (dict(langocc_conversion=dict(layout='ours', colors='BGR')), [], None)])
def test_colours_on_the_way_back(note, options, message, files, tool, capsys, tmp_path):
    """What the file notes counts before the recipe; a mismatch is said."""
    source = ours(files, tmp_path / 'ours.pth', **note)
    values = [option for option in options if '=' in option]
    tool(source, tmp_path / 'theirs.pth', '--to', 'bevdet', '--config', files / 'small.py',
         *(option for option in options if option not in values),
         *(['--cfg-options', *values] if values else []))
    text = capsys.readouterr().out
    assert 'note' not in text if message is None else re.search(f'note: .*{message}', text), text
    right = message is None
    colors = read_checkpoint(tmp_path / 'theirs.pth').conversion['colors']
    assert (colors == 'BGR') == right


def test_colours_that_nothing_tells_are_said(tool, capsys, repository, tmp_path):
    from mmdet3d.registry import MODELS
    from mmengine.registry import init_default_scope
    init_default_scope('mmdet3d')
    backbone = MODELS.build(dict(type='mmdet.ResNet', depth=18)).state_dict()
    weights = {f'img_backbone.{name}': value for name, value in backbone.items()}
    write_checkpoint(tmp_path / 'ours.pth', weights, dict(layout='ours'))
    tool(tmp_path / 'ours.pth', tmp_path / 'theirs.pth', '--to', 'torchvision')
    assert "nothing says whether" in (text := capsys.readouterr().out)
    assert "a torchvision's ResNet sees RGB" in text
    assert 'colors' not in read_checkpoint(tmp_path / 'theirs.pth').conversion
    write_checkpoint(tmp_path / 'ours.pth', weights, dict(layout='ours', colors='BGR'))
    tool(tmp_path / 'ours.pth', tmp_path / 'theirs.pth', '--to', 'torchvision')
    assert "sees BGR images, a torchvision's ResNet RGB: give --bgr" in capsys.readouterr().out
    tool(tmp_path / 'ours.pth', tmp_path / 'theirs.pth', '--to', 'torchvision', '--bgr')
    assert 'note' not in capsys.readouterr().out
    theirs = read_checkpoint(tmp_path / 'theirs.pth')
    assert theirs.conversion['colors'] == 'RGB'
    assert torch.equal(theirs.tensors['conv1.weight'], fold_colors(
        weights, to_rgb=True)['img_backbone.conv1.weight'])


def test_torchvisions_colours_in_a_recipe_that_sees_bgr(files, tool, capsys, tmp_path):
    convert = (files / 'resnet.safetensors', tmp_path / 'x.pth', '--config', files / 'small.py',
               '--cfg-options', 'model.data_preprocessor.bgr=True')
    tool(*convert)
    assert ("ResNet was trained on RGB images, small.py sees BGR: give --bgr"
            in capsys.readouterr().out)
    tool(*convert, '--bgr')
    assert 'note' not in capsys.readouterr().out
    assert read_checkpoint(tmp_path / 'x.pth').conversion['colors'] == 'BGR'
    back = tmp_path / 'x.pth', tmp_path / 'y.pth', '--to', 'torchvision', '--config', convert[3]
    tool(*back, '--bgr')
    assert 'note' not in capsys.readouterr().out
    first, last = (read_checkpoint(path).tensors for path in (convert[0], tmp_path / 'y.pth'))
    for name in ('conv1.weight', 'bn1.running_mean'):
        torch.testing.assert_close(last[name], first[name], atol=1e-6, rtol=1e-6)


class Harm:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_bad_input_is_one_line(files, complaint, tmp_path):
    out, config = tmp_path / 'out.pth', ('--config', files / 'small.py')
    resnet = files / 'resnet.safetensors'
    assert 'checkpoint none.pth does not exist' in complaint('none.pth', out, *config)
    assert 'config none.py does not exist' in complaint(resnet, out, '--config', 'none.py')
    assert '--config names the recipe' in complaint(resnet, out)
    assert 'out.bin: expected a name that ends in' in complaint(resnet, tmp_path / 'out.bin')
    assert "sees RGB images as ours do" in complaint(resnet, out, '--rgb', *config)
    assert 'leave out --bgr' in complaint(ours(files, tmp_path / 'ours.pth'), out, '--bgr', *config,
                                          '--to', 'bevdet')
    assert "is a torchvision's ResNet already" in complaint(resnet, out, '--to', 'bevdet', *config)
    torch.save({'visual.conv1.weight': torch.ones(1)}, tmp_path / 'clip.pth')
    assert 'looks like a CLIP model' in complaint(tmp_path / 'clip.pth', out, *config)
    torch.save(dict(state_dict={'conv1.weight': Harm(tmp_path / 'mark')}), tmp_path / 'evil.pth')
    assert "refused: it asks for 'posix.mkdir'" in complaint(tmp_path / 'evil.pth', out, *config)
    tensors = read_checkpoint(resnet).tensors
    write_checkpoint(tmp_path / 'wrong.pth', dict(tensors, **{'bn1.bias': torch.ones(5)}), {})
    assert 'bn1.bias: (5,), small.py has (4,)' in complaint(tmp_path / 'wrong.pth', out, *config)
    del tensors['layer4.1.conv2.weight']
    write_checkpoint(tmp_path / 'lacks.pth', tensors, {})
    line = complaint(tmp_path / 'lacks.pth', out, *config)
    assert 'img_backbone.layer4.1.conv2.weight: missing' in line
    assert not out.exists() and not (tmp_path / 'mark').exists()


def test_our_own_layout_is_told_the_way_back(files, tool, complaint, capsys, tmp_path):
    config = ('--config', files / 'small.py')
    source = ours(files, tmp_path / 'ours.pth')
    tool(source)
    assert "this project's layout, --to bevdet goes back" in capsys.readouterr().out
    line = complaint(source, tmp_path / 'x.pth')
    assert "ours.pth is of this project's layout already, --to bevdet goes back" in line
    line = complaint(source, tmp_path / 'x.pth', *config)
    assert 'layout already, small.py loads it as it is, --to' in line
    line = complaint(source, tmp_path / 'x.pth', '--to', 'langocc')
    assert 'cannot become a published LangOcc: it has no occ_head.density_decoder' in line
    line = complaint(source, tmp_path / 'x.pth', '--to', 'bevdet-occ')
    assert 'cannot become a BEVDet occupancy network' in line and '--config names' in line
    line = complaint(source, tmp_path / 'x.pth', '--to', 'bevdet-occ', *config)
    assert 'small.py describes no BEVDet occ' in line and 'is LSSViewTransformer, theirs' in line
    write_checkpoint(tmp_path / 'part.pth', {'occ_head.predicter.0.bias': torch.ones(4)}, {})
    line = complaint(tmp_path / 'part.pth', tmp_path / 'x.pth', '--to', 'bevdet-occ', *config)
    assert 'does not fit small.py' in line and 'missing' in line
    assert not (tmp_path / 'x.pth').exists()


def test_anothers_occ_head_is_not_ours(files, tool, complaint, capsys, tmp_path):
    write_checkpoint(tmp_path / 'x.pth', {
        'img_backbone.conv1.weight': torch.ones(4, 3, 7, 7),
        'img_view_transformer.depth_net.weight': torch.ones(1), 'occ_head.final_conv.conv.weight':
        torch.ones(4, 4, 3, 3), 'occ_head.transformer.layers.0.weight': torch.ones(1)}, {})
    for arguments in ([], [tmp_path / 'y.pth', '--config', files / 'small.py'],
                      [tmp_path / 'y.pth', '--to', 'torchvision']):
        assert "looks like another project's occupancy network" in complaint(
            tmp_path / 'x.pth', *arguments)
    from langocc.apis import init_model  # a head of a person's own, which the recipe names
    state = init_model(Config.fromfile(files / 'small.py')).state_dict()
    own = {**state, 'occ_head.mine.weight': torch.ones(1)}
    write_checkpoint(tmp_path / 'own.pth', own, {})
    assert "another project's" in complaint(tmp_path / 'own.pth', tmp_path / 'y.pth', '--to',
                                            'torchvision', '--config', files / 'small.py')
