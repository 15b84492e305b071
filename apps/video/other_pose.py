"""Pose networks of the user's own, as .onnx: MoveNet MultiPose, and YOLO-pose with any layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from apps.video.detector import suppressed
from apps.video.network import Network
from apps.video.pose import Person
from apps.video.region import Region, body_region
from dataset.skeletons import Skeleton, skeleton
from errors import UserError

MIN_SCORE = 0.25  # of a person
MIN_JOINT = 0.2  # score from which a joint counts for the square of a person
MAX_OVERLAP = 0.5  # of the boxes of two people
LONG_SIDE = {"movenet": 256, "yolo": 640}  # pixels; where the file leaves it open
STRIDE = 32  # pixels; sides of the input are multiples of it
GREY = 114  # YOLO's colour beside the image
RIM = 1.15  # radius of a person's circle / distance of the farthest joint from the hips


class OtherPose:
    """Points of several people in one image, of a network that the user brings.

    MoveNet MultiPose: int32 (1, H, W, 3), 0..255 -> (1, people, 3 J + 5): y, x, score of each joint
    in 0..1 of the input; ymin, xmin, ymax, xmax, score. YOLO-pose: float32 (1, 3, H, W), 0..1 ->
    (1, 5 + 3 J, anchors): x, y, width, height of the box in pixels of the input, score; x, y, score
    of each joint.
    """

    def __init__(self, file: Path, layout_name: str, num_thread: int, most_persons: int) -> None:
        """layout_name: of dataset/layouts. Raises UserError for other networks and layouts."""
        self.layout: Skeleton = skeleton(layout_name)
        self._most_persons = most_persons
        if file.suffix != ".onnx":
            raise UserError(f"--pose_model {file}: allowed: a file ending in .onnx")
        self._network = network = Network(file, num_thread)
        shape, last = network.inputs[0], network.outputs[0][-1:]
        values = 3 * self.layout.num_joint + 5
        if len(shape) == 4 and shape[3] == 3 and last == [values]:
            self._kind, sides = "movenet", shape[1:3]
        elif len(shape) == 4 and shape[1] == 3 and network.outputs[0][1:2] == [values]:
            self._kind, sides = "yolo", shape[2:]
        else:
            raise UserError(
                f"{file}: input {shape}, output {network.outputs[0]}; allowed: MoveNet MultiPose "
                f"or YOLO-pose with {values} values a person, for the {self.layout.num_joint} "
                f"joints of --pose_layout {layout_name}"
            )
        self._file_sides = sides  # height and width; -1 where they are open
        self._sides: tuple[int, int] | None = None

    def estimate(self, image: np.ndarray) -> list[Person]:
        """The people in (H, W, 3) uint8, the surest first; without `world`."""
        return [Person(points, None, score) for points, score in self._people(image)]

    def find(self, image: np.ndarray, thorough: bool) -> list[Region]:
        """The squares of the people, for the landmark network."""
        names = self.layout.joints
        hips, shoulders = (
            [names.index(f"{side}_{part}") for side in ("left", "right")]
            for part in ("hip", "shoulder")
        )
        regions = []
        for points, _ in self._people(image):
            middle, seen = points[hips, :2].mean(axis=0), points[points[:, 2] >= MIN_JOINT, :2]
            up = points[shoulders, :2].mean(axis=0) - middle
            if len(seen) and up.any():
                radius = RIM * np.linalg.norm(seen - middle, axis=1).max()
                regions.append(body_region(middle, middle + up * (radius / np.linalg.norm(up))))
        return regions

    def reset(self) -> None:
        """Nothing is kept from one image to the next."""

    def _people(self, image: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Points (J, 3), x and y in pixels and score, and the score of each person."""
        height, width = self._prepared(*image.shape[:2])
        scale = min(height / image.shape[0], width / image.shape[1])
        small = Image.fromarray(image).resize(
            (round(image.shape[1] * scale), round(image.shape[0] * scale)),
            Image.Resampling.BILINEAR,
        )
        is_movenet = self._kind == "movenet"
        padded = np.full((height, width, 3), 0 if is_movenet else GREY, np.uint8)
        padded[: small.height, : small.width] = np.asarray(small)
        if is_movenet:
            rows = self._network.run(padded[None].astype(np.int32))[0][0]
            people = rows[:, :-5].reshape(len(rows), -1, 3)[..., [1, 0, 2]] * [width, height, 1]
            scores, boxes = rows[:, -1], rows[:, [-4, -5, -2, -3]] * [width, height, width, height]
        else:
            tensor = padded.transpose(2, 0, 1)[None].astype(np.float32) / 255
            rows = self._network.run(tensor)[0][0].T
            people, scores = rows[:, 5:].reshape(len(rows), -1, 3), rows[:, 4]
            centre, size = rows[:, :2], rows[:, 2:4]
            boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        sure = np.flatnonzero((scores >= MIN_SCORE) & np.isfinite(people).all(axis=(1, 2)))
        sure = sure[suppressed(boxes[sure], scores[sure], MAX_OVERLAP)][: self._most_persons]
        found = (people[sure] / [scale, scale, 1]).astype(np.float32)
        return list(zip(found, scores[sure].tolist()))

    def _prepared(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the input, for all images the same as for the first one."""
        if self._sides is None:
            if min(self._file_sides) < 1:
                scale = LONG_SIDE[self._kind] / max(height, width)
                sides = [-(-round(side * scale) // STRIDE) * STRIDE for side in (height, width)]
                self._network.fix([1, *sides, 3] if self._kind == "movenet" else [1, 3, *sides])
            else:
                sides = self._file_sides
            self._network.compile()
            self._sides = sides[0], sides[1]
        return self._sides
