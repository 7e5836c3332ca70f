"""Infos of a file by token, for what is scored without a data set: saved predictions.

Legend: n key frames of a scene.
"""
import json
import os.path as osp
from pathlib import Path
from typing import Any, Dict, List, Union

from ..files import existing_file
from .lidar_origins import LidarOrigins

_KEYS = ('token', 'scene_name', 'timestamp', 'ego2global')
_LIDAR_KEYS = ('lidar_path', 'lidar2ego', 'ego2global')


def read_infos(ann_file: Union[str, Path]) -> Dict[str, Any]:
    """An infos file of tools/prepare_data.py: ``data_list`` and ``metainfo``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not valid JSON, or has no list ``data_list``.
    """
    text = Path(existing_file(ann_file, 'infos')).read_text(encoding='utf-8')
    try:
        infos = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f'{ann_file} is not valid JSON: {error}') from error
    if not isinstance(infos, dict) or not isinstance(infos.get('data_list'), list):
        raise ValueError(f"{ann_file} has no list 'data_list': expected infos that "
                         f'tools/prepare_data.py writes')
    return infos


class KeyFrames:
    """What metrics read of key frames: names, paths, where the LiDAR is and was.

    Args:
        ann_file: infos of tools/prepare_data.py.
        data_root: folder that their paths are relative to.

    Attributes:
        tokens: of all key frames, in the file's order.
        categories: number -> name of the LiDAR labels' categories; empty where there are none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see :func:`read_infos`; or no key frame, one without a key, or one twice.
    """

    def __init__(self, ann_file: Union[str, Path], data_root: Union[str, Path] = '') -> None:
        content = read_infos(ann_file)
        self.ann_file, self.data_root = str(ann_file), str(data_root)
        self._infos: Dict[str, dict] = {}
        for info in content['data_list']:
            missing = [key for key in _KEYS if key not in info]
            if 'lidar_points' in info:
                missing += [f'lidar_points.{key}' for key in _LIDAR_KEYS
                            if key not in info['lidar_points']]
            if missing or info['token'] in self._infos:
                raise ValueError(f'{ann_file}: sample {info.get("token", "<no token>")} '
                                 + (f'lacks {missing}' if missing else 'is there twice'))
            self._infos[info['token']] = info
        if not self._infos:
            raise ValueError(f'{ann_file} has no key frame')
        categories = (content.get('metainfo') or {}).get('categories') or {}
        self.categories = {int(number): name for number, name in categories.items()}
        self.tokens: List[str] = list(self._infos)
        self._origins = LidarOrigins(list(self._infos.values()))
        self._token_of_lidar = {
            osp.basename(info['lidar_points']['lidar_path']): token
            for token, info in self._infos.items() if 'lidar_points' in info}

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: str) -> bool:
        return token in self._infos

    def metainfo(self, token: str) -> Dict[str, Any]:
        """Info of a key frame without images and boxes, paths joined, and ``lidar_origins``.

        ``lidar_origins`` (n, 3) metres in the key ego frame is absent where the scene has no LiDAR.

        Raises:
            KeyError: no such key frame.
        """
        if token not in self._infos:
            raise KeyError(f'{self.ann_file} has no sample {token}')
        info = {key: value for key, value in self._infos[token].items()
                if key not in ('images', 'instances')}
        for key in ('occ_path', 'pts_semantic_mask_path'):
            if info.get(key):
                info[key] = osp.join(self.data_root, info[key])
        if 'lidar_points' in info:
            path = osp.join(self.data_root, info['lidar_points']['lidar_path'])
            info['lidar_points'] = dict(info['lidar_points'], lidar_path=path)
        origins = self._origins.seen_from(info['scene_name'], info['ego2global'])
        return dict(info, lidar_origins=origins) if len(origins) else info

    def token_of_lidar(self, lidar_path: str) -> str:
        """Key frame of a LiDAR file, found by the file's name; in nuScenes that is unique.

        Raises:
            KeyError: none has it.
        """
        name = osp.basename(lidar_path)
        if name not in self._token_of_lidar:
            raise KeyError(f'{self.ann_file} has no key frame with the LiDAR file {name}')
        return self._token_of_lidar[name]
