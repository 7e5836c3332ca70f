"""Light on what rays have met: sun with cast shadows, sky light, reflections, haze, clouds.

R: rays. Metres, world frame, linear RGB.
"""
import numpy as np

from .casting import GROUND, NOTHING, GridArrays, SolidArrays, hit_normals, in_shadow
from .ground import Ground
from .light import Light
from .solids import Solids
from .texturing import RoadMarks, ground_albedo, solid_albedo

_SHADOW_REACH = 60.  # metres
_LIFT = 0.02         # metres that shadow rays start off the surface


class Shader:
    """Colours of hits in one snapshot.

    Args:
        solids, ground, light: of the snapshot.
        arrays, grid: the solids as casting takes them.
    """

    def __init__(self, solids: Solids, ground: Ground, light: Light, arrays: SolidArrays,
                 grid: GridArrays) -> None:
        self.solids, self.ground, self.light = solids, ground, light
        self.arrays, self.grid = arrays, grid
        main, *crossing = ground.roads
        cross = crossing[0] if crossing else main
        self._marks = RoadMarks(main.half_width, main.lane_width, main.lanes, main.median,
                                main.parking, cross.half_width, cross.lane_width)

    def colors(self, points: np.ndarray, directions: np.ndarray, distances: np.ndarray,
               indices: np.ndarray, angle: float) -> np.ndarray:
        """(R, 3) light that reaches the camera.

        Args:
            points: (R, 3) hits.
            directions: (R, 3) of the rays.
            distances: (R,).
            indices: (R,) what was hit, as casting numbers it.
            angle: radians between rays of neighbouring pixels.
        """
        colors = np.empty((len(points), 3))
        sky = indices == NOTHING
        colors[sky] = self.sky(directions[sky], clouds=True)
        met = np.flatnonzero(~sky)
        colors[met] = self._surfaces(points[met], directions[met], distances[met], indices[met],
                                     angle)
        return colors

    def sky(self, directions: np.ndarray, clouds: bool = False) -> np.ndarray:
        """(R, 3) light of the sky from ``directions``, below the horizon the horizon's."""
        light, up = self.light, np.clip(directions[:, 2], 0, 1)
        share = np.sqrt(up)[:, None]
        color = light.horizon * (1 - share) + light.zenith * share
        toward = np.clip(directions @ light.sun, 0, 1)[:, None]
        color = color + (1 - light.clouds) * (0.25 * toward ** 8 + 0.9 * toward ** 200
                                              ) * light.sun_color
        if clouds:
            plane = directions[:, :2] / (up[:, None] + 0.12) * 1.3 + light.offset
            cover = sum(np.sin(plane @ turn + number) / (1 + 0.6 * number)
                        for number, turn in enumerate(_WAVES))
            cover = np.clip((cover / 2 + 2 * light.clouds - 1.1) * 1.2, 0, 1)[:, None]
            cover = cover * np.clip(up * 6, 0, 1)[:, None]
            color = color + cover * (0.85 * light.horizon.max() + 0.08 - color) * 0.7
        return color

    def _surfaces(self, points, directions, distances, indices, angle) -> np.ndarray:
        """Light from hits on ground and solids."""
        light = self.light
        normals = hit_normals(self.arrays, self.ground.arrays, points, indices)
        facing = -(normals * directions).sum(1)
        widths = distances * angle / np.sqrt(np.clip(facing, 0.06, 1.))
        albedo, gloss = self._albedo(points, normals, indices, widths)
        toward = normals @ light.sun
        lit = toward > 0
        lit[lit] = ~in_shadow(self.arrays, self.grid, points[lit] + _LIFT * normals[lit], light.sun,
                              _SHADOW_REACH)
        sun = (np.clip(toward, 0, 1) * lit)[:, None] * light.sun_color
        above = (0.6 + 0.4 * normals[:, 2:]) * light.ambient
        color = albedo * (sun + above + np.clip(-normals[:, 2:], 0, 1) * 0.12)
        shiny = np.flatnonzero(gloss)
        mirror = directions[shiny] + 2 * facing[shiny, None] * normals[shiny]
        strength = gloss[shiny, None] * (0.05 + 0.6 * (1 - facing[shiny, None]).clip(0, 1) ** 4)
        glint = lit[shiny, None] * np.clip(mirror @ light.sun, 0, 1)[:, None] ** 60
        color[shiny] += strength * self.sky(mirror) * np.where(mirror[:, 2:] > -0.05, 1., 0.35)
        color[shiny] += 0.6 * gloss[shiny, None] * glint * light.sun_color
        clear = np.exp(-light.haze * distances)[:, None]
        return color * clear + light.horizon * (1 - clear)

    def _albedo(self, points, normals, indices, widths):
        """Colours (R, 3) and gloss (R,) of the surfaces."""
        albedo, gloss = np.empty((len(points), 3)), np.zeros(len(points))
        ground = np.flatnonzero(indices == GROUND)
        samples = self.ground.sample(points[ground])
        albedo[ground] = ground_albedo(points[ground], self.ground.classes(samples), samples,
                                       widths[ground], self._marks)
        solid = np.flatnonzero(indices >= 0)
        values = solid_albedo(
            points[solid], normals[solid], widths[solid], indices[solid],
            (self.solids.to_unit, self.solids.half_sizes, self.solids.materials,
             self.solids.colors, self.solids.objects), np.clip(-normals[solid, 2], 0, 1))
        albedo[solid], gloss[solid] = values[:, :3], values[:, 3]
        return albedo, gloss


_WAVES = np.array([[1.1, 0.4], [-0.7, 1.6], [2.3, -1.1], [3.1, 2.7], [-4.6, 3.3], [6.2, 5.1]])


def picture(colors: np.ndarray) -> np.ndarray:
    """8-bit values of light, with soft highlights and the usual gamma."""
    exposed = 1.25 * colors
    soft = np.where(exposed < 0.6, exposed, 1 - 0.4 * np.exp(-(exposed - 0.6) / 0.4))
    return (np.clip(soft, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)
