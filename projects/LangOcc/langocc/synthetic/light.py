"""Sun, sky and haze of a scene. Linear RGB, directions in the world frame."""
from dataclasses import dataclass

import numpy as np


@dataclass
class Light:
    """The light of one scene.

    Attributes:
        sun: (3,) unit, towards the sun.
        sun_color: (3,) light on a surface that faces it.
        ambient: (3,) light from the sky on a surface that faces up.
        zenith: (3,) colour of the sky overhead.
        horizon: (3,) colour of the sky at the horizon, which haze takes on.
        haze: 1/m, share of light lost to haze a metre.
        clouds: cover, 0 to 1.
        offset: moves the pattern of clouds.
    """
    sun: np.ndarray
    sun_color: np.ndarray
    ambient: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    haze: float
    clouds: float
    offset: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> 'Light':
        """Daylight between low evening sun and overcast."""
        clouds = rng.uniform(0.1, 0.9)
        height, azimuth = np.radians(rng.uniform(25., 60.)), rng.uniform(0., 2 * np.pi)
        sun = np.array([np.cos(height) * np.cos(azimuth), np.cos(height) * np.sin(azimuth),
                        np.sin(height)])
        warmth = np.clip((np.degrees(height) - 25.) / 25., 0., 1.)
        tint = np.array([1.0, 0.86 + 0.1 * warmth, 0.66 + 0.26 * warmth])
        strength = rng.uniform(0.85, 1.05)
        zenith = (1 - clouds) * np.array([0.16, 0.33, 0.68]) + clouds * np.array([0.5, 0.56, 0.64])
        horizon = (1 - clouds) * np.array([0.62, 0.74, 0.88]) + clouds * np.array([0.7, 0.73, 0.77])
        return cls(sun, strength * (1.15 - 0.45 * clouds) * tint,
                   strength * (0.32 + 0.2 * clouds) * np.array([0.86, 0.95, 1.08]),
                   strength * zenith, strength * horizon, rng.uniform(0.0015, 0.005), clouds,
                   rng.uniform(0., 1000.))
