"""Contact sheets and side-by-side videos of labelled pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK, _FAINT = (250, 249, 246), (38, 38, 42), (138, 136, 132)
_GAP, _MARGIN, _GUTTER = 10, 28, 104
_ROUND = 10  # corner radius of the pictures


@dataclass(frozen=True)
class Section:
    """Rows of a sheet under common column headings.

    Attributes:
        title: heading of the section.
        columns: heading of each column.
        rows: label and pictures of each row. Pictures are (H, W, 3) uint8, one per column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[np.ndarray]]]


def draw_sheet(title: str, sections: Sequence[Section], picture: int = 256) -> np.ndarray:
    """Draw all sections below each other; return (H, W, 3) uint8.

    Args:
        picture: side of each picture on the sheet in pixels.
    """
    columns = max(len(section.columns) for section in sections)
    width = 2 * _MARGIN + _GUTTER + columns * picture + (columns - 1) * _GAP
    height = _MARGIN + 48 + sum(84 + len(s.rows) * (picture + _GAP) for s in sections) + _MARGIN
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN), title, _INK, font=_font(30))
    corner = _corner_mask(picture)
    y = _MARGIN + 48
    for section in sections:
        draw.text((_MARGIN, y + 20), section.title, _INK, font=_font(20))
        for i, heading in enumerate(section.columns):
            x = _MARGIN + _GUTTER + i * (picture + _GAP)
            draw.text((x + picture / 2, y + 66), heading, _FAINT, font=_font(17), anchor="mm")
        y += 84
        for label, pictures in section.rows:
            draw.multiline_text((_MARGIN, y + picture / 2), label, _INK, font=_font(17), anchor="lm")
            for i, image in enumerate(pictures):
                page.paste(Image.fromarray(enlarge(image, picture)),
                           (_MARGIN + _GUTTER + i * (picture + _GAP), y), corner)
            y += picture + _GAP
    return np.asarray(page)


def side_by_side(columns: Sequence[tuple[str, np.ndarray]], picture: int = 256) -> np.ndarray:
    """Place labelled clips next to each other; return (T, H, W, 3) uint8 of even width.

    Args:
        columns: heading and clip (T, H, W, 3) of each column. Shorter clips hold their last frame.
        picture: side of each picture in pixels.
    """
    frames = max(len(clip) for _, clip in columns)
    width = len(columns) * picture + (len(columns) + 1) * _GAP
    page = Image.new("RGB", (width + width % 2, picture + 44), _PAPER)
    draw = ImageDraw.Draw(page)
    corner = _corner_mask(picture)
    pages = []
    for t in range(frames):
        for i, (heading, clip) in enumerate(columns):
            x = _GAP + i * (picture + _GAP)
            if t == 0:
                draw.text((x + picture / 2, 18), heading, _FAINT, font=_font(17), anchor="mm")
            page.paste(Image.fromarray(enlarge(clip[min(t, len(clip) - 1)], picture)), (x, 34), corner)
        pages.append(np.array(page))
    return np.stack(pages)


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """Resize a square picture: cubic interpolation upwards, area averages downwards."""
    up = size >= image.shape[0]
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC if up else cv2.INTER_AREA)


def split_picture(images: Sequence[np.ndarray]) -> np.ndarray:
    """Join the central vertical stripes of several pictures into one picture of the same size."""
    size = images[0].shape[1]
    edges = np.linspace(0, size, len(images) + 1).round().astype(int)
    stripes = []
    for image, a, b in zip(images, edges[:-1], edges[1:], strict=True):
        start = (size - (b - a)) // 2
        stripes.append(image[:, start:start + b - a])
    joined = np.concatenate(stripes, 1)
    joined[:, edges[1:-1]] = _PAPER
    return joined


def with_inset(image: np.ndarray, inset: np.ndarray) -> np.ndarray:
    """Return a copy of the picture with a small second picture in its lower left corner."""
    size = image.shape[0]
    small, edge = enlarge(inset, size * 3 // 8), max(1, size // 64)
    image = image.copy()
    image[-small.shape[0] - edge:, :small.shape[1] + edge] = _PAPER
    image[-small.shape[0]:, :small.shape[1]] = small
    return image


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _corner_mask(size: int) -> Image.Image:
    """Return an antialiased rounded square as a mask for pasting."""
    mask = Image.new("L", (size * 4, size * 4))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size * 4 - 1, size * 4 - 1), _ROUND * 4, fill=255)
    return mask.resize((size, size), Image.Resampling.LANCZOS)
