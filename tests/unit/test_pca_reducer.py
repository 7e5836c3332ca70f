"""A PCA basis of features: numpy's, streamed, never nan, and used wherever a reducer is."""
import json
import runpy
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from tiny_teachers import TinyDenseTeacher

from langocc.apis.feature_rows import MapFolder, TeacherPixels, open_features, split_images
from langocc.teachers import FeatureMoments, Reducer, fit_pca, moments_of
from voxelrender import RayBundle


def features(count=200, embed_dims=12, spread=0.5):
    """Unit rows about one direction, as CLIP's are, with unequal spread."""
    scales = torch.linspace(1, 0.05, embed_dims)
    rows = torch.randn(embed_dims) + spread * scales * torch.randn(count, embed_dims)
    return F.normalize(rows, dim=1)


def test_the_basis_is_numpys():
    feats = features()
    reducer = fit_pca(moments_of([feats]), 4, dict(source='here'))
    _, singular, right = np.linalg.svd(feats.double().numpy(), full_matrices=False)
    expected = right[:4].T * np.sign(right[:4].T[np.abs(right[:4].T).argmax(0), range(4)])
    np.testing.assert_allclose(reducer.matrix.numpy(), expected, atol=1e-6)
    facts = reducer.metadata
    np.testing.assert_allclose(facts['eigenvalues'], singular[:4]**2 / 200, atol=1e-8)
    assert facts['energy'] == pytest.approx((singular[:4]**2).sum() / 200)
    centred = feats.double().numpy() - feats.double().numpy().mean(0)
    kept = ((centred @ expected)**2).sum() / (centred**2).sum()
    assert facts['explained_variance'] == pytest.approx(kept) and kept < facts['energy'] - 0.01
    assert (facts['method'], facts['centred'], facts['source'], facts['num_features']) == (
        'pca', False, 'here', 200)


def test_streaming_changes_nothing():
    feats = features(3000)
    whole = fit_pca(moments_of([feats]), 5)
    parts = fit_pca(moments_of(part.reshape(10, -1, 12) * (1 + i)
                               for i, part in enumerate(feats.split(500))), 5)
    torch.testing.assert_close(whole.matrix, parts.matrix, rtol=0, atol=1e-6)
    assert whole.metadata['explained_variance'] == pytest.approx(
        parts.metadata['explained_variance'])


def test_cosines_of_what_the_basis_spans_are_kept():
    basis = torch.linalg.qr(torch.randn(12, 3))[0]
    feats, text = F.normalize(torch.randn(50, 3) @ basis.T, dim=1), F.normalize(
        torch.randn(7, 12), dim=1)
    reducer = fit_pca(moments_of([feats]), 3)
    torch.testing.assert_close(reducer.restore(reducer.reduce(feats)), feats, atol=1e-5, rtol=0)
    # A text outside of the span loses length, the same for every feature: no ranking changes.
    cosines, lengths = feats @ text.T, (text @ reducer.matrix).norm(dim=1)
    torch.testing.assert_close(reducer.reduce(feats) @ reducer.reduce(text).T, cosines / lengths,
                               atol=1e-5, rtol=0)
    assert reducer.metadata['energy'] == pytest.approx(1)
    assert reducer.metadata['explained_variance'] == pytest.approx(1)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize('autocast', [False, True])
def test_never_nan(dtype, autocast):
    """All the same, zero among them, fewer than dimensions; and zero rows reduced."""
    same = torch.ones(5, 8).to(dtype)
    same[2] = 0
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        reducer = fit_pca(moments_of([same]), 6)
        assert torch.isfinite(reducer.matrix).all()
        reduced = reducer.reduce(same)
        restored = reducer.restore(reduced)
    assert reducer.metadata['num_empty'] == 1 and reducer.metadata['num_features'] == 4
    assert reducer.metadata['explained_variance'] == 1
    assert reducer.metadata['energy'] == pytest.approx(1)
    assert reduced.dtype == restored.dtype == dtype
    assert (reduced[2] == 0).all() and (restored[2] == 0).all()
    expected = F.normalize(same.double(), dim=1)
    torch.testing.assert_close(restored.double(), expected, atol=5e-3, rtol=0)
    published = Reducer.from_config((8, 4))
    assert torch.isfinite(published.reduce(same)).all()
    assert (reducer.reduce(1e-3 * same)[0] - reduced[0]).abs().max() < 1e-2


def test_half_precision_is_reduced_as_full():
    """Under autocast a product in bfloat16 would be off by 1e-2."""
    feats = features(50, 32)
    reducer = fit_pca(moments_of([feats]), 8)
    exact = reducer.reduce(feats)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(reducer.reduce(feats), exact)


def test_the_loss_of_the_papers_map_is_finite_at_a_pca_basis():
    from langocc.teachers import reducer_loss
    feats = features(20, 8).double()
    for dims in (1, 8):
        matrix = fit_pca(moments_of([feats]), dims).matrix.double().requires_grad_()
        loss = reducer_loss(matrix, feats)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(matrix.grad).all()
    assert loss < 1e-4  # all dimensions: a perfect fit


def test_bad_features_are_named():
    with pytest.raises(ValueError, match=r'shape \(3, 4\), expected \(..., 5\)'):
        FeatureMoments(5).update(torch.zeros(3, 4))
    bad = torch.ones(4, 5)
    bad[1, 2] = torch.nan
    with pytest.raises(ValueError, match='1 of 4 features are not finite'):
        FeatureMoments(5).update(bad)
    with pytest.raises(ValueError, match=r'no features to fit a basis on \(3 are zero\)'):
        fit_pca(moments_of([torch.zeros(3, 5)]), 2)
    with pytest.raises(ValueError, match='no features'):
        moments_of([])
    with pytest.raises(ValueError, match=r'dims is 6, expected 1 \.\.\. 5'):
        fit_pca(moments_of([torch.ones(3, 5)]), 6)


def test_a_head_reduces_targets_text_and_queries_by_it(tmp_path):
    feats = features(300, 12)
    fit_pca(moments_of([feats]), 5).save(tmp_path / 'pca.safetensors')
    head = MODELS.build(dict(
        type='LangOccHead', in_channels=4, feat_channels=8,
        grid=dict(point_cloud_range=[-4, -4, -1, 4, 4, 1], voxel_size=[1., 1., 0.5]),
        density_decoder=dict(type='DensityDecoder', hidden_channels=8),
        decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=5, hidden_channels=8)),
        renderer=dict(type='VolumeRenderer', far=8., num_proposal_samples=10, num_samples=12),
        losses=dict(lang=dict(type='RenderedFeatureLoss', mode='cosine')),
        reducer=str(tmp_path / 'pca.safetensors')))
    assert head.reducer.metadata['method'] == 'pca' and 'reducer.matrix' in head.state_dict()
    field = head(torch.randn(1, 4, 4, 8, 8))
    rays = RayBundle(torch.zeros(20, 3), F.normalize(torch.randn(20, 3), dim=1),
                     targets=dict(lang_feats=feats[:20].half()))
    loss = head.loss_by_field(field, [rays])['loss_lang']
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    text = F.normalize(torch.randn(3, 12), dim=1)
    ids = torch.arange(7)
    similarity = head.query(field, 0, ids, text)
    torch.testing.assert_close(similarity, head.language(field, 0, ids).detach()
                               @ F.normalize(text @ head.reducer.matrix, dim=1).T)


# --------------------------------------------------------------------- the tool

@pytest.fixture
def folder(tmp_path):
    """Twelve maps of one space, in three types of files."""
    root = tmp_path / 'maps'
    root.mkdir()
    feats = features(12 * 30).view(12, 5, 6, 12).permute(0, 3, 1, 2).numpy()
    for index, values in enumerate(feats):
        if index % 3:
            np.save(root / f'{index}.npy', values.astype(np.float16 if index % 3 == 1 else 'f4'))
        else:
            np.savez(root / f'{index}.npz', feats=values)
    return root


@pytest.fixture
def tool(repository, monkeypatch, capsys):
    def run(*arguments):
        path = str(repository / 'tools' / 'fit_reducer.py')
        monkeypatch.setattr(sys, 'argv', [path, *map(str, arguments)])
        runpy.run_path(path, run_name='__main__')
        return capsys.readouterr().out
    return run


def test_the_tool_fits_on_a_folder(tool, folder, tmp_path):
    text = features(4)
    np.savez(tmp_path / 'text.npz', all=text.numpy())
    (tmp_path / 'text.json').write_text(json.dumps(dict(all=list('abcd'))))
    printed = tool('--from-features', folder, '--dims', 9, '--out', tmp_path / 'pca.safetensors',
                   '--text-embeds', tmp_path / 'text.npz')
    facts = Reducer.load(tmp_path / 'pca.safetensors').metadata
    assert facts['num_features'] == 10 * 30 and facts['images_fitted'] == 10
    assert facts['source'] == 'maps' and facts['path'] == str(folder) and len(
        facts['eigenvalues']) == 9
    assert f'{100 * facts["explained_variance"]:.2f} % of their variance' in printed
    assert '2 other images: mean 0.9' in printed and '% keep the nearest of 4 prompts' in printed
    few = tool('--from-features', folder, '--dims', 9, '--out', tmp_path / 'few.safetensors',
               '--images', 3, '--cells', 7)
    assert '21 features of 3 images' in few and '3 of these images' in few


def test_the_tool_fits_on_a_teacher(tool, tiny_root, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f"""
teacher = dict(type='TinyDenseTeacher', embed_dims=6)
train_dataloader = dict(dataset=dict(
    type='NuScenesOccDataset', data_root={str(tiny_root)!r}, ann_file='tiny_infos_all.json',
    camera_names=['CAM_FRONT', 'CAM_BACK'], pipeline=[dict(type='None of this is built')]))
""")
    printed = tool('--from-teacher', config, '--dims', 3, '--cells', 40, '--out',
                   tmp_path / 'pca.safetensors')
    assert '400 features of 10 images, 6 -> 3 dimensions: 100.00 %' in printed  # of three colours
    facts = Reducer.load(tmp_path / 'pca.safetensors').metadata
    assert facts['teacher']['type'] == 'TinyDenseTeacher' and facts['num_images'] == 12
    assert facts['teacher_made_by']['embed_dims'] == 6
    config.write_text('train_dataloader = None')
    with pytest.raises(ValueError, match='`teacher`'):
        TeacherPixels.from_config(config)


def test_sources_name_what_is_wrong(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder .*none'):
        open_features(tmp_path / 'none')
    with pytest.raises(FileNotFoundError, match='manifest.json of a feature store nor a .npy'):
        open_features(tmp_path)
    np.save(folder / '0a.npy', np.zeros((2, 3)))
    source, rng = MapFolder(folder), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r'0a.npy: shape \(2, 3\)'):
        source.rows(1, 5, rng)
    source.paths[1].write_bytes(b'nothing')
    with pytest.raises(ValueError, match='cannot read features .*0a.npy'):
        source.rows(1, 5, rng)
    assert source.rows(0, 5, rng).shape == (5, 12) and source.rows(2, 99, rng).shape == (30, 12)
    fitted, checked = split_images(source, 10, rng)
    assert len(fitted) == 9 and len(checked) == 1 and not set(fitted) & set(checked)


def test_a_teacher_is_asked_inside_its_images(tiny_dataset):
    source = TeacherPixels(TinyDenseTeacher(), tiny_dataset, {})
    assert len(source) == 12 and source.rows(11, 50, np.random.default_rng(0)).shape == (50, 6)
