"""The renderer as configs name it; the work is `voxelrender`'s."""
from mmdet3d.registry import MODELS

from voxelrender import FieldRenderer, MarchConfig, RenderedRays
from voxelrender.rendering import DEFAULT_WEIGHT_THRESHOLD

__all__ = ['RenderedRays', 'VolumeRenderer']


@MODELS.register_module()
class VolumeRenderer(FieldRenderer):
    """Marches rays through a field and renders any decoder of its voxels: `FieldRenderer`.

    Args:
        near, far: metres along the ray (paper: 0.05 and 40).
        num_proposal_samples: uniform samples whose densities place the others (paper: 50).
        num_samples: importance samples that are composited (paper: 100).
        weight_threshold: what weighs at most this, a sample or a voxel within a ray, is neither
            rendered nor given a gradient. 0 is exact; the default is measured to be safe, see
            ``DEFAULT_WEIGHT_THRESHOLD``.
        jitter_at_test: published behaviour (parity); ours draws no random numbers at test.
        rays_per_chunk: rays marched at a time; beyond the first chunk, the backward pass marches
            again. Bounds memory.
        backend: of the kernels, 'auto' (Triton on a GPU where it is there), 'torch' or 'triton'.
    """

    def __init__(self, near: float = 0.05, far: float = 40., num_proposal_samples: int = 50,
                 num_samples: int = 100,
                 weight_threshold: float = DEFAULT_WEIGHT_THRESHOLD,
                 jitter_at_test: bool = False, rays_per_chunk: int = 8192,
                 backend: str = 'auto'):
        super().__init__(
            MarchConfig(near=near, far=far, num_proposal_samples=num_proposal_samples,
                        num_samples=num_samples, jitter_at_test=jitter_at_test,
                        backend=backend),
            weight_threshold, rays_per_chunk)
