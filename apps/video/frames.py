"""Images one after another: of a video file, of a folder, of a camera. Video is read by PyAV."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from errors import UserError
from safe_io import check_file, open_file

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
HIGHEST_RATE = 40.0  # frames/s; of faster video every second frame is used, or every third, ...
MOST_REPEATS = 10.0  # seconds; a longer gap is taken for a clock that was set anew
MAX_SIDE = 8192  # pixels of an image
MAX_BAD = 100  # damaged frames in a row before a video counts as ended
CAMERA_SIZE = "1280x720"
# FFmpeg's names of files that hold video themselves; others list further files and addresses.
FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "avi", "matroska", "webm", "mpegts", "mpeg", "m4v"),
    *("mpegvideo", "flv", "asf", "ogg", "gif", "mjpeg", "yuv4mpegpipe", "h264", "hevc", "ivf"),
    *("mxf", "nut", "wav", "mp3", "flac", "aac"),  # sound, so that it can be said to be sound
)
FILES_ONLY = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
# Where FFmpeg finds cameras, and what it calls camera 0 there.
CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("dshow", "video={}"),  # DirectShow knows cameras by name
}


@dataclass(frozen=True)
class Media:
    """images: (H, W, 3) uint8, RGB, upright. frame_rate: frames/s of `images`. num_frame: as its
    container says; None where it does not, or for a camera. is_live: a camera."""

    images: Iterator[np.ndarray]
    frame_rate: float
    num_frame: int | None
    is_live: bool = False


def is_camera(source: str) -> bool:
    """Whether a source is the number of a camera."""
    return source.isascii() and source.isdigit()


def open_media(source: str, frame_rate: float) -> Media:
    """A video file, a folder of images, or a camera by its number. frame_rate: of a folder.
    Raises UserError where it cannot be opened, or has no image; while reading, for an image of a
    folder that cannot be read. A camera that stops ends its images, with a warning."""
    if is_camera(source):
        return _camera(int(source))
    path = Path(source)
    if os.path.isdir(path):
        return _folder(path, frame_rate)
    if not os.path.lexists(path):
        raise UserError(f"{source}: no such file; allowed: a video, a folder, a camera's number")
    check_file(path)
    return _video(source, FILES_ONLY, None)


def has_images(folder: Path) -> bool:
    """Whether a folder is one of images. Raises UserError where it cannot be read."""
    return bool(_images(folder))


def _images(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGES)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _folder(folder: Path, frame_rate: float) -> Media:
    files = _images(folder)
    return Media((_image(file) for file in files), frame_rate, len(files))


def _image(file: Path) -> np.ndarray:
    try:
        with open_file(file) as content, Image.open(content) as image:
            _check_size(str(file), *image.size)
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{file}: cannot be read as an image: {error}") from error


def _camera(number: int) -> Media:
    system, name = CAMERAS.get(sys.platform, CAMERAS["linux"])
    return _video(name.format(number), {"video_size": CAMERA_SIZE}, system)


def _video(name: str, options: dict[str, str], system: str | None) -> Media:
    what = f"camera {name}" if system else name
    try:
        container = av.open(name, format=system, options=options, timeout=(10.0, 10.0))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = "not a kind of video that is read" if _is_refused(error) else _reason(error)
        raise UserError(f"{what}: cannot be opened as video: {reason}") from error
    if not container.streams.video:
        container.close()
        raise UserError(f"{what}: has no video")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    if not 1 <= rate <= 1000:
        container.close()
        raise UserError(f"{what}: {rate:g} frames/s; allowed: 1 to 1000")
    share = max(-(-rate // HIGHEST_RATE), 1)
    images = _steady(_decoded(container, stream, what), rate / share, 0.5 / share)
    try:
        first = next(images)
    except StopIteration:
        raise UserError(f"{what}: no frame of it can be read") from None
    number = round(stream.frames / share) or None
    return Media(chain([first], images), rate / share, number, is_live=system is not None)


def _steady(frames: Iterator[av.VideoFrame], rate: float, early: float) -> Iterator[np.ndarray]:
    """One image for each 1 / rate seconds: frames that come sooner are left out, and for one that
    is missing or late the same array comes again. early: share of 1 / rate that a frame may come
    before its time."""
    shown: np.ndarray | None = None
    begin, count = 0.0, 0  # time of image 0; images given
    for frame in frames:
        place = count if frame.time is None else int((frame.time - begin) * rate + early)
        if shown is None or not count - rate <= place <= count + MOST_REPEATS * rate:
            begin, place = (frame.time or 0.0) - count / rate, count  # its clock starts here
        if place < count:
            continue
        if shown is not None:
            yield from repeat(shown, place - count)
        shown = _upright(frame)
        yield shown
        count = place + 1


def _decoded(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, what: str
) -> Iterator[av.VideoFrame]:
    """Without damaged ones. A camera, or a file in which too many of them follow each other, ends
    with a warning."""
    bad = 0
    with container:
        packets = container.demux(stream)
        while True:
            try:
                frames = next(packets).decode()
            except (StopIteration, av.error.EOFError):
                return
            except (av.error.FFmpegError, OSError) as error:
                bad += 1
                if bad > MAX_BAD or not isinstance(error, av.error.InvalidDataError):
                    logging.warning("%s: ends here: %s", what, _reason(error))
                    return
                continue
            for frame in frames:
                bad = 0
                _check_size(what, frame.width, frame.height)
                yield frame


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """Turned as its rotation metadata says, in quarters."""
    image = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


def _check_size(what: str, width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise UserError(f"{what}: {width} x {height} pixels; allowed: up to {MAX_SIDE} each")


def _is_refused(error: Exception) -> bool:
    """Whether FFmpeg knows the format, but is not to read it."""
    return isinstance(error, av.error.ArgumentError)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
