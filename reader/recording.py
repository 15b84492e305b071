"""One recording of any kind, read to its end, for a network of a known joint layout."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from dataset.protocols import DataSpec
from dataset.skeletons import Skeleton
from errors import UserError
from reader.clip import reading
from reader.keypoint.clip import clip_of
from reader.keypoint.folder import SUFFIXES, read_array
from reader.keypoint.types import Raw, Wanted
from reader.ntu.reader import NUM_JOINT, parse
from reader.ntu.recordings import MAX_BYTES
from reader.shared import read_file

MAX_FRAME = 100_000  # of a recording; as in configurations


def read_recording(path: Path, layout: Skeleton, num_person: int, unit: str) -> np.ndarray:
    """(3, T, V, M) of a `.skeleton`, .npy, .npz or .csv file (docs/data.md), as stored on disk by
    main.py -gd. unit: metre or millimetre; normalised in two dimensions. Raises UserError for
    anything else, and for another layout."""
    kinds = (".skeleton", *SUFFIXES)
    if path.suffix not in kinds:
        raise UserError(f"{path}: allowed: a recording ending in {', '.join(kinds)}")
    if path.suffix == ".skeleton":
        if layout.num_joint != NUM_JOINT:
            raise UserError(
                f"{path}: {NUM_JOINT} joints; the model wants the {layout.num_joint} of "
                f"{layout.name}"
            )
        clip = parse(read_file(str(path), MAX_BYTES), str(path))
    else:
        array, notes = read_array(str(path))
        for note in notes:
            logging.warning("%s: %s", path, note)
        spec = DataSpec("recording", 0, layout, num_person, MAX_FRAME, ())
        wanted = Wanted(spec, {}, 0, unit, None, skip_bad=False)
        with reading(str(path)):
            clip = clip_of(Raw([array]), wanted)
    if clip.is_truncated:
        logging.warning("%s: only the first %d frames are read", path, clip.length)
    if not clip.has_person:
        logging.warning("%s: no frame has a person", path)
    return clip.positions[..., :num_person]
