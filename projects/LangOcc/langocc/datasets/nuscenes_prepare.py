"""From a root in nuScenes format to info files: splits, the report of what is missing, writing."""
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple, Union

from .nuscenes_infos import build_infos, infos_metainfo, write_infos
from .nuscenes_tables import NuScenesTables

FILE_KINDS = ('image', 'lidar', 'lidarseg', 'occupancy')
_EXAMPLES = 5


@dataclass
class PrepareReport:
    """What was found and what was not.

    Attributes:
        samples: split -> number of key frames.
        unused_scenes: scenes of the tables in no split.
        absent_scenes: scenes of the splits that the tables lack.
        checked: kind of file -> how many were looked for.
        missing: kind of file -> paths that are not there (or a sample without such an entry).
        required: kinds that must be complete.
        written: info files.
    """
    samples: Dict[str, int] = field(default_factory=dict)
    unused_scenes: List[str] = field(default_factory=list)
    absent_scenes: List[str] = field(default_factory=list)
    checked: Counter = field(default_factory=Counter)
    missing: Dict[str, List[str]] = field(default_factory=lambda: {k: [] for k in FILE_KINDS})
    required: Tuple[str, ...] = ('image',)
    written: List[Path] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every required file is there."""
        return not any(self.missing[kind] for kind in self.required)

    def __str__(self) -> str:
        lines = [f'key frames: {self.samples}']
        for kind in FILE_KINDS:
            need = 'required' if kind in self.required else 'optional'
            missing = self.missing[kind]
            lines.append(f'{kind} ({need}): {self.checked[kind] - len(missing)} of '
                         f'{self.checked[kind]} present' + _examples(missing))
        lines.append(f'scenes of the tables in no split: {len(self.unused_scenes)}'
                     + _examples(self.unused_scenes))
        lines.append(f'scenes of the splits not in the tables: {len(self.absent_scenes)}'
                     + _examples(self.absent_scenes))
        lines.extend(f'wrote {path}' for path in self.written)
        if not self.complete:
            lines.append('nothing written: required files are missing')
        return '\n'.join(lines)


def _examples(names: Sequence[str]) -> str:
    if not names:
        return ''
    more = f', and {len(names) - _EXAMPLES} more' if len(names) > _EXAMPLES else ''
    return '; missing or unused: ' + ', '.join(names[:_EXAMPLES]) + more


def official_splits(version: str) -> Dict[str, List[str]]:
    """nuScenes' own splits of a version: train and val (of the mini set for ``*mini``), or test."""
    from nuscenes.utils.splits import create_splits_scenes  # imports matplotlib: only when asked
    scenes = create_splits_scenes()
    if version.endswith('test'):
        return {'test': scenes['test']}
    prefix = 'mini_' if version.endswith('mini') else ''
    return {name: scenes[prefix + name] for name in ('train', 'val')}


def read_splits_file(path: Union[str, Path]) -> Dict[str, List[str]]:
    """Splits of a text file: a scene name a line, optionally ``name: split``; ``#`` comments.

    Scenes without a split go to one named after the file.

    Raises:
        ValueError: no scene, a scene twice in a split, or a split name that is no file name.
    """
    path = Path(path)
    splits: Dict[str, List[str]] = {}
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        name, _, split = line.partition('#')[0].partition(':')
        name, split = name.strip(), split.strip() or path.stem
        if not name:
            continue
        if not re.fullmatch(r'[\w.-]+', split):
            raise ValueError(f'{path}:{number}: split name {split!r} is no file name')
        if name in splits.setdefault(split, []):
            raise ValueError(f'{path}:{number}: scene {name!r} is twice in split {split!r}')
        splits[split].append(name)
    if not splits:
        raise ValueError(f'{path} names no scene')
    return splits


def resolve_splits(tables: NuScenesTables, splits: Union[str, Path],
                   report: PrepareReport) -> Dict[str, List[str]]:
    """Split -> scenes that the tables have; what does not match goes to ``report``.

    Args:
        tables: the tables.
        splits: ``official``, ``all``, or a file (:func:`read_splits_file`).
        report: gets ``unused_scenes`` and ``absent_scenes``.

    Raises:
        FileNotFoundError: ``splits`` is neither word nor file.
        ValueError: a scene of the file is not in the tables, or no scene is left.
    """
    if splits == 'all':
        wanted = {'all': list(tables.scenes)}
    elif splits == 'official':
        wanted = official_splits(tables.version)
    elif Path(splits).is_file():
        wanted = read_splits_file(splits)
    else:
        raise FileNotFoundError(f'--splits must be official, all, or a file; no file {splits}')
    asked = {scene for scenes in wanted.values() for scene in scenes}
    report.absent_scenes = sorted(asked - set(tables.scenes))
    report.unused_scenes = [scene for scene in tables.scenes if scene not in asked]
    if report.absent_scenes and splits not in ('official', 'all'):
        raise ValueError(f'{splits}: scenes not in the tables at {tables.folder}: '
                         f'{report.absent_scenes}')
    found = {split: [scene for scene in scenes if scene in tables.scenes]
             for split, scenes in wanted.items()}
    found = {split: scenes for split, scenes in found.items() if scenes}
    if not found:
        raise ValueError(f'no scene of the tables at {tables.folder} is in the splits {splits!r}; '
                         f'the tables have {sorted(tables.scenes)[:_EXAMPLES]}: use --splits all '
                         'or a file of scene names')
    return found


class _Folders:
    """Whether files exist, by listing each folder once (a data set has 200,000 of them)."""

    def __init__(self) -> None:
        self._names: Dict[str, Set[str]] = {}

    def has(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            self._names[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        return name in self._names[folder]


def check_files(infos: Sequence[dict], root: Union[str, Path], report: PrepareReport) -> None:
    """Counts in ``report`` the files that infos name and that are not there."""
    folders = _Folders()
    for info in infos:
        paths = [('image', image['img_path']) for image in info['images'].values()]
        paths += [('lidar', info.get('lidar_points', {}).get('lidar_path')),
                  ('lidarseg', info.get('pts_semantic_mask_path')),
                  ('occupancy', info['occ_path'])]
        for kind, path in paths:
            report.checked[kind] += 1
            if path is None:
                report.missing[kind].append(f'<no entry for sample {info["token"]}>')
            elif not folders.has(os.path.join(root, path)):
                report.missing[kind].append(os.path.join(root, path))


def prepare_infos(root: Union[str, Path],
                  version: str,
                  out_dir: Union[str, Path],
                  splits: Union[str, Path] = 'official',
                  prefix: str = 'nuscenes',
                  occ_root: str = 'gts',
                  cameras: Optional[Sequence[str]] = None,
                  required: Sequence[str] = ('image',),
                  progress_factory: Optional[Callable] = None) -> PrepareReport:
    """Writes ``<out_dir>/<prefix>_infos_<split>.json`` for every split.

    Args:
        root: folder in nuScenes format.
        version: folder of the tables in it.
        out_dir: where info files go.
        splits: see :func:`resolve_splits`.
        prefix: start of the file names.
        occ_root: folder of the occupancy labels, relative to the root, or absolute.
        cameras: channels every sample must have; default all of the sensor table.
        required: kinds of :data:`FILE_KINDS` without which nothing is written.
        progress_factory: ``f(total, name)`` -> context manager with ``update(n)`` (a tqdm bar).

    Returns:
        The report; ``report.complete`` tells whether files were written.

    Raises:
        FileNotFoundError, ValueError: as :class:`NuScenesTables`, :func:`resolve_splits` and
            :func:`build_infos`; nothing is written then.
    """
    unknown = set(required) - set(FILE_KINDS)
    if unknown:
        raise ValueError(f'unknown kinds of file {sorted(unknown)}; known: {FILE_KINDS}')
    tables = NuScenesTables(root, version)
    report = PrepareReport(required=tuple(required))
    contents = {}
    for split, scenes in resolve_splits(tables, splits, report).items():
        total = sum(len(tables.samples(scene)) for scene in scenes)
        if progress_factory is None:
            infos = build_infos(tables, scenes, cameras, occ_root)
        else:
            with progress_factory(total, split) as progress:
                infos = build_infos(tables, scenes, cameras, occ_root, progress)
        check_files(infos, root, report)
        report.samples[split] = len(infos)
        metainfo = infos_metainfo(tables, {split: scenes})
        contents[split] = dict(metainfo=metainfo, data_list=infos)
    if report.complete:
        for split, content in contents.items():
            path = Path(out_dir) / f'{prefix}_infos_{split}.json'
            write_infos(content, path)
            report.written.append(path)
    return report
