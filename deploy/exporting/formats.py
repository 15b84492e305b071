"""File formats of static models, and their publication under the final names."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from errors import UserError
from safe_io import whole_file

PARAMS = ".pdiparams"


class Format(NamedTuple):
    """program: ending of the file that engines load. files: endings of all files, in the order in
    which they are published."""

    program: str
    files: tuple[str, ...]


FORMATS = {
    "paddle": Format(".pdmodel", (PARAMS, ".pdmodel", ".meta.yaml")),
    "onnx": Format(".onnx", (".onnx",)),
    "json": Format(".json", (PARAMS, ".json", ".meta.yaml")),
}


def publish(draft: Path, target: Path, files: tuple[str, ...]) -> None:
    """Write the checked files `draft` + ending under their final names, `target` + ending.

    Files of an older model are removed first, its metadata before the rest, and the new metadata is
    written last: even after a kill no two files of different models lie side by side. Raises
    UserError where the folder is not writable.
    """
    try:
        for ending in reversed(files):
            Path(f"{target}{ending}").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{target.parent}: cannot be written: {error.strerror}") from error
    for ending in files:
        with whole_file(f"{target}{ending}") as file:
            file.write(Path(f"{draft}{ending}").read_bytes())


def refuse_shared_params(target: Path, chosen: Format) -> None:
    """Raises UserError where a model of Paddle's other format has the same name: the two would
    share one .pdiparams and one .meta.yaml."""
    for other in FORMATS.values():
        program = Path(f"{target}{other.program}")
        shares = PARAMS in chosen.files and PARAMS in other.files and other != chosen
        if shares and program.exists():
            raise UserError(
                f"{program} exists, and {target}{PARAMS} belongs to it; choose another "
                "--save_dir, or remove it first"
            )
