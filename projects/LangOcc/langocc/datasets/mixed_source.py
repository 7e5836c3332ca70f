"""Rays of several sources in one bundle.

Legend: R rays.
"""
from typing import Any, Dict, Sequence, Union

import numpy as np
from mmdet3d.registry import TASK_UTILS

from .pixel_draw import PixelDraw
from .ray_sources import RaySource


@TASK_UTILS.register_module()
class MixedSource(RaySource):
    """Draws a part of the rays from each of several sources.

    Pixels of LiDAR points meet things often, but none looks at the sky: what they never pass stays
    as the network began it. Some pixels drawn evenly (:class:`CameraPixelSource`) beside them say
    where space is free.

    Each source minds its own ``key_frame_share`` and ``num_images``. A pixel may be drawn by two of
    them. What the others are short of, the last source draws.

    Args:
        sources: Configs of :class:`RaySource`, or sources.
        shares: Part of the rays of each source, greater than 0; they sum to 1.

    Raises:
        ValueError: no source, shares that do not fit, or more than one source with classes of its
            own. Rays of the sources without are of unknown class (-1) beside one.
    """

    def __init__(self, sources: Sequence[Union[RaySource, dict]], shares: Sequence[float]) -> None:
        super().__init__()
        self.sources = [TASK_UTILS.build(source) if isinstance(source, dict) else source
                        for source in sources]
        self.shares = [float(share) for share in shares]
        if not self.sources or len(self.shares) != len(self.sources):
            raise ValueError(f'MixedSource: {len(self.sources)} sources and {len(self.shares)} '
                             'shares, expected a share for each of at least one source')
        if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f'MixedSource: shares are {list(shares)}, expected numbers greater '
                             'than 0 that sum to 1')
        labelled = [source for source in self.sources if source.labels is not None]
        if len(labelled) > 1:
            names = [type(source).__name__ for source in labelled]
            raise ValueError(f'MixedSource: {names} have classes of their own, expected one at '
                             'the most')
        self.labels = labelled[0].labels if labelled else None

    def draw(self, results: Dict[str, Any], num_rays: int, rng: np.random.Generator) -> PixelDraw:
        """See :meth:`RaySource.draw`; rays of the first source come first."""
        draws, left = [], num_rays
        for source, share in zip(self.sources[:-1], self.shares):
            draws.append(source.draw(results, min(round(share * num_rays), left), rng))
            left -= len(draws[-1])
        draws.append(self.sources[-1].draw(results, left, rng))
        parts = [(draw.frames, draw.cameras, draw.pixels, draw.distances) for draw in draws]
        classes = None
        if self.labels is not None:
            classes = np.concatenate([
                np.full(len(draw), -1, dtype=np.int64) if draw.classes is None else draw.classes
                for draw in draws])
        return PixelDraw(*(np.concatenate(columns) for columns in zip(*parts)), classes)
