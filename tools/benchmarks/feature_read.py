"""What one training sample reads: the published layout against a feature store.

Published: one compressed .npz a key frame with a fp16 row for every ray of the frame; a sample
reads all its frames and keeps the few rows it draws. Ours: a map an image; a sample decodes the
cells around its pixels. Both hold the same maps at the same pixels and give the same (R, E) float32
rows.

Cold: the files' pages are dropped from memory before (posix_fadvise), and what the process then
makes the disk read is counted by the kernel (/proc/self/io). Warm: read again.

Legend: F frames, R rays, E embedding.
"""
import gc
import os
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .feature_case import SEED, FeatureCase
from .measure import median
from .progress import say

CODECS = ('fp16', 'int8', 'pca64-int8', 'pq')
_MB = 1e6
_ROWS_PER_IMAGE = 256


class RayPools:
    """The rays of F key frames: LiDAR pixels of the sequence, drawn anew for every frame.

    Attributes:
        cameras: F x (P,) index of the camera.
        pixels: F x (P, 2).
    """

    def __init__(self, case: FeatureCase, rays_per_frame: int):
        from langocc.datasets.ray_sources import LidarPixelSource
        rng, source = np.random.default_rng(SEED), LidarPixelSource()
        self.case, self.cameras, self.pixels = case, [], []
        for frame in range(case.size.frames):
            info = case.dataset.get_data_info(self.key_frame(frame))
            seen = [points[0] for points in source.visible_points(info, info['camera_names'])]
            cameras = np.repeat(np.arange(len(seen)), [len(pixels) for pixels in seen])
            chosen = rng.choice(len(cameras), rays_per_frame, replace=rays_per_frame > len(cameras))
            self.cameras.append(cameras[chosen])
            self.pixels.append(np.concatenate(seen)[chosen].astype(np.float64))

    def key_frame(self, frame: int) -> int:
        """Key frame of the sequence that stands for a frame: it has fewer than a sample reads."""
        return frame % len(self.case.dataset)

    def image(self, frame: int, camera: int):
        """(token in the store, image) of a frame and camera."""
        item = self.case.images[self.key_frame(frame) * len(self.case.dataset.camera_names)
                                + camera]
        return f'{frame:03d}-{item.token}', item

    def draw(self, seed: int) -> Tuple[np.ndarray, np.ndarray]:
        """Frames (R,) and places in their pools (R,), uniformly over all rays, sorted by frame."""
        from langocc.datasets.ray_sources import draw_from_groups
        counts = np.array([len(cameras) for cameras in self.cameras])
        return draw_from_groups(counts, self.case.size.rays, np.random.default_rng(seed))


def frame_maps(pools: RayPools) -> Iterator[Tuple[int, int, str, Tensor]]:
    """(frame, camera, token, map) of all images of a sample."""
    source = pools.case.probabilities(pools.case.size.map_sizes[0])
    for frame in range(pools.case.size.frames):
        for camera in range(len(pools.case.dataset.camera_names)):
            token, item = pools.image(frame, camera)
            yield frame, camera, token, source.maps([item], [None])[0]


def write_published(folder: Path, pools: RayPools, dims: int) -> List[Path]:
    """One .npz a frame: feats (P, E) fp16, in the order of its pool."""
    from langocc.teachers.sampling import sample_map
    folder.mkdir(parents=True)
    paths, feats = [], np.empty(0)
    cameras = len(pools.case.dataset.camera_names)
    for frame, camera, _, values in frame_maps(pools):
        if camera == 0:
            feats = np.empty((len(pools.cameras[frame]), dims), np.float16)
        height, width = pools.image(frame, camera)[1].size
        index = pools.cameras[frame] == camera
        rows = sample_map(values.numpy(), pools.pixels[frame][index], (width, height))
        feats[index] = F.normalize(torch.from_numpy(rows), dim=1).numpy()
        if camera == cameras - 1:
            paths.append(folder / f'{frame:03d}.npz')
            np.savez_compressed(paths[-1], feats=feats)
    return paths


def write_store(root: Path, pools: RayPools, codec_name: str) -> List[Path]:
    """A store of the same maps, its codec fitted on them; its files of items."""
    from langocc.apis.extraction_codecs import fit_codec, needs_features, rows_of_maps
    from langocc.feature_store import FeatureWriter
    rows, dims = None, pools.case.text.embed_dims
    if needs_features(codec_name):
        rows = rows_of_maps((values for *_, values in frame_maps(pools)), _ROWS_PER_IMAGE,
                            np.random.default_rng(SEED))
    description = pools.case.probabilities(pools.case.size.map_sizes[0]).describe()
    with FeatureWriter(root, fit_codec(codec_name, rows, dims), description) as writer:
        for _, _, token, values in frame_maps(pools):
            writer.write(token, values)
    return sorted((root / 'parts').iterdir())


def read_published(paths: List[Path], frames: np.ndarray, places: np.ndarray, dims: int) -> Tensor:
    """(R, E) rows of drawn rays."""
    out = np.empty((len(frames), dims), np.float32)
    for frame, path in enumerate(paths):
        chosen = frames == frame
        with np.load(path) as archive:
            out[chosen] = archive['feats'][places[chosen]]
    return F.normalize(torch.from_numpy(out), dim=1)


def read_store(store, pools: RayPools, frames: np.ndarray, places: np.ndarray) -> Tensor:
    """(R, E) rows of drawn rays."""
    out = torch.empty(len(frames), store.embed_dims)
    for frame in np.unique(frames):
        of_frame = np.flatnonzero(frames == frame)
        cameras = pools.cameras[frame][places[of_frame]]
        for camera in np.unique(cameras):
            index = of_frame[cameras == camera]
            token, item = pools.image(frame, camera)
            height, width = item.size
            pixels = pools.pixels[frame][places[index]]
            out[torch.from_numpy(index)] = store.sample(token, pixels, (width, height))
    return out


def drop_pages(paths: List[Path]) -> None:
    """Ask the kernel to forget the content of files."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # only clean pages are dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def disk_bytes() -> Optional[int]:
    """Bytes that this process has made disks read; None where the kernel does not tell."""
    try:
        lines = Path('/proc/self/io').read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith('read_bytes'))


def timed_read(open_side: Callable[[], Callable[[int], Tensor]], paths: List[Path], repeats: int
               ) -> Dict[str, Optional[float]]:
    """Milliseconds and bytes of reading samples, cold and warm.

    Args:
        open_side: opens a side; gives a function from a seed to the (R, E) rows of a sample.
        paths: its files.
        repeats: samples read; medians are taken.

    Returns:
        open_ms, cold_ms, warm_ms, disk_mb (None where it cannot be measured) and files_mb.
    """
    rows: Dict[str, List[float]] = dict(open_ms=[], cold_ms=[], warm_ms=[], disk_mb=[])
    for seed in range(repeats):
        gc.collect()  # pages that are mapped cannot be dropped
        drop_pages(paths)
        start = time.perf_counter()
        read = open_side()
        rows['open_ms'].append(1e3 * (time.perf_counter() - start))
        before = disk_bytes()
        for name in ('cold_ms', 'warm_ms'):
            start = time.perf_counter()
            read(seed)
            rows[name].append(1e3 * (time.perf_counter() - start))
            if name == 'cold_ms' and before is not None:
                rows['disk_mb'].append((disk_bytes() - before) / _MB)
        del read
    found = {name: median(values) if values else None for name, values in rows.items()}
    if not found['disk_mb']:  # in memory, or in a container that is not told
        found['disk_mb'] = None
    return dict(found, files_mb=sum(path.stat().st_size for path in paths) / _MB)


def ratio(published: Optional[float], ours: Optional[float]) -> Optional[float]:
    """How many times less ours is."""
    return published / ours if published and ours else None


def benchmark_read(case: FeatureCase, folder: Path, repeats: int) -> List[Dict]:
    """A row for each size of the published pools and each codec."""
    from langocc.feature_store import FeatureStore
    rows, dims = [], case.text.embed_dims
    for rays_per_frame in case.size.rays_per_frame:
        pools = RayPools(case, rays_per_frame)
        say(f'read: published files, {rays_per_frame} rays a frame')
        paths = write_published(folder / f'published-{rays_per_frame}', pools, dims)
        published = timed_read(
            lambda: lambda seed: read_published(paths, *pools.draw(seed), dims), paths, repeats)
        expected = read_published(paths, *pools.draw(0), dims)
        for codec in CODECS:
            say(f'read: {codec}, against {rays_per_frame} rays a frame')
            root = folder / f'store-{codec}'
            files = sorted((root / 'parts').iterdir()) if root.exists() else write_store(
                root, pools, codec)

            def open_store():
                store = FeatureStore(root)
                return lambda seed: read_store(store, pools, *pools.draw(seed))

            ours = timed_read(open_store, files, repeats)
            cosines = (open_store()(0) * expected).sum(dim=1)
            rows.append(read_row(codec, rays_per_frame, published, ours, cosines))
    return rows


def read_row(codec: str, rays_per_frame: int, published: Dict, ours: Dict, cosines: Tensor) -> Dict:
    """The row of the result, without what cannot be measured here.

    Cosines are between the rows of both sides.
    """
    row = dict(name=f'{codec} / {rays_per_frame}', codec=codec, rays_per_frame=rays_per_frame)
    for key in ('disk_mb', 'cold_ms', 'warm_ms'):
        row.update({f'published_{key}': published[key], f'ours_{key}': ours[key],
                    f'{key.split("_")[0]}_ratio': ratio(published[key], ours[key])})
    row.update(published_files_mb=published['files_mb'], ours_files_mb=ours['files_mb'],
               ours_open_ms=ours['open_ms'], mean_cosine=cosines.mean().item(),
               lowest_cosine=cosines.min().item())
    return {key: value for key, value in row.items() if value is not None}
