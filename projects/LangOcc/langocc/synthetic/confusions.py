"""What the teacher of a synthetic street takes for what, and how often.

Chosen by hand after the habits of street segmenters: large vehicles for each other, two-wheelers
for each other and for the people on them, small things for what stands behind them, grounds for
each other, grass for bushes, walls for barriers. The names are those of the teacher's classes.
"""
from dataclasses import dataclass
from typing import Dict, Tuple

from ..occ3d import FREE_CLASS, OCC3D_CLASSES

# Channels of the maps, without the background channel after them; what each is called in text.
SYNTHETIC_CLASSES: Tuple[str, ...] = OCC3D_CLASSES[:FREE_CLASS] + ('sky',)
SYNTHETIC_PROMPTS: Tuple[str, ...] = (
    'background', 'barrier', 'bicycle', 'bus', 'car', 'construction vehicle', 'motorcycle',
    'pedestrian', 'traffic cone', 'trailer', 'truck', 'road', 'traffic island', 'sidewalk', 'grass',
    'building', 'vegetation', 'sky')
SYNTHETIC_DYNAMIC: Tuple[str, ...] = (
    'bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle', 'pedestrian', 'trailer', 'truck')


@dataclass(frozen=True)
class Confusion:
    """The mistakes made with one class.

    Attributes:
        rate: share of the class's things (near) or of its area that are taken for another class.
        others: what they are taken for, with weights.
        extent: length in metres of the regions in which a place is taken for another one; things
            are confused as a whole.
    """
    rate: float
    others: Dict[str, float]
    extent: float = 6.

    def choose(self, draw: float) -> str:
        """One of ``others`` for a uniform draw in [0, 1)."""
        total, names = 0., list(self.others)
        whole = sum(self.others.values())
        for name in names:
            total += self.others[name] / whole
            if draw < total:
                return name
        return names[-1]


# Countable classes, confused a thing at a time; the others are confused a region at a time.
THINGS: Tuple[str, ...] = (
    'barrier', 'bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle', 'pedestrian',
    'traffic_cone', 'trailer', 'truck')

CONFUSIONS: Dict[str, Confusion] = {
    'others': Confusion(0.30, dict(manmade=0.6, sidewalk=0.2, vegetation=0.2)),
    'barrier': Confusion(0.25, dict(manmade=0.6, sidewalk=0.2, traffic_cone=0.2)),
    'bicycle': Confusion(0.20, dict(motorcycle=0.6, pedestrian=0.2, manmade=0.2)),
    'bus': Confusion(0.15, dict(truck=0.6, trailer=0.1, manmade=0.3)),
    'car': Confusion(0.06, dict(truck=0.6, bus=0.2, manmade=0.2)),
    'construction_vehicle': Confusion(0.35, dict(truck=0.6, manmade=0.2, trailer=0.2)),
    'motorcycle': Confusion(0.20, dict(bicycle=0.7, car=0.2, pedestrian=0.1)),
    'pedestrian': Confusion(0.12, dict(manmade=0.4, bicycle=0.3, motorcycle=0.2, vegetation=0.1)),
    'traffic_cone': Confusion(0.20, dict(barrier=0.5, manmade=0.3, pedestrian=0.2)),
    'trailer': Confusion(0.35, dict(truck=0.7, bus=0.2, manmade=0.1)),
    'truck': Confusion(0.22, dict(bus=0.4, car=0.3, trailer=0.2, manmade=0.1)),
    'driveable_surface': Confusion(0.06, dict(sidewalk=0.6, other_flat=0.2, terrain=0.2)),
    'other_flat': Confusion(0.30, dict(driveable_surface=0.5, sidewalk=0.5)),
    'sidewalk': Confusion(0.22, dict(driveable_surface=0.6, terrain=0.2, other_flat=0.1,
                                     manmade=0.1)),
    'terrain': Confusion(0.22, dict(vegetation=0.6, sidewalk=0.3, driveable_surface=0.1)),
    'manmade': Confusion(0.10, dict(vegetation=0.6, barrier=0.2, truck=0.1, bus=0.1)),
    'vegetation': Confusion(0.14, dict(manmade=0.5, terrain=0.5)),
    'sky': Confusion(0.02, dict(manmade=0.6, vegetation=0.4), extent=40.),
}
