"""The synthetic street: a procedural world, its sensors, and data sets of it in nuScenes format."""
from .snapshot import SKY, Box, Hits, Snapshot, View
from .world import World, make_world

__all__ = ['SKY', 'Box', 'Hits', 'Snapshot', 'View', 'World', 'make_world']
