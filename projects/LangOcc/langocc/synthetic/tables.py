"""The 13 tables of nuScenes and lidarseg's, from the records of all frames.

Written as nuscenes-devkit reads them: tokens link records, instances are chains of annotations,
categories carry lidarseg's indices.
"""
from collections import defaultdict
from typing import Any, Dict, Iterable, List, Sequence, Tuple

from .lidar import LIDARSEG_CATEGORIES
from .records import VERSION, SceneSpec, Settings, pose_record, token_of
from .rig import CAMERAS, CHANNELS, LIDAR_CHANNEL, camera_intrinsics, sensor_to_ego

MAP_FILE = 'maps/blank.png'
VISIBILITY_LEVELS = {'1': 'v0-40', '2': 'v40-60', '3': 'v60-80', '4': 'v80-100'}
ATTRIBUTES = {
    'vehicle.moving': 'Vehicle is moving.',
    'vehicle.stopped': 'Vehicle, with a driver in it, stands for now.',
    'vehicle.parked': 'Vehicle stands and is left.',
    'cycle.with_rider': 'There is a rider on the bicycle or motorcycle.',
    'cycle.without_rider': 'There is no rider on the bicycle or motorcycle.',
    'pedestrian.sitting_lying_down': 'The person sits or lies.',
    'pedestrian.standing': 'The person stands.',
    'pedestrian.moving': 'The person moves.'}
Table = List[Dict[str, Any]]


def build_tables(settings: Settings, records: Dict[Tuple[str, int], dict]) -> Dict[str, Table]:
    """All tables.

    Args:
        settings: of the set.
        records: (scene name, frame) -> record of :func:`langocc.synthetic.frames.make_frame`.

    Returns:
        Name of the table -> records.
    """
    tables = fixed_tables(settings)
    for name in ('log', 'scene', 'sample', 'sample_data', 'ego_pose', 'instance',
                 'sample_annotation', 'lidarseg'):
        tables[name] = []
    for scene in settings.scenes():
        frames = [records[scene.name, frame] for frame in range(settings.frames)]
        _add_scene(tables, scene, frames)
        _add_measurements(tables, scene, frames)
        _add_annotations(tables, scene, frames)
    tables['map'] = [dict(
        token=token_of('map'), log_tokens=[log['token'] for log in tables['log']],
        category='semantic_prior', filename=MAP_FILE)]
    return tables


def build_splits(settings: Settings) -> Dict[str, List[str]]:
    """Split -> scene names; splits without a scene are left out."""
    splits: Dict[str, List[str]] = {}
    for scene in settings.scenes():
        splits.setdefault(scene.split, []).append(scene.name)
    return splits


def fixed_tables(settings: Settings) -> Dict[str, Table]:
    """Tables that no frame changes: sensors, their calibration, categories and the like."""
    sensors, calibrations = [], []
    for channel in CHANNELS:
        is_camera = channel in CAMERAS
        sensors.append(dict(token=token_of('sensor', channel), channel=channel,
                            modality='camera' if is_camera else 'lidar'))
        intrinsics = camera_intrinsics(channel, settings.image_size) if is_camera else None
        calibrations.append(dict(
            token=token_of('calibrated_sensor', channel), sensor_token=sensors[-1]['token'],
            **pose_record(sensor_to_ego(channel)),
            camera_intrinsic=intrinsics.tolist() if is_camera else []))
    categories = [dict(token=token_of('category', name), name=name, index=i,
                       description="nuScenes-lidarseg's category of this name.")
                  for i, name in enumerate(LIDARSEG_CATEGORIES)]
    attributes = [dict(token=token_of('attribute', name), name=name, description=description)
                  for name, description in ATTRIBUTES.items()]
    visibility = [dict(token=token, level=level,
                       description=f'{level[1:]} % of the object is seen by the six cameras.')
                  for token, level in VISIBILITY_LEVELS.items()]
    return dict(sensor=sensors, calibrated_sensor=calibrations, category=categories,
                attribute=attributes, visibility=visibility)


def _add_scene(tables: Dict[str, Table], scene: SceneSpec, frames: Sequence[dict]) -> None:
    log = dict(token=scene.token('log'), logfile=scene.name, vehicle='synthetic',
               date_captured='2020-09-13', location='synthetic')
    tables['log'].append(log)
    tokens = [frame['token'] for frame in frames]
    tables['scene'].append(dict(
        token=scene.token('scene'), log_token=log['token'], nbr_samples=len(frames),
        first_sample_token=tokens[0], last_sample_token=tokens[-1], name=scene.name,
        description=f'Procedural street {scene.world_index}, seed {scene.settings.seed}'))
    for frame, links in zip(frames, _links(tokens)):
        tables['sample'].append(dict(token=frame['token'], timestamp=frame['timestamp'],
                                     scene_token=tables['scene'][-1]['token'], **links))


def _add_measurements(tables: Dict[str, Table], scene: SceneSpec, frames: Sequence[dict]) -> None:
    width, height = scene.settings.image_size
    for channel in CHANNELS:
        is_camera = channel in CAMERAS
        links = _links([frame['sensors'][channel]['token'] for frame in frames])
        for frame, link in zip(frames, links):
            sensor = frame['sensors'][channel]
            # In nuScenes too, a measurement and its ego pose share their token.
            tables['ego_pose'].append(dict(
                token=sensor['token'], timestamp=sensor['timestamp'],
                translation=sensor['translation'], rotation=sensor['rotation']))
            tables['sample_data'].append(dict(
                token=sensor['token'], sample_token=frame['token'],
                ego_pose_token=sensor['token'],
                calibrated_sensor_token=token_of('calibrated_sensor', channel),
                timestamp=sensor['timestamp'], fileformat='jpg' if is_camera else 'pcd',
                is_key_frame=True, height=height if is_camera else 0,
                width=width if is_camera else 0, filename=sensor['filename'], **link))
            if channel == LIDAR_CHANNEL:
                tables['lidarseg'].append(dict(
                    token=sensor['token'], sample_data_token=sensor['token'],
                    filename=lidarseg_file(sensor['token'])))


def _add_annotations(tables: Dict[str, Table], scene: SceneSpec, frames: Sequence[dict]) -> None:
    """Boxes from the first to the last frame in which the LiDAR meets the object, as nuScenes."""
    chains: Dict[int, List[Tuple[int, dict]]] = defaultdict(list)
    for index, frame in enumerate(frames):
        for box in frame['boxes']:
            chains[box['object']].append((index, box))
    for number, chain in sorted(chains.items()):
        chain = _between_hits(chain)
        if not chain:
            continue
        tokens = [scene.token('annotation', number, index) for index, _ in chain]
        instance = scene.token('instance', number)
        tables['instance'].append(dict(
            token=instance, category_token=token_of('category', chain[0][1]['category']),
            nbr_annotations=len(chain), first_annotation_token=tokens[0],
            last_annotation_token=tokens[-1]))
        for token, links, (index, box) in zip(tokens, _links(tokens), chain):
            attributes = [token_of('attribute', name) for name in box['attributes']]
            tables['sample_annotation'].append(dict(
                token=token, sample_token=frames[index]['token'], instance_token=instance,
                visibility_token=box['visibility'], attribute_tokens=attributes,
                translation=box['translation'], size=box['size'], rotation=box['rotation'],
                num_lidar_pts=box['num_lidar_pts'], num_radar_pts=0, **links))


def _between_hits(chain: List[Tuple[int, dict]]) -> List[Tuple[int, dict]]:
    hits = [i for i, (_, box) in enumerate(chain) if box['num_lidar_pts'] > 0]
    return chain[hits[0]:hits[-1] + 1] if hits else []


def _links(tokens: Sequence[str]) -> Iterable[Dict[str, str]]:
    """``prev`` and ``next`` of each token of a chain."""
    padded = ['', *tokens, '']
    return [dict(prev=before, next=after) for before, after in zip(padded, padded[2:])]


def lidarseg_file(token: str) -> str:
    """Path of the point labels of a LiDAR measurement, relative to the root."""
    return f'lidarseg/{VERSION}/{token}_lidarseg.bin'
