"""What scenes lose that are longer than the streets are made for."""
from .plan import street_plan
from .records import Settings
from .traffic import KEPT_APART
from .trajectory import Drive, key_frame_time


def long_scene_note(settings: Settings) -> str:
    """What a user should know of scenes that last longer than ways are kept apart; else ''.

    Args:
        settings: of the set.
    """
    seconds = key_frame_time(settings.frames - 1)
    if seconds <= KEPT_APART:
        return ''
    note = (f'note: scenes of {settings.frames} key frames last {seconds:.1f} s; what moves is '
            'kept apart from the ego car and from each other for the first '
            f'{KEPT_APART:.0f} s only')
    scenes = settings.scenes()
    scales = [Drive(street_plan(settings.seed, scene.world_index).route, settings.frames,
                    scene.rng('drive')).scale for scene in scenes]
    slow = [scale for scale in scales if scale < 1]
    if slow:
        note += (f'. In {len(slow)} of {len(scenes)} scenes the route is too short: the ego car '
                 f'drives at {min(slow):.2f} to {max(slow):.2f} of its speed, less than the usual '
                 'metres a key frame')
    return note
