"""Who may import whom (docs/architecture.md), and rules that keep the house in order."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"configs", "dataset", "reader", "model", "scheduler", "deploy", "training"} | {
    p.stem for p in ROOT.glob("*.py")
}
# Folder or file -> what it may import; everything may import errors and safe_io.
MAY_IMPORT = {
    "errors.py": set(),
    "safe_io.py": set(),
    "utils.py": {"paddle"},
    "report.py": set(),
    "configs": {"configs"},
    "scheduler": set(),
    "dataset": {"dataset", "configs.data"},
    # Hands clips to Paddle's DataLoader.
    "dataset/feeder.py": {"dataset", "paddle"},
    "reader": {"reader", "dataset.padding", "dataset.protocols", "dataset.skeletons"},
    "model": {"model", "paddle"},
    # Joins the argument dataclasses, the graphs and the networks, which know nothing of each other.
    "model/build.py": {"configs", "dataset", "model", "paddle"},
    "deploy": {"deploy", "dataset", "model", "utils", "paddle"},
    "training": {"training", "configs", "dataset", "model", "deploy", "utils", "report", "paddle"},
    "generator.py": {"configs", "dataset", "reader"},
    "initializer.py": {
        *("configs", "dataset", "model", "scheduler", "training", "utils", "paddle")
    },
    "processor.py": {"training", "deploy", "utils", "report"},
    "main.py": {
        *("configs", "utils", "training.parallel", "training.run_folder", "training.session"),
        *("generator", "initializer", "processor", "export", "deploy"),
    },
    "export.py": {
        "configs",
        "dataset",
        "deploy",
        "model",
        "training.checkpoint",
        "utils",
        "paddle",
    },
    "infer.py": {"utils", "report", "deploy", "dataset"},
}
SOURCES = sorted(ROOT.glob("*.py"))
SOURCES += sorted(path for name in OURS for path in (ROOT / name).glob("**/*.py"))


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_table(path: Path) -> None:
    place = str(path.relative_to(ROOT))
    allowed = MAY_IMPORT.get(place, MAY_IMPORT.get(place.split("/")[0]))
    assert allowed is not None, f"{place} has no row in the table"
    for name in imports_of(path):
        top = name.split(".")[0]
        if top in (OURS | {"paddle"}) - {"errors", "safe_io"}:
            assert any(name == a or name.startswith(f"{a}.") for a in allowed), f"{place}: {name}"


def test_nothing_large_or_private_is_tracked() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, done.stdout.splitlines()):
        path = ROOT / name
        if path.is_file():
            assert path.stat().st_size < 250_000, name
            assert path.suffix not in {".skeleton", ".pdparams", ".pdmodel", ".pyc"}, name


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_are_documented(path: Path) -> None:
    """Modules, and public classes and functions at their top level, say what they are for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {"parse", "main", "train", "evaluate", "generate", "extract"}  # command lines
    assert ast.get_docstring(tree) is not None or not tree.body
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            on_root = path.parent == ROOT and node.name in silent
            if not on_root and node.name not in ("parse", "main"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
