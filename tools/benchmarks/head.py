"""Voxel features -> occupancy and classes, and text queries: the head's inference. Needs langocc.

Legend: V voxels, U occupied voxels, C channels, E embedding, K prompts.
"""
from typing import Callable, Dict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .measure import median, peak_in_child, seconds_of
from .scene import EMBED_DIMS, IN_CHANNELS, RANGE, Scene, Size, make_layers, make_scene

DENSITY_THRESHOLD = 0.1
FREE = 17
# Occupied voxels of a finished field that are asked.
QUERY_VOXELS = dict(full=200000, quarter=50000, tiny=3000)


class HeadCase:
    """A LangOccHead with the weights of a scene, and the published computation beside it.

    Args:
        scene: Features and weights.
    """

    def __init__(self, scene: Scene):
        from mmdet3d.registry import MODELS
        from mmengine.registry import init_default_scope

        import langocc  # noqa: F401
        init_default_scope('mmdet3d')
        self.scene = scene
        embed_dims = scene.language_layers[-1].out_features
        self.head = MODELS.build(dict(
            type='LangOccHead', in_channels=1, feat_channels=IN_CHANNELS,
            grid=dict(point_cloud_range=RANGE, voxel_size=scene.grid.voxel_size),
            density_decoder=dict(type='DensityDecoder'),
            decoders=dict(lang=dict(type='LanguageDecoder', embed_dims=embed_dims)),
            renderer=dict(type='VolumeRenderer'), losses={},
            density_threshold=DENSITY_THRESHOLD)).to(scene.voxel_feats.device).eval()
        copy_linear(scene.density_decoder, self.head.density_decoder)
        copy_linear(scene.language_layers, self.head.language_decoder)
        self.head.set_vocabulary(make_vocabulary(embed_dims))

    def ours(self) -> Tensor:
        """Classes (Z, Y, X) by LangOccHead."""
        from voxelrender import VoxelField
        field = VoxelField(self.scene.voxel_feats.detach(), None, self.head.grid,
                           self.head.density_decoder)
        return self.head.predict_by_field(field)[0].semantics.permute(2, 1, 0)

    @torch.no_grad()
    def dense_scores(self):
        """Densities (V,) and cosines (V, K), every voxel decoded as published."""
        feats = self.scene.voxel_feats[0].flatten(1).T.contiguous()
        densities = self.scene.density_decoder(feats)[:, 0]
        language = F.normalize(self.scene.language_layers(feats), dim=-1, eps=1e-12)
        return densities, language @ self.head.vocabulary.text_embeds.to(feats.device).T

    @torch.no_grad()
    def dense(self) -> Tensor:
        """Classes (Z, Y, X), the published way."""
        densities, scores = self.dense_scores()
        classes = self.head.vocabulary.prompt_to_class.to(scores.device)[scores.argmax(-1)]
        classes[densities < DENSITY_THRESHOLD] = FREE
        return classes.to(torch.uint8).view(self.scene.grid.volume_shape)

    def sides(self) -> Dict[str, Callable[[], Tensor]]:
        """Name -> prediction."""
        return dict(dense=self.dense, ours=self.ours)


def copy_linear(source: nn.Module, target: nn.Module) -> None:
    """Copies the linear layers of one module to another's, in order."""
    pairs = zip(*([layer for layer in module.modules() if isinstance(layer, nn.Linear)]
                  for module in (source, target)))
    for theirs, ours in pairs:
        ours.load_state_dict(theirs.state_dict())


def make_vocabulary(dims: int):
    """The benchmark's 76 prompts with random text embeddings."""
    from langocc.teachers import TextEncoder, Vocabulary

    class RandomEncoder(TextEncoder):
        """Unit rows."""
        embed_dims = dims

        def encode(self, prompts):
            rows = torch.randn(len(prompts), dims, generator=torch.Generator().manual_seed(2))
            return F.normalize(rows, dim=-1)

    return Vocabulary('occ3d_nuscenes', RandomEncoder())


def head_case(arguments) -> HeadCase:
    """The case of a command line."""
    return HeadCase(make_scene(Size.of(arguments), arguments.device, arguments.rays))


def agreement(case: HeadCase) -> Dict:
    """How our classes agree with the dense ones, ties (top two within 1e-5) apart."""
    densities, scores = case.dense_scores()
    best = scores.topk(2, dim=-1).values
    clear = ((best[:, 0] - best[:, 1] > 1e-5) & ((densities - DENSITY_THRESHOLD).abs() > 1e-6))
    dense, ours = case.dense().flatten(), case.ours().flatten()
    return dict(occupied=int((dense != FREE).sum()), voxels=len(dense),
                different=int((dense != ours).sum()),
                different_where_clear=int(((dense != ours) & clear).sum()))


def benchmark_head(arguments) -> Dict:
    """Occupancy and classes of one sample, dense against ours."""
    peaks = {name: peak_in_child(arguments, name) for name in ('dense', 'ours')}
    case = head_case(arguments)
    times = {name: median(seconds_of(side, arguments.device, arguments.repeats, name))
             for name, side in case.sides().items()}
    return dict(head=dict(
        dense_s=times['dense'], ours_s=times['ours'], speedup=times['dense'] / times['ours'],
        dense_peak_mb=peaks['dense'], ours_peak_mb=peaks['ours'],
        memory_ratio=peaks['dense'] / max(peaks['ours'], 1e-9), **agreement(case)))


def benchmark_query(arguments) -> Dict:
    """Seconds from the embedding of a new text to its cosine with every voxel."""
    from langocc.models.decoders import LanguageDecoder
    count = arguments.voxels or QUERY_VOXELS[arguments.preset]
    torch.manual_seed(0)
    decoder = LanguageDecoder(IN_CHANNELS, EMBED_DIMS, chunk_size=32768)
    copy_linear(make_layers(EMBED_DIMS), decoder)
    decoder = decoder.to(arguments.device)
    feats = torch.randn(count, IN_CHANNELS, device=arguments.device).clamp_(min=0)
    voxels = decoder.remember(feats)
    text = F.normalize(torch.randn(1, EMBED_DIMS, device=arguments.device), dim=-1)
    with torch.no_grad():
        expected = decoder(feats[:10000]) @ text.t()
    rows = {}
    for name, kept in (('float32', voxels), ('float16', voxels.to(torch.float16))):
        texts = iter(torch.randn(arguments.repeats + 1, 1, EMBED_DIMS))
        times = seconds_of(lambda: kept.similarity(next(texts)).cpu(), arguments.device,
                           arguments.repeats, name)
        rows[name] = dict(median_ms=1e3 * median(times), worst_ms=1e3 * max(times),
                          megabytes=kept.values.numel() * kept.values.element_size() / 2**20,
                          error=(kept.similarity(text)[:10000] - expected).abs().max().item())
    return dict(query=dict(rows, voxels=count, error=rows['float32']['error']))
