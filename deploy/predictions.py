"""Predictions of a clip file: jobs for parts of it, what they give, merged and on disk.

job = Job(Path("xsub.pdmodel"), Path("all.npy"), start=0, stop=1000)
part = run_job(job)  # here or, because both are plain values, in another process
write(Path("all.json"), merge([part, *others]))
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dataset.storage import ClipSet, open_clips
from deploy.engines.engine import AUTO
from deploy.predictor import Predictor, Scores
from errors import UserError
from report import write_csv
from safe_io import file_hash, read_json, whole_file

Row = dict[str, Any]  # one clip: name, label, label_name, top, persons; see `row_of`

SAME = ("model", "data")  # what all parts of a run have in common
KEYS = {*SAME, "engine", "shard", "accuracy", "clips"}


@dataclass(frozen=True)
class Job:
    """The clips [start, stop) of a file, and how to predict them. Picklable.

    model, data, params, labels: files; None: those beside the model and the data. cpu_threads:
    None for all cores. inputs: branches of a public port's model. topk: classes in each row.
    accept: settings in which data and model may differ (dataset/identity.py).
    """

    model: Path
    data: Path
    start: int
    stop: int
    engine: str = AUTO
    cpu_threads: int | None = None
    batch_size: int = 16
    topk: int = 5
    inputs: str = ""
    params: Path | None = None
    labels: Path | None = None
    accept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Predictions of the clips [start, stop) of the `total` clips of a file, a row for each. model:
    SHA-256 of the model file. data: the clip file. source: the file of the part, for messages."""

    engine: str
    model: str
    data: str
    start: int
    stop: int
    total: int
    rows: list[Row]
    source: str = field(default="", compare=False)

    @property
    def accuracy(self) -> float | None:
        """Top-1 over the clips with a label, 0 to 1; None without labels."""
        labelled = [row for row in self.rows if "label" in row]
        right = sum(row["label"] == row["top"][0]["class"] for row in labelled)
        return right / len(labelled) if labelled else None


def shard_range(total: int, part: int, parts: int) -> range:
    """Which of `total` clips belong to a part, 1 to `parts`."""
    return range(total * (part - 1) // parts, total * part // parts)


def load_predictor(job: Job, clips: ClipSet) -> Predictor:
    """The model of a job. Raises UserError for damaged files, and for clips that it refuses."""
    predictor = Predictor.load(
        job.model,
        params_file=job.params,
        engine=job.engine,
        cpu_threads=job.cpu_threads,
        inputs=job.inputs,
    )
    predictor.check_data(clips, job.accept)
    if clips.manifest is None:
        logging.warning("%s: no manifest.json beside it; taken as what the model wants", clips.path)
    return predictor


def run_job(
    job: Job,
    *,
    clips: ClipSet | None = None,
    predictor: Predictor | None = None,
    on_batch: Callable[[list[Row]], None] | None = None,
) -> Part:
    """Predict the clips of a job, in order. A process of its own calls `utils.prepare_environment`
    first. clips, predictor: of this job, where they are open already. on_batch: gets the rows of
    each batch. Raises UserError for damaged files, and for clips that the model refuses."""
    clips = clips or open_clips(job.data, job.labels)
    if not 0 <= job.start <= job.stop <= len(clips):
        raise UserError(f"{job.data}: has clips 0 to {len(clips) - 1}, not {job.start}:{job.stop}")
    predictor = predictor or load_predictor(job, clips)
    rows: list[Row] = []
    lengths = clips.tail_lengths
    for start in range(job.start, job.stop, job.batch_size):
        stop = min(start + job.batch_size, job.stop)
        try:
            scores = predictor.run(clips.data[start:stop], lengths[start:stop] if lengths else None)
        except UserError as error:
            raise UserError(f"{clips.path}, clips {start} to {stop - 1}: {error}") from error
        indices = range(start, stop)
        batch = [
            row_of(predictor.class_names, clips.names[i], clips.label(i), scores, n, job.topk)
            for n, i in enumerate(indices)
        ]
        rows += batch
        if on_batch:
            on_batch(batch)
    name, model = predictor.engine.name, file_hash(job.model)
    return Part(name, model, str(job.data), job.start, job.stop, len(clips), rows)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64."""
    logits = logits.astype(np.float64)
    exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponent / exponent.sum(axis=-1, keepdims=True)


def top_classes(logits: np.ndarray, class_names: Sequence[str], topk: int) -> list[Row]:
    """The best classes of logits (num_class,), best first: class, name, probability."""
    probability = probabilities(logits)
    best = np.argsort(-logits, kind="stable")[:topk]
    names = class_names or [f"class {c}" for c in range(len(logits))]
    return [
        {"class": int(c), "name": names[c], "probability": round(probability[c], 6)} for c in best
    ]


def row_of(
    class_names: Sequence[str], name: str, label: int | None, scores: Scores, n: int, topk: int
) -> Row:
    """A clip's name, label, best classes with probability, and the class of each person where the
    model is per person. n: its row of the scores."""
    names = class_names or [f"class {c}" for c in range(scores.logits.shape[1])]
    row: Row = {"name": name}
    if label is not None:
        row.update(label=label, label_name=names[label] if label < len(names) else f"class {label}")
    row["top"] = top_classes(scores.logits[n], names, topk)
    if scores.person_logits is not None:
        classes = scores.person_logits[n].argmax(axis=1)
        row["persons"] = [
            {"person": m, "class": int(c), "name": names[c]}
            for m, c in enumerate(classes)
            if scores.exists[n, m]
        ]
    return row


def merge(parts: Sequence[Part]) -> Part:
    """The predictions of the whole file. Raises UserError for parts of different models or data,
    and where clips are missing or occur twice."""
    if not parts:
        raise UserError("no parts to merge; allowed: one or more")
    ordered = sorted(parts, key=lambda part: (part.start, part.stop, part.total))
    first, reached = ordered[0], 0
    for part in ordered:
        for key in SAME:
            if getattr(part, key) != getattr(first, key):
                raise UserError(
                    f"{_title(part)} and {_title(first)} differ in {key}; merge parts of one run"
                )
        if part.start != reached or part.total != first.total:
            what = "are missing" if part.start > reached else "come twice"
            raise UserError(
                f"{_title(part)}: clips {min(part.start, reached)} to "
                f"{max(part.start, reached) - 1} {what}"
            )
        reached = part.stop
    if reached != first.total:
        raise UserError(f"clips {reached} to {first.total - 1} are missing: give every part")
    engines = ", ".join(sorted({part.engine for part in ordered}))
    rows = [row for part in ordered for row in part.rows]
    return Part(engines, first.model, first.data, 0, reached, reached, rows)


def _title(part: Part) -> str:
    return part.source or f"part {part.start}:{part.stop}"


def accuracy_line(part: Part) -> str:
    """The public port's last line, or that there are no labels."""
    if part.accuracy is None:
        return f"{len(part.rows)} clips predicted; no labels, so no accuracy"
    return f"Infer Mean Accuracy: {part.accuracy:.6g}"


def check_output(path: Path) -> None:
    """Raises UserError for a file that `write` does not know how to write."""
    if path.suffix not in (".json", ".csv"):
        raise UserError(f"--output {path}: allowed: a name ending in .json or .csv")


def write(path: Path, part: Part) -> None:
    """A part as one JSON object, or as CSV with the best class of each clip."""
    if path.suffix == ".json":
        shard = [part.start, part.stop, part.total]
        tree: Row = {"engine": part.engine, "model": part.model, "data": part.data, "shard": shard}
        tree.update(accuracy=part.accuracy, clips=part.rows)
        with whole_file(path, "w") as file:
            json.dump(tree, file, indent=1)
        return
    table = [["name", "label", "class", "class_name", "probability", "persons"]]
    for row in part.rows:
        best, persons = row["top"][0], row.get("persons", [])
        each = "; ".join(f"{p['person']}: {p['name']}" for p in persons)
        label = row.get("label", "")
        table.append([row["name"], label, best["class"], best["name"], best["probability"], each])
    write_csv(path, table)


def read(path: Path) -> Part:
    """A part that `write` wrote as JSON. Raises UserError for any other file."""
    content = read_json(path)
    if not isinstance(content, dict) or set(content) != KEYS:
        raise UserError(f"{path}: not written by infer.py --output")
    if not _has(content, {"engine": str, "model": str, "data": str}):
        raise UserError(f"{path}: engine, model and data must be texts; run that part again")
    shard, rows = content["shard"], content["clips"]
    is_shard = isinstance(shard, list) and [type(n) for n in shard] == [int] * 3
    if not is_shard or not 0 <= shard[0] <= shard[1] <= shard[2] or not isinstance(rows, list):
        raise UserError(f"{path}: shard is {shard!r}; run that part again")
    if len(rows) != shard[1] - shard[0]:
        raise UserError(f"{path}: {len(rows)} clips do not fit shard {shard}; run that part again")
    for number, row in enumerate(rows):
        if not _is_row(row):
            raise UserError(f"{path}: clips[{number}] is no prediction; run that part again")
    name, model, data = content["engine"], content["model"], content["data"]
    start, stop, total = shard
    return Part(name, model, data, start, stop, total, rows, source=str(path))


def _is_row(row: Any) -> bool:
    """Whether a value of a file is what `row_of` makes."""
    if not _has(row, {"name": str, "top": list}) or not row["top"]:
        return False
    if "label" in row and not _has(row, {"label": int, "label_name": str}):
        return False
    persons = row.get("persons", [])
    return (
        all(_has(top, {"class": int, "name": str, "probability": float}) for top in row["top"])
        and isinstance(persons, list)
        and all(_has(person, {"person": int, "class": int, "name": str}) for person in persons)
    )


def _has(value: Any, kinds: Mapping[str, type]) -> bool:
    """Whether a value is a dict with these keys, of these types."""
    return isinstance(value, dict) and all(type(value.get(k)) is kind for k, kind in kinds.items())
