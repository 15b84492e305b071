"""Reading .onnx files, without Paddle: inference starts through here."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from errors import UserError
from safe_io import MODEL_BYTES, read_bytes


def read_onnx(model_file: Path) -> onnx.ModelProto:
    """Raises UserError for a missing or damaged file."""
    try:
        model = onnx.load_model_from_string(read_bytes(model_file, MODEL_BYTES))
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
