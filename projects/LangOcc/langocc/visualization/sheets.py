"""Pictures of one sample, prediction beside truth, and all of them on one sheet.

Legend: X, Y, Z grid cells. Pictures are (H, W, 3) uint8 RGB arrays.
"""
from typing import Callable, Dict, List, Mapping, Optional, Sequence

import numpy as np

from . import camera_tables
from .comparison import (
    ERROR_COLORS, ERROR_NAMES, UNSEEN_COLOR, compare_occupancy, draw_errors_bev, draw_masked_3d,
    draw_masked_bev
)
from .occupancy import BACKGROUND
from .pictures import class_legend, legend, picture_grid, text_block, with_caption
from .sample_pictures import GAP, TITLE, SamplePictures, fit, note, tight, titled

_SPACE = 4  # pixels more between rows of a sheet


def draw_pictures(sample: SamplePictures, views: Sequence[str], width: int = 1600
                  ) -> Dict[str, np.ndarray]:
    """The pictures that the sample has parts for.

    Args:
        sample: what is known.
        views: names in ``VIEWS``, in the order wanted.
        width: pixels of a picture that spans the sheet.

    Returns:
        View -> picture; views that the sample lacks everything for are left out.

    Raises:
        ValueError: an unknown view, or a width that leaves no place for the cameras.
    """
    check_views(views)
    if width < 600:
        raise ValueError(f'sheets need a width of at least 600 pixels, got {width}')
    drawn = {view: VIEWS[view](sample, width) for view in views}
    return {view: picture for view, picture in drawn.items() if picture is not None}


def check_views(views: Sequence[str]) -> None:
    """ValueError for what is no name in ``VIEWS``, or for none at all."""
    wrong = [view for view in views if view not in VIEWS]
    if wrong or not views:
        raise ValueError(f'views must be some of {list(VIEWS)}, got {list(views)}')


def compose_sheet(pictures: Mapping[str, np.ndarray], title: str, width: int = 1600) -> np.ndarray:
    """All pictures under a title, from top to bottom; side by side where they fit.

    Args:
        pictures: view -> picture.
        title: a line of text.
        width: pixels; a wider picture widens the sheet.
    """
    header = with_caption(np.zeros((0, width, 3), np.uint8), title, TITLE + 3)
    rows: List[List[np.ndarray]] = [[header]]
    taken = width
    for picture in pictures.values():
        if taken + GAP + picture.shape[1] > width:
            rows += [[text_block('', (width, _SPACE))], []]
            taken = -GAP
        rows[-1].append(picture)
        taken += GAP + picture.shape[1]
    return picture_grid(rows, GAP)


def _occupancy_3d(sample: SamplePictures, width: int) -> Optional[np.ndarray]:
    size = (width - GAP) // 2
    return _volumes(sample, size, lambda volume: draw_masked_3d(
        volume, sample.grid, sample.mask_camera, sample.unseen, image_size=(size, size * 5 // 8)),
        'from behind the car')


def _occupancy_bev(sample: SamplePictures, width: int) -> Optional[np.ndarray]:
    size = (width - 2 * GAP) // 3
    return _volumes(sample, size, lambda volume: draw_masked_bev(
        volume, sample.grid, sample.mask_camera, sample.unseen), 'from above')


def _volumes(sample: SamplePictures, width: int, draw: Callable[[np.ndarray], np.ndarray],
             view: str) -> Optional[np.ndarray]:
    """Prediction and truth side by side above the classes of both."""
    volumes = [(name, volume) for name, volume in
               (('Predicted', sample.prediction), ('True', sample.truth)) if volume is not None]
    if not volumes:
        return None
    pictures = [titled(fit(draw(volume), width), f'{name} occupancy {view}', width)
                for name, volume in volumes]
    total = len(volumes) * (width + GAP) - GAP
    shown = np.concatenate([volume.ravel() for _, volume in volumes])
    rows = [pictures, [class_legend(shown, total)]]
    if sample.mask_camera is not None and sample.unseen != 'draw':
        what = 'Pale: ' if sample.unseen == 'pale' else 'Left out: '
        rows.append([note(what + 'voxels that no camera sees', total)])
    return tight(picture_grid(rows, GAP))


def _errors(sample: SamplePictures, width: int) -> Optional[np.ndarray]:
    if sample.prediction is None or sample.truth is None:
        return None
    size = (width - 2 * GAP) // 3
    errors = compare_occupancy(sample.prediction, sample.truth, sample.mask_camera)
    picture = fit(draw_errors_bev(errors, sample.grid, sample.mask_camera), size)
    title = f'Errors from above: geometric IoU {100 * errors.geometric_iou:.1f}'
    names, colors = [*ERROR_NAMES, 'free'], [*ERROR_COLORS, BACKGROUND]
    if sample.mask_camera is not None:
        names, colors = [*names, 'seen by no camera: not counted'], [*colors, UNSEEN_COLOR]
    rows = [[titled(picture, title, size)], [legend(names, colors, size)],
            [note("A column of voxels has their colours' mean", size)]]
    return tight(picture_grid(rows, GAP))


VIEWS: Dict[str, Callable[[SamplePictures, int], Optional[np.ndarray]]] = dict(
    cameras=camera_tables.draw_cameras, distances=camera_tables.draw_distances,
    opacities=camera_tables.draw_opacities, classes=camera_tables.draw_classes,
    features=camera_tables.draw_features, rgb=camera_tables.draw_rgb,
    occupancy_3d=_occupancy_3d, occupancy_bev=_occupancy_bev, errors=_errors)
