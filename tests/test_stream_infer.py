"""infer.py --stream: rows of ordinary inference, a timeline, latencies, recordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import configs
import export as export_cli
import infer
from dataset.storage import open_clips
from deploy import predictions
from errors import run_command
from tests.small_models import SMALL, eval_clips, write_weights

CAUSAL = {**SMALL, "model_args.att_type": "stja-causal"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`clips/small.pdmodel` and `step/small.pdmodel` of one causal network."""
    folder = tmp_path_factory.mktemp("causal")
    write_weights(configs.load("9001", CAUSAL), folder / "small.pdparams")
    sets = [f"{key}={json.dumps(value)}" for key, value in CAUSAL.items()]
    argv = ["-c", "9001", "-pp", str(folder / "small.pdparams"), "--set", *sets]
    assert export_cli.main([*argv, "--save_dir", str(folder / "clips")]) == 0
    stream = ["--contract", "stream", "--save_dir", str(folder / "step")]
    assert export_cli.main([*argv, *stream]) == 0
    return folder


def run(models: Path, *argv: str | Path, stream: bool = True) -> list[str]:
    name = "step" if stream else "clips"
    flags = ["--stream"] if stream else []
    model = ["--model_file", str(models / name / "small.pdmodel")]
    return [*flags, *model, *(str(arg) for arg in argv)]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return predictions.read(path).rows


def test_data_files_give_the_rows_of_ordinary_inference(
    models: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = ["--data_file", str(eval_clips(tiny_data))]
    assert infer.main(run(models, *data, "--output", tmp_path / "s.json")) == 0
    printed = capsys.readouterr().out
    assert infer.main(run(models, *data, "--output", tmp_path / "c.json", stream=False)) == 0
    clips, stream = rows_of(tmp_path / "c.json"), rows_of(tmp_path / "s.json")
    assert len(clips) == len(stream) > 3
    for a, b in zip(clips, stream):
        timeline = b.pop("timeline")
        assert [entry["frame"] for entry in timeline] == list(range(0, 16, 2))
        assert a["name"] == b["name"] and a["label"] == b["label"]
        assert [t["class"] for t in a["top"]] == [t["class"] for t in b["top"]]
        for x, y in zip(a["top"], b["top"]):
            assert x["probability"] == pytest.approx(y["probability"], abs=1e-5)
        # The last running mean is over all positions of these clips.
        assert timeline[-1]["class"] == b["top"][0]["class"]
        assert timeline[-1]["probability"] == pytest.approx(b["top"][0]["probability"], abs=2e-6)
    first = stream[0]
    assert f"{first['name']}, frame 14: {first['top'][0]['name']} " in printed
    steps = 8 * len(stream)  # 16 frames, two a step
    assert "latency of a step of 2 frames: median " in printed and "95th percentile" in printed
    assert f"Infer Mean Accuracy: {predictions.read(tmp_path / 'c.json').accuracy:.6g}" in printed
    assert f"({steps + len(stream) * 8} steps)" not in printed


def test_real_frames_stop_at_the_last_one(
    models: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = np.array(open_clips(eval_clips(tiny_data)).data[:1, :, :16])
    data[:, :, 9:] = 0
    np.save(tmp_path / "short.npy", data)
    argv = ["--data_file", tmp_path / "short.npy", "--output", tmp_path / "o.json", "-np"]
    assert infer.main(run(models, *argv, "--real_frames")) == 0
    assert len(rows_of(tmp_path / "o.json")[0]["timeline"]) == 5  # 9 frames
    assert ", frame " not in capsys.readouterr().out
    assert infer.main(run(models, *argv)) == 0
    assert len(rows_of(tmp_path / "o.json")[0]["timeline"]) == 8  # the padding is played too


def test_recordings_are_played_to_their_end(
    models: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A .skeleton file and the same joints as an array in millimetres."""
    file = sorted((samples / "samples/ntu").glob("*.skeleton"))[0]
    argv = ["--data_file", file, "--output", tmp_path / "a.json", "-np"]
    assert infer.main(run(models, *argv)) == 0
    (row,) = rows_of(tmp_path / "a.json")
    from reader.ntu.reader import parse

    clip = parse(file.read_bytes(), str(file)).positions
    frames = clip.shape[1]
    assert row["name"] == file.name and "label" not in row
    assert [entry["frame"] for entry in row["timeline"]] == list(range(0, frames, 2))
    people = 1000 * clip.transpose(3, 1, 2, 0)[clip.any(axis=(0, 1, 2))]
    np.save(tmp_path / "people.npy", people)
    argv = ["--data_file", tmp_path / "people.npy", "--unit", "millimetre", "-np"]
    assert infer.main(run(models, *argv, "--output", tmp_path / "b.json")) == 0
    (other,) = rows_of(tmp_path / "b.json")
    assert other["top"][0]["class"] == row["top"][0]["class"]
    assert other["top"][0]["probability"] == pytest.approx(row["top"][0]["probability"], abs=1e-4)
    assert "no labels, so no accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data_file", "DATA", "--shard", "1/2"], "leave out --shard"),
        (["--data_file", "DATA", "--benchmark"], "leave out --benchmark"),
        (["--data_file", "DATA", "-b", "4"], "leave out --batch_size"),
        (["--data_file", "DATA", "--unit", "metre"], "--unit is for recordings"),
        (["--data_file", "walk.mp4"], "walk.mp4: not an npy file"),
        (["--data_file", "none.csv"], "none.csv, cannot be read"),
        (["--data_file", "none.npy"], "no such file"),
        (["--data_file", "flat.npy"], "flat.npy, 60 values per person and frame; ntu-25 has 25"),
        (["--data_file", "walk.csv", "--real_frames"], "--real_frames and --label_file are for"),
        (["--data_file", "walk.csv", "--unit", "normalised"], "allowed for this model: metre, mil"),
    ],
)
def test_bad_input_is_one_line(
    models: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("flat.npy", np.ones((5, 20, 3)))
    for name in ("walk.csv", "walk.mp4"):
        (tmp_path / name).write_text("1\n")
    argv = [str(eval_clips(tiny_data)) if flag == "DATA" else flag for flag in flags]
    argv = run(models, *argv, "--output", "out.json")
    assert run_command(lambda: infer.main(argv)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "out.json").exists()


def test_flags_of_streams_need_stream(models: Path, capsys: pytest.CaptureFixture) -> None:
    argv = run(models, "--data_file", "x.npy", "--real_frames", stream=False)
    assert run_command(lambda: infer.main(argv)) == 2
    assert "--real_frames and --unit need --stream" in capsys.readouterr().err


def test_a_model_of_resampled_clips_takes_no_recording(
    tmp_path: Path, tiny_data: Path, capsys: pytest.CaptureFixture
) -> None:
    """Its data files can be played: each clip is resampled first."""
    sets = [f"{key}={json.dumps(value)}" for key, value in CAUSAL.items()]
    sets.append("dataset_args.ntu.resample=true")
    argv = ["-c", "9001", "--contract", "stream", "--save_dir", str(tmp_path), "--set", *sets]
    assert export_cli.main(argv) == 0
    (file,) = tmp_path.glob("*.pdmodel")
    (tmp_path / "walk.csv").write_text("1\n")
    argv = ["--stream", "--model_file", str(file), "--data_file"]
    assert run_command(lambda: infer.main([*argv, str(tmp_path / "walk.csv")])) == 2
    assert "cannot take a recording as it comes: its clips are resampled" in capsys.readouterr().err
    assert infer.main([*argv, str(eval_clips(tiny_data)), "-np"]) == 0
