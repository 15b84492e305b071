"""Each kind of file that users hand in, mutated: an answer, or one line of at most 300 characters
and exit code 2, within 20 s and 2 GB; no traceback, no signal, and no code of a file is run.

$SKELETON_FUZZ is the number of cases of each kind (default 12; `make fuzz`: 1000),
$SKELETON_FUZZ_SEED selects others (default 0).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.fuzz_cases import CANARY
from tests.fuzz_kinds import KINDS
from tests.fuzz_worker import Case, Outcome, fuzz, printed_line_of, to_file

COUNT = int(os.environ.get("SKELETON_FUZZ", "12"))
SEED = int(os.environ.get("SKELETON_FUZZ_SEED", "0"))
SECONDS = 20.0
LONGEST = 300  # characters of a message, without its paths
MEMORY = 2 * 2**30  # bytes of data of the process


def prepare(name: str, base: Path) -> Case:
    """In the worker process: what runs one case of a kind."""
    import utils

    utils.prepare_process(cpu_setup=False)
    import deploy.engines.probe

    deploy.engines.probe.SECONDS = SECONDS - 2
    files = base / "files"
    if not files.exists():
        draft = base / "draft"
        draft.mkdir()
        KINDS[name].make(draft)
        draft.rename(files)
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    return partial(run_case, name=name, files=files)


def run_case(number: int, name: str, files: Path) -> Outcome:
    kind, rng = KINDS[name], random.Random(f"{SEED}-{name}-{number}")
    folder, stderr = Path(f"case-{number}").absolute(), Path(f"{number}.txt").absolute()
    shutil.copytree(files, folder)
    file = rng.choice(sorted(kind.files))
    mutation = rng.choice(kind.files[file])
    mutation(rng, folder / file)
    kind.finish(folder)
    what = f"case {number}, {mutation.__name__} of {file}"
    with to_file(stderr):
        code = kind.read(folder, rng)
    if Path(CANARY).exists() or any(folder.rglob(CANARY)):
        return f"{what}: code of the file was run", False
    if code:
        text = stderr.read_text(encoding="utf-8", errors="replace")
        length = len(re.sub(rf"{re.escape(str(folder))}[^\s'\",;:]*", "", text))
        wrong = printed_line_of(stderr, code) or f"{length} characters" * (length > LONGEST)
        made = [f.name for top in folder.glob("out*") for f in (top, *top.rglob("*"))]
        left = [name for name in made if Path(name).suffix and name != "report.txt"]
        wrong = wrong or f"left {left}" * bool(left)
        if wrong:
            return f"{what}: {wrong}", False
    shutil.rmtree(folder)
    return "", code == 0


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.slow
def test_a_kind_of_file(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if name == "onnx":
        request.getfixturevalue("converter")
    found, answers = fuzz(partial(prepare, name), tmp_path, range(COUNT), SECONDS + 10)
    assert not found, "\n".join(found)
    assert answers < COUNT, "some mutations are refused"
