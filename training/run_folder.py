"""The folder of a run, and the record of how the run was started (run.yaml)."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import configs
from configs.schema import Config
from errors import UserError
from safe_io import PathLike, file_hash, read_yaml_file, whole_file
from training import parallel


def new_run_dir(config: Config, prefix: str = "") -> Path:
    """Create a folder <work_dir>/<run_name>/<prefix><time> with the resolved config in it."""
    parent = Path(config.work_dir) / config.run_name
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        run_dir = parent / f"{prefix}{stamp}{suffix}"
        try:
            run_dir.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{run_dir}: cannot be created: {error.strerror}") from error
        break
    with whole_file(run_dir / "config.yaml", "w") as file:
        file.write(configs.dump(config))
    return run_dir


def last_checkpoint(config: Config) -> Path:
    """The checkpoint that -r continues: -pp, or that of this configuration's newest run. Raises
    UserError where there is none."""
    if config.pretrained_path:
        return Path(config.pretrained_path)
    parent = Path(config.work_dir) / config.run_name
    runs = sorted(parent.glob("[0-9]*"))
    if runs and os.path.isfile(runs[-1] / "last.pdparams"):
        return runs[-1] / "last.pdparams"
    what = f"{runs[-1]} has no last.pdparams yet" if runs else f"there is no run in {parent}"
    raise UserError(
        f"nothing to resume: {what}; start a new run: python main.py -c {config.name}, or name "
        "a checkpoint with -pp"
    )


def record_session(
    run_dir: Path, command: str, seed: int, data: Sequence[tuple[Path, int]]
) -> None:
    """Append this session to the list in run.yaml. command: as it was typed. data: (clip file,
    number of its clips that are used). Raises UserError for a damaged run.yaml."""
    import paddle

    path = run_dir / "run.yaml"
    content: Any = {"sessions": []}
    if os.path.isfile(path):
        content = read_yaml_file(path)
        if not isinstance(content, dict) or not isinstance(content.get("sessions"), list):
            raise UserError(f"{path}: has no list of sessions; remove it to resume this run")
    folder = data[0][0].parent
    manifest = folder / "manifest.json"
    session = {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "seed": seed,
        "world_size": parallel.world().size,
        "device": paddle.device.get_device(),
        "data": {
            "folder": str(folder),
            "manifest_sha256": file_hash(manifest) if os.path.isfile(manifest) else None,
            "clips": {path.stem.removesuffix("_data"): count for path, count in data},
        },
        "git": git_state(Path(__file__).resolve().parent.parent),
        "python": platform.python_version(),
        "paddle": paddle.version.full_version,
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
    content["sessions"].append(session)
    with whole_file(path, "w") as file:
        yaml.safe_dump(content, file, sort_keys=False, width=1000)


def git_state(folder: PathLike) -> dict[str, Any] | None:
    """Revision of a checkout, and whether a tracked file differs from it; None outside of one."""
    top, revision = (_git(folder, "rev-parse", what) for what in ("--show-toplevel", "HEAD"))
    if top is None or revision is None or Path(top).resolve() != Path(folder).resolve():
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"revision": revision, "dirty": bool(changes)}


def _git(folder: PathLike, *arguments: str) -> str | None:
    # Without the lock of `git status`, which would block another git command of the user.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:  # git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None
