"""Config -> raw recordings -> data on disk, in the layout of the public EfficientGCN code.

`<root_folder>/{original,transformed}/<dataset>/` gets `{train,eval}_data.npy`, float32
(N, C=3, T=300, V=25, M=2), `{train,eval}_label.pkl`, (names, labels, lengths), and
`manifest.json`, which says what the data are and what was left out. Clips pass through one at a
time, so memory does not grow with the set.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from configs.schema import Config
from dataset.protocols import MAX_FRAME, NUM_PERSON, ClipName, Protocol, protocol
from dataset.storage import MANIFEST, PHASES, content_hash
from reader.ntu_reader import NUM_JOINT, Clip
from reader.parallel import read_clips
from reader.recordings import BadRecording, Recording, find_recordings, missing_skeletons
from safe_io import UserError, dump_pickle, whole_file

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two runs apart there
    fcntl = None

VERSION = 1  # of the layout above
# The manifest comes first here and last on the disk.
FILES = (MANIFEST, *(f"{phase}_{kind}" for phase in PHASES for kind in ("data.npy", "label.pkl")))
CLIP_SHAPE = (3, MAX_FRAME, NUM_JOINT, NUM_PERSON)  # C, T, V, M
CLIP_BYTES = 4 * int(np.prod(CLIP_SHAPE))

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Chosen:
    recording: Recording
    phase: str
    label: int


@dataclass
class _Tally:
    """What happened to the recordings, for the manifest and the log. on_bad_file: 'error' stops
    at the first bad one, 'skip' notes it in `skipped`."""

    on_bad_file: str
    second_copies: int = 0
    missing_skeletons: int = 0
    other_actions: int = 0
    cut_clips: int = 0
    clips_with_extra_bodies: int = 0
    clips_without_person: int = 0
    empty_frames: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)

    def add(self, clip: Clip) -> None:
        self.cut_clips += clip.is_cut
        self.clips_with_extra_bodies += clip.has_extra_body
        self.clips_without_person += not clip.has_person
        self.empty_frames += clip.empty_frames

    def skip(self, recording: Recording, error: BadRecording) -> None:
        if self.on_bad_file == "error":
            raise UserError(
                f"{error}; to leave such files out: --set dataset_args.ntu.on_bad_file=skip"
            ) from error
        self.skipped.append({"file": recording.name, "reason": error.reason})

    def counters(self) -> dict[str, int]:
        values = dataclasses.asdict(self)
        return {name: number for name, number in values.items() if isinstance(number, int)}


class _Split:
    """One half of the data set, written clip by clip."""

    def __init__(self, data_file: IO[bytes], label_file: IO[bytes]) -> None:
        self._data_file = data_file
        self._label_file = label_file
        self.names: list[str] = []
        self.labels: list[int] = []
        self.lengths: list[int] = []
        self._data_file.write(_npy_header(0))

    def append(self, name: str, label: int, clip: Clip) -> None:
        self._data_file.write(clip.padded().data)
        self.names.append(name)
        self.labels.append(label)
        self.lengths.append(clip.length)

    def finish(self) -> None:
        self._data_file.seek(0)
        self._data_file.write(_npy_header(len(self.names)))
        dump_pickle((self.names, self.labels, self.lengths), self._label_file)


def generate(config: Config, *, workers: int, progress: bool) -> Path:
    """Make the data set of `config.dataset`; returns the folder that holds it.

    workers: reading processes; the bytes written are the same for any number. progress: show a
    bar. Files get their names when all of them are whole, the manifest last; a killed run leaves
    only `.part` files, which the next one removes. Raises UserError for missing or unusable
    recordings (see `dataset_args.ntu.on_bad_file`), a full disk, or a second run in the folder.
    """
    ntu = config.dataset_args.ntu
    rules = protocol(config.dataset)
    key, source = ntu.source_path(rules.source)
    found, second_copies = find_recordings(source, key)
    tally = _Tally(ntu.on_bad_file, second_copies)
    chosen = _choose(found, rules, tally)
    if not chosen:
        raise UserError(
            f"{key} is {source!r}, where none of {len(found)} recordings belongs to {rules.name}"
        )
    folder = Path(ntu.data_folder) / rules.name
    with _only_writer(folder):
        _remove_stale(folder)
        _check_space(folder, len(chosen))
        with _new_files(folder, len(chosen)) as files:
            splits = {
                phase: _Split(files[f"{phase}_data.npy"], files[f"{phase}_label.pkl"])
                for phase in PHASES
            }
            clips = read_clips([item.recording for item in chosen], ntu.transform, workers)
            bar = tqdm(total=len(chosen), desc=rules.name, unit="clip", disable=not progress)
            with bar, contextlib.closing(clips):
                _fill(splits, chosen, clips, tally, bar)
            about = {"source": source, "transform": ntu.transform}
            json.dump(_manifest(rules, about, splits, tally), files[MANIFEST], indent=1)
    _log_summary(folder, splits, tally)
    return folder


def _choose(found: Sequence[Recording], rules: Protocol, tally: _Tally) -> list[_Chosen]:
    """The recordings of a protocol, in order, by their names alone."""
    # Synthetic recordings are named like NTU's, but the missing ones are NTU's only.
    missing = missing_skeletons() if rules.source.startswith("ntu") else frozenset()
    chosen = []
    for recording in found:
        try:
            name = ClipName.parse(recording.name)
        except ValueError as error:
            tally.skip(recording, BadRecording(recording.where, str(error)))
            continue
        if recording.name in missing:
            tally.missing_skeletons += 1
        elif not 1 <= name.action <= rules.num_class:
            tally.other_actions += 1
        else:
            phase = "train" if rules.is_train(name) else "eval"
            chosen.append(_Chosen(recording, phase, name.action - 1))
    return chosen


def _fill(
    splits: dict[str, _Split],
    chosen: Sequence[_Chosen],
    clips: Iterator[Clip | BadRecording],
    tally: _Tally,
    bar: tqdm,
) -> None:
    for item, clip in zip(chosen, clips):
        if isinstance(clip, BadRecording):
            tally.skip(item.recording, clip)
        else:
            tally.add(clip)
            splits[item.phase].append(item.recording.name, item.label, clip)
        bar.update()
    if not any(split.names for split in splits.values()):
        raise UserError(f"all {len(chosen)} recordings are bad, the last: {tally.skipped[-1]}")
    for split in splits.values():
        split.finish()


def _manifest(
    rules: Protocol, about: dict[str, Any], splits: dict[str, _Split], tally: _Tally
) -> dict[str, Any]:
    return {
        "version": VERSION,
        "dataset": rules.name,
        **about,
        "skeleton": rules.skeleton,
        "shape": list(CLIP_SHAPE),
        "clips": {phase: len(split.names) for phase, split in splits.items()},
        "sha256": {
            phase: content_hash(split.names, split.labels) for phase, split in splits.items()
        },
        "num_class": rules.num_class,
        "class_names": rules.class_names(),
        "counters": tally.counters(),
        "skipped": tally.skipped,
    }


@contextlib.contextmanager
def _new_files(folder: Path, num_clip: int) -> Iterator[dict[str, IO[Any]]]:
    """The set's files by name, open for writing; they take their places when the block has ended
    well."""
    with contextlib.ExitStack() as stack:
        files = {}
        for name in FILES:  # the stack closes, and so renames, the first of them last
            file = whole_file(folder / name, "w" if name == MANIFEST else "wb")
            files[name] = stack.enter_context(file)
        with _full_disk_named(folder, num_clip):
            yield files
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        # Now only a kill can stop the renaming, and it must not leave new files beside old ones.
        for name in FILES:
            (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Make the folder and keep other runs out of it; the lock goes with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror}") from error
    if fcntl is None:
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise UserError(f"{folder}: another run is generating data here; wait for it") from error
    except OSError:
        logger.warning("%s cannot be locked; start no second run there", folder)
    try:
        yield
    finally:
        os.close(lock)


def _remove_stale(folder: Path) -> None:
    """What a killed run has left beside its places; nobody else writes here now."""
    for part in folder.glob(".*.part"):
        try:
            part.unlink()
        except OSError as error:
            raise UserError(f"{part}: cannot be removed: {error.strerror}") from error


def _check_space(folder: Path, num_clip: int) -> None:
    if shutil.disk_usage(folder).free < num_clip * CLIP_BYTES:
        raise _disk_full(folder, num_clip)


@contextlib.contextmanager
def _full_disk_named(folder: Path, num_clip: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _disk_full(folder, num_clip) from error


def _disk_full(folder: Path, num_clip: int) -> UserError:
    needed, free = num_clip * CLIP_BYTES / 1e6, shutil.disk_usage(folder).free / 1e6
    return UserError(
        f"{folder}: the disk is too full: {num_clip} clips need {needed:,.1f} MB besides any older "
        f"data there, {free:,.1f} MB are free; make room, or choose another disk: "
        "--set dataset_args.ntu.root_folder=PATH"
    )


def _npy_header(num_clip: int) -> bytes:
    """What numpy.save writes before the clips; its length is the same for any number of them,
    because NumPy leaves room for the first axis to grow."""
    buffer = io.BytesIO()
    shape = (num_clip, *CLIP_SHAPE)
    about = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue()


def _log_summary(folder: Path, splits: dict[str, _Split], tally: _Tally) -> None:
    for phase, split in splits.items():
        if not split.names:
            logger.warning("no recording belongs to the %s half", phase)
    counters = ", ".join(
        f"{number} {name.replace('_', ' ')}" for name, number in tally.counters().items() if number
    )
    logger.info(
        "%d training and %d evaluation clips are in %s (%d bad files skipped%s); counted: %s",
        *(len(splits[phase].names) for phase in PHASES),
        folder,
        len(tally.skipped),
        f", see {folder / MANIFEST}" if tally.skipped else "",
        counters or "nothing unusual",
    )
