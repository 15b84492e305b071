"""Small data sets of a user's own, and configurations for them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import configs
from configs.schema import Config
from generator import generate
from safe_pickle import load_pickle

Row = tuple  # (file, label, split[, person[, fps]])


def body(seed: int, num_frame: int = 8, num_joint: int = 17) -> np.ndarray:
    """A person 1.7 m tall, 3 m away, with small random motion: (T, V, C=3) float32, metres."""
    rng = np.random.default_rng(seed)
    rest = rng.uniform(-0.3, 0.3, (num_joint, 3)) + (0, 0, 3)
    rest[:, 1] = np.linspace(-0.85, 0.85, num_joint)
    return (rest + rng.normal(scale=0.03, size=(num_frame, num_joint, 3))).astype(np.float32)


def image(seed: int, num_frame: int = 8, num_joint: int = 17) -> np.ndarray:
    """A person in an image: (T, V, 2) float32, relative to its width and height."""
    points = body(seed, num_frame, num_joint)[..., :2] * (0.4, 0.4) + 0.5
    return points.astype(np.float32)


def write_index(folder: Path, rows: Sequence[Row]) -> Path:
    """index.csv of rows (file, label, split[, person[, fps]])."""
    names = ("file", "label", "split", "person", "fps")[: max(map(len, rows))]
    lines = [",".join(names)]
    lines += [",".join(map(str, [*row, *[""] * (len(names) - len(row))])) for row in rows]
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_folder(folder: Path, arrays: dict[str, np.ndarray], rows: Sequence[Row]) -> Path:
    """The arrays as .npy files, and the index."""
    for file, array in arrays.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / file, array)
    return write_index(folder, rows)


def four_clips(change=lambda array: array) -> tuple[dict[str, np.ndarray], list[Row]]:
    """Two classes, in both splits; `change` is applied to every array."""
    rows = [
        (f"{split}{label}.npy", label, split) for split in ("train", "test") for label in (0, 1)
    ]
    return {row[0]: change(body(n)) for n, row in enumerate(rows)}, rows


def annotation(name: str, label: int, keypoint: np.ndarray, **more: Any) -> dict[str, Any]:
    return {"frame_dir": name, "label": label, "keypoint": keypoint, **more}


def write_pickle(path: Path, annotations: list[dict], splits: dict[str, list[str]]) -> Path:
    path.write_bytes(pickle.dumps({"split": splits, "annotations": annotations}))
    return path


def keypoint_config(source: Path, out: Path, **keys: Any) -> Config:
    """Two classes of coco-17 unless `keys` (of dataset_args.keypoint) say otherwise."""
    group = {
        **{"source_path": str(source), "root_folder": str(out), "num_class": 2, "max_frame": 16},
        **{"num_frame": 16, **keys},
    }
    overrides = {f"dataset_args.keypoint.{key}": value for key, value in group.items()}
    return configs.load("1001", {**overrides, "dataset": "mine"})


def made(source: Path, out: Path, workers: int = 1, **keys: Any) -> Path:
    """The folder of the generated set."""
    return generate(keypoint_config(source, out, **keys), workers=workers, progress=False)


def load_split(folder: Path, phase: str) -> tuple[np.ndarray, list, list, list]:
    """(data, names, labels, lengths) of a generated split."""
    return np.load(folder / f"{phase}_data.npy"), *load_pickle(folder / f"{phase}_label.pkl")


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())
