"""Writes torch's two checkpoint formats without torch: its global names are written as opcodes."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
STORAGE_TYPES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclass(frozen=True)
class Name:
    """A global name, written without an import. args: of a call of it, if not None."""

    module: str
    name: str
    args: tuple | None = None

    def __call__(self) -> None:
        """Never called: pickle checks that the object is callable."""


class Storage:
    """Values stored under a key. type_name and count: as the file declares them."""

    def __init__(self, values: np.ndarray, key: str, type_name: str = "", count: int = -1) -> None:
        self.values, self.key = values.ravel(), key
        self.type_name = type_name or STORAGE_TYPES[values.dtype.name]
        self.count = values.size if count < 0 else count


@dataclass(frozen=True)
class Tensor:
    """A view of a storage. offset and stride: numbers of values."""

    storage: Storage
    offset: int
    size: tuple
    stride: tuple
    rebuild: str = "_rebuild_tensor_v2"
    rest: tuple = (False, {})


def tensor(array: np.ndarray, key: str) -> Tensor:
    """A contiguous tensor with a storage of its own."""
    array = np.array(array, order="C")
    strides = tuple(step // array.itemsize for step in array.strides)
    return Tensor(Storage(array, key), 0, array.shape, strides)


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: tensor(array, str(n)) for n, (name, array) in enumerate(arrays.items())}


class _Pickler(pickle._Pickler):
    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, file: Any, legacy: bool) -> None:
        super().__init__(file, protocol=2)
        self.legacy = legacy
        self.storages: dict[str, Storage] = {}

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        self.storages[obj.key] = obj
        pid = ("storage", Name("torch", obj.type_name), obj.key, "cpu", obj.count)
        return (*pid, None) if self.legacy else pid

    def save_name(self, obj: Name) -> None:
        if obj.args is None:
            self.write(b"c%s\n%s\n" % (obj.module.encode(), obj.name.encode()))
        else:
            self.save_reduce(Name(obj.module, obj.name), obj.args)

    def save_tensor(self, obj: Tensor) -> None:
        args = (obj.storage, obj.offset, obj.size, obj.stride, *obj.rest)
        self.save_reduce(Name("torch._utils", obj.rebuild), args, obj=obj)

    dispatch[Name], dispatch[Tensor] = save_name, save_tensor


def _content(content: Any, legacy: bool) -> tuple[bytes, dict[str, Storage]]:
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, legacy)
    pickler.dump(content)
    return buffer.getvalue(), pickler.storages


def write_zip(path: Path, content: Any, byteorder: str | None = "little", **extra: bytes) -> Path:
    """extra: further entries, or other bytes of an entry; data_pkl stands for 'data.pkl'."""
    pickled, storages = _content(content, legacy=False)
    order = ">" if byteorder == "big" else "<"
    entries = {"data.pkl": pickled, "version": b"3\n"}
    if byteorder:
        entries["byteorder"] = byteorder.encode()
    for key, storage in storages.items():
        entries[f"data/{key}"] = storage.values.astype(storage.values.dtype.newbyteorder(order))
    entries.update({name.replace("_", "."): raw for name, raw in extra.items()})
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in entries.items():
            archive.writestr(f"archive/{name}", bytes(raw))
    return path


def write_legacy(path: Path, content: Any) -> Path:
    pickled, storages = _content(content, legacy=True)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    keys = sorted(storages)
    with open(path, "wb") as file:
        for head in (MAGIC_NUMBER, 1001, system):
            pickle.dump(head, file, protocol=2)
        file.write(pickled)
        pickle.dump(keys, file, protocol=2)
        for key in keys:
            values = storages[key].values
            file.write(struct.pack("<q", values.size))
            file.write(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return path


WRITERS = {"zip": write_zip, "legacy": write_legacy}
