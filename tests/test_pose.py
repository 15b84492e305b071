"""Pose networks, the way from their points to joints of a network, and who is who in video."""

from __future__ import annotations

import hashlib
import itertools
import math
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from apps.video import detector, weights
from apps.video.detector import Detections, anchors, suppress, views_of
from apps.video.landmarks import Landmarker, Landmarks
from apps.video.layouts import (
    MEDIAPIPE,
    Camera,
    check_layout,
    for_image,
    for_space,
    in_pixels,
    translation,
)
from apps.video.other_pose import OtherPose
from apps.video.play import Stopwatch
from apps.video.pose import Person, PoseEstimator
from apps.video.region import Region, body_region, crop, overlap, steady
from apps.video.smoothing import OneEuroFilter
from apps.video.watcher import Watcher
from dataset.skeletons import skeleton
from errors import UserError

NTU, COCO = skeleton("ntu-25"), skeleton("coco-17")


def a_body(x: float = 0.0, z: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """image and world of a person whose hips are at (x, 0, z) metres, seen by a camera with a focal
    length of 900 pixels and an image of 1000 x 800."""
    world = np.random.RandomState(seed).uniform(-0.8, 0.8, (33, 3)).astype(np.float32)
    world -= world[[23, 24]].mean(axis=0)
    placed = world + np.array([x, 0, z])
    pixels = 900 * placed[:, :2] / placed[:, 2:] + [500, 400]
    return np.column_stack([pixels, np.full(33, 0.9)]).astype(np.float32), world


# Geometry.


def test_translation_is_found_from_the_projection() -> None:
    image, world = a_body(0.7, 4.2)
    found = translation(image, world, Camera(1000, 800, 900))
    np.testing.assert_allclose(found, [0.7, 0, 4.2], atol=1e-4)
    image[:20, :2] += 300  # landmarks that nobody sees do not count
    image[:20, 2] = 0
    found = translation(image, world, Camera(1000, 800, 900))
    np.testing.assert_allclose(found, [0.7, 0, 4.2], atol=0.1)  # else 1 m or more


def test_joints_in_space_are_those_of_a_kinect() -> None:
    """Of an ordinary camera x is flipped; of a mirrored image sides are swapped instead."""
    image, world = a_body(0.7, 4.2)
    joints = for_space(image, world, NTU, Camera(1000, 800, 900))
    mirrored = for_space(image, world, NTU, Camera(1000, 800, 900, mirrored=True))
    assert joints.shape == (3, 25) and joints.dtype == np.float32
    placed = world + [0.7, 0, 4.2]
    names, marks = NTU.joints.index, MEDIAPIPE.joints.index
    knee = placed[marks("left_knee")]
    np.testing.assert_allclose(joints[:, names("left_knee")], knee * [-1, -1, 1], atol=1e-3)
    np.testing.assert_allclose(mirrored[:, names("right_knee")], knee * [1, -1, 1], atol=1e-3)
    hips = placed[[marks("left_hip"), marks("right_hip")]]
    np.testing.assert_allclose(
        joints[:, names("spine_base")], hips.mean(axis=0) * [-1, -1, 1], atol=1e-3
    )
    narrow = 0.6 * hips[0] + 0.4 * hips.mean(axis=0)
    np.testing.assert_allclose(joints[:, names("left_hip")], narrow * [-1, -1, 1], atol=1e-3)


def test_joints_in_the_image() -> None:
    image, _ = a_body()
    image[11, 2] = 0.1  # a shoulder that is not seen
    pixels = in_pixels(image, skeleton("openpose-18"), MEDIAPIPE)
    neck = image[[11, 12], :2].mean(axis=0)
    np.testing.assert_allclose(pixels[1], [*neck, 0.1], rtol=1e-5)
    joints = for_image(pixels, 1000, 800)
    assert joints.shape == (3, 18) and not joints[:, 1].any()
    nose = [image[0, 0] / 1000 - 0.5, image[0, 1] / 800 - 0.5, 0.9]
    np.testing.assert_allclose(joints[:, 0], nose, rtol=1e-4)
    swapped = in_pixels(image, COCO, MEDIAPIPE, mirrored=True)
    left, right = COCO.joints.index("left_knee"), MEDIAPIPE.joints.index("right_knee")
    np.testing.assert_allclose(swapped[left], image[right], rtol=1e-5)


@pytest.mark.parametrize(
    ("layout", "source", "is_3d", "reason"),
    [
        ("kinect-20", "mediapipe-33", True, "from video there is only ntu-25"),
        ("ntu-25", "coco-17", True, "from video there is only ntu-25"),
        ("openpose-25", "coco-17", False, "a pose of coco-17 has no"),
    ],
)
def test_a_pose_without_the_joints_of_the_model(
    layout: str, source: str, is_3d: bool, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        check_layout(skeleton(layout), skeleton(source), is_3d=is_3d)
    check_layout(NTU, MEDIAPIPE, is_3d=True)


def test_a_square_of_a_rotated_body() -> None:
    """Right of the hips and a quarter turned: the upper edge of the square is on the right."""
    region = body_region(np.array([100.0, 80.0]), np.array([140.0, 80.0]))
    assert (region.x, region.y, region.side) == (100, 80, 100)
    corners = region.to_image(np.array([[0, 0], [1, 0], [0.5, 0.5]], np.float32))
    np.testing.assert_allclose(corners, [[150, 30], [150, 130], [100, 80]], atol=1e-4)
    image = np.zeros((160, 200, 3), np.uint8)
    image[:, 140:] = 200
    seen = crop(image, region, 50)
    assert seen.shape == (50, 50, 3)
    assert (seen[:4] == 200).all() and not seen[6:].any()


def test_a_crop_has_black_outside_of_the_image_and_averages_large_squares() -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    image[::2] = 200
    seen = crop(image, Region(64, 32, 128), 32)
    assert not seen[:, 17:].any() and not seen[:7].any()
    assert (np.abs(seen[10:22, 2:14].astype(int) - 150) <= 1).all()
    assert not crop(image, Region(500, 500, 50), 32).any()


def test_the_square_of_a_person_follows() -> None:
    last = Region(100, 100, 200, math.pi - 0.1)
    near = steady(last, Region(102, 100, 300, -math.pi + 0.1))
    assert near.x == pytest.approx(100 + 2 * (0.2 + 5 * 2 / 200)) and near.y == 100
    assert near.side == pytest.approx(205)
    assert near.rotation == pytest.approx(math.pi - 0.1 + 0.02)  # the short way round
    assert steady(last, Region(160, 100, 200)).x == 160


def test_overlap_of_squares() -> None:
    assert overlap(Region(0, 0, 2), Region(1, 0, 2)) == pytest.approx(2 / 6)
    assert overlap(Region(0, 0, 4), Region(1, 0, 2)) == pytest.approx(4 / 16)
    assert overlap(Region(0, 0, 2), Region(2, 0, 2)) == 0


def test_the_filter_calms_rest_and_follows_motion() -> None:
    rng = np.random.RandomState(0)
    still = np.ones((90, 3, 25), np.float32) + rng.normal(scale=0.02, size=(90, 3, 25))
    steps = OneEuroFilter(still[0])
    calm = np.stack([steps.push(joints, 1 / 30) for joints in still[1:]])
    assert calm[30:].std() < 0.6 * still[30:].std() and abs(calm[30:].mean() - 1) < 0.01
    moving = OneEuroFilter(np.zeros((3, 1)))
    places = [moving.push(np.full((3, 1), 2 * n / 30), 1 / 30)[0, 0] for n in range(1, 31)]
    assert 0 < 2 - places[-1] < 0.15  # behind by less than a tenth of a second
    late = OneEuroFilter(np.zeros((3, 1))).push(np.ones((3, 1)), 1.0)
    soon = OneEuroFilter(np.zeros((3, 1))).push(np.ones((3, 1)), 1 / 30)
    assert late[0, 0] > soon[0, 0]


# The detector.


def test_anchors_are_the_centres_of_the_cells() -> None:
    points = anchors()
    assert points.shape == (2254, 2)
    np.testing.assert_allclose(points[:3], [[0.5 / 28] * 2, [0.5 / 28] * 2, [1.5 / 28, 0.5 / 28]])
    np.testing.assert_allclose(points[28 * 28 * 2], [0.5 / 14] * 2)
    np.testing.assert_allclose(points[-1], [6.5 / 7] * 2)


def test_boxes_are_decoded_from_their_anchors() -> None:
    boxes, logits = np.zeros((2254, 12), np.float32), np.full((2254, 1), -200, np.float32)
    boxes[-1] = [22.4, 0, 44.8, 22.4, 0, -22.4, *[0] * 6]
    logits[-1] = 2
    found = detector.decode(boxes, logits)
    x, y = 6.5 / 7 + 0.1, 6.5 / 7
    np.testing.assert_allclose(found.boxes, [[x - 0.1, y - 0.05, x + 0.1, y + 0.05]], atol=1e-6)
    np.testing.assert_allclose(found.points[0, :2], [[6.5 / 7, y - 0.1], [6.5 / 7, y]], atol=1e-6)
    np.testing.assert_allclose(found.scores, 1 / (1 + math.exp(-2)), rtol=1e-5)


def test_of_overlapping_boxes_the_surest_remains() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 1.8], [5, 5, 7, 7], [1.5, 0, 3.5, 2]], np.float32)
    scores = np.array([0.6, 0.9, 0.7, 0.8], np.float32)
    kept = suppress(Detections(boxes, np.zeros((4, 4, 2)), scores))
    np.testing.assert_allclose(kept.scores, [0.9, 0.8, 0.7])


def test_wide_images_are_also_seen_in_tiles() -> None:
    whole, *tiles = views_of(720, 1280, tiles=True)
    assert (whole.x, whole.y, whole.side) == (640, 360, 1280)
    assert [(tile.x, tile.side) for tile in tiles] == [(360, 720), (640, 720), (920, 720)]
    assert len(views_of(720, 1280, tiles=False)) == len(views_of(720, 720, tiles=True)) == 1


# Following people.


class Sites:
    """A landmark network for which a person is where `places` says, and a detector that finds them
    all. places: (x, y) of those who are there."""

    def __init__(self) -> None:
        self.places: list[tuple[float, float]] = []
        self.looked: list[bool] = []

    def find(self, image: np.ndarray, thorough: bool) -> list[Region]:
        self.looked.append(thorough)
        return [Region(x, y, 100) for x, y in self.places]


class Seen(Landmarker):
    def __init__(self, sites: Sites) -> None:
        self.sites = sites

    def find(self, image: np.ndarray, region: Region) -> Landmarks:
        near = [p for p in self.sites.places if abs(p[0] - region.x) + abs(p[1] - region.y) < 40]
        x, y = near[0] if near else (region.x, region.y)
        points = np.tile(np.array([x, y, 0], np.float32), (33, 1))
        world, visibility = np.zeros((33, 3), np.float32), np.ones(33, np.float32)
        presence = 0.9 if near else 0.1
        return Landmarks(points, visibility, world, presence, region, Region(x, y, 100))


def test_people_are_followed_and_looked_for() -> None:
    sites, image = Sites(), np.zeros((300, 400, 3), np.uint8)
    pose = PoseEstimator(sites, Seen(sites), most_persons=2, every=3)
    sites.places = [(100, 100), (250, 100)]
    counts = [len(pose.estimate(image))]
    for step in range(1, 6):  # one walks; nobody is taken for two
        sites.places = [(100 + 10 * step, 100), (250, 100)]
        counts.append(len(pose.estimate(image)))
    assert counts == [2] * 6 and sites.looked == [True]  # both are followed: nobody to look for
    sites.places = [(250, 100), (50, 250)]  # one goes, and another one comes
    counts = [len(pose.estimate(image)) for _ in range(3)]
    assert counts == [2, 2, 2] and sites.looked == [True, False]
    sites.places = []
    assert not pose.estimate(image) and not pose.estimate(image)
    assert sites.looked == [True, False, False, False]  # nobody is there: it looks every time


class Played:
    """Poses that were written down."""

    layout = MEDIAPIPE

    def __init__(self, *frames: list[Person]) -> None:
        self.frames = list(frames)

    def estimate(self, image: np.ndarray) -> list[Person]:
        return self.frames.pop(0)


def people(*where: float) -> list[Person]:
    return [Person(*a_body(x, 4.0), 1.0) for x in where]


def test_a_watcher_gives_people_their_names_and_joints() -> None:
    pose = Played(people(-1, 1), people(0.98, -0.98), people(-0.96), people(0.94, -0.94))
    watcher = Watcher(pose, NTU, 30, is_3d=True, focal=0.9, mirrored=False)
    images = [np.full((800, 1000, 3), n, np.uint8) for n in range(4)]
    watch = Stopwatch()
    frames = [watcher.look(image, watch) for image in images]
    assert [sorted(frame.people) for frame in frames] == [[0, 1], [0, 1], [0], [0, 1]]
    base = NTU.joints.index("spine_base")
    assert frames[0].people[0][0, base] == pytest.approx(1, abs=1e-3)
    left = [float(frame.people[0][0, base]) for frame in frames]
    assert left == sorted(left, reverse=True) and 0.94 < left[-1] < 1  # smoothed, without a jump
    assert watcher.look(images[-1], watch) is frames[-1]  # the same image: nothing is computed
    assert frames[0].points[0].shape == (25, 3)


def test_a_watcher_for_a_network_of_the_image() -> None:
    watcher = Watcher(Played(people(0)), COCO, 30, is_3d=False, focal=0.9, mirrored=False)
    frame = watcher.look(np.zeros((800, 1000, 3), np.uint8), Stopwatch())
    image, _ = a_body(0, 4.0)
    expected = for_image(in_pixels(image, COCO, MEDIAPIPE), 1000, 800)
    np.testing.assert_array_equal(frame.people[0], expected)


# Pose networks of the user's own.


def constant_network(path: Path, shape: list[int | str], kind: int, output: np.ndarray) -> Path:
    """An ONNX file that takes any image and gives `output`."""
    steps = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["constant", "nothing"], ["people"]),
    ]
    values = [
        numpy_helper.from_array(output.astype(np.float32), "constant"),
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
    ]
    image = helper.make_tensor_value_info("image", kind, shape)
    people = helper.make_tensor_value_info("people", TensorProto.FLOAT, list(output.shape))
    graph = helper.make_graph(steps, "pose", [image], [people], values)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def test_movenet_in_pixels_of_the_image(tmp_path: Path) -> None:
    """An image of 400 x 200 becomes 256 x 128."""
    rows = np.zeros((1, 6, 56))
    rows[0, 1, :51] = np.tile([0.5, 0.25, 0.8], 17)  # y, x, score
    rows[0, 1, 51:] = [0.4, 0.2, 0.6, 0.3, 0.9]
    rows[0, 2] = rows[0, 1] * 0.99  # the same person once more
    rows[0, 3, 55] = 0.1  # too unsure
    shape = [1, "h", "w", 3]
    file = constant_network(tmp_path / "m.onnx", shape, TensorProto.INT32, rows)
    pose = OtherPose(file, "coco-17", 1, 6)
    (person,) = pose.estimate(np.zeros((200, 400, 3), np.uint8))
    np.testing.assert_allclose(person.image, np.tile([100, 100, 0.8], (17, 1)), rtol=1e-5)
    assert person.presence == pytest.approx(0.9) and person.world is None


def test_yolo_pose_with_a_layout_of_its_own(tmp_path: Path) -> None:
    """An image of 400 x 200 fills the upper half of 64 x 64; squares for the landmark network come
    from the hips, upwards to the shoulders."""
    joints = np.tile([32, 16, 0.7], (17, 1))
    for side, x in (("left", 36), ("right", 28)):
        joints[COCO.joints.index(f"{side}_shoulder"), :2] = x, 8
        joints[COCO.joints.index(f"{side}_hip"), :2] = x, 24
    columns = np.zeros((1, 56, 5))
    columns[0, :, 3] = [32, 16, 20, 30, 0.8, *joints.ravel()]
    columns[0, :, 4] = [32, 16, 20, 28, 0.7, *joints.ravel()]
    columns[0, :, 2] = [10, 16, 4, 8, 0.26, *joints.ravel()]
    shape = [1, 3, 64, 64]
    file = constant_network(tmp_path / "y.onnx", shape, TensorProto.FLOAT, columns)
    pose, image = OtherPose(file, "coco-17", 1, 1), np.zeros((200, 400, 3), np.uint8)
    (person,) = pose.estimate(image)
    np.testing.assert_allclose(person.image[0], [200, 100, 0.7], rtol=1e-5)
    (region,) = pose.find(image, thorough=True)
    farthest = math.hypot(4, 16) * 400 / 64
    assert (region.x, region.y) == pytest.approx((200, 150)) and region.rotation == 0
    assert region.side == pytest.approx(2.5 * 1.15 * farthest)
    assert len(OtherPose(file, "coco-17", 1, 6).estimate(image)) == 2


@pytest.mark.parametrize(
    ("layout", "content", "reason"),
    [
        ("openpose-18", None, "--pose_layout openpose-18"),
        ("coco-18", None, "coco-18"),
        ("coco-17", b"no network", "not an ONNX model"),
    ],
)
def test_other_networks_are_refused(
    tmp_path: Path, layout: str, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "m.onnx"
    constant_network(file, [1, 64, 64, 3], TensorProto.INT32, np.zeros((1, 6, 56)))
    if content:
        file.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        OtherPose(file, layout, 1, 6)


# Weights.


def test_weights_are_fetched_checked_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder in place of the package index: pip is told by its own variables."""
    files = {name: name.encode() for name in weights.HASHES}
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / weights.WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        information = "mediapipe-0.10.21.dist-info"
        archive.writestr(f"{information}/METADATA", "Name: mediapipe\nVersion: 0.10.21\n")
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n")
    monkeypatch.setenv("SKELETON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(UserError, match="size or SHA-256 differs from the pinned one"):
        weights.pose_weights()
    assert not (tmp_path / "cache").exists()
    data = wheel.read_bytes()
    monkeypatch.setattr(weights, "WHEEL_SIZE", len(data))
    monkeypatch.setattr(weights, "WHEEL_HASH", hashlib.sha256(data).hexdigest())
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(weights, "HASHES", hashes)
    found = weights.pose_weights()
    assert found.landmarks.read_bytes().endswith(b"pose_landmark_full.tflite")
    wheel.unlink()
    assert weights.pose_weights() == found  # from the cache
    found.detector.write_bytes(b"other")
    with pytest.raises(UserError, match=r"pose_detection.tflite: SHA-256 differs .* delete it"):
        weights.pose_weights()
    found.detector.unlink()
    with pytest.raises(UserError, match="pip cannot fetch it: .*; connect to the internet"):
        weights.pose_weights()


def test_mirrored_and_plain_differ_only_by_sides() -> None:
    """Of a symmetric person they are the same, left for right."""
    image, world = a_body()
    pairs = [
        (MEDIAPIPE.joints.index(name), MEDIAPIPE.joints.index(name.replace("left", "right")))
        for name in MEDIAPIPE.joints
        if "left" in name
    ]
    for a, b in pairs:
        world[b] = world[a] * [-1, 1, 1]
        image[b] = (image[a] - [500, 0, 0]) * [-1, 1, 1] + [500, 0, 0]
    world[0, 0], image[0, 0] = 0, 500
    plain, mirrored = (
        for_space(image, world, NTU, Camera(1000, 800, 900, mirrored=way)) for way in (False, True)
    )
    np.testing.assert_allclose(plain, mirrored, atol=1e-3)
    assert len(list(itertools.chain(*pairs))) == 32
