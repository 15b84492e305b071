"""Images -> who is there, as a network wants them: pose, identity, joints of its layout."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from apps.video.frames import Media
from apps.video.layouts import Camera, check_layout, for_image, for_space, in_pixels
from apps.video.play import Frame, Stopwatch
from apps.video.pose import Person
from apps.video.smoothing import OneEuroFilter
from dataset.skeletons import Skeleton
from reader.tracking import MAX_GAP, Tracker


class Pose(Protocol):
    """Finds the people of images that follow each other. layout: of their points."""

    layout: Skeleton

    def estimate(self, image: np.ndarray) -> list[Person]: ...


class Watcher:
    """Follows the people of one video. layout: that the network wants, in metres (is_3d) or in the
    image. frame_rate: of the video. focal: of the camera, in widths of the image. mirrored: see
    `Camera`. Joints in metres are smoothed; those in an image are not, nor are those that networks
    are trained on."""

    def __init__(
        self,
        pose: Pose,
        layout: Skeleton,
        frame_rate: float,
        *,
        is_3d: bool,
        focal: float,
        mirrored: bool,
    ) -> None:
        """Raises UserError where such a pose does not give these joints."""
        check_layout(layout, pose.layout, is_3d=is_3d)
        self._pose, self._layout, self._is_3d = pose, layout, is_3d
        self._frame_rate, self._focal, self._mirrored = frame_rate, focal, mirrored
        self._tracker = Tracker()
        # Of each person, with the frame of the joints that it has had last.
        self._filters: dict[int, tuple[int, OneEuroFilter]] = {}
        self._count = 0  # frames
        self._last = Frame({}, {})

    def frames(self, media: Media, watch: Stopwatch) -> Iterator[Frame]:
        """Until the media ends or, of a camera, the user presses Ctrl-C."""
        is_stopped = threading.Event()
        if media.is_live:
            signal.signal(signal.SIGINT, lambda *_: is_stopped.set())
        while not is_stopped.is_set():
            with watch.of("decoding"):
                image = next(media.images, None)
            if image is None:
                return
            yield self.look(image, watch)

    def look(self, image: np.ndarray, watch: Stopwatch) -> Frame:
        """The next image, (H, W, 3) uint8. The same array again is the same frame again."""
        self._count += 1
        if image is self._last.image:
            return self._last
        with watch.of("pose"):
            found = self._pose.estimate(image)
        with watch.of("tracking"):
            names = self._tracker.update([person.image[:, :2] for person in found])
            self._last = self._frame(image, dict(zip(names, found)))
        return self._last

    def _frame(self, image: np.ndarray, found: dict[int, Person]) -> Frame:
        height, width, _ = image.shape
        people, points = {}, {}
        for who, person in found.items():
            pixels = in_pixels(person.image, self._layout, self._pose.layout, self._mirrored)
            if self._is_3d and person.world is not None:
                camera = Camera(width, height, self._focal * width, self._mirrored)
                placed = for_space(person.image, person.world, self._layout, camera)
                joints = self._smoothed(who, placed)
            else:
                joints = for_image(pixels, width, height)
            if joints.any():
                people[who], points[who] = joints, pixels
        return Frame(people, points, image)

    def _smoothed(self, who: int, joints: np.ndarray) -> np.ndarray:
        known = self._filters.items()
        self._filters = {n: f for n, f in known if self._count - f[0] <= MAX_GAP}
        if who not in self._filters:
            self._filters[who] = self._count, OneEuroFilter(joints)
            return joints
        last, smoothing = self._filters[who]
        self._filters[who] = self._count, smoothing
        return smoothing.push(joints, (self._count - last) / self._frame_rate)
