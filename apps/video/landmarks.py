"""MediaPipe's landmark network (BlazePose full): the square of one person -> 33 landmarks in the
image and in space, and the person's square in the next frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apps.video.network import Network
from apps.video.region import Region, body_region, crop

SIZE = 256  # pixels
NUM_LANDMARK = 33
_HIPS, _RIM = 33, 34  # landmarks behind those, for the next frame (apps/video/region.py)
_NUM_POINT = 39
_OUTPUTS = 0, 1, 4  # landmarks, presence, landmarks in space; without the mask and the heat maps
_LARGEST_LOGIT = 80.0  # exp of more overflows float32


@dataclass(frozen=True)
class Landmarks:
    """Of one person. image: (33, 3) x, y and depth from the hips, in pixels. visibility: (33,) in
    0..1. world: (33, 3) metres from the hips, x to the right of the image, y down. presence: in
    0..1, that there is a person. seen: the square that was looked at. region: where the person is
    now."""

    image: np.ndarray
    visibility: np.ndarray
    world: np.ndarray
    presence: float
    seen: Region
    region: Region


class Landmarker:
    """Finds the landmarks of one person at a time."""

    def __init__(self, file: Path, num_thread: int) -> None:
        """file: pose_landmark_full.tflite."""
        network = Network(file, num_thread)
        network.keep(_OUTPUTS)
        network.take_bytes(0, 1)
        self._network = network.compile()

    def find(self, image: np.ndarray, region: Region) -> Landmarks:
        """image: (H, W, 3) uint8. region: the square of a person."""
        points, presence, world = self._network.run(crop(image, region, SIZE)[None])
        return decode(points, float(presence.item()), world, region)


def decode(points: np.ndarray, presence: float, world: np.ndarray, region: Region) -> Landmarks:
    """What the network gives for a region. points: 39 times x, y, z in pixels of the crop and the
    logits of visibility and of presence. world: 39 times x, y, z in metres of the crop."""
    points = points.reshape(_NUM_POINT, 5)
    pixels = region.to_image(points[:, :2] / SIZE)
    depth = points[:, 2:3] * (region.side / SIZE)
    logits = np.clip(points[:NUM_LANDMARK, 3], -_LARGEST_LOGIT, _LARGEST_LOGIT)
    space = world.reshape(_NUM_POINT, 3)[:NUM_LANDMARK].copy()
    space[:, :2] = space[:, :2] @ region.axes().T
    return Landmarks(
        np.concatenate([pixels, depth], axis=1)[:NUM_LANDMARK],
        1 / (1 + np.exp(-logits)),
        space,
        presence,
        region,
        body_region(pixels[_HIPS], pixels[_RIM]),
    )
