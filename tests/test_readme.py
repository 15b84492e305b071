"""Commands of the README do what the README says: each is run, on data that the project makes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import configs
from utils import load_checkpoint

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\| .* \| `(python .*)` \|$", README, flags=re.MULTILINE)
TINY = (
    "--set dataset_args.ntu.num_frame=16 model_args.stem_channel=8 "
    "model_args.block_args=[[16,1,0],[16,1,0],[16,2,1]] scheduler_args.cosine.max_epoch=1 "
    "scheduler_args.cosine.warm_up=0 dataset_args.ntu.num_workers=0"
)


def run(command: str, folder: Path) -> str:
    python, script, *arguments = shlex.split(command)
    assert python == "python"
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_every_command_of_the_table(tmp_path: Path) -> None:
    """In the order of the table, in an empty folder, with files of the names that it uses; only
    the network is made small, and NTU recordings are synthetic ones with some other classes."""
    from dataset.synthetic import write_recordings

    write_recordings(tmp_path / "raw", subjects=(1, 2, 3), cameras=(1, 2))
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-c", "nturgbd_skeletons_s001_to_s017.zip", "raw"],
        cwd=tmp_path,
        check=True,
    )
    assert len(COMMANDS) == 10, "the table has changed: look at this test"
    generate, train, resume, evaluate, export, per_person, cut, infer, measure, synthetic = COMMANDS
    run(generate, tmp_path)
    assert "Finish training!" in run(f"{train} {TINY}", tmp_path)
    assert "Resuming" in run(f"{resume} {TINY}", tmp_path)
    (best,) = tmp_path.glob("workdir/2001_*/*/best.pdparams")
    assert load_checkpoint(best)["epoch"] == 1
    for name in ("xsub.pdparams", "xview.pdparams"):
        (tmp_path / name).write_bytes(best.read_bytes())
    x_view = "dataset_args.ntu.ntu60_path=raw"
    run(f"python main.py -c 2002 -gd --set {x_view}", tmp_path)
    assert "Top-1 accuracy" in run(f"{evaluate} {TINY}", tmp_path)
    run(f"{export} {TINY}", tmp_path)
    run(f"{per_person} {TINY}", tmp_path)
    run(cut, tmp_path)
    assert "Infer Mean Accuracy" in run(infer, tmp_path)
    assert "clips/s" in run(f"{measure} -b 2", tmp_path)
    run(f"{synthetic} --subjects 2", tmp_path)
    assert list((tmp_path / "recordings").glob("*.skeleton"))


def test_links_and_numbers() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
    for number in re.findall(r"-c (\d{4})", README):
        assert configs.load(number).name == number


def test_every_flag_in_the_documents_exists() -> None:
    """--flags in README and docs are flags of some command line of the project."""
    known = set()
    for path in [
        *ROOT.glob("*.py"),
        *(ROOT / "dataset").glob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]:
        known |= set(re.findall(r'"(--?[a-zA-Z_]+)"', path.read_text(encoding="utf-8")))
    dropped = {"--visualize", "--static", "--dataset_args", "--model_args", "--optimizer_args"}
    dropped |= {"--scheduler_args", "--help"}
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        used = set(re.findall(r"(?<![\w-])--[a-zA-Z_]+", page.read_text(encoding="utf-8")))
        assert used - known - dropped == set(), page.name
