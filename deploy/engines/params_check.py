"""Weights of a static model (.pdiparams), compared with the program before any engine reads them:
engines trust the sizes in the file.

The file is a sequence of tensors in the order of their names, which only the program has. Each is:
uint32 0; uint64 levels of detail, none here; uint32 0; int32 length of the description; the
description, a protocol buffer of type and shape; the values (Paddle 3.1, `SerializeToStream`)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError

from deploy.engines.program_check import PARAMETER, paddle_format, read_paddle, read_pir
from errors import UserError
from safe_io import MODEL_BYTES, read_bytes

_HEAD = struct.Struct("<IQIi")
# Paddle's number of a type -> bytes of a value: bool, integers, and floats
_BYTES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2}
_PIR_TYPES = {
    **{"bool": 0, "i16": 1, "i32": 2, "i64": 3, "f16": 4, "f32": 5, "f64": 6},
    **{"ui8": 20, "i8": 21, "bf16": 22},
}
_DENSE = 7  # Paddle's number of the kind of variable that holds a tensor


class Tensor(NamedTuple):
    """kind: Paddle's number of the type of its values."""

    kind: int
    shape: tuple[int, ...]


def check_params(model_file: Path, params_file: Path) -> None:
    """Raises UserError where the weights are not exactly the tensors of the program (.pdmodel or
    .json)."""
    named = _of_pir if model_file.suffix == ".json" else _of_paddle
    try:
        wanted = [tensor for _, tensor in sorted(named(model_file))]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{model_file}: not a static model of Paddle") from error
    content = memoryview(read_bytes(params_file, MODEL_BYTES))
    try:
        fits = _read(content, len(wanted)) == wanted
    except (struct.error, DecodeError, KeyError) as error:
        raise UserError(f"{params_file}: damaged; export the model again") from error
    if not fits:
        raise UserError(
            f"{params_file}: not the weights of {model_file.name}: other shapes, or another number "
            "of them; export again"
        )


def _read(content: memoryview, count: int) -> list[Tensor]:
    """The tensors in a file, `count` or one more. Raises struct.error for another format, or
    KeyError for an unknown type."""
    found: list[Tensor] = []
    at = 0
    while at < len(content) and len(found) <= count:
        version, levels, inner, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        if version or levels or inner or not 0 <= length <= len(content) - at:
            raise struct.error("another format")
        about = paddle_format().VarType.TensorDesc()
        about.ParseFromString(bytes(content[at : at + length]))
        tensor = Tensor(about.data_type, tuple(about.dims))
        at += length + _BYTES[tensor.kind] * prod(tensor.shape)
        if min(tensor.shape, default=0) < 0 or at > len(content):
            raise struct.error("more values than bytes")
        found.append(tensor)
    return found


def _of_paddle(model_file: Path) -> Iterator[tuple[str, Tensor]]:
    for var in read_paddle(model_file).blocks[0].vars:
        if var.persistable and var.type.type == _DENSE:
            about = var.type.dense_tensor.tensor
            yield var.name, Tensor(about.data_type, tuple(about.dims))


def _of_pir(model_file: Path) -> Iterator[tuple[str, Tensor]]:
    for op in read_pir(model_file)["program"]["regions"][0]["blocks"][0]["ops"]:
        if op["#"] == PARAMETER:
            kind, shape = op["O"]["TT"]["D"][:2]
            yield op["A"][3], Tensor(_PIR_TYPES[kind["#"].removeprefix("0.t_")], tuple(shape))
