"""Per-voxel decoders: published layout, activations, chunks, spherical harmonics."""
import math

import pytest
import torch

from langocc.models.decoders import DensityDecoder, LanguageDecoder, RGBDecoder
from langocc.models.decoders.voxel_decoder import spherical_harmonics


def test_parameter_names_and_count_are_the_published_ones():
    density, language = DensityDecoder(256), LanguageDecoder(256, 512)
    names = [f'layers.{i}.{kind}' for i in (0, 3, 6, 9) for kind in ('weight', 'bias')]
    assert list(density.state_dict()) == names == list(language.state_dict())
    assert sum(p.numel() for p in density.parameters()) == 197633
    assert sum(p.numel() for p in language.parameters()) == 328960


def test_initialisation_is_xavier_with_zero_bias():
    decoder = DensityDecoder(256)
    decoder.init_weights()
    bound = math.sqrt(6 / 512)
    weight = decoder.layers[0].weight
    assert weight.abs().max() <= bound and weight.abs().max() > 0.99 * bound
    assert all(not layer.bias.any() for layer in decoder.layers if hasattr(layer, 'bias'))


@pytest.mark.parametrize('activation, at_zero', [
    ('sigmoid', 0.5), ('softplus', math.log(2)), ('relu', 0.)])
def test_density_activation_scale_and_shift(activation, at_zero):
    decoder = DensityDecoder(4, activation=activation, scale=3.)
    torch.nn.init.zeros_(decoder.layers[-1].weight)
    torch.nn.init.zeros_(decoder.layers[-1].bias)
    assert torch.allclose(decoder(torch.randn(5, 4)), torch.full((5, 1), 3 * at_zero))
    decoder.shift = 2.
    reference = 3 * decoder.activation(torch.tensor(2.))
    assert torch.allclose(decoder(torch.randn(5, 4)), reference.expand(5, 1))


def test_unknown_activation_is_named():
    with pytest.raises(ValueError, match="'tanh'.*relu.*sigmoid.*softplus"):
        DensityDecoder(4, activation='tanh')


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('count', [0, 1, 7])
def test_chunks_and_checkpoints_change_neither_value_nor_gradient(with_cp, count):
    plain = LanguageDecoder(6, embed_dims=5, hidden_channels=8)
    chunked = LanguageDecoder(6, embed_dims=5, hidden_channels=8, chunk_size=3, with_cp=with_cp)
    chunked.load_state_dict(plain.state_dict())
    feats = torch.randn(count, 6)
    target = torch.randn(count, 5)
    for decoder in (plain, chunked):
        ((decoder(feats) - target)**2).sum().backward()
    assert plain(feats).shape == (count, 5)
    assert torch.allclose(plain(feats), chunked(feats))
    for a, b in zip(plain.parameters(), chunked.parameters()):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


def test_density_volume_is_the_decoder_at_each_voxel():
    decoder = DensityDecoder(4, hidden_channels=8, chunk_size=5)
    feats = torch.randn(2, 4, 2, 3, 3)
    volume = decoder.forward_volume(feats)
    assert volume.shape == (2, 2, 3, 3)
    assert torch.allclose(volume[1, 1, 2, 0], decoder(feats[1, :, 1, 2, 0][None])[0, 0])


def test_language_features_are_unit_vectors():
    feats = LanguageDecoder(6, embed_dims=16)(torch.randn(9, 6))
    assert torch.allclose(feats.norm(dim=-1), torch.ones(9), atol=1e-6)


def test_spherical_harmonics_are_orthonormal():
    """Integral over the sphere by Gauss-Legendre x uniform azimuth, exact for these degrees."""
    import numpy as np
    z, weights = np.polynomial.legendre.leggauss(8)
    phi = (np.arange(16) + 0.5) * 2 * np.pi / 16
    zz, pp = np.meshgrid(z, phi, indexing='ij')
    radius = np.sqrt(1 - zz**2)
    directions = np.stack([radius * np.cos(pp), radius * np.sin(pp), zz], -1).reshape(-1, 3)
    basis = spherical_harmonics(torch.from_numpy(directions), 2).numpy()
    area = np.repeat(weights, 16) * 2 * np.pi / 16
    assert np.allclose(basis.T @ (basis * area[:, None]), np.eye(9), atol=1e-12)


def test_rendered_colour_equals_shading_every_sample():
    """Colour is linear in the coefficients: shading their weighted sum is the weighted colour."""
    decoder = RGBDecoder(4, degree=2, hidden_channels=8)
    feats, weights = torch.randn(10, 4), torch.rand(3, 10) / 10
    directions = torch.nn.functional.normalize(torch.randn(3, 3), dim=-1)
    coefficients = decoder(feats)
    shaded = decoder.shade(weights @ coefficients, directions, weights.sum(-1))
    for ray in range(3):
        each = decoder.shade(coefficients, directions[ray].expand(10, 3), torch.ones(10))
        assert torch.allclose(shaded[ray], weights[ray] @ each, atol=1e-6)
