"""Zip archives that unpack to more than they say."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np

UNPACKED = 50_000_000  # bytes of the lying members


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def lying_archive(
    path: Path, name: str, begin: bytes = b"", method: int = zipfile.ZIP_BZIP2
) -> Path:
    """One member, which begins with `begin`, says that it has 1000 bytes, and unpacks to more."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, begin + bytes(UNPACKED))
    content = bytearray(path.read_bytes())
    for signature, position in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", content, content.index(signature) + position, 1000)
    path.write_bytes(content)
    return path


def archive_of(path: Path, *members: tuple[str, bytes]) -> Path:
    """A deflated archive, in which names may occur again."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore", UserWarning)
        for name, content in members:
            archive.writestr(name, content)
    return path
