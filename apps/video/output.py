"""Painted frames -> a GIF or MP4 file, which appears when it is whole."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

from PIL import Image

from errors import UserError
from safe_io import whole_file

SUFFIXES = (".gif", ".mp4")
GIF_RATE = 10.0  # frames/s, so that files stay small
GIF_FRAMES = 1000  # Pillow keeps them in memory
Images = Iterator[Image.Image]


def check_video(path: Path) -> None:
    """Raises UserError for a file that `write_video` does not know how to write."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"--video {path}: allowed: a name ending in {', '.join(SUFFIXES)}")


def write_video(path: Path, images: Images, frame_rate: float) -> None:
    """Images of one size. Without any there is no file: a camera may be stopped at once."""
    first = next(images, None)
    if first is not None:
        write = _write_gif if path.suffix == ".gif" else _write_mp4
        write(path, first, images, frame_rate)


def _write_gif(path: Path, first: Image.Image, images: Images, frame_rate: float) -> None:
    step = max(round(frame_rate / GIF_RATE), 1)

    def others() -> Images:
        n = 0
        for n, image in enumerate(images, 1):
            if n % step == 0 and n // step < GIF_FRAMES:
                yield _quantised(image)
        if n // step >= GIF_FRAMES:
            logging.warning("%s: only the first %d frames; .mp4 has no limit", path, GIF_FRAMES)

    millis = 1000 * step / frame_rate
    with whole_file(path) as file:
        frames = others()
        _quantised(first).save(
            file, "GIF", save_all=True, append_images=frames, duration=millis, loop=0
        )


def _quantised(image: Image.Image) -> Image.Image:
    return image.quantize(128, Image.Quantize.FASTOCTREE)


def _write_mp4(path: Path, first: Image.Image, images: Images, frame_rate: float) -> None:
    """H.264 by x264, which is under the GPL and comes with PyAV."""
    import av

    with whole_file(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", Fraction(frame_rate).limit_denominator(1001))
        stream.width, stream.height = first.size
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23"}
        for image in chain([first], images):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))


def shown(images: Images, title: str) -> Images:
    """The same images, each shown in a window, until it is closed. Raises UserError where no window
    can be opened."""
    try:
        import tkinter

        from PIL import ImageTk

        root = tkinter.Tk()
    except (ImportError, RuntimeError, tkinter.TclError) as error:
        raise UserError(f"--show: no window can be opened: {error}; leave it out") from error
    root.title(title)
    label = tkinter.Label(root)
    label.pack()
    is_open = True

    def close() -> None:
        nonlocal is_open
        is_open = False

    root.protocol("WM_DELETE_WINDOW", close)
    for image in images:
        photo = ImageTk.PhotoImage(image, master=root)
        label.configure(image=photo)
        root.update()
        yield image
        if not is_open:
            break
    with contextlib.suppress(tkinter.TclError):
        root.destroy()
