"""Reading .onnx files and their metadata, without Paddle: inference starts through here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from errors import UserError


def read_onnx(model_file: Path) -> onnx.ModelProto:
    """Raises UserError for a missing or damaged file."""
    try:
        model = onnx.load_model_from_string(model_file.read_bytes())
    except OSError as error:
        raise UserError(f"{model_file}: cannot be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise UserError(f"{model_file}: not an ONNX model") from error
    if not model.graph.node:
        raise UserError(f"{model_file}: not an ONNX model, or an empty one")
    return model


def model_hash(model: onnx.ModelProto) -> str:
    """SHA-256 of a model without its metadata, in hex."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def write_properties(model: onnx.ModelProto, tree: dict[str, Any]) -> None:
    """One property for each key, its value as JSON, which other languages can read."""
    del model.metadata_props[:]
    for key, value in tree.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
