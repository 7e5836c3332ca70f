"""From CLIP's weights to answers: embed_text.py writes a file, query.py answers any text.

The weights are a tiny random CLIP made here; the data set is a few kilobytes. What is asked goes
through the file's rows, CLIP, the vocabulary, the network and the tools as users call them.
"""
import runpy
import socket
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.model import BaseModel

pytest.importorskip('open_clip')
GRID = dict(point_cloud_range=[-4, -4, -1, 4, 4, 1], voxel_size=[1., 1., 0.5])


@MODELS.register_module()
class StillDetector(BaseModel):
    """A detector whose volume is the same for every image."""

    def __init__(self, occ_head, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.occ_head = MODELS.build(occ_head)

    def extract_field(self, batch):
        return self.occ_head(3 * torch.randn(1, 3, 4, 8, 8, device=batch['imgs'].device,
                                             generator=torch.Generator().manual_seed(0)))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        raise NotImplementedError


@pytest.fixture
def run(repository, monkeypatch, capsys):
    """Runs a tool as a user does; its output, or its one line of complaint."""
    def call(tool, *arguments, fails=False):
        monkeypatch.setattr(sys, 'argv', [tool, *(str(argument) for argument in arguments)])
        path = str(repository / 'tools' / tool)
        if not fails:
            runpy.run_path(path, run_name='__main__')
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as error:
            runpy.run_path(path, run_name='__main__')
        message = capsys.readouterr().err
        assert error.value.code == 2 and len(message.splitlines()) == 1
        return message
    return call


@pytest.fixture
def world(repository, tmp_path, monkeypatch):
    """Data, two CLIPs, and an environment that knows none of them."""
    def refuse(*args, **kwargs):
        raise AssertionError('the network was asked')
    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.syspath_prepend(str(repository / 'tests' / 'unit'))
    for name in ('HF_HOME', 'HF_HUB_CACHE', 'LANGOCC_TEXT_CACHE'):
        monkeypatch.setenv(name, str(tmp_path / 'cache'))
    monkeypatch.delenv('LANGOCC_CLIP_WEIGHTS', raising=False)
    from nusc_factory import VERSION, NuScenesFactory
    from tiny_clip import tiny_clip, write_folder

    from langocc.datasets.nuscenes_prepare import prepare_infos
    root = NuScenesFactory(tmp_path / 'data').write().root
    prepare_infos(root, VERSION, root, splits='all', prefix='tiny')
    for seed, name in enumerate(('clip', 'other')):
        write_folder(tmp_path / name, tiny_clip(seed=seed).state_dict())
    return tmp_path


def write_config(world):
    """A config as the recipes have it: one text encoder, for the vocabulary and for queries."""
    from nusc_factory import CAMERAS, DATA_CONFIG
    (world / 'vocabulary.txt').write_text('car: car, rusty lorry\nvegetation: tree\n')
    text = dict(type='TextEmbeddings', files=str(world / 'text.npz'))
    head = dict(
        type='LangOccHead', in_channels=3, feat_channels=8, grid=GRID,
        density_decoder=dict(type='DensityDecoder', hidden_channels=8),
        decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=24, num_hidden=0)),
        renderer=dict(type='VolumeRenderer', far=8., num_proposal_samples=10, num_samples=12),
        losses=dict(), density_threshold=0., vocabulary=dict(
            type='Vocabulary', path=str(world / 'vocabulary.txt'), text_encoder=text))
    dataset = dict(
        type='NuScenesOccDataset', data_root=str(world / 'data'), ann_file='tiny_infos_all.json',
        camera_names=list(CAMERAS), test_mode=True,
        pipeline=[dict(type='PrepareImageInputs', data_config=DATA_CONFIG),
                  dict(type='PackOccInputs')])
    model = dict(type='StillDetector', occ_head=head,
                 data_preprocessor=dict(type='OccDataPreprocessor'))
    config = Config(dict(model=model, test_dataloader=dict(dataset=dataset), text_encoder=text))
    config.dump(world / 'config.py')
    return world / 'config.py'


def test_any_text_from_weights_to_answers(world, run, monkeypatch):
    from langocc.apis import OccInferencer
    from langocc.teachers import ClipTextEncoder
    words = ['car', 'tree', 'traffic light']
    message = run('embed_text.py', '--words', 'car', '--out', world / 'text.npz', fails=True)
    assert 'no CLIP weights' in message
    output = run('embed_text.py', '--weights', world / 'clip', '--words', *words, '--out',
                 world / 'text.npz')
    assert '85 templates' in output and 'words: 3 x 24' in output
    config = write_config(world)
    torch.manual_seed(0)
    query = ('query.py', config, world / 'model.pth', '--out-dir', world / 'out', '--device', 'cpu',
             '--words')
    message = run(*query, 'car', fails=True)
    assert 'model.pth' in message
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(world / 'clip'))
    model = OccInferencer(Config.fromfile(config), device='cpu', optimize=False).model
    torch.save(model.state_dict(), world / 'model.pth')
    free = 'what is that? a/b'
    output = run(*query, 'tree', free)
    assert f"{free!r}: highest cosine" in output
    with np.load(next((world / 'out').glob('*.npz'))) as answers:
        similarity, ids = answers['similarity'], answers['voxel_indices']
    assert len(list((world / 'out').glob('*_what_is_that_a_b.p*'))) == 2
    inferencer = OccInferencer(Config.fromfile(config), str(world / 'model.pth'), 'cpu')
    text = ClipTextEncoder(world / 'clip', templates='clip85').encode(['tree', free])
    feats = inferencer.index(0).feats
    assert len(feats) == len(ids) == 8 * 8 * 4
    np.testing.assert_allclose(similarity, (F.normalize(feats, dim=1) @ text.T).numpy(), atol=1e-4)
    # the vocabulary's prompt that is in no file is CLIP's, too
    vocabulary = inferencer.model.occ_head.vocabulary
    torch.testing.assert_close(
        vocabulary.text_embeds, ClipTextEncoder(world / 'clip', templates='clip85').encode(
            ['car', 'rusty lorry', 'tree']), atol=1e-5, rtol=1e-5)


def test_words_are_refused_without_the_clip_that_made_the_file(world, run, monkeypatch):
    run('embed_text.py', '--weights', world / 'clip', '--templates', 'photo', '--words', 'car',
        'tree', 'rusty lorry', '--out', world / 'text.npz')
    from langocc.apis import OccInferencer
    config = write_config(world)
    model = OccInferencer(Config.fromfile(config), device='cpu', optimize=False).model
    torch.save(model.state_dict(), world / 'model.pth')
    query = ('query.py', config, world / 'model.pth', '--device', 'cpu', '--words')
    message = run(*query, 'care', fails=True)
    assert "'care': ['car'" in message and 'LANGOCC_CLIP_WEIGHTS' in message
    monkeypatch.setenv('LANGOCC_CLIP_WEIGHTS', str(world / 'other'))
    assert 'did not make these rows' in run(*query, 'care', fails=True)
    (world / 'other/open_clip_model.safetensors').unlink()
    (world / 'other/open_clip_pytorch_model.bin').write_text('no weights')
    message = run(*query, 'care', fails=True)
    assert 'model.bin is no checkpoint of tensors: torch did not write it' in message
    assert 'weights_only' not in message  # torch's advice to load it unsafely


def test_broken_checkpoints_are_one_line(world, run):
    run('embed_text.py', '--weights', world / 'clip', '--words', 'car', 'tree', 'rusty lorry',
        '--out', world / 'text.npz')
    config, checkpoint = write_config(world), world / 'model.pth'
    query = ('query.py', config, checkpoint, '--device', 'cpu', '--words', 'car')
    for content, complaint in ((b'no weights', 'is no file of weights: torch did not write it'),
                               (b'', 'cannot be loaded: it is empty or cut short')):
        checkpoint.write_bytes(content)
        assert f'checkpoint {checkpoint} {complaint}' in run(*query, fails=True)
    torch.save(dict(state_dict=dict(x=torch.zeros(1))), checkpoint)
    message = run(*query, fails=True)
    assert 'model.pth is not of this model: tensors missing: ' in message
    assert '; unknown: 1 (x). Expected ' in message
