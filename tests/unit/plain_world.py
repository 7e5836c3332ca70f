"""A world of a road and a few boxes with the interface of ``langocc.synthetic``, exact and slow.

Rays are intersected one solid at a time in float64.
"""
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import List

import numpy as np

SKY = 255
ROAD, CAR, WALL = 11, 4, 15


@dataclass
class Solid:
    """An upright box: centre, size (x, y, z) in metres, Occ3D class, object id, velocity in x."""
    center: tuple
    size: tuple
    label: int
    object_id: int = -1
    speed: float = 0.

    def bounds(self, time: float) -> np.ndarray:
        """(2, 3) corners at a time."""
        center = np.array(self.center, dtype=np.float64) + [self.speed * time, 0, 0]
        return np.stack([center - np.array(self.size) / 2, center + np.array(self.size) / 2])


class PlainWorld:
    """Road at z = 0 everywhere, solids on it; the route runs along x at y = 0."""

    def __init__(self, solids: List[Solid], length: float = 60., yaw: float = 0.) -> None:
        self.solids, self.yaw = solids, yaw
        self.route = SimpleNamespace(length=length, pose=self.pose)

    def pose(self, s: float) -> np.ndarray:
        cosine, sine = np.cos(self.yaw), np.sin(self.yaw)
        matrix = np.eye(4)
        matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
        matrix[:2, 3] = [s * cosine, s * sine]
        return matrix

    def at(self, time: float) -> 'PlainSnapshot':
        return PlainSnapshot(self, time)


@dataclass
class PlainSnapshot:
    world: PlainWorld
    time: float
    boxes: list = field(default_factory=list)

    def __post_init__(self) -> None:
        for solid in self.world.solids:
            if solid.object_id >= 0:
                low, high = solid.bounds(self.time)
                length, width, height = solid.size
                self.boxes.append(SimpleNamespace(
                    object_id=solid.object_id, category='vehicle.car', center=(low + high) / 2,
                    size=(width, length, height), yaw=0., velocity=(solid.speed, 0.),
                    attribute='vehicle.moving' if solid.speed else 'vehicle.parked'))

    def cast(self, origins, directions):
        count = len(directions)
        distances, normals = np.full(count, np.inf), np.zeros((count, 3))
        classes = np.full(count, SKY, np.uint8)
        objects = np.full(count, -1, np.int32)
        with np.errstate(divide='ignore', invalid='ignore'):
            road = np.where(directions[:, 2] < 0, -origins[:, 2] / directions[:, 2], np.inf)
        distances, classes = np.where(np.isfinite(road), road, np.inf), np.where(
            np.isfinite(road), ROAD, SKY).astype(np.uint8)
        normals[:, 2] = 1.
        for solid in self.world.solids:
            low, high = solid.bounds(self.time)
            with np.errstate(divide='ignore', invalid='ignore'):
                first, second = (low - origins) / directions, (high - origins) / directions
            enter = np.fmin(first, second).max(axis=1)
            leave = np.fmax(first, second).min(axis=1)
            hit = (enter <= leave) & (enter > 0) & (enter < distances)
            axis = np.fmin(first, second).argmax(axis=1)
            distances[hit], classes[hit] = enter[hit], solid.label
            objects[hit] = solid.object_id
            normals[hit] = np.eye(3)[axis[hit]]
        with np.errstate(invalid='ignore'):
            points = origins + distances[:, None] * directions
        return SimpleNamespace(distances=distances, classes=classes, objects=objects,
                               normals=normals, points=points)

    def render(self, cam2img, cam2global, size):
        u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        rays = np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3) @ np.linalg.inv(cam2img).T
        rays = rays / np.linalg.norm(rays, axis=1, keepdims=True) @ cam2global[:3, :3].T
        hits = self.cast(np.broadcast_to(cam2global[:3, 3], rays.shape), rays)
        shape = (size[1], size[0])
        image = np.repeat(hits.classes.reshape(shape)[..., None] * np.uint8(7), 3, axis=-1)
        return SimpleNamespace(image=image, distances=hits.distances.reshape(shape),
                               classes=hits.classes.reshape(shape),
                               objects=hits.objects.reshape(shape))

    def occupancy(self, points, half):
        labels = np.where(np.abs(points[:, 2]) <= half, ROAD, 17).astype(np.uint8)
        for solid in self.world.solids:
            low, high = solid.bounds(self.time)
            labels[((points > low - half) & (points < high + half)).all(axis=1)] = solid.label
        return labels
