"""nuScenes (or anything in its format) with occupancy labels, several frames and several cameras.

Legend: N cameras, F frames. Infos: :mod:`langocc.datasets.nuscenes_infos`.
"""
import json
import os.path as osp
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import numpy as np
from mmdet3d.datasets import Det3DDataset
from mmdet3d.registry import DATASETS
from mmdet3d.structures import LiDARInstance3DBoxes

from ..occ3d import OCC3D_CLASSES, OCC3D_COLORS
from .frame_store import FrameStore
from .lidar_origins import LidarOrigins
from .nuscenes_infos import INSTANCE_CLASSES

NUSCENES_CAMERAS = ('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_LEFT', 'CAM_BACK',
                    'CAM_BACK_RIGHT')
_INFO_KEYS = ('token', 'scene_name', 'prev', 'next', 'timestamp', 'ego2global', 'images')
_CAMERA_KEYS = ('img_path', 'cam2img', 'cam2ego', 'ego2global')
_LIDAR_KEYS = ('lidar_path', 'lidar2ego', 'ego2global')
_MATRIX_KEYS = ('cam2img', 'cam2ego', 'ego2global', 'lidar2ego')


@DATASETS.register_module()
class NuScenesOccDataset(Det3DDataset):
    """Samples with adjacent frames, frames to draw rays from, and Occ3D labels.

    :meth:`get_data_info` gives the info's own fields (paths joined with ``data_root``) and

    - ``frames``: F infos, [key, t-1, ...]: the key frame, the adjacent frames of
      ``multi_adj_frame_id_cfg`` and, with ``stereo``, one more that is only the stereo reference;
    - ``ray_frames``: dict(offset, info) for every offset of ``ray_frame_ids`` (key frames);
    - ``camera_names``: the N cameras to use, in order;
    - ``key_ego2global``: (4, 4) float64, the frame of the volume, and ``ray_ego2global``, that of
      rays and labels: the same but for ``key_ego='first_camera'``;
    - ``lidar_origins``: (n, 3) float64 metres in that frame, the LiDAR at the scene's key frames in
      order of time (origins of RayIoU's rays); where the scene has LiDAR;
    - ``data_root``; ``ann_info`` (``eval_ann_info`` in test mode): boxes, labels as Occ3D classes.

    A frame outside the scene is replaced by the current one. Only the key frame carries
    ``instances``. ``indices`` and subsets keep the neighbours of what they select.

    Args:
        data_root: folder that the infos' paths are relative to.
        ann_file: infos, relative to ``data_root`` or absolute.
        pipeline: transforms.
        camera_names: cameras to use, any subset of the rig's, in order.
        multi_adj_frame_id_cfg: BEVDet's (start, stop, step) of the lifted earlier frames.
        stereo: add the frame before the last adjacent one.
        ray_frame_ids: offsets in key frames that rays are drawn from; range(-12, 13) in the paper.
        key_ego: ``'lidar'``: the key frame's ``ego2global``; ``'first_camera'``: the ego pose at
            the first camera's time for the volume, as published, while rays and labels stay in
            the LiDAR-time ego frame, about 45 ms off.
        modality, filter_empty_gt, test_mode, lazy_init, kwargs: as
            :class:`mmdet3d.datasets.Det3DDataset`; with ``use_lidar`` a sample without LiDAR is an
            error.

    Raises:
        FileNotFoundError: no such infos.
        ValueError: the infos lack a key or a camera, or hold a non-finite matrix; the message names
            file, sample, sensor and key.
    """
    METAINFO = {'classes': OCC3D_CLASSES, 'palette': [*OCC3D_COLORS]}

    def __init__(self,
                 data_root: str,
                 ann_file: str,
                 pipeline: Sequence[Union[dict, Callable]] = (),
                 camera_names: Sequence[str] = NUSCENES_CAMERAS,
                 multi_adj_frame_id_cfg: Tuple[int, int, int] = (1, 2, 1),
                 stereo: bool = True,
                 ray_frame_ids: Sequence[int] = (0, ),
                 key_ego: str = 'lidar',
                 modality: Optional[dict] = None,
                 filter_empty_gt: bool = False,
                 test_mode: bool = False,
                 lazy_init: bool = False,
                 **kwargs) -> None:
        if key_ego not in ('lidar', 'first_camera'):
            raise ValueError(f"key_ego must be 'lidar' or 'first_camera', got {key_ego!r}")
        if not camera_names or len(set(camera_names)) != len(camera_names):
            raise ValueError(f'camera_names must be distinct and at least one: {camera_names}')
        self.camera_names = tuple(camera_names)
        self.key_ego = key_ego
        self.frame_offsets = adjacent_offsets(multi_adj_frame_id_cfg, stereo)
        self.ray_frame_ids = tuple(int(offset) for offset in ray_frame_ids)
        self.show_ins_var = kwargs.get('show_ins_var', False)  # mmdet3d forgets it if lazy_init
        modality = dict(use_camera=True, use_lidar=False) if modality is None else dict(modality)
        kwargs.setdefault('data_prefix', dict(img='', pts=''))
        super().__init__(
            data_root=data_root, ann_file=ann_file, pipeline=list(pipeline), modality=modality,
            filter_empty_gt=filter_empty_gt, test_mode=test_mode, lazy_init=True, **kwargs)
        # Loaded here: mmdet3d would follow its own loading by a table of boxes, which nothing uses.
        if not lazy_init:
            self.full_init()

    def load_data_list(self) -> List[dict]:
        """Checks and keeps all infos in a frame store; the data list holds places in it."""
        try:
            infos = super().load_data_list()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'no infos at {self.ann_file}: tools/prepare_data.py writes them; the environment '
                "variable LANGOCC_INFO_ROOT names their folder to this project's configs"
            ) from error
        except json.JSONDecodeError as error:
            raise ValueError(f'{self.ann_file} is not valid JSON: {error}') from error
        except (TypeError, ValueError) as error:
            raise type(error)(f'{self.ann_file}: {error}') from error
        categories = self._metainfo.get('categories')
        if categories is not None:
            self._metainfo['categories'] = {int(i): name for i, name in categories.items()}
        self._frames = FrameStore(infos, serialize=self.serialize_data)
        self._lidar_origins = LidarOrigins(infos)
        return [dict(token=info['token'], frame=i) for i, info in enumerate(infos)]

    def parse_data_info(self, info: dict) -> dict:
        """Checks an info and joins its paths with the data root."""
        self._check_info(info)
        info = dict(info, images={
            name: dict(image, img_path=self._join(self.data_prefix.get(
                name, self.data_prefix.get('img', '')), image['img_path']))
            for name, image in info['images'].items()})
        if 'lidar_points' in info:
            points = info['lidar_points']
            path = self._join(self.data_prefix.get('pts', ''), points['lidar_path'])
            info['lidar_points'] = dict(points, lidar_path=path)
        for key in ('pts_semantic_mask_path', 'occ_path'):
            if key in info:
                info[key] = self._join(self.data_root or '', info[key])
        for instance in info.get('instances', []):
            label = self._occ_label(instance['bbox_label_3d'])
            if label >= 0:
                self.num_ins_per_cat[label] += 1
        return info

    @staticmethod
    def _join(prefix: str, path: str) -> str:
        return osp.join(prefix, path)

    def _check_info(self, info: dict) -> None:
        where = f'{self.ann_file}: sample {info.get("token", "<no token>")}'
        _require_keys(info, _INFO_KEYS, where)
        where = f'{where} (scene {info["scene_name"]!r})'
        sensors = {}
        for name in self.camera_names:
            if name not in info['images']:
                raise ValueError(f'{where} has no camera {name}; it has {sorted(info["images"])}')
            sensors[name] = info['images'][name]
            _require_keys(sensors[name], _CAMERA_KEYS, f'{where}: {name}')
        if 'lidar_points' in info:
            sensors['lidar_points'] = info['lidar_points']
            _require_keys(info['lidar_points'], _LIDAR_KEYS, f'{where}: lidar_points')
        elif self.modality['use_lidar']:
            raise ValueError(f'{where} has no lidar_points, which modality.use_lidar needs')
        sensors['key frame'] = dict(ego2global=info['ego2global'])
        for sensor, record in sensors.items():
            for key in _MATRIX_KEYS:
                if key in record:
                    _require_finite(record[key], (3, 3) if key == 'cam2img' else (4, 4),
                                    f'{where}: {key} of {sensor}')

    def get_token(self, idx: int) -> str:
        """Token of one sample, without making its info."""
        return super().get_data_info(idx)['token']

    def get_data_info(self, idx: int) -> dict:
        """Info of one sample with its neighbours; see the class."""
        place = super().get_data_info(idx)
        index = place['frame']
        key_info = dict(self._frames[index], sample_idx=place['sample_idx'])
        if self.key_ego == 'lidar':
            key_pose = key_info['ego2global']
        else:
            key_pose = key_info['images'][self.camera_names[0]]['ego2global']
        neighbours = self._neighbours(index, {*self.frame_offsets, *self.ray_frame_ids})
        info = dict(
            key_info,
            frames=[neighbours[offset] for offset in self.frame_offsets],
            ray_frames=[dict(offset=o, info=neighbours[o]) for o in self.ray_frame_ids],
            camera_names=list(self.camera_names),
            key_ego2global=np.array(key_pose, dtype=np.float64),
            ray_ego2global=np.array(key_info['ego2global'], dtype=np.float64),
            data_root=self.data_root)
        origins = self._lidar_origins.seen_from(info['scene_name'], info['ray_ego2global'])
        if len(origins):
            info['lidar_origins'] = origins
        if not self.test_mode:
            info['ann_info'] = self.parse_ann_info(info)
        elif self.load_eval_anns:
            info['eval_ann_info'] = self.parse_ann_info(info)
        return info

    def _neighbours(self, index: int, offsets: Iterable[int]) -> Dict[int, dict]:
        """Offset -> info without boxes; offsets that lead to one frame share the object."""
        places = {offset: self._frames.neighbour(index, offset) for offset in offsets}
        infos = {place: self._frames[place] for place in set(places.values())}
        for info in infos.values():
            info.pop('instances', None)
        return {offset: infos[place] for offset, place in places.items()}

    def _occ_label(self, instance_label: int) -> int:
        """Detection class -> class of this data set; -1 stays, and so does what is not trained."""
        if instance_label < 0:
            return -1
        name = INSTANCE_CLASSES[instance_label]
        return self.label_mapping[self.METAINFO['classes'].index(name)]

    def parse_ann_info(self, info: dict) -> Dict[str, Any]:
        """Boxes of a sample.

        Returns:
            ``gt_bboxes_3d`` (LiDARInstance3DBoxes, (M, 9) with velocity; unknown velocity is 0),
            ``gt_labels_3d`` (M,) int64 class of this data set, -1 = none of the ten that have
            boxes; ``num_lidar_pts``, ``num_radar_pts`` (M,), ``bbox_3d_isvalid`` (M,) bool.
        """
        instances = info.get('instances', [])
        boxes = np.array([i['bbox_3d'] for i in instances], dtype=np.float32).reshape(-1, 7)
        velocities = [[v or 0. for v in i['velocity']] for i in instances]
        velocities = np.array(velocities, dtype=np.float32).reshape(-1, 2)
        labels = [self._occ_label(i['bbox_label_3d']) for i in instances]
        boxes = LiDARInstance3DBoxes(np.concatenate([boxes, velocities], axis=1), box_dim=9,
                                     origin=(0.5, 0.5, 0.5))
        counts = {key: np.array([i[key] for i in instances], dtype=np.int64)
                  for key in ('num_lidar_pts', 'num_radar_pts')}
        valid = np.array([i['bbox_3d_isvalid'] for i in instances], dtype=bool)
        return dict(gt_bboxes_3d=boxes.convert_to(self.box_mode_3d),
                    gt_labels_3d=np.array(labels, dtype=np.int64), bbox_3d_isvalid=valid, **counts)

    def get_cat_ids(self, idx: int) -> List[int]:
        """Distinct classes of the boxes of a sample, for mmengine's ``ClassBalancedDataset``."""
        instances = super().get_data_info(idx)
        instances = self._frames[instances['frame']].get('instances', [])
        return sorted({self._occ_label(i['bbox_label_3d']) for i in instances} - {-1})


def adjacent_offsets(multi_adj_frame_id_cfg: Sequence[int], stereo: bool) -> List[int]:
    """BEVDet's rule: offsets of the frames, key first; (1, 2, 1) with stereo gives [0, -1, -2].

    Args:
        multi_adj_frame_id_cfg: (start, stop, step) of how many key frames back.
        stereo: append the reference frame ``stop``, which needs start = step = 1.

    Raises:
        ValueError: not three numbers, or a stereo reference that is not the next frame.
    """
    if len(multi_adj_frame_id_cfg) != 3:
        raise ValueError('multi_adj_frame_id_cfg must be (start, stop, step), '
                         f'got {multi_adj_frame_id_cfg}')
    start, stop, step = (int(number) for number in multi_adj_frame_id_cfg)
    back = list(range(start, stop, step))
    if stereo:
        if start != 1 or step != 1:
            raise ValueError('stereo needs consecutive frames: multi_adj_frame_id_cfg '
                             f'(1, n, 1), got {multi_adj_frame_id_cfg}')
        back.append(stop)
    return [0] + [-offset for offset in back]


def _require_keys(record: dict, keys: Sequence[str], where: str) -> None:
    missing = [key for key in keys if key not in record]
    if missing:
        raise ValueError(f'{where}: missing key {missing}; it has {sorted(record)}')


def _require_finite(values: Any, shape: Tuple[int, int], where: str) -> None:
    matrix = np.array(values, dtype=np.float64)
    if matrix.shape != shape:
        raise ValueError(f'{where} must be {shape}, got shape {matrix.shape}')
    if not np.isfinite(matrix).all():
        raise ValueError(f'{where} is not finite: {matrix.tolist()}')
