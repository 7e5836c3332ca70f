"""Overlays on camera images, and pictures put together with captions, legends and colour bars.

Legend: P points. Pictures are (H, W, 3) uint8 RGB arrays; nothing given is changed. Integer pixel
coordinates are pixel centres.
"""
from pathlib import Path
from typing import Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..files import atomic_write
from .palette import (
    CLASS_NAMES, OCC3D_PALETTE, distance_colors, map_colors, present_classes, similarity_colors
)

PAPER, INK = (255, 255, 255), (30, 32, 38)


def overlay_points(image: np.ndarray,
                   pixels: np.ndarray,
                   depths: np.ndarray,
                   radius: int = 2,
                   far: float = 40.,
                   colors: Optional[np.ndarray] = None) -> np.ndarray:
    """Points over an image, near ones last, coloured by depth.

    Args:
        image: (H, W, 3) uint8.
        pixels: (P, 2) u, v.
        depths: (P,) m; points with depth <= 0 or outside the image are left out.
        radius: of a point, pixels; 0 = one pixel.
        far: m, depth of the last colour.
        colors: (P, 3) uint8 instead of the depth's.

    Returns:
        A new picture.
    """
    pixels, depths = np.asarray(pixels), np.asarray(depths)
    height, width = image.shape[:2]
    colors = distance_colors(depths, 0., far) if colors is None else np.asarray(colors)
    kept = np.isfinite(pixels).all(1) & (depths > 0)
    centres = np.floor(np.where(kept[:, None], pixels, -1) + 0.5).astype(np.int64)
    kept &= ((centres >= 0) & (centres < [width, height])).all(1)
    order = np.flatnonzero(kept)[np.argsort(-depths[kept], kind='stable')]
    centres, colors = centres[order], colors[order]
    offsets = np.argwhere(np.ones((2 * radius + 1, ) * 2)) - radius
    offsets = offsets[(offsets**2).sum(1) <= radius**2 + 0.5]
    # One paint order over all stamps: a near point's stamp covers the whole of a far one's.
    stamped = (centres[:, None] + offsets).reshape(-1, 2)
    colors = colors.repeat(len(offsets), axis=0)
    inside = ((stamped >= 0) & (stamped < [width, height])).all(1)
    image = image.copy()
    image[stamped[inside, 1], stamped[inside, 0]] = colors[inside]
    return image


def overlay_heat(image: np.ndarray,
                 heat: np.ndarray,
                 alpha: Union[float, np.ndarray] = 0.6,
                 low: float = 0.,
                 high: float = 1.) -> np.ndarray:
    """A similarity map over an image.

    Args:
        image: (H, W, 3) uint8.
        heat: (h, w), covers the whole image; NaN = not known, the image shows through.
        alpha: opacity, or (h, w) of it in [0, 1] (rendered opacity, say).
        low: value of the darkest colour.
        high: value of the brightest colour.

    Returns:
        A new picture of the image's size.

    Raises:
        ValueError: shapes do not fit.
    """
    heat = np.asarray(heat, dtype=np.float32)
    alpha = np.asarray(alpha, dtype=np.float32)
    if heat.ndim != 2 or alpha.shape not in ((), heat.shape):
        raise ValueError(f'heat must be (h, w) and alpha a number or (h, w), got {heat.shape} and '
                         f'{alpha.shape}')
    size = (image.shape[1], image.shape[0])
    known = np.isfinite(heat).astype(np.float32)
    weight = _resize(known, size)
    values = _resize(np.where(known > 0, heat, 0.), size) / np.maximum(weight, 1e-6)
    opacity = _resize(np.broadcast_to(alpha, heat.shape) * known, size)[..., None]
    colors = similarity_colors(values, low, high)
    return (image * (1 - opacity) + colors * opacity).round().clip(0, 255).astype(np.uint8)


def resize_picture(picture: np.ndarray, width: int) -> np.ndarray:
    """The picture at another width, same aspect."""
    height = max(round(picture.shape[0] * width / picture.shape[1]), 1)
    return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def with_caption(picture: np.ndarray, text: str, font_size: int = 16) -> np.ndarray:
    """The picture under a line of text."""
    strip = Image.new('RGB', (picture.shape[1], font_size + 10), PAPER)
    ImageDraw.Draw(strip).text((4, 3), text, fill=INK, font=_font(font_size))
    return np.concatenate([np.array(strip), picture])


def text_block(text: str, size: Tuple[int, int], font_size: int = 16) -> np.ndarray:
    """Lines of text (split at line ends) in the middle of an empty picture.

    Args:
        text: lines.
        size: (width, height), pixels.
        font_size: pixels.

    Returns:
        (height, width, 3).
    """
    canvas = Image.new('RGB', tuple(size), PAPER)
    ImageDraw.Draw(canvas).multiline_text((size[0] / 2, size[1] / 2), text, fill=INK,
                                          font=_font(font_size), anchor='mm', align='center',
                                          spacing=5)
    return np.array(canvas)


def picture_grid(rows: Sequence[Sequence[np.ndarray]], gap: int = 6) -> np.ndarray:
    """Pictures in rows on white; each keeps its size and lies at the top left of its place.

    Args:
        rows: one or more rows of one or more pictures.
        gap: pixels between them and around.

    Returns:
        One picture.

    Raises:
        ValueError: no row, or an empty one.
    """
    if not rows or not all(rows):
        raise ValueError(f'picture_grid needs rows of pictures, got {[len(r) for r in rows]}')
    width = max(sum(p.shape[1] + gap for p in row) for row in rows) + gap
    height = sum(max(p.shape[0] for p in row) + gap for row in rows) + gap
    canvas = np.full((height, width, 3), PAPER, dtype=np.uint8)
    top = gap
    for row in rows:
        left = gap
        for picture in row:
            canvas[top:top + picture.shape[0], left:left + picture.shape[1]] = picture
            left += picture.shape[1] + gap
        top += max(p.shape[0] for p in row) + gap
    return canvas


def class_legend(labels: np.ndarray, width: int, font_size: int = 15) -> np.ndarray:
    """Names and colours of the occupied classes that occur in ``labels``.

    Args:
        labels: any shape, Occ3D classes.
        width: pixels; entries wrap.
        font_size: pixels.

    Returns:
        (height, width, 3).
    """
    present = present_classes(labels)
    return legend([CLASS_NAMES[index] for index in present], OCC3D_PALETTE[list(present)], width,
                  font_size)


def legend(names: Sequence[str], colors: Sequence[Sequence[int]], width: int, font_size: int = 15
           ) -> np.ndarray:
    """Names beside squares of their colours.

    Args:
        names: entries, in order.
        colors: RGB of each.
        width: pixels; entries wrap.
        font_size: pixels.

    Returns:
        (height, width, 3).
    """
    font, line = _font(font_size), font_size + 9
    entries, x, y = [], 6, 0
    for name, color in zip(names, colors):
        extent = int(font.getlength(name)) + font_size + 22
        if x + extent > width and x > 6:
            x, y = 6, y + line
        entries.append((name, tuple(int(value) for value in color), x, y))
        x += extent
    canvas = Image.new('RGB', (width, y + line + 2), PAPER)
    draw = ImageDraw.Draw(canvas)
    for name, color, x, y in entries:
        draw.rectangle((x, y + 4, x + font_size, y + 4 + font_size), fill=color, outline=INK)
        draw.text((x + font_size + 6, y + 3), name, fill=INK, font=font)
    return np.array(canvas)


def colour_bar(width: int, low: float, high: float, label: str, colormap: str,
               font_size: int = 15) -> np.ndarray:
    """A colour bar between its two end values, with a label.

    Args:
        width: pixels.
        low: value at the left.
        high: value at the right.
        label: text after the bar.
        colormap: a matplotlib name.
        font_size: pixels.

    Returns:
        (height, width, 3).
    """
    font, height = _font(font_size), font_size + 11
    first, last = f'{low:g}', f'{high:g}  {label}'
    canvas = Image.new('RGB', (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    left = int(font.getlength(first)) + 12
    right = max(width - int(font.getlength(last)) - 16, left + 8)
    draw.text((6, 3), first, fill=INK, font=font)
    draw.text((right + 8, 3), last, fill=INK, font=font)
    picture = np.array(canvas)
    bar = map_colors(np.linspace(0, 1, right - left), 0., 1., colormap)
    picture[5:height - 5, left:right] = bar[:max(width - left, 0)]
    return picture


def save_picture(path: Union[str, Path], picture: np.ndarray) -> Path:
    """Writes a picture (format by suffix), whole or not at all; makes the folder.

    Raises:
        ValueError: it is not (H, W, 3) uint8.
    """
    path, picture = Path(path), np.asarray(picture)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f'{path}: expected (H, W, 3) uint8, got {picture.shape} {picture.dtype}')
    with atomic_write(path) as temporary:
        Image.fromarray(picture).save(temporary)
    return path


def _resize(values: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
    """(h, w) float -> (height, width) float, bilinear; both cover the same area."""
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.array(image.resize(size, Image.Resampling.BILINEAR))


def _font(size: int) -> ImageFont.ImageFont:
    """PIL's own font, which needs no file."""
    return ImageFont.load_default(size=size)
