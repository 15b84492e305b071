"""Jobs for parts of a clip file: run in other processes, merged, written and read."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dataset.storage import open_clips
from deploy import predictions
from deploy.predictions import Job, Part, merge, read, run_job, shard_range, write
from deploy.predictor import Predictor
from errors import UserError
from tests.small_models import eval_clips

ROOT = Path(__file__).resolve().parent.parent
WORKER = """
import pickle, sys, utils
utils.prepare_environment()
from deploy.predictions import run_job
with open(sys.argv[1], "rb") as file:
    part = run_job(pickle.load(file))
with open(sys.argv[2], "wb") as file:
    pickle.dump(part, file)
"""


@pytest.fixture
def job(models: Path, tiny_data: Path) -> Job:
    """All clips of a file, one at a time, so that every part computes the same numbers."""
    model, data = models / "person/small.pdmodel", eval_clips(tiny_data)
    return Job(model, data, 0, 24, engine="openvino", cpu_threads=1, batch_size=1)


def test_a_job_runs_in_another_process(job: Job, tmp_path: Path) -> None:
    job = replace(job, start=3, stop=9, topk=2)
    files = tmp_path / "job", tmp_path / "part"
    files[0].write_bytes(pickle.dumps(job))
    command = [sys.executable, "-c", WORKER, *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    part = pickle.loads(files[1].read_bytes())
    assert part == run_job(job) and (part.start, part.stop, part.total) == (3, 9, 24)
    assert [len(row["top"]) for row in part.rows] == [2] * 6


def test_halves_merge_to_the_whole(job: Job, tmp_path: Path) -> None:
    batches: list[list[str]] = []
    whole = run_job(
        replace(job, batch_size=1),
        on_batch=lambda rows: batches.append([row["name"] for row in rows]),
    )
    assert [name for names in batches for name in names] == open_clips(job.data).names
    halves = [run_job(replace(job, start=start, stop=start + 12)) for start in (12, 0)]
    assert merge(halves) == whole and merge([whole]) == whole
    for n, part in enumerate((*halves, whole)):
        write(tmp_path / f"{n}.json", part)
        assert read(tmp_path / f"{n}.json") == part
    tree = json.loads((tmp_path / "2.json").read_text())
    assert list(tree) == ["engine", "model", "data", "shard", "accuracy", "clips"]
    assert tree["shard"] == [0, 24, 24] and tree["accuracy"] == whole.accuracy


def test_parts_that_do_not_fit_are_refused(job: Job) -> None:
    rows = [{"name": "a", "top": [{"class": 1}]}]
    first, second = (Part("paddle", "hash", "x.npy", n, n + 1, 2, rows) for n in (0, 1))
    assert merge([second, first]).rows == rows * 2 and merge([first, second]).accuracy is None
    for parts, message in (
        ([], "no parts to merge"),
        ([second], "part 1:2: clips 0 to 0 are missing"),
        ([first], "clips 1 to 1 are missing: give every part"),
        ([first, first, second], "part 0:1: clips 0 to 0 come twice"),
        ([first, replace(second, data="y.npy")], "part 1:2 and part 0:1 differ in data"),
        ([first, replace(second, model="other", source="b.json")], "b.json and part 0:1 differ in"),
    ):
        with pytest.raises(UserError, match=message):
            merge(parts)
    assert merge([first, replace(second, engine="openvino")]).engine == "openvino, paddle"
    for start, stop in ((0, 25), (-1, 3), (5, 4)):
        with pytest.raises(UserError, match="has clips 0 to 23, not"):
            run_job(replace(job, start=start, stop=stop))


def test_shards_cover_every_clip_once() -> None:
    for total, parts in ((24, 3), (10, 4), (2, 5)):
        shards = [shard_range(total, part, parts) for part in range(1, parts + 1)]
        assert [clip for shard in shards for clip in shard] == list(range(total))


def test_stored_lengths_are_used_where_they_are_reliable(
    models: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of data that were not transformed and have a manifest; the rows stay the same."""
    seen: list[object] = []
    run = Predictor.run

    def record(self, clips, lengths=None):
        seen.append(lengths)
        return run(self, clips, lengths)

    monkeypatch.setattr(Predictor, "run", record)
    job = Job(models / "whole/small.pdmodel", eval_clips(tiny_data), 2, 6, "openvino", 1, 3)
    clips = open_clips(job.data)
    part = run_job(job, clips=clips)
    assert seen == [clips.lengths[2:5], clips.lengths[5:6]]
    unknown = run_job(job, clips=replace(clips, manifest=None))
    assert seen[2:] == [None, None] and unknown == part
    assert open_clips(eval_clips(tiny_data, "transformed")).tail_lengths is None


def test_a_wrong_stored_length_names_the_clip(models: Path, tiny_data: Path, tmp_path) -> None:
    """infer.py and its jobs stop instead of giving wrong logits."""
    import configs
    from tests.networks import exported
    from tests.small_models import SMALL

    config = configs.load("9001", {**SMALL, "dataset_args.ntu.num_frame": 64})
    job = Job(exported(config, tmp_path), eval_clips(tiny_data), 4, 8, "openvino", 1)
    clips = open_clips(job.data)
    lengths = [*clips.lengths]
    lengths[6] -= 1
    message = f"clips 4 to 7: clip 2 of this batch has length {lengths[6]}, but data up to frame"
    with pytest.raises(UserError, match=message):
        run_job(job, clips=replace(clips, lengths=lengths))
    known, searched = run_job(job), run_job(job, clips=replace(clips, lengths=None))
    assert known == searched
    assert predictions.accuracy_line(known).startswith("Infer Mean Accuracy: ")
