"""Where the LiDAR stood at the key frames of a scene: RayIoU's rays start there.

Legend: n key frames of a scene that have LiDAR. Metres.
"""
from typing import Any, Dict, List, Mapping, Sequence

import numpy as np

from .geometry import homogeneous, lidar_to_global


class LidarOrigins:
    """Positions of the LiDAR at all key frames of all scenes.

    Args:
        infos: infos with ``scene_name``, ``timestamp`` and, where there is LiDAR, ``lidar_points``.
    """

    def __init__(self, infos: Sequence[Mapping[str, Any]]) -> None:
        scenes: Dict[str, List[int]] = {}
        for index, info in enumerate(infos):
            if 'lidar_points' in info:
                scenes.setdefault(info['scene_name'], []).append(index)
        self._positions = {
            scene: np.stack([lidar_to_global(infos[index])[:3, 3] for index in
                             sorted(indices, key=lambda i: infos[i]['timestamp'])])
            for scene, indices in scenes.items()}

    def seen_from(self, scene_name: str, ego2global: np.ndarray) -> np.ndarray:
        """(n, 3) float64 in the given ego frame, in the order of time; (0, 3) without LiDAR."""
        positions = self._positions.get(scene_name, np.zeros((0, 3)))
        global2ego = np.linalg.inv(homogeneous(ego2global))
        return positions @ global2ego[:3, :3].T + global2ego[:3, 3]
