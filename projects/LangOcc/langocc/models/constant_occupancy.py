"""Predictors that ignore their input: a slab of one class, or the prior of a training set.

They give the scores that a trained model must beat, and run ``test.py``, the metric and the writing
of predictions without a network.
"""
from typing import Any, List, Optional, Sequence

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModel
from torch import Tensor, nn

from langocc.structures import OccData
from voxelrender import VoxelGrid

from ..evaluation.occ_prior import OccupancyPrior


class FixedOccupancy(BaseModel):
    """Predicts the same volume for every sample.

    Args:
        semantics: (X, Y, Z) uint8 classes, key ego frame.
        data_preprocessor: see mmengine's BaseModel.
    """

    def __init__(self, semantics: Tensor, data_preprocessor: Optional[dict] = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.register_buffer('semantics', semantics, persistent=False)
        # DistributedDataParallel refuses a module without parameters.
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self,
                inputs: Any,
                data_samples: Optional[List] = None,
                mode: str = 'predict') -> List:
        """Writes the volume into ``pred_occ`` of every sample.

        Args:
            inputs: not read.
            data_samples: B samples.
            mode: 'predict', or 'tensor' for the bare (X, Y, Z) uint8 volume.

        Returns:
            The samples with ``pred_occ``, or the volume.

        Raises:
            ValueError: another mode (nothing can be trained), or no samples.
        """
        if mode == 'tensor':
            return self.semantics.clone()
        if mode != 'predict' or data_samples is None:
            raise ValueError(f"{type(self).__name__}: mode='{mode}' with data_samples="
                             f'{type(data_samples).__name__}; it only predicts, for given samples')
        return [self._predict(sample) for sample in data_samples]

    def _predict(self, data_sample: Any) -> Any:
        prediction: Tensor = self.semantics.clone()
        data_sample = data_sample.clone()
        data_sample.pred_occ = OccData(semantics=prediction)
        return data_sample


@MODELS.register_module()
class ConstantOccupancy(FixedOccupancy):
    """Predicts one class where a voxel's centre lies in ``z_range``, free elsewhere.

    Args:
        grid_config: BEVDet's ``dict(x=[lo, hi, step], y=..., z=...)``, metres, key ego frame.
        z_range: (lo, hi) metres; centres in [lo, hi) are occupied. A slab in [-0.6, 0.2] is about
            the road of a car whose ego frame lies on the ground.
        occupied_class: class of the slab, 11 = driveable_surface.
        free_class: class elsewhere.
        data_preprocessor: see mmengine's BaseModel.

    Raises:
        ValueError: ``z_range`` is not increasing.
    """

    def __init__(self,
                 grid_config: dict,
                 z_range: Sequence[float] = (-0.6, 0.2),
                 occupied_class: int = 11,
                 free_class: int = 17,
                 data_preprocessor: Optional[dict] = None) -> None:
        low, high = z_range
        if not low < high:
            raise ValueError(f'ConstantOccupancy: z_range={tuple(z_range)} is not increasing')
        heights = VoxelGrid.from_grid_config(grid_config).voxel_centers()[..., 2]  # (Z, Y, X)
        occupied = ((heights >= low) & (heights < high)).permute(2, 1, 0)
        semantics = torch.full(occupied.shape, free_class, dtype=torch.uint8)
        semantics[occupied] = occupied_class
        super().__init__(semantics, data_preprocessor)


@MODELS.register_module()
class PriorOccupancy(FixedOccupancy):
    """Predicts for each voxel the class that it had most often in a training set.

    Args:
        prior: file of ``tools/fit_prior.py``.
        data_preprocessor: see mmengine's BaseModel.

    Raises:
        FileNotFoundError, ValueError: no such file, or it is none of that tool's.
    """

    def __init__(self, prior: str, data_preprocessor: Optional[dict] = None) -> None:
        semantics = torch.from_numpy(OccupancyPrior.load(prior).semantics)
        super().__init__(semantics, data_preprocessor)
