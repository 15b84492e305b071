"""The pose networks that are built in: fetched once, from a pinned release of MediaPipe.

`pose_detection.tflite` and `pose_landmark_full.tflite` (BlazePose) are part of the wheel
mediapipe 0.10.21 on the Python package index. MediaPipe and these networks are Copyright The
MediaPipe Authors, under the Apache License 2.0 (LICENSE in the wheel). The wheel is downloaded, by
pip and from the index that pip is configured with, but never installed or imported.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from errors import UserError, run_command
from safe_io import TEXT_BYTES, file_hash, read_bytes, temporary_folder, user_cache, whole_file

WHEEL = "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"
WHEEL_SIZE = 35_622_638  # bytes
WHEEL_HASH = "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"
# pip takes the wheel for any machine: nothing of it is run.
_REQUEST = (
    *("--no-deps", "--only-binary=:all:", "--python-version", "3.11"),
    *("--platform", "manylinux_2_28_x86_64", "mediapipe==0.10.21"),
)
_DETECTOR = "mediapipe/modules/pose_detection/pose_detection.tflite"
_LANDMARKS = "mediapipe/modules/pose_landmark/pose_landmark_full.tflite"
HASHES = {
    _DETECTOR: "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    _LANDMARKS: "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
}
_SECONDS = 1800.0  # allowed for the download


@dataclass(frozen=True)
class PoseFiles:
    """The person detector and the landmark network, as .tflite files."""

    detector: Path
    landmarks: Path


def pose_weights() -> PoseFiles:
    """The networks in the user's cache, fetched on first use.

    Raises UserError where they cannot be fetched, and for a file with another hash: files appear
    in the cache only when they are whole, so nothing is replaced without the user's knowledge.
    """
    folder = weights_folder()
    files = {member: folder / Path(member).name for member in HASHES}
    if not all(os.path.isfile(file) for file in files.values()):
        _fetch(files)
    for member, file in files.items():
        if file_hash(file) != HASHES[member]:
            raise UserError(f"{file}: SHA-256 differs from the pinned one; delete it and run again")
    return PoseFiles(files[_DETECTOR], files[_LANDMARKS])


def weights_folder() -> Path:
    """$SKELETON_CACHE, or skeleton-action/pose in the user's cache. Raises UserError where there is
    neither."""
    folder = Path(os.environ["SKELETON_CACHE"]) if os.environ.get("SKELETON_CACHE") else None
    folder = folder or user_cache("pose")
    if folder is None:
        raise UserError("the user has no cache folder of their own; set SKELETON_CACHE to a folder")
    return folder


def _fetch(files: dict[str, Path]) -> None:
    """files: member of the wheel -> where it is published."""
    size = f"{WHEEL_SIZE / 1e6:.0f} MB"
    logging.info("fetching the pose networks, once: %s (%s), by pip", WHEEL, size)
    with temporary_folder() as folder:
        wheel = _download(folder)
        if wheel.stat().st_size != WHEEL_SIZE or file_hash(wheel) != WHEEL_HASH:
            raise UserError(
                f"{WHEEL}: size or SHA-256 differs from the pinned one; pip's index gave another "
                "file: see pip config list"
            )
        with zipfile.ZipFile(wheel) as archive:
            for member, file in files.items():
                with whole_file(file) as out:
                    out.write(archive.read(member))


def _download(folder: Path) -> Path:
    """The wheel, fetched into a folder. Raises UserError where pip fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--retries", "1", "-d", str(folder), *_REQUEST]
    environ = {**os.environ, "TMPDIR": str(folder)}  # so that what has arrived can be counted
    end = time.monotonic() + _SECONDS
    errors = folder / "errors.txt"
    with (
        open(errors, "wb") as file,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env=environ) as pip,
        tqdm(total=WHEEL_SIZE, unit="B", unit_scale=True, desc=WHEEL, disable=None) as bar,
    ):
        while pip.poll() is None:
            if time.monotonic() > end:
                pip.kill()
            with contextlib.suppress(OSError):  # pip moves its files meanwhile
                arrived = max([0, *(file.stat().st_size for file in folder.rglob("*.whl"))])
                bar.update(min(arrived, WHEEL_SIZE) - bar.n)
            time.sleep(0.1)
    if pip.returncode or not os.path.isfile(folder / WHEEL):
        text = read_bytes(errors, TEXT_BYTES).decode(errors="replace")
        lines = text.strip().splitlines() or [f"not within {_SECONDS:.0f} s"]
        raise UserError(
            f"{WHEEL}: pip cannot fetch it: {lines[-1][:200]}; connect to the internet, or copy "
            f"{' and '.join(Path(member).name for member in HASHES)} to {weights_folder()}"
        )
    return folder / WHEEL


def main() -> int:
    """Fetch the networks, and say where they are."""
    print(f"pose networks: {pose_weights().landmarks.parent}")
    return 0


if __name__ == "__main__":  # python -m apps.video.weights
    sys.exit(run_command(main))
