"""Per-voxel MLP decoders: density, language, colour, classes.

The paper: three hidden layers of 256 with ReLU (and dropout 0, kept for the published parameter
names), Xavier-uniform weights, zero biases.

Legend: U voxels, C feature channels, H hidden channels, E embedding, K prompts, R rays,
V = Z * Y * X.
"""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from voxelrender import RayDecoder, UnitFeatures, in_chunks

from .encoded_language import EncodedLanguage

DENSITY_ACTIVATIONS = {
    'sigmoid': torch.sigmoid,
    'softplus': F.softplus,
    'relu': torch.relu,
}


class VoxelDecoder(BaseModule, RayDecoder):
    """MLP from voxel features to ``out_channels`` numbers.

    Args:
        in_channels: C.
        out_channels: numbers a voxel.
        hidden_channels: width of the hidden layers.
        num_hidden: hidden layers.
        dropout: dropout after each hidden layer (the paper: 0).
        chunk_size: voxels decoded at a time; 0 for all at once. Bounds the memory of the hidden
            layers in inference, and in training together with ``with_cp``.
        with_cp: recompute hidden layers in the backward pass instead of storing them.
        norm_input: LayerNorm over C first. Nothing in the head keeps its features at unit scale
            (the final convolution has no norm), and the longer a vector before its normalisation,
            the slower training turns it: matters for short trainings.
        init_cfg: see mmengine.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden_channels: int = 256,
                 num_hidden: int = 3, dropout: float = 0., chunk_size: int = 0,
                 with_cp: bool = False, norm_input: bool = False,
                 init_cfg: Optional[dict] = None):
        super().__init__(init_cfg or dict(
            type='Xavier', layer='Linear', distribution='uniform', bias=0.))
        layers, width = [nn.LayerNorm(in_channels)] if norm_input else [], in_channels
        for _ in range(num_hidden):
            layers += [nn.Linear(width, hidden_channels), nn.ReLU(inplace=True),
                       nn.Dropout(dropout)]
            width = hidden_channels
        self.layers = nn.Sequential(*layers, nn.Linear(width, out_channels))
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.dropout = dropout
        self.chunk_size = chunk_size
        self.with_cp = with_cp

    def mlp(self, feats: Tensor) -> Tensor:
        """``feats`` (U, C) -> (U, out_channels), in chunks, checkpointed if asked for."""
        return in_chunks(self.layers, feats, self.chunk_size, self.with_cp)

    def hidden(self, feats: Tensor) -> Tensor:
        """``feats`` (U, C) -> what the last layer reads, (U, H)."""
        return self.layers[:-1](feats)

    def forward(self, feats: Tensor) -> Tensor:
        """Decode ``feats`` (U, C) to (U, out_channels)."""
        return self.mlp(feats)

    def encode(self, feats: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        """What is rendered of each voxel, see :class:`RayDecoder`: here the output itself."""
        return self(feats), None


@MODELS.register_module()
class DensityDecoder(VoxelDecoder):
    """One density a voxel, in 1/m: ``scale * activation(mlp(feats) + shift)``.

    Args:
        activation: 'sigmoid' (the paper's, density at most ``scale``), 'softplus' or 'relu'.
        scale: density in 1/m that the activation's 1 stands for. The paper's 1 lets a 0.4 m voxel
            absorb a third of a ray at the most; surfaces one voxel thin need about 10.
        shift: added to the logit, so that training can start from free space (negative).
    """

    def __init__(self, in_channels: int, activation: str = 'sigmoid', scale: float = 1.,
                 shift: float = 0., **kwargs):
        super().__init__(in_channels, 1, **kwargs)
        if activation not in DENSITY_ACTIVATIONS:
            raise ValueError(f"density activation '{activation}' is not one of "
                             f'{sorted(DENSITY_ACTIVATIONS)}')
        self.activation = DENSITY_ACTIVATIONS[activation]
        self.scale = scale
        self.shift = shift

    def forward(self, feats: Tensor) -> Tensor:
        """Densities (U, 1) in 1/m, float32 under any autocast."""
        return self.scale * self.activation(self.mlp(feats).float() + self.shift)

    def forward_volume(self, feats: Tensor) -> Tensor:
        """Densities (B, Z, Y, X) of a feature volume (B, C, Z, Y, X)."""
        flat = feats.flatten(2).transpose(1, 2)  # a view: the volume is not copied
        return torch.stack([self(item)[:, 0].view(feats.shape[2:]) for item in flat.unbind(0)])


@MODELS.register_module()
class LanguageDecoder(VoxelDecoder):
    """L2-normalised vision-language features, ``embed_dims`` numbers a voxel."""

    def __init__(self, in_channels: int, embed_dims: int = 512, **kwargs):
        super().__init__(in_channels, embed_dims, **kwargs)

    @torch.no_grad()
    def start_at(self, embed: Tensor) -> None:
        """Initialise so that every voxel's feature is near the unit vector ``embed`` (E,)."""
        self.layers[-1].weight.mul_(0.1)
        self.layers[-1].bias.copy_(embed)

    def forward(self, feats: Tensor) -> Tensor:
        """Unit features (U, embed_dims), float32; eps 1e-12 as in the paper."""
        return F.normalize(self.mlp(feats).float(), dim=-1, eps=1e-12)

    def encode(self, feats: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        """What is rendered of each voxel: see :class:`voxelrender.UnitFeatures`."""
        return self._unit_features().encode(feats)

    def project(self, values: Tensor, mass: Optional[Tensor]) -> Tensor:
        """What was rendered -> features (R, embed_dims), not normalised."""
        return self._unit_features().project(values, mass)

    def _unit_features(self) -> UnitFeatures:
        return UnitFeatures(self.layers, self.chunk_size, self.with_cp)

    def remember(self, feats: Tensor) -> EncodedLanguage:
        """Voxels ``feats`` (U, C), ready to be compared with any text; no gradient."""
        with torch.no_grad():
            values, factors = self.encode(feats)
            last = self.layers[-1]
            if factors is None:
                return EncodedLanguage(values)
            return EncodedLanguage(values, factors, last.weight.detach(), last.bias.detach())

    def text_logits(self, feats: Tensor, text_embeds: Tensor) -> Tensor:
        """Features . text (U, K), each voxel's scaled by a positive number of its own.

        The last layer is folded with the text (K, E): E numbers a voxel are never computed.
        """
        last = self.layers[-1]
        weight, bias = text_embeds @ last.weight, text_embeds @ last.bias
        return in_chunks(lambda part: F.linear(self.hidden(part), weight, bias), feats,
                         self.chunk_size, self.with_cp)


@MODELS.register_module()
class SemanticDecoder(VoxelDecoder):
    """Class logits of a voxel, rendered as they are (a closed-vocabulary companion)."""

    def __init__(self, in_channels: int, num_classes: int = 17, **kwargs):
        super().__init__(in_channels, num_classes, **kwargs)


@MODELS.register_module()
class RGBDecoder(VoxelDecoder):
    """Colour as real spherical harmonics of the viewing direction, degree 0 to 2.

    A voxel holds 3 x (degree + 1)^2 coefficients. Colour is linear in them, so rays render the
    coefficients and :meth:`shade` turns them into colour: the same as shading every sample.

    Args:
        degree: highest degree of the harmonics; 0 is a colour that no direction changes.
    """

    def __init__(self, in_channels: int, degree: int = 2, **kwargs):
        if degree not in (0, 1, 2):
            raise ValueError(f'spherical harmonics of degree 0, 1 or 2, got {degree}')
        super().__init__(in_channels, 3 * (degree + 1)**2, **kwargs)
        self.degree = degree

    def shade(self, coefficients: Tensor, directions: Tensor, opacities: Tensor) -> Tensor:
        """Rendered colour.

        Args:
            coefficients: (R, 3 * (degree + 1)^2), rendered (weights already summed).
            directions: (R, 3), unit.
            opacities: (R,), sum of the weights: the grey (0.5) that a zero coefficient means.

        Returns:
            (R, 3), about [0, 1]; black where a ray meets nothing.
        """
        basis = spherical_harmonics(directions, self.degree)
        shape = (len(coefficients), 3, basis.shape[1])
        colour = (coefficients.view(shape) * basis[:, None]).sum(-1)
        return colour + 0.5 * opacities[:, None]


def spherical_harmonics(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics (R, (degree + 1)^2) of unit ``directions`` (R, 3).

    Orthonormal over the sphere, order (l, m) = (0, 0), (1, -1), (1, 0), (1, 1), (2, -2) ... (2, 2).
    """
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        values += [0.4886025119029199 * value for value in (y, z, x)]
    if degree >= 2:
        values += [1.0925484305920792 * x * y, 1.0925484305920792 * y * z,
                   0.31539156525252005 * (3 * z * z - 1), 1.0925484305920792 * x * z,
                   0.5462742152960396 * (x * x - y * y)]
    return torch.stack(values, -1)
