"""Metadata of a static model: `name.meta.yaml` beside it, or inside of an .onnx file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dataset.identity import IMAGE, SPACE, layout_entry
from dataset.pipeline import ClipPipeline
from dataset.skeletons import from_mapping
from deploy.exporting.contracts import CONTRACTS
from deploy.exporting.formats import FORMATS, Sizes, static_shape
from errors import UserError
from model.streaming.plan import Plan
from safe_io import PathLike, file_hash, read_yaml_file, whole_file

if TYPE_CHECKING:
    import onnx

FORMAT = 5
CHECKSUM = "checksum"  # key of the file: SHA-256 over all of its others


@dataclass(frozen=True)
class StaticMeta:
    """config: number of the configuration. skeleton: the whole joint layout (dataset/skeletons.py).
    pipeline: from a clip to the input (`ClipPipeline.to_mapping`). persons: M of the input, 1 where
    `per_person`. clip_persons: persons of a whole clip. normalisation: of the coordinates on disk.
    batch_size, tail_margin, tail_stride: see `Sizes`. weights: name of their file, or 'fresh' for
    random ones. contract: a key of CONTRACTS. program_sha256, params_sha256: of the model's two
    files, '' where there is no such file; of an .onnx file without its metadata. stream: of a
    streaming network (`Plan.to_mapping`), else empty."""

    config: str
    model_type: str
    dataset: str
    skeleton: dict[str, Any]
    pipeline: dict[str, Any]
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
    stream: dict[str, Any] = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    def clip_pipeline(self) -> ClipPipeline:
        """From a clip to the model's input. Raises UserError for an invalid mapping."""
        return ClipPipeline.from_mapping(self.pipeline, "pipeline of the model's metadata")

    def plan(self) -> Plan:
        """Of a streaming network. Raises UserError for an invalid mapping."""
        return Plan.from_mapping(self.stream, "stream of the model's metadata")

    def identity(self) -> dict[str, Any]:
        """What data must share with the model's training data (dataset/identity.py)."""
        layout = from_mapping(self.skeleton, "skeleton of the model's metadata")
        return {
            "transform": self.transform,
            "skeleton": layout_entry(layout),
            "coordinates": IMAGE if self.clip_pipeline().num_axis == 2 else SPACE,
            "class_names": self.class_names,
        }

    def sizes(self, num_joint: int) -> Sizes:
        """What the shapes of the model's inputs follow from."""
        pipeline = self.clip_pipeline()
        channels, frames = sum(pipeline.channels), pipeline.num_frame
        tail = self.tail_margin, self.tail_stride
        plan = self.plan() if self.stream else None
        return Sizes(self.batch_size, self.persons, num_joint, channels, frames, *tail, plan)

    def inputs(self, num_joint: int) -> dict[str, list[int]]:
        """Name -> shape of the model's inputs in order, -1 for a dynamic axis."""
        shapes = CONTRACTS[self.contract].inputs(self.sizes(num_joint))
        return {name: static_shape(shape) for name, shape in shapes.items()}

    def check_files(self, program: Path, params: Path) -> None:
        """Raises UserError where a file is not the one that was exported. Missing files are left to
        the engine, whose error names the command that writes them."""
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
        """Plain values and their checksum, for `from_tree`."""
        tree = dataclasses.asdict(self)
        return {**tree, CHECKSUM: _checksum(tree)}

    def save(self, path: PathLike) -> None:
        with whole_file(path, "w") as file:
            yaml.safe_dump(self.to_tree(), file, sort_keys=False)

    def embed(self, model: onnx.ModelProto) -> None:
        """Write it into a model with the model's hash: a property for each key, its value as JSON,
        which other languages can read."""
        from deploy.onnx_file import model_hash

        tree = dataclasses.replace(self, program_sha256=model_hash(model)).to_tree()
        del model.metadata_props[:]
        for key, value in tree.items():
            model.metadata_props.add(key=key, value=json.dumps(value))

    @classmethod
    def load(cls, path: PathLike) -> StaticMeta:
        """Raises UserError for a file that `save` did not write, or that was changed since."""
        return cls.from_tree(read_yaml_file(path), str(path))

    @classmethod
    def from_tree(cls, tree: Any, where: str) -> StaticMeta:
        """where: named in errors. Raises UserError for anything but the result of `to_tree`."""
        fields = {f.name: f for f in dataclasses.fields(cls)}
        given, wanted = set(tree) if isinstance(tree, dict) else set(), {*fields, CHECKSUM}
        if given != wanted:
            odd = ", ".join(sorted(str(name) for name in given ^ wanted))
            raise UserError(f"{where}: missing or unknown keys: {odd}; export again")
        values = {name: tree[name] for name in fields}
        for name, field in fields.items():
            _check_type(where, name, values[name], str(field.type))
        if values["format"] != FORMAT:
            raise UserError(f"{where}: format {values['format']}; this version reads {FORMAT}")
        if values["contract"] not in CONTRACTS:
            allowed = ", ".join(CONTRACTS)
            raise UserError(f"{where}: contract is {values['contract']!r}; allowed: {allowed}")
        try:
            unchanged = tree[CHECKSUM] == _checksum(values)
        except (TypeError, ValueError, RecursionError):  # not JSON, so not exported
            unchanged = False
        if not unchanged:
            raise UserError(f"{where}: was changed after export; export again")
        return cls(**values)


def _content_hash(file: Path) -> str:
    if file.suffix == ".onnx":  # without the metadata inside
        from deploy.onnx_file import model_hash, read_onnx

        return model_hash(read_onnx(file))
    return file_hash(file)


def _checksum(tree: dict[str, Any]) -> str:
    """SHA-256 of plain values, independent of their order."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _check_type(where: str, name: str, value: Any, annotation: str) -> None:
    kinds = {"str": str, "int": int, "bool": bool, "dict[str, Any]": dict, "list[str]": list}
    ok = type(value) is kinds[annotation]
    if isinstance(value, list):
        ok = ok and all(isinstance(item, str) for item in value)
    if not ok or (isinstance(value, int) and value < 0):
        raise UserError(f"{where}: {name} is {reprlib.repr(value)}; allowed: {annotation}")


def read_meta(model_file: Path) -> StaticMeta | None:
    """The metadata beside a static model, or inside it (.onnx); None where there is none. Raises
    UserError for damaged or changed metadata."""
    if model_file.suffix == ".onnx":
        from deploy.onnx_file import read_onnx

        properties = {p.key: p.value for p in read_onnx(model_file).metadata_props}
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
    stem = path.stem if path.suffix in {f.program for f in FORMATS.values()} else path.name
    return path.parent / f"{stem}.meta.yaml"
