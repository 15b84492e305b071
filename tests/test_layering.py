"""Which module may import which (docs/architecture.md), and rules for every source file."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

from tests.processes import ROOT, run_process, run_python

FOLDERS = ["configs", "dataset", "reader", "model", "scheduler", "deploy", "training"]
FOLDERS += ["apps", "tools", "benchmarks"]
OURS = {*FOLDERS, *(path.stem for path in ROOT.glob("*.py"))}
SHARED = {"errors", "safe_io", "safe_pickle"}  # which everything may import
COMMAND_LINES = {"main", "export", "infer", "recognise"}
# Folder or file -> what it may import beside SHARED.
MAY_IMPORT = {
    "errors.py": set(),
    "safe_io.py": set(),
    "safe_pickle.py": set(),
    "utils.py": {"paddle"},
    "report.py": set(),
    "configs": {"configs"},
    "scheduler": set(),
    "dataset": {"dataset", "configs.data"},
    # Hands clips to Paddle's DataLoader.
    "dataset/feeder.py": {"dataset", "paddle"},
    # Knows the settings of data and of networks.
    "dataset/identity.py": {"dataset", "configs"},
    "reader": {
        *("reader", "dataset.kinetics_labels", "dataset.labels"),
        *("dataset.padding", "dataset.protocols", "dataset.skeletons"),
    },
    "model": {"model", "paddle"},
    # Joins the argument dataclasses, the graphs and the networks, which know nothing of each other.
    "model/build.py": {"configs", "dataset", "model", "paddle"},
    "deploy": {"deploy", "configs", "dataset", "model", "report", "utils", "paddle"},
    "training": {"training", "configs", "dataset", "model", "deploy", "utils", "report", "paddle"},
    "generator.py": {"configs", "dataset", "reader"},
    "initializer.py": {"configs", "dataset", "training", "scheduler", "utils", "paddle"},
    "processor.py": {"configs", "training", "deploy", "utils", "report"},
    "apps": {"apps", "dataset", "reader", "deploy", "report", "utils"},
    # Command lines.
    "main.py": {
        *("configs", "dataset", "training", "deploy", "utils"),
        *("generator", "initializer", "processor"),
    },
    "export.py": {"configs", "dataset", "training", "deploy", "utils"},
    "infer.py": {"dataset", "deploy", "reader", "utils"},
    "recognise.py": {"apps", "dataset", "deploy", "reader", "utils"},
    # Programs that nothing imports.
    "tools": {*OURS, "paddle"},
    "benchmarks": {*OURS, "paddle"},
}
SOURCES = sorted(ROOT.glob("*.py"))
SOURCES += sorted(path for name in FOLDERS for path in (ROOT / name).glob("**/*.py"))
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))


def imports_of(path: Path) -> set[str]:
    """Full names of all that a file imports, at any depth: 'a.b' for `import a.b`, 'a.b.c' for
    `from a.b import c`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@each_source
def test_imports_follow_the_table(path: Path) -> None:
    file = path.relative_to(ROOT).as_posix()
    allowed = MAY_IMPORT.get(file, MAY_IMPORT.get(file.split("/")[0]))
    assert allowed is not None, f"{file} has no row in the table"
    for name in imports_of(path):
        top = name.split(".")[0]
        if top in (OURS | {"paddle"}) - SHARED:
            assert any(name == a or name.startswith(f"{a}.") for a in allowed), f"{file}: {name}"


def test_no_import_cycle_between_files() -> None:
    """Imports inside functions and for type checking count too."""
    modules = {module_of(path) for path in SOURCES}
    graph = {module_of(path): project_imports(path, modules) for path in SOURCES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def project_imports(path: Path, modules: set[str]) -> set[str]:
    """Those of the project's modules that a file imports itself."""
    folder = path.relative_to(ROOT).parent.as_posix()
    found = set()
    for name in imports_of(path):
        names = [name, name.rpartition(".")[0]]  # of a module, or of something inside one
        if folder in ("tools", "benchmarks"):  # a script finds the files beside it by bare name
            names += [f"{folder}.{name}" for name in names]
        found |= set([name for name in names if name in modules][:1])
    return found


def module_of(path: Path) -> str:
    """'deploy/engines/engine.py' -> 'deploy.engines.engine'; of a package, its `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@each_source
def test_command_lines_are_imported_by_no_module(path: Path) -> None:
    """They parse, load and dispatch; they hold nothing to share."""
    found = {name.split(".")[0] for name in imports_of(path)} & COMMAND_LINES
    assert not found, f"{path.relative_to(ROOT)} imports {found}"


@each_source
def test_questions_about_paths_never_raise(path: Path) -> None:
    """os.path answers False for a name that is too long or not allowed; pathlib raises."""
    asked = [
        node.func
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args
    ]
    found = [f for f in asked if f.attr in ("is_file", "is_dir", "exists")]
    of_zip = [f for f in found if isinstance(f.value, ast.Name) and f.value.id == "info"]
    assert len(found) == len(of_zip), f"{path.name}: os.path.isfile, isdir and exists"


# Calls that open a file by its name, and the files that need them for other reasons.
OPENERS = {
    *("open", "os.open", "io.open", "av.open", "Image.open", "imread", "zipfile.ZipFile"),
    *("np.load", "np.loadtxt", "np.genfromtxt", "np.fromfile", "np.memmap", "onnx.load"),
}
OPENS = {
    "safe_io.py": {"open", "os.open", "np.load"},
    "errors.py": {"os.open"},  # the null device
    "dataset/writer.py": {"os.open"},  # the lock of a folder
    "training/board.py": {"imread"},  # a figure that this process has drawn
    "apps/video/weights.py": {"open", "zipfile.ZipFile"},  # in a temporary folder of its own
    # Given an open file:
    "training/torch_file.py": {"zipfile.ZipFile", "archive.open"},
    "reader/ntu/recordings.py": {"zipfile.ZipFile"},
    "reader/keypoint/table.py": {"np.loadtxt"},
    # After `check_file`, or given an open file:
    "reader/keypoint/folder.py": {"np.load"},
    # A file for writing, one after `check_file`, a camera:
    "apps/video/output.py": {"av.open"},
    "apps/video/frames.py": {"av.open", "Image.open"},
}


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parent.name != "benchmarks"], ids=str)
def test_files_are_opened_in_one_place(path: Path) -> None:
    """`safe_io.open_file`, which refuses pipes, devices and files that are too large."""
    file = path.relative_to(ROOT).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = {name for call in calls if (name := ast.unparse(call)) in OPENERS}
    methods = ("read_text", "read_bytes", "open")
    found |= {ast.unparse(c) for c in calls if isinstance(c, ast.Attribute) and c.attr in methods}
    assert found == OPENS.get(file, set()), file


# Test files that run without Paddle, whose import takes longer than most of these tests.
WITHOUT_PADDLE = [
    *("augment", "configs", "data_check", "features", "generator", "generator_safety", "graph"),
    *("keypoint_reader", "kinetics_reader", "matching", "pipeline", "prenormalise", "reader"),
    *("safe_io", "safe_pickle", "schedules", "skeletons", "synthetic", "synthetic_clips"),
    *("tracking", "weight_names"),
]


@pytest.mark.parametrize(
    ("names", "option"),
    [(WITHOUT_PADDLE, "--collect-only"), (["configs", "features"], "--exitfirst")],
)
def test_tests_of_readers_and_data_never_import_paddle(names: list[str], option: str) -> None:
    code = (
        "import sys, pytest\n"
        "code = pytest.main(sys.argv[1:])\n"
        "sys.exit(code or 3 * ('paddle' in sys.modules))"
    )
    files = [f"tests/test_{name}.py" for name in names]
    done = run_python("-c", code, "-p", "no:cacheprovider", option, *files)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_large_or_private_is_tracked() -> None:
    done = run_process(["git", "ls-files"])
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, done.stdout.splitlines()):
        path = ROOT / name
        if path.is_file():
            assert path.stat().st_size < 250_000, name
            assert path.suffix not in {".skeleton", ".pdparams", ".pdmodel", ".pyc"}, name


@each_source
def test_public_functions_are_documented(path: Path) -> None:
    """Docstrings of modules, and of public classes and functions at their top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {"parse", "main", "train", "evaluate", "generate", "extract"}  # of command lines
    assert ast.get_docstring(tree) is not None or not tree.body
    if path.parent.name in ("tools", "benchmarks"):
        return
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            on_root = path.parent == ROOT and node.name in silent
            if not on_root and node.name not in ("parse", "main"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
