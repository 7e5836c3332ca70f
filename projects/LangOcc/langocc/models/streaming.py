"""A sequence fed sample by sample: what earlier samples leave to the next one.

A frame that was the key frame is the adjacent frame of the next sample and the stereo reference of
the one after. Volumes cannot be kept, the ego moved; what the images gave can: stride-4 features,
image features and the match with the frame before. The depth net looks at the camera's place in the
key ego frame, so its last part (`LSSViewTransformer.lift`) runs anew, and the result is the same.

Legend: B batch, N cameras, C channels, D depth bins, h/w feature height and width.
"""
from dataclasses import dataclass, field
from typing import List, Optional

import torch
from torch import Tensor, nn

from ..structures import CameraRig

_MATRICES = ('cam2img', 'cam2ego', 'ego2global', 'img_aug_matrix')


@dataclass
class FrameFeatures:
    """What is known of one frame, whichever frame is the key frame.

    Attributes:
        imgs: (B, N, 3, H, W) normalised images, which say which frame it is.
        rig: its cameras, likewise, matrices (B, N, 4, 4).
        stride4: (B, N, C4, h4, w4) features for stereo; None: not computed.
        feats: (BN, C, h, w) of the view transformer's ``reduce``; None: not computed.
        matching: (BN, D, h, w) of its ``match``; None: not computed, or no stereo.
    """
    imgs: Tensor
    rig: CameraRig
    stride4: Optional[Tensor] = None
    feats: Optional[Tensor] = None
    matching: Optional[Tensor] = None
    # Tokens and not frames: a chain of references would keep every frame there ever was.
    _token: object = field(default_factory=object)
    _matched_to: Optional[object] = None

    def is_frame(self, imgs: Tensor, rig: CameraRig) -> bool:
        """Whether this is the frame with those images and cameras, bit for bit."""
        # Matrices first: six cameras' images take milliseconds to compare.
        return all(_same(getattr(self.rig, name), getattr(rig, name)) for name in _MATRICES
                   ) and _same(self.imgs, imgs)

    def is_matched_to(self, reference: 'FrameFeatures') -> bool:
        """Whether ``matching`` is there, and with that frame."""
        return self._matched_to is reference._token

    def match_to(self, reference: 'FrameFeatures', matching: Optional[Tensor]) -> None:
        """Remember ``matching`` with the frame before."""
        self.matching, self._matched_to = matching, reference._token


class StreamState:
    """Frames of the last sample of one sequence, for `LangOcc.predict(..., stream=state)`.

    Frames are known by their images and calibrated cameras, compared bit for bit: a jump in time,
    another scene, a frame left out or a corrected pose only costs time. BEV augmentation and the
    key frame's pose may change freely. Another detector or another precision (autocast) makes it
    forget all frames; other *weights* of the same detector go unseen: call :meth:`clear` then.

    Attributes:
        hits, misses: lifted frames whose image features were known, and those that were computed.
    """

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._frames: List[FrameFeatures] = []
        self._next: List[FrameFeatures] = []
        self._settings = None
        self.hits = self.misses = 0

    def begin(self, model: nn.Module, device: torch.device) -> None:
        """Start a sample.

        Raises:
            RuntimeError: in training: features are kept without gradient and without dropout.
        """
        if model.training or torch.is_grad_enabled():
            raise RuntimeError('a StreamState is for prediction: call eval() on the detector and '
                               'use torch.no_grad()')
        settings = (model, device, torch.is_autocast_enabled(device.type)
                    and torch.get_autocast_dtype(device.type))
        if self._settings != settings:
            self.clear()
            self._settings = settings
        self._next = []

    def frame(self, imgs: Tensor, rig: CameraRig) -> FrameFeatures:
        """The frame with those images (B, N, 3, H, W) and cameras, new if it is not known."""
        frame = next((known for known in self._next + self._frames if known.is_frame(imgs, rig)),
                     None)
        if frame is None:
            frame = FrameFeatures(imgs, rig)
        self._next.append(frame)
        return frame

    def count(self, known: bool) -> None:
        """Note whether a lifted frame was known."""
        self.hits, self.misses = self.hits + known, self.misses + (not known)

    def end(self) -> None:
        """Finish a sample: its frames are kept, all others forgotten."""
        self._frames, self._next = self._next, []


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
