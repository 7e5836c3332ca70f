"""Pseudo-depth of a synthetic set: true z-depth with the mistakes of a monocular metric estimator.

The world is cast again at the centres of a map's cells, from the set's arguments and records; then
it is made wrong, in this order:

1. edges bleed: inverse depth is blurred over cells, so that outlines carry depths between both
   sides, and skies near them finite ones;
2. every image has a wrong scale: one factor, exp of a normal number;
3. surfaces are bent: a factor that varies smoothly over the image, exp of correlated noise;
4. cells are noisy: a factor each.

Deeper than ``far``, sky among it, is unknown (0). All of it is relative, as published estimators'
errors are; nothing knows of objects, so no thing is missed as a whole. It is a stand-in with a
known error, not any estimator's output.

Legend: (h, w) map, (W, H) image.
"""
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from ..datasets.depth_maps import ray_lengths
from ..files import atomic_write, write_json
from .frames import open_scene, read_record
from .patches import blur, correlated_noise
from .records import GENERATOR_VERSION, SPLITS, SceneSpec, Settings
from .rig import CAMERAS, camera_intrinsics, sensor_to_ego
from .snapshot import pixel_directions
from .writer import SETTINGS_FILE

FOLDER = 'pseudo_depth'
# Metres of a stored 1, as in KITTI's depth files.
SCALE = 1 / 256


@dataclass(frozen=True)
class DepthErrors:
    """How wrong the estimator is; see the module.

    Attributes:
        stride: image pixels a cell.
        bleed: standard deviation of the blur, cells.
        scale: standard deviation of the logarithm of an image's factor.
        bend: of the logarithm of the smooth factor.
        bend_length: standard deviation of the kernel that makes it smooth, parts of the width.
        noise: standard deviation of the logarithm of a cell's factor.
        far: metres beyond which nothing is known.
    """
    stride: float = 2.
    bleed: float = 0.6
    scale: float = 0.06
    bend: float = 0.06
    bend_length: float = 0.1
    noise: float = 0.01
    far: float = 80.


def estimate_depth(depths: np.ndarray, rng: np.random.Generator, errors: DepthErrors
                   ) -> np.ndarray:
    """What the estimator says.

    Args:
        depths: (h, w) true z-depth in metres, inf for sky.
        rng: random numbers of this image.
        errors: how wrong it is.

    Returns:
        (h, w) float64 metres, 0 unknown.
    """
    inverse = blur(1 / depths[..., None], errors.bleed)[..., 0]
    shape = (*depths.shape, 1)
    bend = correlated_noise(rng, shape, errors.bend_length * depths.shape[1])[..., 0]
    logs = (errors.scale * rng.standard_normal() + errors.bend * bend
            + errors.noise * rng.standard_normal(depths.shape))
    with np.errstate(divide='ignore'):
        estimates = np.exp(logs) / inverse
    return np.where(estimates <= errors.far, estimates, 0.)


def true_depth(scene: SceneSpec, sensor: Dict[str, Any], channel: str, stride: float
               ) -> np.ndarray:
    """(h, w) z-depth in metres at the centres of a map's cells, inf for sky.

    Args:
        scene: the scene.
        sensor: the camera's entry in the record of a frame.
        channel: the camera.
        stride: image pixels a cell.
    """
    world, drive = open_scene(scene)
    time = round((sensor['timestamp'] - scene.timestamp(0.)) / 1e6, 6)
    cam2global = drive.pose(time) @ sensor_to_ego(channel)
    image_size = scene.settings.image_size
    cam2img = camera_intrinsics(channel, image_size)
    width, height = (max(1, round(size / stride)) for size in image_size)
    v, u = np.mgrid[:height, :width].reshape(2, -1) + 0.5
    pixels = np.stack([u * image_size[0] / width, v * image_size[1] / height], axis=1) - 0.5
    origins = np.tile(cam2global[:3, 3], (len(pixels), 1))
    hits = world.at(time).cast(origins, pixel_directions(cam2img, cam2global, pixels))
    return (hits.distances / ray_lengths(pixels, cam2img)).reshape(height, width)


def write_pseudo_depth(root: Union[str, Path], splits: Sequence[str] = ('train', ),
                       errors: DepthErrors = DepthErrors(), workers: int = 1,
                       progress: Optional[Callable[[int], None]] = None) -> Dict[str, float]:
    """Writes ``pseudo_depth/<sample_data token>.png`` (16 bits, 1/256 m, 0 unknown) into a set.

    What is there already is not made again.

    Args:
        root: folder of the set.
        splits: 'train', 'val' or both.
        errors: how wrong the estimator is; the folder's ``errors.json`` says so.
        workers: processes.
        progress: called with a number of frames whenever so many more are done.

    Returns:
        Of the images made now: their number ``images`` and means over them of ``abs_rel`` (mean
        |estimate - truth| / truth), ``delta1`` (share within a factor of 1.25) and ``known`` (share
        of the cells that have both).

    Raises:
        FileNotFoundError: no synthetic set, or one that is not complete.
        ValueError: an unknown split, a set of another generator, or maps of other errors.
    """
    root = Path(root)
    settings = read_settings(root)
    unknown = set(splits) - set(SPLITS)
    if unknown:
        raise ValueError(f'splits {sorted(unknown)} are unknown, expected some of {SPLITS}')
    claim_maps(root / FOLDER / 'errors.json', asdict(errors))
    scenes = [scene for scene in settings.scenes() if scene.split in splits]
    make, results = partial(_make_scene, root, errors), []
    if workers <= 1:
        finished = map(make, scenes)
        results = _collect(finished, settings.frames, progress)
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context('fork')) as pool:
            results = _collect(pool.map(make, scenes), settings.frames, progress)
    means = np.mean(results, axis=0).tolist() if results else [float('nan')] * 3
    return dict(images=len(results), **dict(zip(('abs_rel', 'delta1', 'known'), means)))


def read_settings(root: Path) -> Settings:
    """The arguments of a set; raises as :func:`write_pseudo_depth`."""
    path = root / SETTINGS_FILE
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist: {root} is no set of make_synthetic.py')
    found = json.loads(path.read_text(encoding='utf-8'))
    if found.get('generator_version') != GENERATOR_VERSION:
        raise ValueError(f'{path} is of generator {found.get("generator_version")}, this is '
                         f'{GENERATOR_VERSION}: its worlds are others')
    names = ('seed', 'scenes_train', 'scenes_val', 'frames')
    return Settings(image_size=tuple(found['image_size']), **{name: found[name] for name in names})


def claim_maps(path: Path, wanted: Dict[str, float]) -> None:
    """Writes the errors into a new folder, or compares them with those that are there.

    Raises:
        ValueError: they are others.
    """
    if not path.is_file():
        write_json(path, wanted, indent=2)
    elif json.loads(path.read_text(encoding='utf-8')) != wanted:
        raise ValueError(f'{path.parent} holds maps of other errors (errors.json): remove it first')


def _collect(finished, frames: int, progress: Optional[Callable[[int], None]]
             ) -> List[Tuple[float, ...]]:
    results = []
    for scores in finished:
        results += scores
        if progress is not None:
            progress(frames)
    return results


def _make_scene(root: Path, errors: DepthErrors, scene: SceneSpec) -> List[Tuple[float, ...]]:
    """Makes the maps of a scene that are not there; scores of each."""
    scores = []
    with threadpool_limits(1):
        for frame in range(scene.settings.frames):
            record = read_record(root, scene, frame)
            if record is None:
                raise FileNotFoundError(f'frame {frame} of {scene.name} is not complete: run '
                                        f'make_synthetic.py --out {root} again')
            for channel in CAMERAS:
                sensor = record['sensors'][channel]
                path = root / FOLDER / f'{sensor["token"]}.png'
                if not path.is_file():
                    truth = true_depth(scene, sensor, channel, errors.stride)
                    estimate = estimate_depth(
                        truth, scene.rng(frame, channel, 'pseudo_depth'), errors)
                    _write(path, estimate)
                    scores.append(_scores(truth, estimate))
    return scores


def _write(path: Path, depths: np.ndarray) -> None:
    with atomic_write(path) as temporary:
        Image.fromarray(np.round(depths / SCALE).astype(np.uint16)).save(temporary)


def _scores(truth: np.ndarray, estimate: np.ndarray) -> Tuple[float, float, float]:
    known = np.isfinite(truth) & (estimate > 0)
    if not known.any():
        return float('nan'), float('nan'), 0.
    ratio = estimate[known] / truth[known]
    within = np.maximum(ratio, 1 / ratio) < 1.25
    return float(np.abs(ratio - 1).mean()), float(within.mean()), float(known.mean())
