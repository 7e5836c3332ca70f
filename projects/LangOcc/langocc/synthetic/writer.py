"""A whole synthetic set in nuScenes format: frames by some processes, then tables and splits.

Every file is written to a temporary name and renamed, every byte depends on the arguments alone,
and a frame that is there with all its files is not made again: a run that was killed goes on where
it was and ends with what one clean run gives, however many workers there are.
"""
import fcntl
import json
import re
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from ..datasets.nuscenes_tables import pose_matrix
from ..files import atomic_write, write_json
from ..teachers import TextEncoder, available_text_encoder
from .frames import make_frame, read_record, read_sweep
from .lidar import category_classes
from .records import VERSION, SceneSpec, Settings
from .retrieval import LabelledSweep, PointCamera, write_benchmark
from .rig import CAMERAS, LIDAR_CHANNEL, camera_intrinsics, sensor_to_ego
from .tables import MAP_FILE, build_splits, build_tables
from .text import claim_text_embeddings, write_text_embeddings

SETTINGS_FILE = 'synthetic.json'
SPLITS_FILE = 'splits.txt'
Task = Tuple[Path, SceneSpec, int]
_TEMPORARY = re.compile(r'\..+\.[0-9a-f]{32}(\..+)?')


def write_dataset(root: Union[str, Path], settings: Settings, workers: int = 1,
                  progress: Optional[Callable[[int], None]] = None,
                  encoder: Optional[TextEncoder] = None) -> int:
    """Makes the set, or what of it is not there yet.

    Args:
        root: output folder.
        settings: what to make.
        workers: processes; 1 works in this one.
        progress: called with a number of frames whenever so many more are there.
        encoder: embeds the words; None: see :func:`write_text_embeddings`.

    Returns:
        How many frames were made now.

    Raises:
        ValueError: the folder holds a set of other arguments, text embeddings of another encoder
            or something else, or another run writes to it.
    """
    root = Path(root)
    encoder = available_text_encoder() if encoder is None else encoder
    claim_folder(root, settings)
    claim_text_embeddings(root, encoder)
    with _lock(root):
        remove_temporaries(root)
        tasks = [(root, scene, frame) for scene in settings.scenes()
                 for frame in range(settings.frames)]
        todo = [task for task in tasks if read_record(*task) is None]
        if progress is not None:
            progress(len(tasks) - len(todo))
        for count in _run(todo, workers):
            if progress is not None:
                progress(count)
        write_text_embeddings(root, encoder)
        _write_tables(root, settings)
    return len(todo)


def claim_folder(root: Path, settings: Settings) -> None:
    """Writes ``synthetic.json`` into a new folder, or checks the one that is there.

    Raises:
        ValueError: other arguments, another generator, or a folder with other things in it.
    """
    path, wanted = root / SETTINGS_FILE, settings.as_json()
    if path.is_file():
        found = json.loads(path.read_text(encoding='utf-8'))
        if found != wanted:
            names = sorted(name for name in {*found, *wanted}
                           if found.get(name) != wanted.get(name))
            differences = ', '.join(f'{name} {found.get(name)} there, {wanted.get(name)} asked'
                                    for name in names)
            raise ValueError(f'{root} holds a set of other arguments ({differences}): take '
                             'another folder or remove this one')
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f'{root} is no empty folder and has no {SETTINGS_FILE}: not touched')
    write_json(path, wanted, indent=2)


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Only one run at a time writes to a folder; the system frees the lock when a run dies."""
    with open(root / SETTINGS_FILE, encoding='utf-8') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f'another run writes to {root} now') from error
        yield


def remove_temporaries(root: Path) -> List[Path]:
    """Removes what a killed run left half written (see :func:`langocc.files.atomic_write`)."""
    found = [path for path in root.rglob('.*')
             if _TEMPORARY.fullmatch(path.name) and path.is_file()]
    for path in found:
        path.unlink()
    return found


def _run(tasks: List[Task], workers: int) -> Iterator[int]:
    """Makes frames and says how many were finished; a scene stays with one process, which opens it.

    Each process works with one thread: sums then do not depend on how work is shared.
    """
    if workers <= 1:
        for task in tasks:
            yield _make_frames([task])
        return
    scenes = [list(group) for _, group in groupby(tasks, key=lambda task: task[1].name)]
    with ProcessPoolExecutor(workers, mp_context=get_context('fork')) as pool:
        futures = [pool.submit(_make_frames, group) for group in scenes]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _make_frames(tasks: Sequence[Task]) -> int:
    with threadpool_limits(1):
        for task in tasks:
            make_frame(*task)
    return len(tasks)


def _write_tables(root: Path, settings: Settings) -> None:
    """What is about the whole set: map, splits, benchmark, tables; ``scene.json`` last."""
    records = {(scene.name, frame): read_record(root, scene, frame)
               for scene in settings.scenes() for frame in range(settings.frames)}
    with atomic_write(root / MAP_FILE) as path:
        Image.new('L', (8, 8)).save(path)
    splits = build_splits(settings)
    with atomic_write(root / SPLITS_FILE) as path:
        lines = [f'{name}: {split}' for split, names in splits.items() for name in names]
        path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    # The devkit keeps 'train' and 'val' for nuScenes' own scenes.
    write_json(root / VERSION / 'splits.json',
               {f'synthetic_{split}': names for split, names in splits.items()}, indent=2)
    if settings.scenes_val:
        write_benchmark(root, held_out_sweeps(root, settings, records))
    tables = build_tables(settings, records)
    for name, table in sorted(tables.items(), key=lambda item: item[0] == 'scene'):
        write_json(root / VERSION / f'{name}.json', table)


def held_out_sweeps(root: Path, settings: Settings, records: Dict[Tuple[str, int], dict]
                    ) -> Iterator[LabelledSweep]:
    """LiDAR points of the validation scenes with their classes and cameras, as they are on disk."""
    lidar2ego = sensor_to_ego(LIDAR_CHANNEL)
    for (name, _), record in records.items():
        if name not in build_splits(settings)['val']:
            continue
        sensors = record['sensors']
        lidar2global = pose_matrix(sensors[LIDAR_CHANNEL]) @ lidar2ego
        cameras = [
            PointCamera(np.linalg.inv(pose_matrix(sensors[channel]) @ sensor_to_ego(channel))
                        @ lidar2global, camera_intrinsics(channel, settings.image_size),
                        settings.image_size) for channel in CAMERAS]
        points, labels = read_sweep(root, sensors[LIDAR_CHANNEL])
        yield LabelledSweep(name, record['token'], points[:, :3].astype(np.float64),
                            category_classes()[labels], lidar2ego, cameras, 'val')
