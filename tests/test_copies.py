"""Copies of training clips among the evaluation clips: accuracy with and without them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import configs
import main as cli
from dataset.storage import open_clips
from errors import UserError
from report import read_scores
from tests.keypoint_data import annotation, body, made, write_folder, write_pickle
from tests.small_models import write_weights

NETWORK = ["model_args.block_args=[[8,1],[8,2]]", "model_args.kernel_size=3"]
# The evaluation clips: "copy" and "again" are the first two training clips.
NAMES = ["a.npy", "copy.npy", "b.npy", "c.npy", "again.npy", "d.npy"]
ENGINES = [[], ["--engine", "openvino"], ["--engine", "paddle"]]


def generated(tmp_path: Path, labels: list[int]) -> Path:
    """A set whose evaluation clips NAMES have these labels."""
    train = {f"train{n}.npy": body(n, 16) for n in range(4)}
    arrays = {**train, **{name: body(n + 4, 16) for n, name in enumerate(NAMES)}}
    arrays |= {"copy.npy": arrays["train0.npy"], "again.npy": arrays["train1.npy"]}
    rows = [(name, n % 2, "train") for n, name in enumerate(train)]
    rows += [(name, label, "test") for name, label in zip(NAMES, labels)]
    return made(write_folder(tmp_path / "mine", arrays, rows), tmp_path / "out")


def arguments(tmp_path: Path) -> list[str]:
    keys = {"root_folder": tmp_path / "out", "num_class": 2, "max_frame": 16, "num_frame": 16}
    pairs = [f"dataset_args.keypoint.{key}={value}" for key, value in keys.items()]
    pairs += ["dataset_args.keypoint.eval_batch_size=4", "dataset_args.keypoint.num_workers=0"]
    return ["-c", "1001", "-d", "mine", "-np", "--set", f"work_dir={tmp_path / 'work'}"] + (
        [*NETWORK, *pairs]
    )


def evaluated(tmp_path: Path, *flags: str) -> np.ndarray:
    """The predicted classes."""
    before = set(tmp_path.glob("work/*/*"))
    weights = str(tmp_path / "w.pdparams")
    assert cli.main(["-e", "-pp", weights, *flags, *arguments(tmp_path)]) == 0
    (folder,) = set(tmp_path.glob("work/*/*")) - before
    return read_scores(folder / "scores.npz").logits.argmax(axis=1)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    argv = arguments(tmp_path)
    overrides = configs.parse_set([*argv[argv.index("--set") + 1 :], "dataset=mine"])
    write_weights(configs.load("1001", overrides), tmp_path / "w.pdparams")
    return tmp_path / "w.pdparams"


def test_accuracy_without_copies(tmp_path: Path, weights: Path, capsys) -> None:
    """Of labels under which both copies and one of the four others are right."""
    generated(tmp_path, labels=[0, 1, 0, 1, 0, 1])
    predicted = evaluated(tmp_path)
    is_right = np.array([False, True, False, True, True, False])
    labels = np.where(is_right, predicted, 1 - predicted)
    generated(tmp_path, labels.tolist())
    for flags in ENGINES:
        capsys.readouterr()
        evaluated(tmp_path, *flags)
        lines = re.findall("(.*)Top-1 accuracy: ([^,]*),", capsys.readouterr().out)
        texts = [text.partition("] ")[2] for text, _ in lines]
        assert texts == ["", "Without 2 copies of training clips: "]
        assert [share for _, share in lines] == ["3/6(50.00%)", "1/4(25.00%)"]


def test_nothing_but_copies(tmp_path: Path, weights: Path, capsys) -> None:
    folder = generated(tmp_path, labels=[0, 1, 0, 1, 0, 1])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["copies"] == {"eval": ["copy.npy", "again.npy"]}
    manifest["copies"]["eval"] = NAMES
    (folder / "manifest.json").write_text(json.dumps(manifest))
    evaluated(tmp_path)
    out = capsys.readouterr().out
    assert "Without 6 copies of training clips: Top-1 accuracy: 0/0(0.00%), " in out


def test_the_training_split_holds_the_originals(tmp_path: Path, weights: Path, capsys) -> None:
    generated(tmp_path, labels=[0, 1, 0, 1, 0, 1])
    evaluated(tmp_path, "--split", "train")
    out = capsys.readouterr().out
    assert "Top-1 accuracy: " in out and "copies" not in out


def test_only_copies_in_use_are_counted(tmp_path: Path, weights: Path, capsys) -> None:
    """--debug evaluates the first 300 clips; the 2nd and the last of 302 are copies."""
    arrays = {name: body(number, 16) for number, name in enumerate("pq")}
    arrays |= {f"e{number}": body(9, 16) + np.float32(number) / 100 for number in range(302)}
    arrays |= {"e1": arrays["p"], "e301": arrays["q"]}
    clips = [annotation(name, n % 2, array[None]) for n, (name, array) in enumerate(arrays.items())]
    names = list(arrays)
    source = write_pickle(tmp_path / "x.pkl", clips, {"train": names[:2], "test": names[2:]})
    folder = made(source, tmp_path / "out")
    assert open_clips(folder / "eval_data.npy").copies() == [1, 301]
    evaluated(tmp_path, "-db")
    assert "Without 1 copies of training clips: Top-1 accuracy: " in capsys.readouterr().out


@pytest.mark.parametrize("copies", [["a.npy"], {"eval": "a.npy"}, 7])
def test_a_damaged_list_of_copies(tmp_path: Path, copies: object) -> None:
    folder = generated(tmp_path, labels=[0, 1, 0, 1, 0, 1])
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "copies": copies}))
    clips = open_clips(folder / "eval_data.npy")
    with pytest.raises(UserError, match=r"manifest.json: copies is .*; allowed: \{phase: names\}"):
        clips.copies()
