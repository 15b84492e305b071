"""Images of video files, folders and cameras: their times, rotation, damage, and bad input."""

from __future__ import annotations

import struct
import wave
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from apps.video import frames
from apps.video.frames import open_media
from errors import UserError


def write_video(
    path: Path, times: Iterable[float], size: tuple[int, int] = (64, 48), rate: int = 30
) -> None:
    """One frame at each time (seconds); frame n has the brightness 10 n, and is dark below."""
    base = Fraction(1, rate if path.suffix == ".avi" else 600)  # AVI knows no times
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = base
        stream.options = {"g": "1"}  # each frame stands alone
        container.start_encoding()
        for n, time in enumerate(times):
            image = np.full((size[1], size[0], 3), min(10 * n, 250), np.uint8)
            image[size[1] // 2 :] = 0
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def brightness(images: Iterable[np.ndarray]) -> list[int]:
    """10 n of each frame."""
    return [int(round(float(image[: len(image) // 2].mean()), -1)) for image in images]


def test_frames_of_a_video_in_order(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", np.arange(12) / 30)
    media = open_media(str(tmp_path / "a.mp4"), 99)
    assert (media.frame_rate, media.num_frame, media.is_live) == (30, 12, False)
    images = list(media.images)
    assert images[0].shape == (48, 64, 3) and images[0].dtype == np.uint8
    assert brightness(images) == [10 * n for n in range(12)]


def test_a_missing_frame_repeats_the_one_before_it(tmp_path: Path) -> None:
    times = [n / 30 for n in (0, 1, 2, 5, 6, 7, 8, 9, 10, 11)]
    write_video(tmp_path / "a.mkv", times)
    images = list(open_media(str(tmp_path / "a.mkv"), 30).images)
    assert brightness(images) == [0, 10, 20, 20, 20, 30, 40, 50, 60, 70, 80, 90]
    assert images[2] is images[3] is images[4]  # so that nothing is computed again


def test_fast_video_is_thinned(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", np.arange(24) / 120, rate=120)
    media = open_media(str(tmp_path / "a.mp4"), 30)
    assert (media.frame_rate, media.num_frame) == (40, 8)
    assert brightness(media.images) == [10 * n for n in range(0, 24, 3)]


def test_a_clock_that_is_set_anew_goes_on(tmp_path: Path) -> None:
    """A jump of an hour is no hour of repeated frames."""
    times = [*(n / 30 for n in range(4)), *(3600 + n / 30 for n in range(4))]
    write_video(tmp_path / "a.mkv", times)
    media = open_media(str(tmp_path / "a.mkv"), 30)
    assert brightness(media.images) == [10 * n for n in range(8)]


@pytest.mark.parametrize(("quarters", "matrix"), [(1, (0, 1, -1, 0)), (3, (0, -1, 1, 0))])
def test_rotated_video_is_upright(
    tmp_path: Path, quarters: int, matrix: tuple[int, int, int, int]
) -> None:
    """A phone held upright writes lying frames, and how to turn them when they are shown: the
    matrix in the header of the track (ISO 14496-12), here a quarter clockwise and back."""
    write_video(tmp_path / "a.mp4", np.arange(3) / 30)
    plain = next(open_media(str(tmp_path / "a.mp4"), 30).images)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(data)
    turned = next(open_media(str(tmp_path / "a.mp4"), 30).images)
    assert turned.shape == (64, 48, 3)
    np.testing.assert_array_equal(turned, np.rot90(plain, -quarters))


def test_a_truncated_file_gives_what_is_there(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", np.arange(25) / 30, (640, 480))
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(data[: len(data) // 2])
    found = brightness(open_media(str(tmp_path / "a.mkv"), 30).images)
    assert 3 < len(found) < 25 and found == [10 * n for n in range(len(found))]


def test_damage_in_the_middle_changes_no_times(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", np.arange(25) / 30, (640, 480))
    data = bytearray((tmp_path / "a.mkv").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    (tmp_path / "a.mkv").write_bytes(data)
    found = brightness(open_media(str(tmp_path / "a.mkv"), 30).images)
    assert len(found) == 25 and found[:8] == [10 * n for n in range(8)]
    assert found[-8:] == [10 * n for n in range(17, 25)]


def test_a_folder_of_images_by_name(tmp_path: Path) -> None:
    for name, value in (("b.png", 20), ("a.jpg", 10), ("c.BMP", 30)):
        Image.new("RGB", (6, 8), (value,) * 3).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    exif = Image.Exif()
    exif[274] = 6  # held upright: to be turned clockwise
    Image.new("L", (8, 6), 40).save(tmp_path / "d.jpg", exif=exif)
    media = open_media(str(tmp_path), 25)
    images = list(media.images)
    assert (media.frame_rate, media.num_frame) == (25, 4)
    assert brightness(images) == [10, 20, 30, 40]
    assert {image.shape for image in images} == {(8, 6, 3)}


def write_sound(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def test_sources_that_are_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sound(tmp_path / "sound.wav")
    write_video(tmp_path / "none.avi", [])
    (tmp_path / "zero.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video\n" * 50)
    write_video(tmp_path / "large.mp4", [0, 0.1], (64, 48))
    write_video(tmp_path / "whole.mp4", np.arange(10) / 30)
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "headless.mp4").write_bytes(data[: data.index(b"moov") - 4])
    monkeypatch.setattr(frames, "MAX_SIDE", 60)
    for name, reason in (
        ("sound.wav", "has no video"),
        ("none.avi", "no frame of it can be read"),
        ("zero.mp4", "cannot be opened"),
        ("text.mp4", "cannot be opened"),
        ("headless.mp4", "cannot be opened"),
        ("large.mp4", "64 x 48 pixels; allowed: up to 60"),
        ("missing.mp4", "no such file"),
    ):
        with pytest.raises(UserError, match=reason) as error:
            list(open_media(str(tmp_path / name), 30).images)
        assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile other.mp4\n"),
    ],
)
def test_lists_of_other_files_are_not_followed(tmp_path: Path, name: str, text: str) -> None:
    write_video(tmp_path / "other.mp4", np.arange(4) / 30)
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"{name}: cannot be opened .* not a kind of video"):
        open_media(str(tmp_path / name), 30)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (6, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    images = open_media(str(tmp_path), 30).images
    next(images)
    with pytest.raises(UserError, match="b.png: cannot be read as an image"):
        next(images)


def test_no_camera() -> None:
    with pytest.raises(UserError, match="camera /dev/video97: cannot be opened as video"):
        open_media("97", 30)


class Cable:
    """A camera that gives some packets and is pulled out."""

    def __init__(self, packets: Sequence[object]) -> None:
        self.packets = iter(packets)

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def demux(self, _: object) -> Cable:
        return self

    def __iter__(self) -> Cable:
        return self

    def __next__(self) -> object:
        packet = next(self.packets)
        if isinstance(packet, Exception):
            raise packet
        return packet


def test_a_camera_that_disconnects_ends_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "a.mp4", np.arange(4) / 30)
    with av.open(tmp_path / "a.mp4") as container:
        stream = container.streams.video[0]
        packets = [*container.demux(stream)]
        gone = OSError(19, "No such device")
        found = list(frames._decoded(Cable([*packets[:3], gone]), stream, "camera 0"))
    assert len(found) == 3 and "camera 0: ends here: No such device" in caplog.text
