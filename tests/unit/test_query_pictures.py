"""Words against a vocabulary's, and what their pictures show: one scale, and the labels."""
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image
from plyfile import PlyData
from test_label_views import rig

from langocc.apis import QueryResult, save_query
from langocc.apis.language_index import LanguageIndex
from langocc.apis.query_pictures import TRUTH_COLOR, color_limits, draw_query, read_truth
from langocc.apis.relevancy import Contrast
from langocc.visualization import similarity_colors
from voxelrender import VoxelGrid

CAR, ROAD, TREE, FREE = 4, 11, 16, 17
GRID = VoxelGrid(point_cloud_range=(-10., -10., -1., 10., 10., 3.), voxel_size=(1., 1., 1.))
# Prompts: car, van (a car, too), road, tree. Words lie in a narrow cone.
PROMPTS = torch.nn.functional.normalize(
    torch.tensor([[5., 1, 0, 0], [5., 1, .2, 0], [5., 0, 1, 0], [5., 0, 0, 1]]), dim=-1)
CONTRAST = Contrast(PROMPTS, torch.tensor([CAR, CAR, ROAD, TREE]))
WORDS = dict(car=PROMPTS[0], road=PROMPTS[2], tree=PROMPTS[3])


class Encoder:
    """Embeds the words above."""

    def embed(self, words):
        return torch.stack([WORDS[word] for word in ([words] if isinstance(words, str) else words)])


@pytest.fixture
def index():
    """Three voxels: a car's, a road's, and one between car and van; nothing is a tree."""
    feats = torch.stack([PROMPTS[0], PROMPTS[2], PROMPTS[:2].mean(0)])
    cells = np.array([[16, 10, 1], [12, 10, 0], [16, 4, 1]])
    return LanguageIndex('t', GRID, cells, np.array([CAR, ROAD, CAR], np.uint8),
                         torch.nn.functional.normalize(feats, dim=-1), Encoder(), None, CONTRAST)


def test_a_word_is_held_against_the_words_of_other_classes(index):
    relevancy = index.relevancy(['car', 'tree'])
    cosines = index.feats @ PROMPTS.t()
    expected = 1 / (1 + np.exp(-100 * (cosines[:, 0] - cosines[:, 2:].amax(1)).numpy()))
    np.testing.assert_allclose(relevancy[:, 0], expected, atol=1e-5)
    assert relevancy[0, 0] > 0.9 and relevancy[1, 0] < 0.1 and relevancy[2, 0] > 0.9  # van: a car
    assert (index.similarity('tree') > 0.9).all() and (relevancy[:, 1] < 0.1).all()
    # What a word gets does not depend on the others that are asked; at a tie it is a half.
    np.testing.assert_array_equal(index.relevancy('car')[:, 0], relevancy[:, 0])
    between = torch.nn.functional.normalize(PROMPTS[[0, 2]].mean(0, keepdim=True), dim=-1)
    assert CONTRAST.relevancy(between, PROMPTS[:1])[0, 0] == pytest.approx(0.5, abs=1e-4)
    assert CONTRAST.relevancy(between[:0].half(), PROMPTS[:2]).shape == (0, 2)
    assert CONTRAST.classes_of(PROMPTS[[1, 3]]).tolist() == [CAR, TREE]


def test_a_vocabulary_of_one_class_or_none_has_nothing_to_hold_against(index):
    class Head:
        vocabulary = None

        def reduce(self, embeds):
            return embeds

    assert Contrast.of(Head(), torch.device('cpu')) is None
    Head.vocabulary = type('V', (), dict(text_embeds=PROMPTS[:2],
                                         prompt_to_class=torch.tensor([CAR, CAR])))
    assert Contrast.of(Head(), torch.device('cpu')) is None
    Head.vocabulary.prompt_to_class = torch.tensor([CAR, ROAD])
    assert torch.allclose(Contrast.of(Head(), torch.device('cpu')).embeds, PROMPTS[:2])
    index.contrast = None
    result = QueryResult.from_index(index, ['car', 'tree'])
    assert result.relevancy is None and result.word_classes == ()
    # One range for all words, not each its own.
    low, high = color_limits(result)
    np.testing.assert_allclose([low, high], np.percentile(result.similarity, [5, 99.5]), rtol=1e-6)


@pytest.fixture
def result(index, tmp_path):
    """Answers with one camera, and labels: a car at the first voxel's place and one not found."""
    semantics = np.full(GRID.grid_shape, FREE, np.uint8)
    semantics[16, 10, 1] = semantics[2, 17, 1] = CAR
    np.savez(tmp_path / 'labels.npz', semantics=semantics, mask_camera=semantics < 18,
             mask_lidar=semantics < 18)
    Image.new('RGB', (210, 110), (90, 90, 90)).save(tmp_path / 'front.png')
    found = QueryResult.from_index(index, ['car', 'tree'])
    found.info = dict(rig(FRONT=0.), occ_path=str(tmp_path / 'labels.npz'))
    found.images['FRONT'] = str(tmp_path / 'front.png')
    found.opacities['FRONT'] = np.ones((11, 21), np.float32)
    found.cameras['FRONT'] = np.full((2, 11, 21), 0.95, np.float32)
    found.camera_relevancy['FRONT'] = np.stack([np.full((11, 21), value) for value in (1., 0.)])
    return found


def pixels(picture, color):
    return int((picture == np.array(color)).all(-1).sum())


def test_an_absent_word_does_not_glow(result):
    bright = similarity_colors(result.relevancy[0, 0])  # of the car's voxel
    car, tree = (draw_query(result, index) for index in (0, 1))
    assert pixels(car, bright) > pixels(tree, bright) + 50
    assert car[60, 100].sum() > tree[60, 100].sum() + 200  # in the camera
    # A transparent ray shows the image.
    result.opacities['FRONT'][:] = 0
    assert (draw_query(result, 0)[60, 100] == 90).all()


def test_labels_are_outlined(result):
    truth = read_truth(result)
    car, tree = (draw_query(result, index, truth) for index in (0, 1))
    assert pixels(car[:300], TRUTH_COLOR) > 40  # the camera
    above = car[310:800, :490]
    assert pixels(above[:240, 200:280], TRUTH_COLOR) > 40  # ahead
    assert pixels(above[340:, :120], TRUTH_COLOR) > 40  # behind, left; the model has no voxel there
    assert pixels(tree, TRUTH_COLOR) == 0  # nothing is labelled so: not in the legend, either
    assert pixels(draw_query(result, 0), TRUTH_COLOR) == 0


def test_what_is_missed_does_not_hide_what_is_there(result):
    plain, labelled = draw_query(result, 0), draw_query(result, 0, read_truth(result))
    panel = slice(330, 900), slice(500, None)
    plain, labelled = (picture[panel].astype(float) for picture in (plain, labelled))
    changed = (plain != labelled).any(-1)
    assert 100 < changed.sum() < changed.size / 4
    glass = (labelled - 0.6 * plain) / 0.4  # no more than that is the missed voxel's
    assert glass.min() > -2 and glass.max() < 257
    blue = glass[changed].mean(0)
    assert blue[2] > blue[0] + 100
    hit = (np.abs(plain - similarity_colors(result.relevancy[0, 0])) < 40).all(-1)
    assert hit.sum() > 20 and not changed[hit].any()  # what is found is as it was


def test_without_labels_on_the_models_grid_pictures_say_so(result, monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', said.append)
    np.savez(result.info['occ_path'], **{name: np.zeros((5, 5, 5)) for name in (
        'semantics', 'mask_lidar', 'mask_camera')})
    assert read_truth(result) is None and '(5, 5, 5)' in said.pop()
    result.info['occ_path'] = '/nowhere/labels.npz'
    assert read_truth(result) is None and '/nowhere/labels.npz' in said.pop()
    result.info['occ_path'] = None
    assert read_truth(result) is None and not said


def test_files_hold_both_numbers(result, tmp_path):
    files = save_query(result, tmp_path / 'out')
    archive = np.load(files[0])
    np.testing.assert_array_equal(archive['relevancy'], result.relevancy)
    np.testing.assert_array_equal(archive['similarity'], result.similarity)
    vertex = PlyData.read(str(files[1]))['vertex']
    np.testing.assert_array_equal(vertex['relevancy'], result.relevancy[:, 0])
    colors = np.stack([vertex[name] for name in ('red', 'green', 'blue')], 1)
    np.testing.assert_array_equal(colors, similarity_colors(result.relevancy[:, 0]))
