"""`name.meta.yaml`: what whoever runs a static model must know about its input."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dataset.pipeline import ClipPipeline
from errors import UserError
from safe_io import PathLike, file_hash, read_yaml_file, whole_file

FORMAT = 4
CHECKSUM = "checksum"  # key of the file: SHA-256 over all of its others


@dataclass(frozen=True)
class StaticMeta:
    """Preprocessing and contract of a static model.

    config: number of the configuration. persons: M of the model's input, 1 where `per_person`.
    clip_persons: persons of a whole clip. batch_size: 0 where the batch axis is free.
    skeleton: the joint layout, complete (dataset/skeletons.py). pipeline: from a clip to the input
    (`ClipPipeline.to_mapping`). normalisation: of the coordinates on disk ('none', or that of
    `transform`). tail_margin, tail_stride: how far a clip with a zero-padded tail may be truncated
    (model/timing.py); 0, 0 where the model takes whole clips.
    contract: what the model takes and gives, 'clips' or 'ailia' (deploy/exporting/contracts.py).
    program_sha256, params_sha256: of the two files of the model, '' where there is no such file;
    of an .onnx file without its metadata.
    """

    config: str
    model_type: str
    dataset: str
    skeleton: dict
    pipeline: dict
    persons: int
    clip_persons: int
    per_person: bool
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
    contract: str = "clips"
    program_sha256: str = ""
    params_sha256: str = ""
    format: int = FORMAT

    def clip_pipeline(self) -> ClipPipeline:
        """From a clip to the model's input. Raises UserError for a damaged mapping."""
        return ClipPipeline.from_mapping(self.pipeline, "pipeline of the model's metadata")

    def input_shapes(self, num_joint: int) -> list[list[int]]:
        """Of the model that this belongs to, -1 for a free axis."""
        joints = self.persons * num_joint
        pipeline, batch = self.clip_pipeline(), self.batch_size or -1
        channels = sum(pipeline.channels)
        if self.contract == "ailia":
            return [[1, channels, -1, num_joint, -1]]
        if not self.tail_stride:
            return [[batch, joints, channels, pipeline.num_frame]]
        return [[batch, joints, channels, -1], [batch, 1, 1, 1]]

    def of_files(self, program: PathLike, params: PathLike) -> StaticMeta:
        """The same with the hashes of a model's two files."""
        return dataclasses.replace(
            self, program_sha256=file_hash(program), params_sha256=file_hash(params)
        )

    def check_files(self, program: Path, params: Path) -> None:
        """Raises UserError where a file is not the one that was exported. Missing ones are left
        to the engine, which says how to make them."""
        for file, sha256 in ((program, self.program_sha256), (params, self.params_sha256)):
            try:
                changed = sha256 and os.path.isfile(file) and _content_hash(file) != sha256
            except OSError as error:
                raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
            if changed:
                raise UserError(
                    f"{file}: was changed after export, or belongs to another model than its "
                    ".meta.yaml; export again"
                )

    def to_tree(self) -> dict[str, Any]:
        """What `from_tree` takes: plain values and their checksum."""
        tree = dataclasses.asdict(self)
        return {**tree, CHECKSUM: _checksum(tree)}

    def save(self, path: PathLike) -> None:
        with whole_file(path, "w") as file:
            yaml.safe_dump(self.to_tree(), file, sort_keys=False)

    @classmethod
    def load(cls, path: PathLike) -> StaticMeta:
        """Raises UserError for a file that `save` did not write, or that was changed since."""
        return cls.from_tree(read_yaml_file(path), str(path))

    @classmethod
    def from_tree(cls, tree: Any, where: str) -> StaticMeta:
        """where: what an error names. Raises UserError for anything but what `to_tree` gave."""
        fields = {f.name: f for f in dataclasses.fields(cls)}
        given, wanted = set(tree) if isinstance(tree, dict) else set(), {*fields, CHECKSUM}
        if given != wanted:
            odd = ", ".join(sorted(str(name) for name in given ^ wanted))
            raise UserError(f"{where}: missing or unknown keys: {odd}; export again")
        values = {name: tree[name] for name in fields}
        for name, value in values.items():
            _check_type(where, name, value, fields[name].type)
        if values["format"] != FORMAT:
            raise UserError(f"{where}: format {values['format']}; this version reads {FORMAT}")
        try:
            unchanged = tree[CHECKSUM] == _checksum(values)
        except (TypeError, ValueError, RecursionError):  # what JSON cannot hold, nobody exported
            unchanged = False
        if not unchanged:
            raise UserError(f"{where}: was changed after export; export again")
        return cls(**values)


def _content_hash(file: Path) -> str:
    if file.suffix == ".onnx":  # which has the metadata inside
        from deploy.onnx_file import model_hash, read_onnx

        return model_hash(read_onnx(file))
    return file_hash(file)


def _checksum(tree: dict[str, Any]) -> str:
    """SHA-256 of plain values, whatever their order."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _check_type(where: str, name: str, value: Any, annotation: str) -> None:
    kinds = {"str": str, "int": int, "bool": bool, "dict": dict, "list[str]": list}
    wanted = kinds[annotation]
    items_ok = wanted is not list or all(isinstance(item, str) for item in value)
    if type(value) is not wanted or not items_ok or (wanted is int and value < 0):
        raise UserError(f"{where}: {name} is {reprlib.repr(value)}; allowed: {annotation}")


def read_meta(model_file: Path) -> StaticMeta | None:
    """What lies beside a static model, or in it (.onnx); None where nothing does. Raises
    UserError."""
    if model_file.suffix == ".onnx":
        from deploy.onnx_file import read_properties

        properties = read_properties(model_file)
        if CHECKSUM not in properties:  # a file of another project
            return None
        try:
            tree = {key: json.loads(value) for key, value in properties.items()}
        except (ValueError, RecursionError) as error:
            raise UserError(f"{model_file}: damaged metadata: {error}; export again") from error
        return StaticMeta.from_tree(tree, str(model_file))
    path = meta_path(model_file)
    return StaticMeta.load(path) if os.path.lexists(path) else None


def meta_path(model_file: PathLike) -> Path:
    """xsub.pdmodel, xsub.json, or the same without its ending -> xsub.meta.yaml beside it."""
    path = Path(model_file)
    stem = path.stem if path.suffix in (".pdmodel", ".json") else path.name
    return path.parent / f"{stem}.meta.yaml"
