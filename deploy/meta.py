"""`name.meta.yaml`: what whoever runs a static model must know about its input."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dataset.features import branch_channels
from safe_io import PathLike, UserError, read_yaml_file, whole_file

FORMAT = 3


@dataclass(frozen=True)
class StaticMeta:
    """Preprocessing and contract of a static model.

    config: number of the configuration. persons: M of the model's input, 1 where `per_person`.
    clip_persons: persons of a whole clip. batch_size: 0 where the batch axis is free.
    skeleton: the joint layout, whole (dataset/skeletons.py). resample, centre, num_axis: how
    clips are prepared for the network (dataset/preprocess.py). normalisation: how coordinates
    were prepared on the disk ('none', or that of `transform`). tail_margin, tail_stride: how short
    a clip with a constant tail may be cut (model/tail.py); 0, 0 where the model takes whole clips.
    """

    config: str
    model_type: str
    dataset: str
    skeleton: dict
    inputs: str
    num_frame: int
    persons: int
    clip_persons: int
    per_person: bool
    resample: bool
    centre: bool
    num_axis: int
    transform: bool
    normalisation: str
    batch_size: int
    tail_margin: int
    tail_stride: int
    outputs: list[str]
    class_names: list[str]
    weights: str
    weights_sha256: str
    paddle_version: str
    format: int = FORMAT

    def input_shapes(self, num_joint: int) -> list[list[int]]:
        """Of the model that this belongs to, -1 for a free axis."""
        joints = self.persons * num_joint
        channels, batch = sum(branch_channels(self.inputs)), self.batch_size or -1
        if not self.tail_stride:
            return [[batch, joints, channels, self.num_frame]]
        return [[batch, joints, channels, -1], [batch, 1, 1, 1]]

    def save(self, path: PathLike) -> None:
        with whole_file(path, "w") as file:
            yaml.safe_dump(dataclasses.asdict(self), file, sort_keys=False)

    @classmethod
    def load(cls, path: PathLike) -> StaticMeta:
        """Raises UserError for a file that `save` cannot have written."""
        tree = read_yaml_file(path)
        fields = {f.name: f for f in dataclasses.fields(cls)}
        if not isinstance(tree, dict) or set(tree) != set(fields):
            given = set(tree) if isinstance(tree, dict) else set()
            odd = sorted(str(name) for name in given ^ set(fields))
            raise UserError(f"{path}: missing or unknown keys: {', '.join(odd)}; export again")
        for name, value in tree.items():
            _check_type(path, name, value, fields[name].type)
        meta = cls(**tree)
        if meta.format != FORMAT:
            raise UserError(f"{path}: format {meta.format}; this version reads {FORMAT}")
        return meta


def _check_type(path: PathLike, name: str, value: Any, annotation: str) -> None:
    kinds = {"str": str, "int": int, "bool": bool, "dict": dict, "list[str]": list}
    wanted = kinds[annotation]
    items_ok = wanted is not list or all(isinstance(item, str) for item in value)
    if type(value) is not wanted or not items_ok or (wanted is int and value < 0):
        raise UserError(f"{path}: {name} is {value!r}; allowed: {annotation}")


def read_meta(model_file: Path) -> StaticMeta | None:
    """What lies beside a static model; None where nothing does. Raises UserError."""
    path = meta_path(model_file)
    return StaticMeta.load(path) if path.is_file() else None


def meta_path(model_file: PathLike) -> Path:
    """xsub.pdmodel, or the same without its ending -> xsub.meta.yaml beside it."""
    path = Path(model_file)
    stem = path.name[: -len(".pdmodel")] if path.name.endswith(".pdmodel") else path.name
    return path.with_name(f"{stem}.meta.yaml")
