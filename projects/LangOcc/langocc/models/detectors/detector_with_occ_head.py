"""Any mmdet3d detector, with an occupancy head on a volume of its own.

Legend: B batch, C channels; X, Y, Z cells.
"""
import copy
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from mmdet3d.models.detectors import Base3DDetector
from mmdet3d.registry import MODELS
from mmdet3d.utils import OptConfigType
from torch import Tensor, nn

from ..volumes import check_cells, check_channels, check_same_range, rays_of, volume_grid_of
from ..voxel_field import VoxelField
from .volume_tap import VolumeTap


@MODELS.register_module()
class LeftOut(nn.Identity):
    """Stands where a module of a detector is left out, and hands its input on.

    Takes any arguments: detectors add theirs (``train_cfg``) to the configs of their heads.
    """


@MODELS.register_module()
class DetectorWithOccHead(Base3DDetector):
    """A detector, unchanged, whose volume an occupancy head reads beside the detector's own heads.

    One pass of the detector serves both: its losses and predictions are its own, and what one of
    its modules gave on the way (``volume``) is the head's input. Losses add up; predictions of both
    are in the same data samples (``pred_instances_3d``, ``pred_occ``).

    The volume must lie in the (augmented) key ego frame, the frame of rays and labels. A detector
    whose range is known (:func:`~langocc.models.volumes.volume_grid_of`) has it checked against the
    head's.

    Weights of the detector alone are loaded by its own ``init_cfg=dict(type='Pretrained',
    checkpoint=...)``: here its parameters are named ``detector.*``.

    Args:
        detector: config of the detector. Its ``data_preprocessor``, where it has one, is taken for
            the whole model.
        occ_head: config of the head, :class:`LangOccHead` or any other :class:`VoxelHead`.
        volume: where the volume is, see :class:`VolumeTap`: ``dict(module='neck_3d',
            value='output', level=0, order='xyz')``.
        volume_neck: config of a module between the volume and the head (:class:`BEVToVolume`, a 3D
            encoder, a :class:`SequentialNeck` of several), None for none. What it returns, or the
            first of it, is (B, C, Z, Y, X).
        without: arguments of the detector whose modules are left out, ``('bbox_head',)`` to train
            occupancy alone: they are not built, whatever the detector's config says of them, and
            hand on what they are given. The detector's losses and predictions are left out too.
        data_preprocessor, init_cfg: see mmengine.

    Raises:
        ValueError: the detector has no such module, or lies in another range than the head.
        TypeError: the detector has no such argument (``without``).
    """

    def __init__(self, detector: dict, occ_head: dict, volume: dict,
                 volume_neck: Optional[dict] = None, without: Sequence[str] = (),
                 data_preprocessor: OptConfigType = None, init_cfg: OptConfigType = None):
        detector = copy.deepcopy(detector)  # mmdet3d's detectors write into their heads' configs
        of_detector = detector.pop('data_preprocessor', None)
        super().__init__(data_preprocessor=data_preprocessor or of_detector, init_cfg=init_cfg)
        detector.update({name: dict(type='LeftOut') for name in without})
        self.detector = MODELS.build(detector)
        self.volume_neck = None if volume_neck is None else MODELS.build(volume_neck)
        self.occ_head = MODELS.build(occ_head)
        self.tap = VolumeTap(**volume)
        self.tap.find(self.detector)
        self.detects = not without
        check_same_range(volume_grid_of(self.detector), getattr(self.occ_head, 'grid', None),
                         type(self.detector).__name__)

    # --------------------------------------------------------------- features

    def extract_feat(self, batch_inputs_dict: dict, batch_data_samples: Optional[list] = None
                     ) -> Tensor:
        """Voxel features (B, C, Z, Y, X) of a batch: what the head reads.

        ``batch_data_samples``: needed where the detector reads its calibration from them, as
        mmdet3d's ImVoxelNet does.
        """
        return self._pass(self.detector._forward, batch_inputs_dict, batch_data_samples)[1]

    def extract_field(self, batch_inputs_dict: dict, batch_data_samples: Optional[list] = None
                      ) -> VoxelField:
        """The voxel field of a batch: what text queries and renderings read."""
        return self.occ_head(self.extract_feat(batch_inputs_dict, batch_data_samples))

    def _pass(self, call: Callable, *args, **kwargs) -> Tuple[Any, Tensor]:
        """What a call of the detector returns, and the volume it made on the way."""
        with self.tap.listen(self.detector) as heard:
            result = call(*args, **kwargs)
        volume, source = self.tap.read(heard, self.detector), str(self.tap)
        if self.volume_neck is not None:
            volume = self.volume_neck(volume)
            volume = volume[0] if isinstance(volume, (list, tuple)) else volume
            source = f'{type(self.volume_neck).__name__} on {source}'
        check_channels(volume, self.occ_head, source)
        check_cells(volume, self.occ_head, source)
        return result, volume

    # --------------------------------------------------------- mmdet3d's modes

    def loss(self, batch_inputs_dict: dict, batch_data_samples: list, **kwargs
             ) -> Dict[str, Tensor]:
        """Losses of the detector and of the head.

        Raises:
            KeyError: the head renders, and a sample has no rays.
            ValueError: both have a loss of one name.
        """
        if hasattr(self.occ_head, 'renderer'):
            rays_of(batch_data_samples)  # at once, rather than after the detector's pass
        call = self.detector.loss if self.detects else self.detector._forward
        result, volume = self._pass(call, batch_inputs_dict, batch_data_samples, **kwargs)
        losses = dict(result) if self.detects else {}
        of_head = self.occ_head.loss(volume, batch_data_samples)
        twice = sorted(losses.keys() & of_head.keys())
        if twice:
            raise ValueError(f'{type(self.detector).__name__} and {type(self.occ_head).__name__} '
                             f'both have the losses {twice}: rename those of the head '
                             '(occ_head.losses)')
        return {**losses, **of_head}

    def predict(self, batch_inputs_dict: dict, batch_data_samples: list, **kwargs) -> list:
        """Data samples with ``pred_occ`` (OccData) beside what the detector predicts."""
        call = self.detector.predict if self.detects else self.detector._forward
        result, volume = self._pass(call, batch_inputs_dict, batch_data_samples, **kwargs)
        samples = result if self.detects else batch_data_samples
        for sample, prediction in zip(samples, self.occ_head.predict(volume, samples)):
            sample.pred_occ = prediction
        return samples

    def _forward(self, batch_inputs_dict: dict, batch_data_samples: Optional[list] = None,
                 **kwargs) -> Tuple[Any, ...]:
        """What the detector's heads give without post-processing, then the head's ``outputs``."""
        result, volume = self._pass(self.detector._forward, batch_inputs_dict, batch_data_samples)
        return (result, *self.occ_head.outputs(volume))
