"""Config -> raw recordings -> data on disk, in the layout of the public EfficientGCN code.

Writes to `<root_folder>/{original,transformed}/<dataset>/`: `{train,eval}_data.npy`, float32
(N, C=3, T, V, M); `{train,eval}_label.pkl`, (names, labels, lengths); and `manifest.json`, which
describes the data and lists what was left out. T, V and M are those of the data set (`DataSpec`).
A user's own data are checked first; the result is in `report.txt`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from configs.data import KeypointArgs, KineticsArgs
from configs.schema import Config
from dataset import identity
from dataset.protocols import DataSpec, data_spec, protocol
from dataset.storage import MANIFEST, PHASES, content_hash
from dataset.writer import Split, new_set, only_writer
from errors import UserError
from reader.clip import BadRecording, Clip
from reader.keypoint.source import keypoint_source
from reader.keypoint.types import Wanted
from reader.kinetics.source import kinetics_source
from reader.ntu.source import ntu_source
from reader.parallel import in_order
from reader.source import Check, Item, Report, Source
from safe_io import whole_file

VERSION = 1  # of the layout above
REPORT = "report.txt"
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass
class _Tally:
    """Counters of the recordings, for the manifest and the log.

    skip_option: the option that skips bad recordings, for the error at the first one; '' if they
    are skipped, and listed in `skipped`. repair_option: the option that repairs clips with swaps,
    for the warning; '' if they are repaired. copies: as in `Report`.
    """

    skip_option: str
    repair_option: str
    cut_clips: int = 0
    clips_with_extra_bodies: int = 0
    clips_without_person: int = 0
    empty_frames: int = 0
    misnumbered_frames: int = 0
    clips_counted_from_zero: int = 0
    clips_with_swaps: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)
    copies: dict[str, list[str]] = field(default_factory=dict)

    def add(self, clip: Clip) -> None:
        self.cut_clips += clip.is_truncated
        self.clips_with_extra_bodies += clip.has_extra_body
        self.clips_without_person += not clip.has_person
        self.empty_frames += clip.empty_frames
        self.misnumbered_frames += clip.misnumbered_frames
        self.clips_counted_from_zero += clip.counts_from_zero
        self.clips_with_swaps += clip.swaps > 0

    def skip(self, name: str, error: BadRecording) -> None:
        if self.skip_option:
            raise UserError(f"{error}; to skip such files: {self.skip_option}") from error
        self.skipped.append({"file": name, "reason": error.reason})

    def counters(self) -> dict[str, int]:
        values = dataclasses.asdict(self)
        return {name: number for name, number in values.items() if isinstance(number, int)}


def generate(config: Config, *, workers: int, progress: bool) -> Path:
    """Generate the data set `config.dataset`; returns its folder.

    workers: number of reader processes, which does not affect the files. progress: show a bar.
    Either all files are published or none (`dataset.writer`). Raises UserError for missing or
    unusable recordings (see `on_bad_file`), user data that fail the check, a full disk, or a
    concurrent run in the same folder.
    """
    args = config.data
    key = f"dataset_args.{args.group}."
    spec = data_spec(config.dataset, args.own_layout)
    source = _source(config, spec)
    tally = _Tally(
        skip_option=f"--set {key}on_bad_file=skip" if args.on_bad_file == "error" else "",
        repair_option="" if args.repair_order else f"--set {key}repair_order=true",
    )
    for name, error in source.bad:
        tally.skip(name, error)
    folder = Path(args.data_folder) / spec.name
    workers = workers if source.in_processes else 1
    clip_shape = (3, spec.max_frame, spec.skeleton.num_joint, spec.num_person)
    with only_writer(folder), source.files:
        if source.check:
            report = _run_check(source.check, source.items, folder, workers, progress)
            tally.copies.update(report.copies)
        with new_set(folder, clip_shape, len(source.items), f"{key}root_folder") as new:
            splits, manifest = new
            with _results(source.read, source.items, workers, spec.name, progress) as clips:
                _fill(splits, source, clips, tally, spec.max_frame)
            json.dump(_manifest(config, spec, source, splits, tally), manifest, indent=1)
    _log_summary(folder, source, splits, tally)
    return folder


def _source(config: Config, spec: DataSpec) -> Source:
    """The recordings of the data set, from the settings of its group."""
    args = config.data
    if isinstance(args, KineticsArgs):
        return kinetics_source(args.source_path, spec, args.openpose_match)
    if isinstance(args, KeypointArgs):
        splits = {"train": args.train_split, "eval": args.eval_split}
        image_size = (args.image_size[0], args.image_size[1]) if args.image_size else None
        skip_bad = args.on_bad_file == "skip"
        how = skip_bad, args.up, args.axes, args.repair_order
        wanted = Wanted(spec, splits, args.first_label, args.unit, image_size, *how)
        return keypoint_source(args.source_path, wanted)
    rules = protocol(config.dataset)
    key, path = args.source_path(rules.source)
    return ntu_source(path, key, rules, args.transform, args.repair_order)


def _run_check(
    check: Check, items: Sequence[Item], folder: Path, workers: int, progress: bool
) -> Report:
    """Check all recordings; log the report and write it to the folder of the data. Raises UserError
    with the first error."""
    with _results(check.examine, items, workers, "check", progress) as results:
        report = check.judge(results)
    with whole_file(folder / REPORT, "w") as file:
        file.write(report.text)
    for line in report.text.splitlines():
        logger.info("%s", line)
    if report.errors:
        number = len(report.errors)
        more = f" ({number} errors in total)" if number > 1 else ""
        raise UserError(f"{report.errors[0]}{more}; full report: {folder / REPORT}")
    return report


@contextlib.contextmanager
def _results(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int, name: str, progress: bool
) -> Iterator[Iterable[Result | BadRecording]]:
    """`in_order` with a progress bar."""
    with contextlib.closing(in_order(work, items, workers)) as results:
        yield tqdm(results, total=len(items), desc=name, unit="clip", disable=not progress)


def _fill(
    splits: dict[str, Split],
    source: Source,
    clips: Iterable[Clip | BadRecording],
    tally: _Tally,
    max_frame: int,
) -> None:
    for clip, item in zip(clips, source.items):  # clips first, so that the bar reaches its end
        if isinstance(clip, BadRecording):
            tally.skip(item.name, clip)
        else:
            tally.add(clip)
            splits[item.phase].append(item.name, item.label, clip.length, clip.padded(max_frame))
    if not any(split.names for split in splits.values()):
        skipped = tally.skipped
        raise UserError(f"all {len(skipped)} recordings are unusable; the last: {skipped[-1]}")
    for split in splits.values():
        split.finish()


def _manifest(
    config: Config, spec: DataSpec, source: Source, splits: dict[str, Split], tally: _Tally
) -> dict[str, Any]:
    return {
        "version": VERSION,
        **source.about,
        **identity.of_data(config.data, spec),
        "shape": [3, spec.max_frame, spec.skeleton.num_joint, spec.num_person],
        "clips": {phase: len(split.names) for phase, split in splits.items()},
        "sha256": {phase: content_hash(s.names, s.labels) for phase, s in splits.items()},
        "num_class": spec.num_class,
        "counters": {**source.counters, **tally.counters()},
        "skipped": tally.skipped,
        "left_out": list(source.left_out),
        "copies": tally.copies,
    }


def _log_summary(folder: Path, source: Source, splits: dict[str, Split], tally: _Tally) -> None:
    for warning in source.warnings:
        logger.warning("%s", warning)
    for phase, split in splits.items():
        if not split.names:
            logger.warning("no recording belongs to the %s split", phase)
    if tally.clips_with_swaps and tally.repair_option:
        text = "%d clips list their persons in an order that changes between frames; to repair: %s"
        logger.warning(text, tally.clips_with_swaps, tally.repair_option)
    numbers = {**source.counters, **tally.counters()}
    counters = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in numbers.items() if n)
    logger.info(
        "wrote %d training and %d evaluation clips to %s (%d bad files skipped%s); counters: %s",
        *(len(splits[phase].names) for phase in PHASES),
        folder,
        len(tally.skipped),
        f", see {folder / MANIFEST}" if tally.skipped or source.left_out else "",
        counters or "all zero",
    )
