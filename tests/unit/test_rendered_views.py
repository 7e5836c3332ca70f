"""A field of known content rendered into cameras: distances, opacities, classes, colours."""
import numpy as np
import pytest
import torch
from test_label_views import rig
from torch import nn

from langocc.models.voxel_field import VoxelField
from langocc.visualization import (
    feature_colors, fit_color_basis, fit_feature_basis, has_field, label_camera_views,
    render_camera_views
)
from langocc.visualization.rendered_views import rendered_classes
from voxelrender import FieldRenderer, MarchConfig, RayDecoder, VoxelGrid

GRID = VoxelGrid(point_cloud_range=(-10., -10., -1., 10., 10., 3.), voxel_size=(0.5, 0.5, 0.5))
CAR, WALL, FREE = 4, 15, 17


class Words:
    """A vocabulary of two prompts: the first feature channel says car, the second wall."""
    text_embeds = torch.eye(2)
    prompt_to_class = torch.tensor([CAR, WALL])
    class_names = range(17)

    def classify(self, feats, text_embeds):
        return torch.tensor([CAR, WALL], dtype=torch.uint8)[(feats @ text_embeds.T).argmax(-1)]


class Head:
    """What `render_camera_views` asks of a head; a voxel's features are its language and colour."""
    vocabulary = Words()
    decoder_names = ('lang', 'rgb')

    def __init__(self):
        self.renderer = FieldRenderer(MarchConfig(far=20., num_proposal_samples=160,
                                                  num_samples=100))

    def reduce(self, embeds):
        return embeds

    def render(self, field, rays, outputs):
        decoders = dict(lang=RayDecoder(lambda feats: feats[:, :2]),
                        rgb=RayDecoder(lambda feats: feats[:, 2:]))
        return self.renderer(field, rays, {name: decoders[name] for name in outputs})


def wall_field(batch=1):
    """Opaque from x = 6 on: a car's colour and word to the left (y > 0), a wall's to the right."""
    x, y, _ = GRID.voxel_centers().unbind(-1)
    densities = torch.where(x > 6, 200., 0.)
    left = (y > 0).float()
    red, half = torch.ones_like(x), torch.full_like(x, 0.5)
    feats = torch.stack([left, 1 - left, red, half * left, 2 * red - 2], 0)
    return VoxelField(feats[None].repeat(batch, 1, 1, 1, 1), densities[None].repeat(batch, 1, 1, 1),
                      GRID)


@pytest.fixture(scope='module')
def maps():
    return render_camera_views(Head(), wall_field(), rig(FRONT=0., BACK=180.), width=21)['FRONT']


def test_an_opaque_wall_is_seen_at_its_distance(maps):
    # The camera stands at (0, 0.5, 0.5). Density is interpolated between x = 5.75 and 6.25.
    assert maps.opacities[5, 10] == pytest.approx(1, abs=1e-3)
    assert maps.distances[5, 10] == pytest.approx(5.85, abs=0.15)
    slant = np.hypot(1, 0.6)
    assert maps.distances[5, 16] == pytest.approx(slant * maps.distances[5, 10], rel=0.02)
    # Rays upwards leave the grid at z = 3 before the wall.
    assert np.isnan(maps.distances[0, 10]) and maps.opacities[0, 10] == 0
    assert maps.classes[0, 10] == FREE


def test_rendered_and_cast_distances_agree(maps):
    semantics = np.full(GRID.grid_shape, FREE, np.uint8)
    semantics[32:] = WALL
    cast = label_camera_views(semantics, GRID, rig(FRONT=0.), 21)['FRONT']
    both = np.isfinite(cast.distances) & np.isfinite(maps.distances)
    assert both.sum() > 60
    assert np.abs(cast.distances - maps.distances)[both].max() < 0.4


def test_classes_and_colours_are_those_of_what_is_met(maps):
    row = maps.classes[5]
    assert (row[:10] == CAR).all() and (row[12:] == WALL).all()  # y = 0 lies at pixel 10.8
    assert maps.rgb.shape == (11, 21, 3) and maps.feats.shape == (11, 21, 2)
    assert maps.class_feats[[CAR, WALL]].tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(maps.rgb[5, 2], [1, 0.5, 0], atol=1e-2)
    np.testing.assert_allclose(maps.rgb[5, 18], [1, 0, 0], atol=1e-2)
    assert (maps.rgb[0, 10] == 0).all()


def test_what_is_not_there_or_behind_is_free():
    back = render_camera_views(Head(), wall_field(), rig(BACK=180.), 8)['BACK']
    assert (back.opacities == 0).all() and (back.classes == FREE).all()


def test_thin_haze_meets_nothing_at_a_higher_opacity():
    haze = wall_field()
    haze = VoxelField(haze.feats, torch.full_like(haze.densities, 0.05), GRID)
    seen = render_camera_views(Head(), haze, rig(FRONT=0.), 5, min_opacity=0.1)['FRONT']
    unseen = render_camera_views(Head(), haze, rig(FRONT=0.), 5, min_opacity=0.9)['FRONT']
    assert 0.1 < seen.opacities[1, 2] < 0.9
    assert np.isfinite(seen.distances[1, 2]) and np.isnan(unseen.distances[1, 2])
    assert seen.classes[1, 2] != FREE and unseen.classes[1, 2] == FREE


def test_one_item_of_a_batch_and_a_flipped_frame(maps):
    field = wall_field(batch=2)
    densities = field.densities.clone()
    densities[0] = 0
    field = VoxelField(field.feats, densities, GRID)
    second = render_camera_views(Head(), field, rig(FRONT=0.), 21, index=1)['FRONT']
    np.testing.assert_array_equal(second.distances, maps.distances)
    with pytest.raises(IndexError, match='2'):
        render_camera_views(Head(), field, rig(FRONT=0.), 21, index=2)
    flip = torch.diag(torch.tensor([-1., 1., 1., 1.]))
    back = render_camera_views(Head(), wall_field(), rig(BACK=180.), 21, bev_aug_matrix=flip)
    np.testing.assert_allclose(back['BACK'].distances[:, ::-1][5, 8:13], maps.distances[5, 8:13],
                               atol=0.05)


def test_semantic_logits_name_classes_without_a_vocabulary():
    class Plain:
        vocabulary = None

    logits = torch.eye(17)[[3, 16]]
    assert rendered_classes(Plain(), dict(semantic=logits)).tolist() == [3, 16]
    assert rendered_classes(Plain(), dict(rgb=torch.zeros(2, 3))).tolist() == [0, 0]


def test_only_a_head_that_renders_has_a_field():
    class Detector(nn.Module):
        def extract_field(self, batch):
            raise NotImplementedError

    model = Detector()
    assert not has_field(model)
    model.occ_head = nn.Identity()
    assert not has_field(model)
    model.occ_head.render = lambda *args: None
    assert has_field(model) and not has_field(nn.Identity())


def test_feature_colours_are_stable():
    rng = np.random.default_rng(0)
    feats = rng.normal(size=(300, 8)) * [5, 3, 2, .1, .1, .1, .1, .1] @ \
        np.linalg.qr(rng.normal(size=(8, 8)))[0]
    basis = fit_feature_basis(feats)
    np.testing.assert_allclose(basis.axes @ basis.axes.T, np.eye(3), atol=1e-12)
    assert (basis.axes[np.arange(3), np.abs(basis.axes).argmax(1)] > 0).all()
    spread = (feats - feats.mean(0)) @ basis.axes.T
    assert spread.std(0)[0] > spread.std(0)[1] > spread.std(0)[2] > 1
    colors = feature_colors(feats, basis)
    assert colors.dtype == np.uint8 and colors.shape == (300, 3)
    order = rng.permutation(300)
    again = feature_colors(feats, fit_feature_basis(feats[order]))
    noisy = feature_colors(feats, fit_feature_basis(feats + rng.normal(size=feats.shape) * 1e-3))
    assert np.abs(again.astype(int) - colors).max() <= 1
    assert np.abs(noisy.astype(int) - colors).max() <= 3
    assert (colors.min(0) == 0).all() and (colors.max(0) == 255).all()


def test_features_get_the_colours_asked_for_and_mix_them():
    rng = np.random.default_rng(1)
    feats = rng.normal(size=(17, 40))
    colors = rng.integers(0, 256, (17, 3))
    basis = fit_color_basis(feats, colors)
    assert (feature_colors(feats, basis) == colors).all()
    middle = feature_colors(feats[:1] * 0.25 + feats[1:2] * 0.75, basis).astype(float)
    assert np.abs(middle - (colors[:1] * 0.25 + colors[1:2] * 0.75)).max() <= 1
    # Of two that hardly differ none is made so much brighter that noise would be seen.
    twins = np.concatenate([feats, feats[:1] + 1e-3 * rng.normal(size=(1, 40))])
    basis = fit_color_basis(twins, np.concatenate([colors, 255 - colors[:1]]))
    noisy = feature_colors(twins[[0, -1]] + 0.01 * rng.normal(size=(2, 40)), basis).astype(float)
    assert np.abs(noisy - 127.5).max() <= 6
    with pytest.raises(ValueError, match=r'\(16, 3\), expected \(17, 3\)'):
        fit_color_basis(feats, colors[1:])


def test_features_of_few_directions_and_bad_ones():
    line = np.outer(np.linspace(0, 1, 50), [1., 2., 2.])
    colors = feature_colors(line, fit_feature_basis(line))
    assert colors[0, 0] == 0 and colors[-1, 0] == 255 and (colors[:, 1:] == 128).all()
    same = np.ones((4, 2))
    assert (feature_colors(same, fit_feature_basis(same)) == 128).all()
    for bad in (np.zeros((0, 3)), np.zeros(3), np.full((2, 3), np.nan)):
        with pytest.raises(ValueError, match='finite'):
            fit_feature_basis(bad)
        with pytest.raises(ValueError, match='finite'):
            fit_color_basis(bad, np.zeros((len(bad), 3)))
