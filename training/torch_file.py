"""Read PyTorch checkpoints (.pt, .pth, .pth.tar) as plain data and NumPy arrays, without torch and
without executing code from the file.

Formats, from torch's `serialization.py` and `_utils.py` (versions 0.4 to 2.13). Since 1.6, a zip
archive: `<name>/data.pkl` is the content, `<name>/data/<key>` the values of a storage, and
`<name>/byteorder` their byte order (little-endian if it is absent). Before, a sequence of pickles
(magic number, version, system, content, keys of the storages), then for each key the number of
values and the values, always little-endian. In both, a tensor is a view of a storage: offset, size,
stride.
"""

from __future__ import annotations

import os
import struct
import zipfile
from math import prod
from pickle import UnpicklingError
from reprlib import repr as _show  # abbreviates long and deep values
from typing import IO, Any, Literal

import numpy as np

from errors import UserError
from safe_io import PathLike, check_members, open_file
from safe_pickle import PlainUnpickler, StandIn, pickle_mistakes, plain_dict

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_ZIP, _HEAD = b"PK\x03\x04", 512  # how zip archives begin; bytes that tell the formats apart
_MAX_RANK = 32  # of a tensor; as NumPy before version 2
_BFLOAT16 = "bfloat16"  # which NumPy does not have: the upper half of a float32
_VALUES = {  # of the storage types FloatStorage etc.
    **{"Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": _BFLOAT16, "Bool": "?"},
    **{"Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1"},
}
_ONLY_WEIGHTS = "save only the weights, with torch.save(model.state_dict(), FILE)"


class _ValueKind(StandIn):
    """Stands in for a storage type such as torch.FloatStorage."""

    def __init__(self, values: str) -> None:
        self.is_bfloat16 = values == _BFLOAT16
        self.dtype = np.dtype("u2" if self.is_bfloat16 else values)

    def read(self, content: bytes, byteorder: Literal["<", ">"]) -> np.ndarray:
        array = np.frombuffer(content, self.dtype.newbyteorder(byteorder))
        if self.is_bfloat16:
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array


class _Storage(StandIn):
    """Stands in for a storage: 1-D, `count` values. `array` is empty until they are read."""

    def __init__(self, kind: _ValueKind, count: int) -> None:
        self.kind, self.count, self.num_byte = kind, count, count * kind.dtype.itemsize
        self.array = np.empty(0)


class _Tensor(StandIn):
    """Stands in for a tensor. Unlike torch, it checks that the view is inside the storage."""

    def __init__(self, storage: _Storage, offset: int, size: tuple, stride: tuple) -> None:
        numbers = (offset, *size, *stride)
        if not isinstance(storage, _Storage) or len(size) != len(stride):
            raise UnpicklingError("a tensor without storage, or with size unlike stride")
        if len(size) > _MAX_RANK:
            raise UnpicklingError(f"a tensor of {len(size)} dimensions; allowed: {_MAX_RANK}")
        if any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
            raise UnpicklingError(f"a tensor with {_show(numbers)} for offset, size and stride")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride))
        if prod(size) and (prod(size) > storage.count or last >= storage.count):
            raise UnpicklingError(
                f"a tensor of {size} values at {offset}, stride {stride}, in a storage of "
                f"{storage.count}"
            )
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def plain(self) -> np.ndarray:
        values = self.storage.array
        if not prod(self.size):
            return np.empty(self.size, values.dtype)
        strides = [step * values.itemsize * (n > 1) for n, step in zip(self.size, self.stride)]
        return np.lib.stride_tricks.as_strided(
            values[self.offset :], self.size, strides, writeable=False
        )


def _tensor(storage: _Storage, offset: int, size: tuple, stride: tuple, *rest: Any) -> _Tensor:
    """Stands in for torch._utils._rebuild_tensor and _v2. rest: requires_grad, hooks and, since
    2.0, flags of values that are stored negated or conjugated."""
    if len(rest) > 2 and rest[2]:
        raise UnpicklingError("a tensor whose values are stored negated or conjugated")
    return _Tensor(storage, offset, size, stride)


def _device(*parts: Any) -> str:
    """Stands in for torch.device."""
    if any(type(part) not in (str, int) for part in parts):  # others may be nested without end
        raise UnpicklingError("a device that is not a text and a number")
    return " ".join(map(str, parts))


class _TorchUnpickler(PlainUnpickler):
    """Plain data, tensors and parameters. storages: the storages of the content, by key."""

    admitted = {
        **PlainUnpickler.admitted,
        ("collections", "Counter"): plain_dict,  # milestones of a learning rate schedule
        ("torch", "Size"): PlainUnpickler.admitted["builtins", "tuple"],
        ("torch", "device"): _device,
        ("torch._utils", "_rebuild_tensor"): _tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        **{("torch", f"{name}Storage"): _ValueKind(values) for name, values in _VALUES.items()},
    }
    drops_state_of = (dict,)  # a state_dict has the versions of its modules as an attribute

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(file, size)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except UnpicklingError as error:
            raise UnpicklingError(f"{error}; {_ONLY_WEIGHTS}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        """pid: ('storage', type, key, device, number of values, and in the old format a view of
        another storage or None)."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise UnpicklingError("a persistent id that is not a storage")
        _, kind, key, _, count, *view = pid
        if not isinstance(kind, _ValueKind) or not isinstance(key, str) or view not in ([], [None]):
            raise UnpicklingError(f"a storage of an unknown kind; {_ONLY_WEIGHTS}")
        if type(count) is not int or count < 0:
            raise UnpicklingError(f"a storage of {_show(count)} values")
        known = self.storages.setdefault(key, _Storage(kind, count))
        if (known.kind, known.count) != (kind, count):
            raise UnpicklingError(f"storage {key} has two different descriptions")
        return known


def is_torch_file(path: PathLike) -> bool:
    """Whether a file begins like one of torch's formats, whatever its name is; also true for other
    zip and tar archives, which `read_torch` refuses by name. Raises UserError for one that cannot
    be read."""
    with pickle_mistakes(path, "a file of weights"), open_file(path) as file:
        head = file.read(_HEAD)
    magic = _MAGIC_NUMBER.to_bytes(10, "little")
    return head.startswith(_ZIP) or _is_tar(head) or magic in head[:32]


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def read_torch(path: PathLike) -> tuple[Any, str]:
    """Content of a file of `torch.save`, with NumPy arrays for tensors, and the file's format.
    Arrays may be read-only, and share memory as the tensors did; bfloat16 becomes float32. Raises
    UserError for a missing or damaged file, anything but plain data and tensors, and an unknown
    format."""
    with pickle_mistakes(path, "a torch file of plain weights"), open_file(path) as file:
        head = file.read(_HEAD)
        file.seek(0)
        if head.startswith(_ZIP):
            return _read_zip(file), "zip"
        if _is_tar(head):
            raise UserError(
                f"{path}: a tar archive, torch's format before version 0.2 or a packed folder; "
                f"unpack it (tar -xf {path}) and name the file of weights in it, or load it with "
                "an old version of torch and save it again"
            )
        return _read_legacy(file), "legacy"


def _read_zip(file: IO[bytes]) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            return _read_archive(archive, os.fstat(file.fileno()).st_size)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, struct.error) as error:
        raise UnpicklingError(f"damaged zip archive: {error}") from error


def _read_archive(archive: zipfile.ZipFile, file_size: int) -> Any:
    # torch does not compress: a stored archive cannot contain more bytes than its file.
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UnpicklingError("a compressed zip archive, which torch does not write")
    check_members(entries, file_size)
    names = {entry.filename for entry in entries}
    tops = [name[: -len("data.pkl")] for name in names if name.endswith("/data.pkl")]
    if len(tops) != 1:
        raise UnpicklingError(f"a zip archive with {len(tops)} data.pkl instead of 1")
    top = tops[0]
    if f"{top}constants.pkl" in names:
        raise UnpicklingError(f"a TorchScript program; {_ONLY_WEIGHTS}")
    order = archive.read(f"{top}byteorder") if f"{top}byteorder" in names else b"little"
    if order not in (b"little", b"big"):
        raise UnpicklingError(f"byteorder is {order[:20]!r}; allowed: little, big")
    with archive.open(f"{top}data.pkl") as pickled:
        unpickler = _TorchUnpickler(pickled, file_size)
        content = unpickler.load()
    for key, storage in unpickler.storages.items():
        entry = f"{top}data/{key}"
        if entry not in names:
            raise UnpicklingError(f"{entry}, the values of storage {key}, is missing")
        raw = archive.read(entry)
        if len(raw) != storage.num_byte:
            raise UnpicklingError(
                f"storage {key} has {len(raw)} bytes instead of {storage.num_byte}"
            )
        storage.array = storage.kind.read(raw, ">" if order == b"big" else "<")
    return unpickler.plain(content)


def _read_legacy(file: IO[bytes]) -> Any:
    heads, size = [], os.fstat(file.fileno()).st_size
    for _ in range(3):
        heads.append(PlainUnpickler(file, size).load())
        if heads[0] != _MAGIC_NUMBER:
            raise UnpicklingError("it does not begin like torch's files")
    if heads[1] != _LEGACY_VERSION:
        raise UnpicklingError(f"format version {_show(heads[1])}; allowed: {_LEGACY_VERSION}")
    unpickler = _TorchUnpickler(file, size)
    content = unpickler.load()
    keys = PlainUnpickler(file, size).load()
    is_listed = isinstance(keys, list) and all(type(key) is str for key in keys)
    if not is_listed or sorted(keys) != sorted(unpickler.storages):
        raise UnpicklingError("its list of storages differs from its content")
    for key in keys:
        storage = unpickler.storages[key]
        (count,) = struct.unpack("<q", _read_exactly(file, 8))
        if count != storage.count:
            raise UnpicklingError(f"storage {key} has {count} values instead of {storage.count}")
        storage.array = storage.kind.read(_read_exactly(file, storage.num_byte), "<")
    return unpickler.plain(content)


def _read_exactly(file: IO[bytes], num_byte: int) -> bytes:
    """Raises EOFError, before memory is allocated, where the file has fewer bytes left."""
    left = os.fstat(file.fileno()).st_size - file.tell()
    if num_byte > left:
        raise EOFError(f"a storage needs {num_byte} bytes, the file has {left} left")
    return file.read(num_byte)
