"""LangOccHead: voxel features -> density, language and further decoders -> losses, predictions.

The head needs a voxel volume, its grid and rays; nothing else of a detector. Any model with a
volume (B, C, Z, Y, X) can carry it.

Legend: B batch, C channels, E embedding, K prompts, V voxels, U chosen voxels, R rays.
"""
from typing import Callable, Dict, List, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS, TASK_UTILS
from torch import Tensor, nn

from voxelrender import RayBundle

from ...occ3d import FREE_CLASS
from ...structures import OccData, PointQueries
from ...teachers import Reducer, Vocabulary
from ..decoders import EncodedLanguage
from ..renderer import RenderedRays
from ..volumes import rays_of
from ..voxel_field import VoxelField
from .voxel_head import VoxelHead

# Voxels labelled at a time.
_CHUNK = 65536


@MODELS.register_module()
class LangOccHead(VoxelHead):
    """Density, language and further per-voxel decoders, trained by rendering (LangOcc, sec. 3).

    Args:
        in_channels: channels of the voxel volume.
        grid: ``dict(point_cloud_range=..., voxel_size=...)`` of the predicted field.
        feat_channels: channels after the final convolution (paper: 256).
        density_decoder: config of the density decoder.
        decoders: output name -> config of a decoder. 'lang' (LanguageDecoder), 'rgb' (RGBDecoder),
            'semantic' (SemanticDecoder).
        renderer: config of the renderer.
        losses: name -> config of a loss on rendered rays or on the field; the name becomes
            ``loss_<name>``.
        vocabulary: config of the :class:`Vocabulary` that names occupied voxels in prediction;
            None predicts the decoder 'semantic' or, without one, class 0 (geometry only).
        reducer: file of a fitted reducer (``tools/fit_reducer.py``), or ``dict(dims=(E, D))`` to
            take the frozen matrix from a checkpoint; None for the full model.
        start_at_vocabulary: initialise the language decoder so that every voxel starts near the
            mean of the vocabulary's text embeddings instead of a random direction (the paper's).
            CLIP's text space is narrow: finding that mean is most of what a short training does.
        density_threshold: voxels of lower density (1/m) are free (paper: 0.1).
        kwargs: see :class:`VoxelHead`; in the paper none of them.
    """

    def __init__(self, in_channels: int, grid: dict, density_decoder: dict, decoders: dict,
                 renderer: dict, losses: dict, feat_channels: int = 256,
                 vocabulary: Optional[dict] = None, reducer: Union[str, dict, None] = None,
                 start_at_vocabulary: bool = False, density_threshold: float = 0.1, **kwargs):
        super().__init__(in_channels, grid, feat_channels, **kwargs)
        feat_channels = self.out_channels
        self.density_decoder = MODELS.build(dict(density_decoder, in_channels=feat_channels))
        # language_decoder, rgb_decoder, ...: the published parameter names.
        self.decoder_names = {name: _attribute(name) for name in decoders}
        for name, config in decoders.items():
            self.add_module(_attribute(name), MODELS.build(dict(config, in_channels=feat_channels)))
        self.renderer = MODELS.build(renderer)
        self.losses = nn.ModuleDict({name: MODELS.build(cfg) for name, cfg in losses.items()})
        self.reducer = None if reducer is None else Reducer.from_config(reducer)
        self.density_threshold = density_threshold
        self.vocabulary = None
        if vocabulary is not None:
            self.set_vocabulary(TASK_UTILS.build(vocabulary))
        self.start_at_vocabulary = start_at_vocabulary
        if start_at_vocabulary and self.vocabulary is None:
            raise ValueError('start_at_vocabulary=True needs a vocabulary, got None')
        self._check_losses()

    def init_weights(self) -> None:
        """As configured, then the language decoder's start (see ``start_at_vocabulary``)."""
        super().init_weights()
        if self.start_at_vocabulary:
            text = F.normalize(self.reduce(self.vocabulary.text_embeds), dim=-1)
            self.language_decoder.start_at(F.normalize(text.mean(0), dim=0))

    def _check_losses(self) -> None:
        for name, loss in self.losses.items():
            if loss.output is not None and loss.output not in self.decoder_names:
                raise ValueError(f"loss '{name}' ({type(loss).__name__}) renders the output "
                                 f"'{loss.output}', but decoders has {sorted(self.decoder_names)}")

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Classify occupied voxels with ``vocabulary`` from now on."""
        decoder = getattr(self, 'language_decoder', None)
        if decoder is None:
            raise ValueError("a vocabulary needs the decoder 'lang' "
                             f'(decoders: {sorted(self.decoder_names)})')
        text = self.reduce(vocabulary.text_embeds)
        if text.shape[1] != decoder.out_channels:
            raise ValueError(f'text embeddings have {text.shape[1]} dimensions, the language '
                             f'decoder {decoder.out_channels}')
        self.vocabulary = vocabulary

    def reduce(self, embeds: Tensor) -> Tensor:
        """(..., E) teacher or text features -> the space the language decoder predicts in."""
        return embeds if self.reducer is None else self.reducer.reduce(embeds)

    # ------------------------------------------------------------------ field

    def forward(self, voxel_feats: Tensor) -> VoxelField:
        """Voxel volume (B, C, Z, Y, X) -> field.

        Nothing is decoded here: neither language, nor densities, nor, without ``upsample``, the
        features, which the field computes where they are read (unless dropout would make every
        reading another one).
        """
        feats = self.features(voxel_feats)
        field = VoxelField(feats, None, self.grid, self.density_decoder)
        if self.training and self.density_decoder.dropout:
            return VoxelField(feats, field.densities, self.grid)
        return field

    def outputs(self, voxel_feats: Tensor) -> Tuple[Tensor, Tensor]:
        """What a detector's mode 'tensor' returns: voxel features and densities."""
        field = self(voxel_feats)
        return field.feats, field.densities

    def decoder(self, name: str) -> nn.Module:
        """The decoder of output ``name``; KeyError lists what there is."""
        if name not in self.decoder_names:
            raise KeyError(f"no decoder '{name}', the head has {sorted(self.decoder_names)}")
        return getattr(self, self.decoder_names[name])

    def render(self, field: VoxelField, rays: List[RayBundle], outputs: Tuple[str, ...],
               training: bool = False) -> RenderedRays:
        """Render ``outputs`` of the field along one bundle of rays a batch item."""
        decoders = {name: self.decoder(name) for name in outputs}
        rendered = self.renderer(field, rays, decoders, training=training)
        if 'rgb' in rendered.outputs:
            rendered.outputs['rgb'] = self.decoder('rgb').shade(
                rendered.outputs['rgb'], rendered.rays.directions, rendered.opacities)
        return rendered

    # ------------------------------------------------------------------ train

    def loss(self, voxel_feats: Tensor, batch_data_samples: list) -> Dict[str, Tensor]:
        """Losses of a batch whose data samples carry ``gt_rays``; KeyError names those that do not.
        """
        return self.loss_by_field(self(voxel_feats), rays_of(batch_data_samples))

    def loss_by_field(self, field: VoxelField, rays: List[RayBundle]) -> Dict[str, Tensor]:
        """Losses of a field along ``rays``; every one finite and connected to all decoders."""
        rays = [self._reduced_targets(bundle) for bundle in rays]
        outputs = tuple(name for name in self.decoder_names
                        if any(loss.output == name for loss in self.losses.values()))
        if any(getattr(loss, 'needs_volume', False) for loss in self.losses.values()):
            field.densities  # decoded once, and rendered from there
        rendered = self.render(field, rays, outputs, training=self.training)
        losses = {f'loss_{name}': loss(rendered, field) for name, loss in self.losses.items()}
        losses['opacity'] = _mean(rendered.opacities)  # logged, not part of the sum
        if 'sky' in rendered.rays.targets:  # what should be empty, and how empty it is: logged
            losses['opacity_sky'] = _mean(rendered.opacities[rendered.rays.targets['sky']])
        return losses

    def _reduced_targets(self, rays: RayBundle) -> RayBundle:
        if self.reducer is None or 'lang_feats' not in rays.targets:
            return rays
        targets = dict(rays.targets, lang_feats=self.reduce(rays.targets['lang_feats']))
        return RayBundle(rays.origins, rays.directions, rays.camera_ids, rays.frame_ids, targets)

    # ---------------------------------------------------------------- predict

    @torch.no_grad()
    def predict(self, voxel_feats: Tensor, batch_data_samples: Optional[list] = None
                ) -> List[OccData]:
        """Occupancy of a batch: one ``OccData`` with ``semantics`` (X, Y, Z) uint8, 17 = free.

        Those whose data sample carries ``point_queries`` also have what :meth:`answer` gives.
        """
        field = self(voxel_feats)
        # First, while the field makes features where they are read: as on a field of its own.
        answers = {index: self.answer(field, index, sample.point_queries)
                   for index, sample in enumerate(batch_data_samples or [])
                   if 'point_queries' in sample}
        predictions = self.predict_by_field(field)
        for index, answer in answers.items():
            predictions[index].set_data(answer)
        return predictions

    @torch.no_grad()
    def predict_by_field(self, field: VoxelField) -> List[OccData]:
        """As :meth:`predict`, from a field. Language is decoded at occupied voxels only."""
        predictions = []
        for index in range(len(field)):
            ids = field.occupied(index, self.density_threshold)
            semantics = torch.full((field.grid.num_voxels,), FREE_CLASS, dtype=torch.uint8,
                                   device=field.feats.device)
            semantics[ids] = self.classify(field, index, ids)
            volume = semantics.view(*field.grid.volume_shape).permute(2, 1, 0)
            predictions.append(OccData(
                semantics=volume.contiguous(),
                metainfo=dict(point_cloud_range=field.grid.point_cloud_range)))
        return predictions

    def classify(self, field: VoxelField, index: int, voxel_ids: Tensor,
                 lang_feats: Optional[Tensor] = None) -> Tensor:
        """Classes (U,) uint8 of chosen voxels of batch item ``index``.

        ``lang_feats`` (U, E): what :meth:`language` gave for them, where that is known already.
        """
        if self.vocabulary is not None:
            text = self.reduce(self.vocabulary.text_embeds.to(voxel_ids.device))
            if lang_feats is not None:
                return self.vocabulary.classify(lang_feats, text_embeds=text)
            classes = self.vocabulary.prompt_to_class.to(voxel_ids.device, torch.uint8)
            decode = self.decoder('lang')
            return self._labels(field, index, voxel_ids,
                                lambda feats: classes[decode.text_logits(feats, text).argmax(-1)])
        if 'semantic' in self.decoder_names:
            decode = self.decoder('semantic')
            return self._labels(field, index, voxel_ids,
                                lambda feats: decode(feats).argmax(-1).to(torch.uint8))
        return torch.zeros(len(voxel_ids), dtype=torch.uint8, device=voxel_ids.device)

    @staticmethod
    def _labels(field: VoxelField, index: int, voxel_ids: Tensor,
                label: Callable[[Tensor], Tensor]) -> Tensor:
        """``label``, features (U, C) -> (U,), at chosen voxels, so many at a time."""
        return torch.cat([label(field.gather(index, part)) for part in voxel_ids.split(_CHUNK)])

    def language(self, field: VoxelField, index: int, voxel_ids: Tensor) -> Tensor:
        """Unit language features (U, E) of chosen voxels of batch item ``index``."""
        return self.decoder('lang')(field.gather(index, voxel_ids))

    @torch.no_grad()
    def query(self, field: VoxelField, index: int, voxel_ids: Tensor, text_embeds: Tensor
              ) -> Tensor:
        """Cosine similarity (U, K) of chosen voxels to text embeddings (K, E)."""
        text = self.reduce(text_embeds.to(voxel_ids.device))
        return self.queryable(field, index, voxel_ids).similarity(text)

    @torch.no_grad()
    def queryable(self, field: VoxelField, index: int, voxel_ids: Tensor) -> EncodedLanguage:
        """Language of chosen voxels, decoded once, to be compared with any text afterwards.

        Its ``similarity`` takes texts in the decoder's space: :meth:`reduce` them first.
        """
        return self.decoder('lang').remember(field.gather(index, voxel_ids))

    def sample_language(self, field: VoxelField, index: int, points: Tensor,
                        chunk: int = 65536) -> Tensor:
        """Unit language features (P, E) at ``points`` (P, 3) in metres, trilinear between voxels.

        Interpolates decoded unit features and normalises the result (protocols.md, retrieval);
        points outside the grid give zeros.
        """
        parts = []
        for part in points.split(chunk):
            voxel_ids, coefficients = field.grid.corners(part)
            ids, inverse = torch.unique(voxel_ids, return_inverse=True)
            feats = self.language(field, index, ids)
            parts.append((feats[inverse] * coefficients[..., None]).sum(1))
        return F.normalize(torch.cat(parts), dim=-1, eps=1e-12)

    @torch.no_grad()
    def answer(self, field: VoxelField, index: int, queries: PointQueries) -> Dict[str, Tensor]:
        """Words asked at points of batch item ``index`` (protocols.md, retrieval).

        Returns:
            ``point_similarity`` (P, Q) float32, float64 of a float64 head: cosines of the
            interpolated features and the words; a point outside the grid's range has those of the
            nearest place between voxel centres.
            ``point_in_range`` (P,) bool, points strictly inside.
        """
        low, high, size = (queries.points.new_tensor(values) for values in (
            field.grid.lower, field.grid.upper, field.grid.voxel_size))
        in_range = ((queries.points > low) & (queries.points < high)).all(dim=1)
        nearest = torch.minimum(torch.maximum(queries.points, low + size / 2), high - size / 2)
        points = torch.where(in_range[:, None], queries.points, nearest)
        # Cosines of words lie close together: never less than float32, under no autocast either.
        precision = torch.promote_types(self.final_conv.conv.weight.dtype, torch.float32)
        feats = self.sample_language(field, index, points.to(precision))
        with torch.autocast(feats.device.type, enabled=False):
            # One by one: what a word scores must not depend on the others, not even by rounding.
            texts = [F.normalize(self.reduce(word), dim=-1)
                     for word in queries.text_embeds.to(feats.device, precision)]
            similarity = torch.stack([feats.to(precision) @ text for text in texts], dim=1)
        return dict(point_similarity=similarity, point_in_range=in_range)


def _attribute(name: str) -> str:
    """Attribute of a decoder: the published names say 'language'."""
    return {'lang': 'language_decoder'}.get(name, f'{name}_decoder')


def _mean(values: Tensor) -> Tensor:
    return values.detach().sum() / max(values.numel(), 1)
