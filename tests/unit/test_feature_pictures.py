"""The picture of language features: its colours mean classes, and the truth is beside them."""
import numpy as np
import pytest
import torch
from test_label_views import rig

from langocc.visualization import OCC3D_GRID, OCC3D_PALETTE, CameraMaps, SamplePictures
from langocc.visualization.camera_tables import draw_features
from langocc.visualization.rendered_views import class_features

CAR, ROAD, WALL, TREE, FREE = 4, 11, 15, 16, 17
WIDTH = 640


def texts():
    """(17, 8) unit rows of four classes; the others have no word."""
    rows = np.full((17, 8), np.nan, np.float32)
    rows[[CAR, ROAD, WALL, TREE]] = np.eye(8)[:4]
    return rows


def maps(left, right, feats=False):
    """A camera that sees one class in its left half, another in its right half."""
    classes = np.full((12, 21), left, np.uint8)
    classes[:, 11:] = right
    met = (classes != FREE).astype(np.float32)
    rows = np.nan_to_num(np.concatenate([texts(), np.zeros((1, 8), np.float32)]))
    return {'FRONT': CameraMaps(np.where(met > 0, 5., np.nan).astype(np.float32), met, classes,
                                rows[classes] if feats else None,
                                class_feats=texts() if feats else None)}


def sample(predicted, true=None):
    images = {'FRONT': np.zeros((11, 21, 3), np.uint8)}
    return SamplePictures(rig(FRONT=0.), images, OCC3D_GRID, predicted_maps=predicted,
                          true_maps=true, rendered=True)


def halves(picture):
    """Colour in the middle of each half of each row of the camera's column."""
    height = round((WIDTH - 112 - 6) * 11 / 21)
    tops = range(57, picture.shape[0] - height + 1, height + 6)
    left, right = 118 + WIDTH // 6, 118 + WIDTH * 4 // 6
    return [(tuple(picture[top + height // 2, left]), tuple(picture[top + height // 2, right]))
            for top in tops]


def test_truth_has_the_colours_of_its_classes_text_and_agrees_where_the_prediction_is_right():
    wall, tree = maps(CAR, WALL, feats=True), maps(CAR, TREE)
    picture = draw_features(sample(wall, tree), WIDTH)
    (predicted_car, predicted_wall), (true_car, true_tree) = halves(picture)
    assert predicted_car == true_car and predicted_wall != true_tree
    assert [true_car, true_tree, predicted_wall] == [
        tuple(OCC3D_PALETTE[index]) for index in (CAR, TREE, WALL)]  # as in all other pictures
    key = picture[-30:].reshape(-1, 3)
    for color in (true_car, true_tree, predicted_wall):  # each is named
        assert (key == color).all(1).sum() > 100
    assert (halves(draw_features(sample(wall, maps(CAR, WALL)), WIDTH))[0]
            == halves(draw_features(sample(wall, maps(CAR, WALL)), WIDTH))[1])


def test_what_is_not_known_is_not_shown():
    unlabelled = draw_features(sample(maps(CAR, WALL, feats=True)), WIDTH)
    labelled = draw_features(sample(maps(CAR, WALL, feats=True), maps(CAR, FREE)), WIDTH)
    assert len(halves(unlabelled)) == 1 and len(halves(labelled)) == 2
    assert draw_features(sample(None, maps(CAR, WALL)), WIDTH) is None
    nameless = maps(CAR, WALL, feats=True)
    nameless['FRONT'].class_feats = None
    assert len(halves(draw_features(sample(nameless, maps(CAR, WALL)), WIDTH))) == 1
    # A label without a word (7) is mid-grey.
    assert halves(draw_features(sample(maps(CAR, WALL, feats=True), maps(CAR, 7)), WIDTH))[1][
        1] == (128, 128, 128)


def test_a_class_is_the_mean_of_its_words_in_the_models_space():
    class Head:
        class vocabulary:
            text_embeds = torch.tensor([[2., 0., 0.], [0., 2., 0.], [0., 0., 1.]])
            prompt_to_class = torch.tensor([CAR, CAR, TREE])
            class_names = range(17)

        def reduce(self, embeds):
            return embeds[:, [1, 0, 2]] * torch.tensor([3., 1., 1.])

    rows = class_features(Head(), torch.device('cpu'))
    np.testing.assert_allclose(rows[CAR], [0.5**0.5, 0.5**0.5, 0.], atol=1e-6)
    np.testing.assert_allclose(rows[TREE], [0., 0., 1.], atol=1e-6)
    assert rows.shape == (17, 3) and np.isfinite(rows).all(1).sum() == 2
    Head.vocabulary = None
    assert class_features(Head(), torch.device('cpu')) is None


@pytest.mark.parametrize('left, right', [(CAR, CAR), (FREE, FREE)])
def test_few_classes_or_none_are_drawn(left, right):
    picture = draw_features(sample(maps(left, right, feats=True), maps(left, right)), WIDTH)
    assert (picture is None) == (left == FREE)
