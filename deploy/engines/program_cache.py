"""OpenVINO's compiled programs, kept in the user's cache for the next start: compiling takes four
times as long as loading one. A file there is used only where it belongs to the same model,
settings, OpenVINO and processor, and is whole; else the program is compiled again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import openvino

from errors import UserError
from safe_io import MODEL_BYTES, read_bytes, user_cache, whole_file

MAX_BLOBS = 64  # files kept, some 2 MB each
_SUFFIX = ".program"
_DIGEST = hashlib.sha256().digest_size


def compiled(
    core: openvino.Core, model: openvino.Model, identity: str, settings: dict[str, Any]
) -> openvino.CompiledModel:
    """The program of a model for the CPU. identity: of the model's files and of its shapes. Raises
    RuntimeError where OpenVINO cannot compile it."""
    folder = user_cache("openvino")
    if folder is None:
        return core.compile_model(model, "CPU", settings)
    machine = core.get_property("CPU", "FULL_DEVICE_NAME"), openvino.get_version()
    able = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    key = json.dumps([identity, settings, machine, able], sort_keys=True).encode()
    file = folder / f"{hashlib.sha256(key).hexdigest()}{_SUFFIX}"
    with contextlib.suppress(UserError, RuntimeError):
        if blob := _read(file, key):
            return core.import_model(blob, "CPU", settings)
    program = core.compile_model(model, "CPU", settings)
    with contextlib.suppress(UserError, OSError):
        _make_room(folder)
        blob = program.export_model().getvalue()
        with whole_file(file) as out:
            out.write(hashlib.sha256(key + blob).digest() + blob)
    return program


def _read(file: Path, key: bytes) -> bytes:
    """The program in a file; empty where there is none, or one of another key."""
    if not os.path.lexists(file):
        return b""
    content = read_bytes(file, MODEL_BYTES)
    digest, blob = content[:_DIGEST], content[_DIGEST:]
    return blob if hashlib.sha256(key + blob).digest() == digest else b""


def _make_room(folder: Path) -> None:
    """Remove the oldest files above the limit, and those of earlier versions of this project."""
    files = sorted(folder.glob(f"*{_SUFFIX}"), key=os.path.getmtime)
    for file in [*files[: max(len(files) - MAX_BLOBS + 1, 0)], *folder.glob("*.blob")]:
        file.unlink(missing_ok=True)
