"""Rotated squares of an image: what a pose network looks at, and the way back to pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

# Of a person's new square in the next one; SHARE_GROWTH for each side that the centre has moved.
SHARE_CENTRE, SHARE_GROWTH, SHARE_SIDE, SHARE_TURN = 0.2, 5.0, 0.05, 0.1
BODY_SIDE = 2.5  # side of a person's square / radius of the circle around hips and body


@dataclass(frozen=True)
class Region:
    """A square. x, y: its centre, side: both in pixels of the image, whose first pixel spans 0 to
    1. rotation: in radians, clockwise as seen; 0 means that its upper edge is up."""

    x: float
    y: float
    side: float
    rotation: float = 0.0

    def axes(self) -> np.ndarray:
        """(2, 2): takes directions of the square to those of the image, as columns."""
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        return np.array([[cos, -sin], [sin, cos]], np.float32)

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) in 0..1 of the square -> pixels of the image."""
        centre = np.array([self.x, self.y], np.float32)
        return (points - np.float32(0.5)) @ (self.side * self.axes()).T + centre


def body_region(hips: np.ndarray, rim: np.ndarray) -> Region:
    """The square of a person. hips: (2,) their middle. rim: (2,) the point above the head of the
    circle around the hips that holds the whole body; both in pixels."""
    x, y = (float(value) for value in rim - hips)
    side = BODY_SIDE * math.hypot(x, y)
    return Region(float(hips[0]), float(hips[1]), side, math.atan2(x, -y))


def steady(last: Region, now: Region) -> Region:
    """Where to look for a person next. Size and rotation change slowly, and so does the centre
    unless it moves far: of two people in contact, the landmarks of one frame may lie on both."""
    x, y = now.x - last.x, now.y - last.y
    share = min(SHARE_CENTRE + SHARE_GROWTH * math.hypot(x, y) / last.side, 1.0)
    turn = (now.rotation - last.rotation + math.pi) % (2 * math.pi) - math.pi
    return Region(
        last.x + share * x,
        last.y + share * y,
        last.side + SHARE_SIDE * (now.side - last.side),
        last.rotation + SHARE_TURN * turn,
    )


def overlap(a: Region, b: Region) -> float:
    """Intersection over union, 0..1, of two squares, as if neither were rotated."""
    reach = (a.side + b.side) / 2
    common = min(a.side, b.side)
    width = min(reach - abs(a.x - b.x), common)
    height = min(reach - abs(a.y - b.y), common)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a.side**2 + b.side**2 - width * height)


def crop(image: np.ndarray, region: Region, size: int) -> np.ndarray:
    """The pixels of a square, upright, as (size, size, 3) uint8; black outside the image, which is
    (H, W, 3) uint8. Large squares are averaged down first: plain bilinear sampling would skip
    pixels."""
    height, width, _ = image.shape
    corners = region.to_image(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32))
    left, top = np.clip(np.floor(corners.min(axis=0)) - 1, 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, (width, height)).astype(int)
    if right <= left or bottom <= top:
        return np.zeros((size, size, 3), np.uint8)
    part = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    factor = max(int(region.side // size), 1)
    if factor > 1:
        part = part.reduce(factor)
    step = region.side / size * region.axes() / factor  # pixels of `part` a pixel of the crop
    start = (corners[0] - (left, top)) / factor
    coefficients = (*step[0], start[0], *step[1], start[1])
    shape, affine = (size, size), Image.Transform.AFFINE
    return np.asarray(part.transform(shape, affine, coefficients, Image.Resampling.BILINEAR))
