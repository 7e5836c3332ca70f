"""OccInferencer and LanguageIndex: language is decoded once, infos are made on demand."""
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.model import BaseModel
from nusc_factory import CAMERAS, DATA_CONFIG

from langocc.apis import OccInferencer, QueryResult, save_query
from langocc.apis.language_index import index_field
from langocc.datasets import NuScenesOccDataset
from langocc.teachers import TextEmbeddings, fit_reducer

WORDS = ['car', 'tree', 'wall', 'road']


@MODELS.register_module()
class PictureDetector(BaseModel):
    """Any detector with a volume can carry the head: this one's is a function of the images."""

    def __init__(self, occ_head, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.occ_head = MODELS.build(occ_head)

    def extract_field(self, batch):
        volume = 3 * torch.randn(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        return self.occ_head(volume + batch['imgs'].mean(dim=(1, 2, 3, 4, 5)).view(-1, 1, 1, 1, 1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        raise NotImplementedError


@pytest.fixture
def config(tiny_root):
    rows = np.random.default_rng(0).standard_normal((4, 6))
    np.savez(tiny_root / 'text.npz', all=rows / np.linalg.norm(rows, axis=1, keepdims=True))
    (tiny_root / 'text.json').write_text(json.dumps(dict(all=WORDS)))
    (tiny_root / 'words.txt').write_text('car: car\nvegetation: tree\nmanmade: wall\n')
    text_encoder = dict(type='TextEmbeddings', files=str(tiny_root / 'text.npz'))
    head = dict(
        type='LangOccHead', in_channels=3, feat_channels=8, reducer=dict(dims=(6, 5)),
        grid=dict(point_cloud_range=[-4, -4, -1, 4, 4, 1], voxel_size=[1., 1., 0.5]),
        density_decoder=dict(type='DensityDecoder', hidden_channels=8),
        decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=5, num_hidden=0)),
        renderer=dict(type='VolumeRenderer', far=8., num_proposal_samples=10, num_samples=12),
        losses=dict(), vocabulary=dict(type='Vocabulary', path=str(tiny_root / 'words.txt'),
                                       text_encoder=text_encoder))
    pipeline = [dict(type='PrepareImageInputs', data_config=DATA_CONFIG),
                dict(type='PackOccInputs')]
    dataset = dict(
        type='NuScenesOccDataset', data_root=str(tiny_root), ann_file='tiny_infos_all.json',
        camera_names=list(CAMERAS), ray_frame_ids=list(range(-12, 13)), pipeline=pipeline,
        test_mode=True)
    model = dict(type='PictureDetector', occ_head=head,
                 data_preprocessor=dict(type='OccDataPreprocessor'))
    return Config(dict(model=model, test_dataloader=dict(dataset=dataset),
                       text_encoder=text_encoder))


@pytest.fixture
def inferencer(config):
    inferencer = OccInferencer(config, device='cpu')
    densities = inferencer.field(0)[0].densities
    inferencer.model.occ_head.density_threshold = densities.median().item()  # half the voxels
    return inferencer


@pytest.fixture
def decoded(inferencer, monkeypatch):
    """Numbers of voxels that the language decoder is run on, one a call."""
    calls = []
    decoder = inferencer.model.occ_head.language_decoder
    handle = decoder.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    yield calls
    handle.remove()


def test_no_info_is_made_before_a_sample_is_asked_for(config, monkeypatch):
    made = []
    make = NuScenesOccDataset.get_data_info
    monkeypatch.setattr(NuScenesOccDataset, 'get_data_info',
                        lambda self, index: (made.append(index), make(self, index))[1])
    inferencer = OccInferencer(config, device='cpu')
    assert made == []
    result, = inferencer(['scene-b-1'])['predictions']
    assert result.token == 'scene-b-1' and set(made) == {4}
    assert inferencer([-2])['predictions'][0].token == 'scene-b-1'
    with pytest.raises(KeyError, match="sample 'scene-c-0' is not in .*tiny_infos_all.json"):
        inferencer(['scene-c-0'])


def test_a_sample_is_the_same_by_token_of_a_subset(config):
    config.test_dataloader.dataset.indices = [5, 1]
    inferencer = OccInferencer(config, device='cpu')
    assert [inferencer.dataset.get_token(i) for i in (0, 1, -1)] == [
        'scene-b-2', 'scene-a-1', 'scene-a-1']
    assert inferencer.field('scene-a-1')[1]['token'] == 'scene-a-1'


def test_a_query_decodes_each_voxel_once_and_agrees_with_the_head(inferencer, decoded):
    result, = inferencer([0], words=['car', 'road'])['predictions']
    num = len(result.voxel_indices)
    assert 0 < num < 256 and decoded[0] == num
    assert num not in decoded[1:]  # the cameras' rays decode their own
    head, (field, _) = inferencer.model.occ_head, inferencer.field(0)
    ids = field.occupied(0, head.density_threshold)
    similarity = head.query(field, 0, ids, inferencer.embed(['car', 'road']))
    np.testing.assert_array_equal(result.similarity, similarity.detach().numpy())
    semantics = head.predict_by_field(field)[0].semantics.numpy()
    x, y, z = result.voxel_indices.T
    np.testing.assert_array_equal(result.classes, semantics[x, y, z])
    assert (semantics != 17).sum() == num and len(set(result.classes)) > 1
    assert set(result.cameras) == set(result.images) == set(CAMERAS)
    assert result.cameras['CAM_FRONT'].shape[0] == 2
    shape = result.cameras['CAM_FRONT'].shape
    assert result.camera_relevancy['CAM_FRONT'].shape == shape
    assert result.opacities['CAM_FRONT'].shape == shape[1:]
    assert result.relevancy.shape == (num, 2) and result.word_classes[0] == 4
    # A word wins where the vocabulary's nearest is of its class.
    np.testing.assert_array_equal(result.relevancy[:, 0] > 0.5, result.classes == 4)


def test_an_index_answers_many_words_without_the_network(inferencer, decoded, tmp_path):
    asked, = inferencer([1], words=WORDS)['predictions']
    decoded.clear()
    index = inferencer.index(1)
    assert decoded == [len(index)] and index.feats.shape == (len(index), 5)
    np.testing.assert_array_equal(index.similarity(WORDS), asked.similarity)
    np.testing.assert_array_equal(index.similarity('tree'), index.similarity(['tree']))
    assert index.similarity([]).shape == (len(index), 0)
    with pytest.raises(KeyError, match="'tee'.*tree"):
        index.similarity(['tee'])
    assert decoded == [len(index)]
    content = pickle.dumps(index)
    assert b'PictureDetector' not in content and b'LanguageDecoder' not in content
    np.testing.assert_array_equal(pickle.loads(content).similarity(WORDS), asked.similarity)
    result = QueryResult.from_index(index, 'tree')
    assert result.words == ('tree', ) and result.cameras == {}
    files = save_query(result, tmp_path / 'out')
    assert [file.suffix for file in files] == ['.npz', '.ply', '.png']


def test_half_precision_is_stored_but_not_multiplied(inferencer):
    full, half = inferencer.index(0), inferencer.index(0, dtype=torch.float16)
    assert half.feats.dtype == torch.float16 and half.feats.shape == full.feats.shape
    np.testing.assert_array_equal(half.classes, full.classes)
    exact = half.feats.double() @ half.embed(WORDS).double().t()
    found = half.similarity(WORDS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact.numpy(), atol=1e-6)  # a half holds 5e-4 of a cosine
    np.testing.assert_allclose(found, full.similarity(WORDS), atol=1e-3)


def test_models_without_language_give_occupancy_and_say_what_words_need(config):
    config.model.occ_head.update(reducer=None, vocabulary=None)
    config.model.occ_head.decoders = dict(rgb=dict(type='RGBDecoder'))
    inferencer = OccInferencer(config, device='cpu')
    result, = inferencer([0])['predictions']
    assert result.similarity.shape == (len(result.voxel_indices), 0) and not result.classes.any()
    with pytest.raises(ValueError, match="need the decoder 'lang'"):
        inferencer([0], words=['car'])
    config.text_encoder = None
    with pytest.raises(ValueError, match='need text_encoder'):
        OccInferencer(config, device='cpu').embed(['car'])


def test_an_empty_field_has_no_voxels_to_ask(inferencer, config):
    head, (field, _) = inferencer.model.occ_head, inferencer.field(0)
    head.density_threshold = 9.
    encoder = TextEmbeddings(config.text_encoder.files)
    for dtype in (torch.float32, torch.float16):
        index = index_field(head, field, 0, 'token', encoder, dtype)
        assert len(index) == 0 and index.similarity(WORDS).shape == (0, 4)


def test_a_vocabulary_of_another_encoder_than_the_reducers_is_warned_of(monkeypatch):
    said = []
    monkeypatch.setattr('langocc.apis.inferencer.print_log', lambda text, *_: said.append(text))
    generator = torch.Generator().manual_seed(0)
    own, other = (torch.nn.functional.normalize(
        torch.randn(40, 64, generator=generator) @ torch.randn(64, 512, generator=generator))
        for _ in range(2))
    inferencer = OccInferencer.__new__(OccInferencer)
    head = SimpleNamespace(reducer=fit_reducer(own, dims=128)[0])
    inferencer.model = SimpleNamespace(occ_head=head)
    for rows, warned in ((own, False), (other, True)):
        head.vocabulary = SimpleNamespace(text_embeds=rows)
        inferencer._check_words()
        assert bool(said) == warned
    assert 'words will not find their things' in said[0]


def test_answers_of_random_weights_are_warned_of(config, monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr('langocc.apis.inferencer.print_log', lambda text, *_: said.append(text))
    model = OccInferencer(config, device='cpu', optimize=False).model
    assert len(said) == 1 and 'random weights' in said.pop()
    checkpoint = tmp_path / 'model.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    OccInferencer(config, str(checkpoint), device='cpu')
    assert said == []
