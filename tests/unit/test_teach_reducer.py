"""The reducer: a stable angle, a falling loss, and files."""
import math
import runpy
import sys

import pytest
import torch
import torch.nn.functional as F

from langocc.teachers import Reducer, fit_reducer, reducer_loss, stable_angle


def unit(*shape):
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def test_angle_is_arccos():
    x, y = unit(50, 9), unit(50, 9)
    torch.testing.assert_close(stable_angle(x, y), (x * y).sum(dim=1).acos())
    angles = stable_angle(x[:2], torch.stack([x[0], -x[1]]))
    torch.testing.assert_close(angles, torch.tensor([0., math.pi], dtype=torch.float64))
    tiny = torch.tensor([math.cos(1e-9), math.sin(1e-9)], dtype=torch.float64)
    # arccos would say 0 here: 1 - cos(1e-9) is below float64's resolution.
    torch.testing.assert_close(stable_angle(torch.tensor([1., 0.], dtype=torch.float64), tiny),
                               torch.tensor(1e-9, dtype=torch.float64))


@pytest.mark.parametrize('sign', [1, -1])
def test_gradient_is_finite_where_arccos_has_none(sign):
    x = unit(6, 9)
    y = (sign * x).clone().requires_grad_()
    stable_angle(x, y).sum().backward()
    assert torch.isfinite(y.grad).all() and y.grad.norm(dim=1).max() <= 1 + 1e-9
    plain = x.clone().requires_grad_()
    F.normalize(plain, dim=1).mul(x).sum(dim=1).clamp(-1, 1).acos().sum().backward()
    assert not torch.isfinite(plain.grad).all() or plain.grad.abs().max() > 1e3


def test_loss_gradient_finite_at_a_perfect_fit_and_at_zero():
    x = F.normalize(torch.eye(8, dtype=torch.float64)[:4] + 0, dim=1)
    for start in (torch.eye(8, dtype=torch.float64)[:, :4], torch.zeros(8, 4).double()):
        matrix = start.clone().requires_grad_()
        loss = reducer_loss(matrix, x)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(matrix.grad).all()
    assert reducer_loss(torch.eye(8, dtype=torch.float64)[:, :4], x) < 1e-4


@pytest.mark.parametrize('count, dims', [(76, 16), (5, 16), (1, 1)])
def test_fit_lowers_the_loss(count, dims):
    # Embeddings of a text encoder share most of their direction.
    embeds = F.normalize(torch.randn(48) + 0.7 * torch.randn(count, 48), dim=1)
    reducer, history = fit_reducer(embeds, dims)
    assert min(history) < 0.6 * history[0] and len(history) <= 251
    assert all(math.isfinite(value) for value in history)
    assert reducer.matrix.shape == (48, dims) and not list(reducer.parameters())
    restored = reducer.restore(reducer.reduce(embeds))
    torch.testing.assert_close(reducer.reduce(embeds).norm(dim=1), torch.ones(count))
    angle = 10 * (restored * embeds).sum(dim=1).clamp(-1, 1).double().acos().mean()
    assert abs(float(angle) - reducer.metadata['loss']) < 2e-2
    assert reducer.metadata['num_embeddings'] == count


def test_stop_rules():
    embeds = torch.eye(6)[:2]
    assert len(fit_reducer(embeds, 6, max_steps=3)[1]) == 4
    assert len(fit_reducer(embeds, 6, loss_tolerance=1e9)[1]) == 1
    assert len(fit_reducer(embeds, 6, change_tolerance=1e9, patience=5)[1]) == 6
    same = [fit_reducer(embeds, 2, max_steps=5, seed=seed)[1] for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


def test_shape_of_the_published_matrix():
    assert Reducer.from_config(dict(dims=(512, 128))).matrix.numel() == 65536
    x = unit(3, 4, 512).float()
    reducer = Reducer.from_config((512, 128))
    assert reducer.reduce(x).shape == (3, 4, 128) and reducer.embed_dims == 512
    torch.testing.assert_close(reducer(x), F.normalize(x @ reducer.matrix, dim=-1))


def test_save_and_load(tmp_path):
    path = tmp_path / 'deep' / 'reducer.safetensors'
    reducer, _ = fit_reducer(unit(9, 12).float(), 4, max_steps=3, metadata=dict(prompts=['a', 'ü']))
    reducer.save(path)
    again = Reducer.from_config(str(path))
    assert torch.equal(again.matrix, reducer.matrix) and again.metadata == reducer.metadata
    assert again.metadata['prompts'] == ['a', 'ü'] and again.metadata['dims'] == 4
    fresh = Reducer.from_config((12, 4))
    fresh.load_state_dict(reducer.state_dict())
    assert torch.equal(fresh.matrix, reducer.matrix)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.safetensors.*fit_reducer'):
        Reducer.load(tmp_path / 'none.safetensors')
    (tmp_path / 'cut.safetensors').write_bytes(b'123')
    with pytest.raises(ValueError, match='cannot read reducer .*cut.safetensors'):
        Reducer.load(tmp_path / 'cut.safetensors')
    with pytest.raises(ValueError, match=r'expected \(E, D\)'):
        Reducer(torch.zeros(4, 5))
    with pytest.raises(ValueError, match='not finite'):
        Reducer(torch.full((5, 4), torch.nan))
    with pytest.raises(ValueError, match=r'dims is 13, expected 1 \.\.\. 12'):
        fit_reducer(unit(3, 12), 13)
    with pytest.raises(ValueError, match='zero length'):
        fit_reducer(torch.zeros(3, 12), 2)


def test_tool(tmp_path, repository, pandaset_root, monkeypatch, capsys):
    tool, out = str(repository / 'tools' / 'fit_reducer.py'), tmp_path / 'reducer.safetensors'
    monkeypatch.setattr(sys, 'argv', [
        tool, '--text-embeds', str(pandaset_root / 'text_embeds' / 'clip_vit_b16.npz'),
        '--vocabulary', 'pandaset_cityscapes', '--dims', '32', '--out', str(out)])
    runpy.run_path(tool, run_name='__main__')
    reducer = Reducer.load(out)
    assert reducer.matrix.shape == (512, 32) and len(reducer.metadata['prompts']) == 19
    assert 'clip_vit_b16.npz' in reducer.metadata['text_embeds']
    assert 'cosine to the original: mean 0.9' in capsys.readouterr().out
