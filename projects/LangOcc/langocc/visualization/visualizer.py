"""OccVisualizer: pictures of occupancy samples in mmengine's way.

Legend: X, Y, Z grid cells.
"""
from pathlib import Path
from typing import Dict, Mapping, Optional, Sequence, Union

import numpy as np
import torch
from mmdet3d.registry import VISUALIZERS
from mmdet3d.structures import Det3DDataSample
from mmengine.dist import master_only
from mmengine.visualization import Visualizer

from voxelrender import VoxelGrid

from ..datasets.transforms.loading import LoadOccGTFromFile, read_image
from .camera_maps import RigMaps
from .comparison import UNSEEN_CHOICES
from .label_views import label_camera_views
from .pictures import save_picture
from .sample_pictures import GAP, OCC3D_GRID, SamplePictures, optional_file
from .sheets import VIEWS, check_views, compose_sheet, draw_pictures

# Pictures of the cameras' maps: nothing is cast where none of them is wanted.
_MAPPED_VIEWS = {'distances', 'opacities', 'classes', 'features', 'rgb'}


@VISUALIZERS.register_module()
class OccVisualizer(Visualizer):
    """Draws a sample: cameras, what they see of prediction and truth, occupancy, errors.

    >>> visualizer = dict(type='OccVisualizer', vis_backends=[dict(type='LocalVisBackend')])

    Pictures go to the visualization backends (``vis_data/vis_image/`` of the work dir, TensorBoard,
    ...) one by one and together as a sheet, or to a folder. :class:`OccVisualizationHook` draws
    samples during validation and test, ``tools/visualize.py`` any sample.

    Args:
        name, image, vis_backends, save_dir, fig_save_cfg, fig_show_cfg: see mmengine.
        grid: ``dict(point_cloud_range=..., voxel_size=...)`` of labels and predictions;
            None is Occ3D's.
        views: pictures to draw, of 'cameras' (input), 'distances', 'opacities', 'classes',
            'features' (three main directions as RGB, above the labels' text embeddings), 'rgb'
            (all per camera, rendered from the field, or else cast through predicted voxels, above
            labels), 'occupancy_3d', 'occupancy_bev', 'errors'. What a sample has no data for is
            left out.
        width: of a sheet, pixels.
        map_width: columns of a map rendered or cast into a camera. Time grows with its square.
        far: metres; end of the distances' colours, and of the rays through voxels.
        unseen: voxels outside ``mask_camera``: 'draw' as the others, 'pale' or 'hide'.

    Raises:
        ValueError: an unknown view or ``unseen``.
    """

    def __init__(self, name: str = 'visualizer', image: Optional[np.ndarray] = None,
                 vis_backends: Optional[list] = None, save_dir: Optional[str] = None,
                 fig_save_cfg: dict = dict(frameon=False),
                 fig_show_cfg: dict = dict(frameon=False), grid: Optional[dict] = None,
                 views: Sequence[str] = tuple(VIEWS), width: int = 1600, map_width: int = 200,
                 far: float = 40., unseen: str = 'pale'):
        super().__init__(name, image, vis_backends, save_dir, fig_save_cfg, fig_show_cfg)
        check_views(views)
        if unseen not in UNSEEN_CHOICES:
            raise ValueError(f'unseen is {unseen!r}, expected one of {UNSEEN_CHOICES}')
        self.grid = OCC3D_GRID if grid is None else VoxelGrid(**grid)
        self.views = tuple(views)
        self.width, self.map_width, self.far, self.unseen = width, map_width, far, unseen

    @property
    def needs_maps(self) -> bool:
        """Whether a picture that is wanted shows what cameras see of a volume."""
        return bool(_MAPPED_VIEWS & set(self.views))

    @master_only
    def add_datasample(self, name: str, image: Optional[Mapping[str, np.ndarray]] = None,
                       data_sample: Optional[Det3DDataSample] = None, draw_gt: bool = True,
                       draw_pred: bool = True, show: bool = False, wait_time: float = 0,
                       step: int = 0, rendered: Optional[RigMaps] = None,
                       out_dir: Union[str, Path, None] = None) -> None:
        """Draws a sample and hands the pictures on.

        Args:
            name: of the sample; no slashes (backends make file names of it).
            image: camera -> (H, W, 3) uint8 RGB original image; None reads the files that the
                sample names.
            data_sample: with ``pred_occ`` and ``gt_occ``, either may be missing; ``gt_occ`` is
                read from the sample's ``occ_path`` where the pipeline has not loaded it (no such
                file: a warning, and pictures without labels). Its metainfo needs ``camera_names``,
                ``images``, ``ego2global``, ``key_ego2global``.
            draw_gt: labels.
            draw_pred: prediction.
            show: open a window with the sheet.
            wait_time: seconds that the window stays; 0 waits for a key.
            step: of the backends.
            rendered: of :func:`render_camera_views`; None casts rays through ``pred_occ``.
            out_dir: folder for ``<name>/<view>.png`` and ``<name>/sheet.png`` instead of the
                backends.

        Raises:
            ValueError: no ``data_sample``, or a volume that has not the grid's shape.
            KeyError: metainfo lacks a key.
        """
        pictures = self.draw(data_sample, image, draw_gt, draw_pred, rendered)
        for view, picture in pictures.items():
            if out_dir is None:
                self.add_image(f'{name}_{view}', picture, step)
            else:
                save_picture(Path(out_dir) / name / f'{view}.png', picture)
        self.set_image(pictures['sheet'])
        if show:
            self.show(pictures['sheet'], win_name=name, wait_time=wait_time)

    def draw(self, data_sample: Optional[Det3DDataSample],
             image: Optional[Mapping[str, np.ndarray]] = None, draw_gt: bool = True,
             draw_pred: bool = True, rendered: Optional[RigMaps] = None) -> Dict[str, np.ndarray]:
        """The pictures of a sample, view -> (H, W, 3) uint8, and 'sheet'.

        Arguments and errors: see :meth:`add_datasample`.
        """
        if data_sample is None:
            raise ValueError('OccVisualizer needs a data_sample: its metainfo names the cameras')
        info = data_sample.metainfo
        missing = [key for key in ('camera_names', 'images', 'ego2global', 'key_ego2global')
                   if key not in info]
        if missing:
            raise KeyError(f'sample {info.get("token")}: metainfo lacks {missing}; add them to '
                           'meta_keys of PackOccInputs')
        if image is None:
            image = {camera: np.array(read_image(info['images'][camera]['img_path']))
                     for camera in info['camera_names']}
        sample = SamplePictures(info, image, self.grid, unseen=self.unseen, far=self.far)
        if draw_gt:
            self._add_truth(sample, data_sample)
        if draw_pred:
            self._add_prediction(sample, data_sample, rendered)
        span = self.width - 2 * GAP
        pictures = draw_pictures(sample, self.views, span)
        title = '    '.join(str(info[key]) for key in ('scene_name', 'token') if key in info)
        return dict(pictures, sheet=compose_sheet(pictures, title, span))

    def _add_truth(self, sample: SamplePictures, data_sample: Det3DDataSample) -> None:
        if 'gt_occ' in data_sample:
            labels = data_sample.gt_occ
        elif optional_file(sample.info.get('occ_path'), 'occupancy labels', sample.info):
            load = LoadOccGTFromFile(self.grid.grid_shape)
            labels = load(dict(sample.info))['gt_occ']  # flipped as the sample is
        else:
            return
        sample.truth = self._volume(labels.semantics, 'gt_occ', sample)
        if 'mask_camera' in labels:
            mask = self._volume(labels.mask_camera, 'mask_camera', sample)
            sample.mask_camera = mask.astype(bool)
        if self.needs_maps:
            sample.true_maps = self._cast(sample, sample.truth, 'ego2global')

    def _add_prediction(self, sample: SamplePictures, data_sample: Det3DDataSample,
                        rendered: Optional[RigMaps]) -> None:
        if 'pred_occ' in data_sample:
            sample.prediction = self._volume(data_sample.pred_occ.semantics, 'pred_occ', sample)
        sample.rendered = rendered is not None
        if rendered is not None:
            sample.predicted_maps = rendered
        elif sample.prediction is not None and self.needs_maps:
            sample.predicted_maps = self._cast(sample, sample.prediction, 'key_ego2global')

    def _cast(self, sample: SamplePictures, volume: np.ndarray, ego_key: str) -> RigMaps:
        matrix = sample.info.get('bev_aug_matrix')
        return label_camera_views(
            volume, self.grid, sample.info, self.map_width, self.far, ego_key,
            None if matrix is None else torch.as_tensor(np.asarray(matrix)))

    def _volume(self, volume: Union[torch.Tensor, np.ndarray], name: str, sample: SamplePictures
                ) -> np.ndarray:
        volume = np.asarray(volume.cpu() if isinstance(volume, torch.Tensor) else volume)
        if volume.shape != self.grid.grid_shape:
            raise ValueError(f'sample {sample.info.get("token")}: {name} has shape {volume.shape}, '
                             f'the grid of OccVisualizer {self.grid.grid_shape} (X, Y, Z)')
        return volume
