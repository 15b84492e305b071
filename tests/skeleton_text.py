"""Valid `.skeleton` text from arrays, folders of such files, and configurations that read them, for
tests without real recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import configs
from configs.schema import Config

DATASET = "synthetic-xsub"  # odd subjects train

Frames = Sequence[Sequence[np.ndarray]]  # for each frame its bodies, each (V=25, C=3), metres

REST_OF_JOINT = "277.419 191.8218 1036.233 519.1677 -0.2059419 0.05349901 0.9692109 -0.1239193 2"


def random_frames(seed: int, *num_bodies: int) -> list[list[np.ndarray]]:
    """Frames with these numbers of bodies. Four decimals, which text represents exactly."""
    rng = np.random.default_rng(seed)
    return [
        [np.round(rng.normal(size=(25, 3)) + (0, 0, 3), 4) for _ in range(n)] for n in num_bodies
    ]


def skeleton_lines(frames: Frames) -> list[str]:
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for number, body in enumerate(bodies):
            lines += [f"7205759403793110{number} 0 1 1 1 1 0 0.02764709 0.05745083 2", "25"]
            lines += [f"{x:.4f} {y:.4f} {z:.4f} {REST_OF_JOINT}" for x, y, z in body]
    return lines


def skeleton_text(frames: Frames, line_end: str = "\n") -> bytes:
    return (line_end.join(skeleton_lines(frames)) + line_end).encode()


def write_recordings(folder: Path, texts: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.skeleton").write_bytes(text)
    return folder


def config_for(
    source: Path,
    out: Path,
    dataset: str = DATASET,
    transform: bool = False,
    on_bad_file: str = "error",
    repair_order: bool = False,
) -> Config:
    ntu = {
        "repair_order": repair_order,
        "synthetic_path": str(source),
        "ntu60_path": str(source),
        "root_folder": str(out),
        "transform": transform,
        "on_bad_file": on_bad_file,
    }
    keys = {f"dataset_args.ntu.{key}": value for key, value in ntu.items()}
    return configs.load("2001", {**keys, "dataset": dataset})


def clip_name(subject: int, action: int, camera: int = 1, repeat: int = 1) -> str:
    return f"S001C{camera:03}P{subject:03}R{repeat:03}A{action:03}"


def some_recordings(count: int = 12) -> dict[str, bytes]:
    return {
        clip_name(1 + n % 4, 1 + n % 5, repeat=1 + n // 4): skeleton_text(
            random_frames(n, *[1 + n % 2] * (3 + n))
        )
        for n in range(count)
    }


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
