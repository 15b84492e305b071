"""One recording of any kind, read to its end, for a network of a known joint layout."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataset.protocols import DataSpec
from dataset.skeletons import Skeleton
from errors import UserError
from reader import openpose
from reader.clip import Clip, reading
from reader.keypoint.clip import clip_of
from reader.keypoint.folder import SUFFIXES, read_array
from reader.keypoint.types import UNITS_3D, Raw, Wanted
from reader.kinetics import reader as kinetics
from reader.kinetics.source import MAX_BYTES as KINETICS_BYTES
from reader.ntu.reader import NUM_JOINT, parse
from reader.ntu.recordings import MAX_BYTES
from reader.shared import read_file
from reader.tracking import reordered
from safe_io import open_npy

MAX_FRAME = 100_000  # of a recording; as in configurations
UNITS_2D = ("normalised", "pixel")
KINDS = (".skeleton", *SUFFIXES, ".json")


@dataclass(frozen=True)
class Form:
    """How the numbers of a recording are to be read. layout: that the network wants. num_person:
    kept. unit: metre or millimetre; or, in an image, normalised (0 to 1) or pixel. image_size:
    (width, height), for pixels."""

    layout: Skeleton
    num_person: int
    unit: str
    image_size: tuple[int, int] | None = None


def is_recording(path: Path) -> bool:
    """Whether it is one recording, not a data file: a data file is a 5-D .npy."""
    if path.suffix != ".npy":
        return path.suffix in KINDS or os.path.isdir(path)
    try:
        return open_npy(path).ndim < 5
    except UserError:  # the reader of data files says what is wrong
        return False


def form_of(
    layout: Skeleton,
    num_person: int,
    *,
    is_3d: bool,
    unit: str = "",
    image_size: tuple[int, int] | None = None,
) -> Form:
    """unit: '' for metre, or normalised in two dimensions. Raises UserError for a unit of other
    dimensions than the network's, and for pixels without the size of the image."""
    allowed = UNITS_3D if is_3d else UNITS_2D
    unit = unit or allowed[0]
    if unit not in allowed:
        raise UserError(f"--unit is {unit}; allowed for this model: {', '.join(allowed)}")
    if (unit == "pixel") != (image_size is not None):
        raise UserError("--unit pixel and --image_size WIDTH HEIGHT need each other")
    return Form(layout, num_person, unit, image_size)


def read_recording(path: Path, form: Form) -> np.ndarray:
    """(3, T, V, M) of a file ending in KINDS, or of a folder of OpenPose's files (docs/video.md),
    as stored on disk by main.py -gd, but persons who change their order between frames keep their
    places. Raises UserError for anything else, and for another layout."""
    if os.path.isdir(path) or path.suffix == ".json":
        clip = _read_2d(path, form)
    elif path.suffix == ".skeleton":
        if form.layout.num_joint != NUM_JOINT:
            raise UserError(
                f"{path}: {NUM_JOINT} joints; the model wants the {form.layout.num_joint} of "
                f"{form.layout.name}"
            )
        data = read_file(str(path), MAX_BYTES)
        clip = parse(data, str(path), repair_order=True, max_frame=MAX_FRAME)
    elif path.suffix in SUFFIXES:
        array, notes = read_array(str(path))
        for note in notes:
            logging.warning("%s: %s", path, note)
        clip = _clip(path, array, form)
    else:
        allowed = f"a recording ending in {', '.join(KINDS)}, or a folder of OpenPose's files"
        raise UserError(f"{path}: allowed: {allowed}")
    if clip.is_truncated:
        logging.warning("%s: only the first %d frames are read", path, clip.length)
    if clip.swaps:
        logging.warning("%s: persons change their order in %d frames: undone", path, clip.swaps)
    if not clip.has_person:
        logging.warning("%s: no frame has a person", path)
    return clip.positions[..., : form.num_person]


def _clip(path: Path, array: np.ndarray, form: Form) -> Clip:
    spec = DataSpec("recording", 0, form.layout, form.num_person, MAX_FRAME, ())
    wanted = Wanted(spec, {}, 0, form.unit, form.image_size, skip_bad=False, repair_order=True)
    with reading(str(path)):
        return clip_of(Raw([array]), wanted)


def _read_2d(path: Path, form: Form) -> Clip:
    """OpenPose's files, or one file of Kinetics-skeleton."""
    layouts = [layout.joints for layout in openpose.LAYOUTS.values()]
    if form.unit in UNITS_3D or form.layout.joints not in layouts:
        raise UserError(
            f"{path}: joints of OpenPose, in an image; the model wants {form.layout.name}"
            f"{' in metres' if form.unit in UNITS_3D else ''}"
        )
    if os.path.isdir(path):
        return _clip(path, openpose.read_folder(path, form.layout), form)
    if form.layout.num_joint != kinetics.NUM_JOINT or form.unit == "pixel":
        raise UserError(
            f"{path}: {kinetics.NUM_JOINT} joints of Kinetics-skeleton, normalised; the model and "
            f"--unit say {form.layout.name}, {form.unit}"
        )
    clip = kinetics.parse(read_file(str(path), KINETICS_BYTES), None, str(path), MAX_FRAME)
    positions, swaps = reordered(clip.positions, num_axis=2)
    return replace(clip, positions=positions, swaps=swaps)
