"""A street of boxes seen by a pinhole camera: true classes, objects and distances for tests."""
import numpy as np

from langocc.occ3d import OCC3D_CLASSES
from langocc.synthetic.teacher import Camera

SIZE = (400, 225)
CAM2IMG = np.array([[316., 0, 199.5], [0, 316., 112.], [0, 0, 1]])
# Class, and corners x0, y0, z0, x1, y1, z1 in metres; the car drives along x.
THINGS = [
    ('car', 12, -3.5, 0, 16.5, -1.7, 1.5), ('car', 25, 1.5, 0, 29.5, 3.3, 1.5),
    ('truck', 34, -4, 0, 43, -1.5, 3.4), ('bus', 48, 1, 0, 60, 3.6, 3.2),
    ('pedestrian', 15, 5, 0, 15.5, 5.6, 1.75), ('pedestrian', 28, -6, 0, 28.5, -5.4, 1.75),
    ('bicycle', 20, -5.2, 0, 21.8, -4.7, 1.2), ('motorcycle', 31, 4.2, 0, 33, 4.9, 1.3),
    ('traffic_cone', 11, 3.2, 0, 11.4, 3.6, 0.8), ('traffic_cone', 19, 3.4, 0, 19.4, 3.8, 0.8),
    ('barrier', 14, 3.8, 0, 17, 4.1, 1.0), ('trailer', 46, -4, 0, 53, -1.5, 3.0),
    ('construction_vehicle', 62, -5, 0, 68, -1.5, 3.2), ('manmade', 18, 6.8, 0, 18.2, 7, 7),
    ('manmade', 30, -7, 0, 30.2, -6.8, 7), ('manmade', 5, 13, 0, 40, 25, 11),
    ('manmade', 48, 12, 0, 90, 25, 16), ('manmade', 5, -25, 0, 90, -13, 9),
    ('vegetation', 22, 8, 1.5, 26, 11, 6), ('vegetation', 38, 8, 0, 44, 11, 7),
    ('vegetation', 16, -12, 0, 24, -9, 2), ('vegetation', 33, -12, 0.8, 38, -8, 7)]
# Class and largest |y| of the strips of the ground.
STRIPS = [('driveable_surface', 4.), ('sidewalk', 7.5), ('terrain', np.inf)]


def camera_at(x, y=0., yaw=0.):
    """A camera 1.5 m above the road that looks along the road, turned left by ``yaw``."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    cam2global = np.eye(4)
    cam2global[:3, :3] = np.array([[sine, 0, cosine], [-cosine, 0, sine], [0, -1, 0]])
    cam2global[:3, 3] = (x, y, 1.5)
    return Camera(CAM2IMG, cam2global)


def cast(origin, directions):
    """First hits of rays with the street: classes, objects, distances (R,)."""
    classes = np.full(len(directions), 255, np.uint8)
    objects = np.full(len(directions), -1, np.int32)
    distances = np.full(len(directions), np.inf)
    with np.errstate(divide='ignore', invalid='ignore'):
        down = np.where(directions[:, 2] < 0, -origin[2] / directions[:, 2], np.inf)
    hit = down < 150
    side = np.abs(origin[1] + np.where(hit, down, 0) * directions[:, 1])
    strip = np.searchsorted([limit for _, limit in STRIPS], side)
    names = np.array([OCC3D_CLASSES.index(name) for name, _ in STRIPS])
    classes[hit], distances[hit] = names[strip][hit], down[hit]
    for index, (name, *corners) in enumerate(THINGS):
        low, high = np.array(corners, float).reshape(2, 3)
        with np.errstate(divide='ignore', invalid='ignore'):
            slabs = np.stack([(low - origin) / directions, (high - origin) / directions])
        near, far = slabs.min(0).max(1), slabs.max(0).min(1)
        inside = (near > 0) & (near < far) & (near < distances)
        classes[inside], objects[inside] = OCC3D_CLASSES.index(name), index
        distances[inside] = near[inside]
    return classes, objects, distances


def render(camera, size=SIZE):
    """(H, W) classes, objects and distances of an image."""
    width, height = size
    v, u = np.mgrid[:height, :width]
    rays = np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3) @ np.linalg.inv(camera.cam2img).T
    rays = rays @ camera.cam2global[:3, :3].T
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return tuple(values.reshape(height, width)
                 for values in cast(camera.cam2global[:3, 3], rays))
