"""Pictures of chosen samples of a config's test data, with a model or of the labels alone."""
from pathlib import Path
from typing import Optional, Sequence, Union

import torch
from mmdet3d.registry import VISUALIZERS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from ..models.inference import optimize_for_inference
from ..visualization import OccVisualizer, has_field, render_camera_views
from .init_model import build_dataset, init_model


class SampleVisualizer:
    """Predicts samples of a config's test data set and draws them.

    >>> SampleVisualizer('configs/x.py', 'work_dirs/x/epoch_1.pth').draw([0, 5], 'pictures')

    Args:
        config: config file or config.
        checkpoint: file of weights; None is for models without any (``needs_checkpoint = False``,
            for instance the constant slab).
        labels_only: build no model; cameras and labels are drawn.
        device: None takes a GPU where there is one.
        **settings: of :class:`OccVisualizer`, over those of the config's ``visualizer``.

    Raises:
        ValueError: a model without its checkpoint.
    """

    def __init__(self, config: Union[str, Path, Config], checkpoint: Optional[str] = None,
                 labels_only: bool = False, device: Optional[str] = None, **settings):
        cfg = config if isinstance(config, Config) else Config.fromfile(str(config))
        if not labels_only and checkpoint is None and cfg.get('needs_checkpoint', True):
            raise ValueError(f'{cfg.filename} needs a CHECKPOINT; without one only labels can be '
                             'drawn')
        self.dataset = build_dataset(cfg)  # sets the scope, too
        self.model: Optional[nn.Module] = None
        if not labels_only:
            device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
            self.model = optimize_for_inference(init_model(cfg, checkpoint, device))
        self.visualizer = _build_visualizer(cfg, settings)
        self._index_of = {self.dataset.get_token(i): i for i in range(len(self.dataset))}

    def find(self, sample: Union[int, str]) -> int:
        """Index of a token or index; KeyError where the data set has not got it."""
        index = self._index_of.get(sample, sample)
        if not isinstance(index, int) or not -len(self.dataset) <= index < len(self.dataset):
            raise KeyError(f'sample {sample!r} is not in {self.dataset.ann_file}: give a sample '
                           f'token or an index below {len(self.dataset)}')
        return index % len(self.dataset)

    def draw(self, samples: Sequence[Union[int, str]], out_dir: Union[str, Path]) -> list:
        """Writes ``<out_dir>/<index>_<token>/<view>.png`` and ``sheet.png`` of each sample.

        Returns:
            The folders.

        Raises:
            KeyError: no such sample (before anything is drawn).
        """
        folders = []
        for index in [self.find(sample) for sample in samples]:
            name = f'{index:05d}_{self.dataset.get_token(index)}'
            data_sample, rendered = self.predict(index)
            self.visualizer.add_datasample(name, data_sample=data_sample, rendered=rendered,
                                           out_dir=out_dir)
            folders.append(Path(out_dir) / name)
        return folders

    @torch.no_grad()
    def predict(self, index: int) -> tuple:
        """The data sample, with ``pred_occ`` where there is a model, and its rendered maps.

        The network runs once: occupancy and pictures come from one field.
        """
        batch = pseudo_collate([self.dataset[index]])
        if self.model is None:
            return batch['data_samples'][0], None
        data = self.model.data_preprocessor(batch, False)
        data_sample: Det3DDataSample = data['data_samples'][0]
        if not has_field(self.model):
            return self.model(**data, mode='predict')[0], None
        field, head = self.model.extract_field(data['inputs']), self.model.occ_head
        data_sample.pred_occ = head.predict_by_field(field)[0]
        if not self.visualizer.needs_maps:
            return data_sample, None
        return data_sample, render_camera_views(
            head, field, data_sample.metainfo, self.visualizer.map_width,
            bev_aug_matrix=data['inputs']['bev_aug_matrix'][0].cpu())


def _build_visualizer(cfg: Config, settings: dict) -> OccVisualizer:
    """The config's visualizer, where it draws samples, with other settings and no backends.

    Made directly: the registry would return an earlier one of the same name.
    """
    known = dict(cfg.get('visualizer') or {})
    kind = known.pop('type', None)
    kind = VISUALIZERS.get(kind) if isinstance(kind, str) else kind
    if kind is None or not issubclass(kind, OccVisualizer):
        known, kind = {}, OccVisualizer
    return kind(**dict(known, vis_backends=None, **settings))
