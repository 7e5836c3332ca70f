"""What a head predicts for one batch: `voxelrender`'s field, under its old name here."""
from voxelrender import VoxelField

__all__ = ['VoxelField']
