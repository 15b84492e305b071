"""Frames with skeletons, what each person does, and the best classes of the scene as bars."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from apps.video.recognition import SCENE
from apps.video.session import Session
from apps.video.timeline import NO_ACTION
from dataset.skeletons import Skeleton

SIZE, MARGIN = 480, 40  # of the square that shows a recording, pixels
MAX_SIDE = 1280  # of the image of a video; larger ones are shown smaller
PANEL = 260  # width of the bars beside it
NUM_BAR = 5
RADIUS, RADIUS_RANGE = 3.0, (0.5, 4.0)  # of a joint, pixels; and the factors for its intensity
BLACK, GREY, WHITE = (17, 24, 39), (209, 213, 219), (255, 255, 255)
# Of Okabe and Ito, for readers with any colour vision.
COLOURS = [
    *[(0, 114, 178), (213, 94, 0), (0, 158, 115)],
    *[(204, 121, 167), (230, 159, 0), (86, 180, 233)],
]
Points = dict[int, np.ndarray]  # person -> (V, 3): x and y in pixels, and a score, 0 for no joint


class Front:
    """Shows a recording from the front. positions: (3, T, V, M), all of it; y is up in metres, and
    down in an image."""

    def __init__(self, positions: np.ndarray, is_3d: bool) -> None:
        self.sign = np.array([1, -1 if is_3d else 1])
        joints = positions.reshape(3, -1).T
        seen = joints[np.flatnonzero(np.abs(joints).max(axis=1)), :2] * self.sign
        low, high = (seen.min(axis=0), seen.max(axis=0)) if len(seen) else (np.zeros(2),) * 2
        self.centre = (low + high) / 2
        self.scale = (SIZE - 2 * MARGIN) / max(float((high - low).max()), 1e-6)

    def points(self, joints: np.ndarray) -> np.ndarray:
        """(3, V) -> (V, 3), pixels of the square."""
        pixels = (joints[:2].T * self.sign - self.centre) * self.scale + SIZE / 2
        return np.column_stack([pixels, joints.any(axis=0)])


class Painter:
    """Draws frames. layout: of the points. session: knows what is being done."""

    def __init__(self, layout: Skeleton, session: Session) -> None:
        self.layout, self.session = layout, session
        self.font, self.small = ImageFont.load_default(16), ImageFont.load_default(13)

    def frame(self, image: np.ndarray | None, points: Points) -> Image.Image:
        """The newest frame. image: (H, W, 3) uint8, which the points lie on; None for none. Sides
        are even, as H.264 wants them."""
        shown, scale = _background(image)
        draw = ImageDraw.Draw(shown)
        for who, joints in points.items():
            self._person(draw, who, joints[:, :2] * scale, joints[:, 2] > 0)
        self._panel(draw, shown.width - PANEL)
        return shown

    def _person(
        self, draw: ImageDraw.ImageDraw, who: int, points: np.ndarray, exists: np.ndarray
    ) -> None:
        if not exists.any():
            return
        colour = COLOURS[who % len(COLOURS)]
        for a, b in self.layout.edges:
            if exists[a] and exists[b]:
                draw.line([*points[a], *points[b]], fill=colour, width=3)
        for (x, y), radius in zip(points[exists], self._radii(who)[exists]):
            box = [x - radius, y - radius, x + radius, y + radius]
            draw.ellipse(box, fill=BLACK, outline=WHITE)
        x, y = points[exists].min(axis=0)
        text = self._said(who)
        width = draw.textlength(text, self.small)
        left = max(min(x, draw.im.size[0] - PANEL - width - 2), 2)
        top = max(y - 24, 2)
        draw.rectangle([left - 2, top, left + width + 2, top + 17], fill=WHITE)
        draw.text((left, top), text, colour, self.small)

    def _radii(self, who: int) -> np.ndarray:
        """(V,) pixels: larger for the joints that count more for the network than their mean."""
        intensity = self.session.recogniser.intensity.get(who)
        if intensity is None or not intensity.any():
            return np.full(self.layout.num_joint, RADIUS)
        return RADIUS * np.clip(intensity / intensity.mean(), *RADIUS_RANGE)

    def _panel(self, draw: ImageDraw.ImageDraw, edge: int) -> None:
        left, right = edge + 10, edge + PANEL - 12
        time = self.session.count / self.session.frame_rate
        draw.text((left, 14), f"{time:.1f} s", BLACK, self.small)
        draw.text((left, 36), self._said(SCENE), BLACK, self.font)
        for n, (name, share) in enumerate(self.session.best(NUM_BAR)):
            top = 84 + 52 * n
            draw.text((left, top), f"{name}  {100 * share:.0f} %", BLACK, self.small)
            draw.rectangle([left, top + 20, right, top + 32], fill=GREY)
            draw.rectangle([left, top + 20, left + (right - left) * share, top + 32], COLOURS[0])

    def _said(self, who: int) -> str:
        found = self.session.said(who)
        if found is None or found[0] == NO_ACTION:
            return found[0] if found else ""
        return f"{found[0]} {100 * found[1]:.0f} %"


def _background(image: np.ndarray | None) -> tuple[Image.Image, float]:
    """The image in its place, with room for the bars; and its scale."""
    width, height, scale = SIZE, SIZE, 1.0
    if image is not None:
        scale = min(MAX_SIDE / max(image.shape[:2]), 1.0)
        height, width = (round(side * scale) for side in image.shape[:2])
    size = width + width % 2 + PANEL, max(height + height % 2, SIZE)
    shown = Image.new("RGB", size, WHITE)
    if image is not None:
        picture = Image.fromarray(image)
        shown.paste(picture if scale == 1 else picture.resize((width, height)), (0, 0))
    return shown, scale
