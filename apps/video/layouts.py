"""The 33 landmarks of BlazePose -> the joints of a network: ntu-25 in metres, coco-17 and
openpose-18 in the image.

Sources: MediaPipe's documentation of its pose landmarks for mediapipe-33; Microsoft's of Kinect v2
for the joints of ntu-25, and for the directions of its axes: x to the left of who looks along the
camera, y up, z away from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from dataset.skeletons import Skeleton, skeleton
from errors import UserError

MEDIAPIPE = skeleton("mediapipe-33")
HIP_SHIFT = 0.4  # towards the middle: hips of Kinect lie closer together
MIN_SCORE = 0.3  # visibility from which a joint of an image counts
LEAST_DEPTH, MOST_DEPTH = 0.3, 50.0  # metres from the camera

Mixture = dict[str, float]  # landmark -> its share in a joint
_HEAD = {"left_ear": 0.5, "right_ear": 0.5}
_SHOULDERS = {"left_shoulder": 0.5, "right_shoulder": 0.5}
_HIPS = {"left_hip": 0.5, "right_hip": 0.5}
_HAND = "pinky", "index", "wrist"


def _mixed(*parts: tuple[float, Mixture]) -> Mixture:
    total: Mixture = {}
    for weight, mixture in parts:
        for name, share in mixture.items():
            total[name] = total.get(name, 0.0) + weight * share
    return total


def _side_of(side: str) -> dict[str, Mixture]:
    hand = {f"{side}_{part}": 1 / 3 for part in _HAND}
    own = {
        name: {f"{side}_{name}": 1.0} for name in ("shoulder", "elbow", "wrist", "knee", "ankle")
    }
    return {
        **{f"{side}_{name}": mixture for name, mixture in own.items()},
        f"{side}_hand": hand,
        # As far beyond the index finger as the hand lies before it.
        f"{side}_hand_tip": _mixed((1.5, {f"{side}_index": 1.0}), (-0.5, hand)),
        f"{side}_thumb": {f"{side}_thumb": 1.0},
        f"{side}_hip": _mixed((1 - HIP_SHIFT, {f"{side}_hip": 1.0}), (HIP_SHIFT, _HIPS)),
        f"{side}_foot": {f"{side}_foot_index": 1.0},
    }


_NTU: dict[str, Mixture] = {
    "spine_base": _HIPS,
    "spine_mid": _mixed((0.5, _HIPS), (0.5, _SHOULDERS)),
    "spine_shoulder": _SHOULDERS,
    "neck": _mixed((0.6, _SHOULDERS), (0.4, _HEAD)),
    "head": _mixed((-0.1, _SHOULDERS), (1.1, _HEAD)),
    **_side_of("left"),
    **_side_of("right"),
}
_IMAGE: dict[str, Mixture] = {"neck": _SHOULDERS}


@dataclass(frozen=True)
class Camera:
    """focal: in pixels. mirrored: the image shows left on the right, as of NTU's own recordings and
    of selfie views; then landmarks change sides and x keeps its sign."""

    width: int
    height: int
    focal: float
    mirrored: bool = False


def in_pixels(
    image: np.ndarray, layout: Skeleton, source: Skeleton, mirrored: bool = False
) -> np.ndarray:
    """Points (J, 3) of `source`, pixels and score in 0..1 -> (V, 3) of `layout`; a mixed joint has
    the lowest score of its landmarks."""
    mixing = _mixing(layout, source, mirrored)
    points = np.empty((layout.num_joint, 3), np.float32)
    points[:, :2] = mixing @ image[:, :2]
    points[:, 2] = np.where(mixing != 0, image[:, 2], np.inf).min(axis=1)
    return points


def for_image(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """(V, 3) of pixels and score -> (3, V) as a two-dimensional network wants it: x and y in -0.5
    to 0.5, score; zeros where the score is below MIN_SCORE."""
    joints = np.empty((3, len(points)), np.float32)
    joints[0], joints[1] = points[:, 0] / width - 0.5, points[:, 1] / height - 0.5
    joints[2] = points[:, 2]
    joints[:, points[:, 2] < MIN_SCORE] = 0
    return joints


def for_space(image: np.ndarray, world: np.ndarray, layout: Skeleton, camera: Camera) -> np.ndarray:
    """Landmarks of the image (33, 3), pixels and visibility, and of the world (33, 3), metres, y
    down, around the hips -> (3, V) of `layout` in metres, as a Kinect at the camera gives it."""
    placed = world + translation(image, world, camera)
    joints = _mixing(layout, MEDIAPIPE, camera.mirrored) @ placed
    sign = np.array([1 if camera.mirrored else -1, -1, 1], np.float32)
    return (joints * sign).T.astype(np.float32)


def translation(image: np.ndarray, world: np.ndarray, camera: Camera) -> np.ndarray:
    """(3,) metres that places landmarks of the world so that a pinhole camera projects them onto
    those of the image: least squares, weighted by visibility. Depth is kept in LEAST_DEPTH to
    MOST_DEPTH."""
    u = (image[:, 0].astype(np.float64) - camera.width / 2) / camera.focal
    v = (image[:, 1].astype(np.float64) - camera.height / 2) / camera.focal
    x, y, z = world.astype(np.float64).T
    weight = np.sqrt(np.clip(image[:, 2], 1e-3, 1))
    one, zero = np.ones(len(u)), np.zeros(len(u))
    # u (z + tz) = x + tx, and the same for v and y.
    left = np.concatenate([np.stack([one, zero, -u], 1), np.stack([zero, one, -v], 1)])
    right = np.concatenate([u * z - x, v * z - y])
    weights = np.concatenate([weight, weight])
    moved = np.linalg.lstsq(left * weights[:, None], right * weights, rcond=None)[0]
    depth = np.clip(moved[2], LEAST_DEPTH, MOST_DEPTH)
    if depth != moved[2]:  # e.g. only a few landmarks are visible
        moved[0] = np.average(u * (z + depth) - x, weights=weight)
        moved[1] = np.average(v * (z + depth) - y, weights=weight)
    return np.array([moved[0], moved[1], depth])


def check_layout(layout: Skeleton, source: Skeleton, *, is_3d: bool) -> None:
    """Raises UserError where a pose of `source` does not give the joints of a network."""
    if is_3d and (layout.name != "ntu-25" or source is not MEDIAPIPE):
        raise UserError(
            f"the model wants {layout.name} in metres; from video there is only ntu-25, from the "
            "pose network that is built in"
        )
    _mixing(layout, source, swapped=False)


@cache
def _mixing(layout: Skeleton, source: Skeleton, swapped: bool) -> np.ndarray:
    """(V, J): how each joint is mixed from the landmarks. swapped: left and right."""
    mixing = np.zeros((layout.num_joint, source.num_joint), np.float32)
    for v, name in enumerate(layout.joints):
        table = _NTU if layout.name == "ntu-25" else _IMAGE
        for landmark, share in table.get(name, {name: 1.0}).items():
            landmark = _other_side(landmark) if swapped else landmark
            if landmark not in source.joints:
                raise UserError(
                    f"the model wants {layout.name}; a pose of {source.name} has no {landmark}"
                )
            mixing[v, source.joints.index(landmark)] += share
    return mixing


def _other_side(name: str) -> str:
    left, right = name.replace("left", "right"), name.replace("right", "left")
    return left if left != name else right
