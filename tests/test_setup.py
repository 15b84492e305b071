"""The search for a Python interpreter behind `make`, with a PATH of made-up ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, run_process

BASE = sys._base_executable
OTHER_VERSION = "#!/bin/sh\nexit 1\n"  # as the check answers for an unsuitable interpreter
SHIM = "#!/bin/sh\necho 'pyenv: not selected' >&2\nexit 127\n"
# Unsuitable, with pip: it installs a made-up uv, which "fetches" the interpreter of these tests.
WITH_PIP = f"""#!/bin/sh
[ "$1 $2 $3 $4" = "-m pip install --target" ] || exit 1
mkdir -p "$5/bin"
cat > "$5/bin/uv" <<'END'
#!/bin/sh
case "$2" in
  install) mkdir -p "$UV_PYTHON_INSTALL_DIR" && ln -sf {BASE} "$UV_PYTHON_INSTALL_DIR/python" ;;
  find) echo "$UV_PYTHON_INSTALL_DIR/python" ;;
esac
END
chmod +x "$5/bin/uv"
"""
# The same with venv instead of pip, as a distribution may have it: the environment brings pip.
WITH_VENV = """#!/bin/sh
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip") [ "$0" = .uv/package/bin/python ] &&
    exec pip_of_this_test -m pip install --target .uv/package ;;
  *) exit 1 ;;
esac
"""


class Project:
    """A folder with the Makefile, the script, and a PATH with nothing but the tools they need."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        (folder / "tools").mkdir()
        shutil.copy(ROOT / "tools/find_python.sh", folder / "tools")
        shutil.copy(ROOT / "Makefile", folder)
        for name in ("requirements.txt", "requirements-dev.txt", "constraints.txt"):
            (folder / name).touch()
        for tool in (
            "bash",
            "sh",
            "env",
            "dirname",
            "rm",
            "mkdir",
            "cat",
            "cp",
            "chmod",
            "ln",
            "touch",
        ):
            (self.bin / tool).symlink_to(str(shutil.which(tool)))

    def add(self, name: str, content: str) -> None:
        (self.bin / name).write_text(content)
        (self.bin / name).chmod(0o755)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Without what a surrounding `make PYTHON=...` passes on to the make that is run here."""
        outer = dict.fromkeys(("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "PYTHON"))
        return run_process(command, cwd=self.folder, environ={**outer, "PATH": str(self.bin)})

    def search(self, *names: str) -> subprocess.CompletedProcess[str]:
        return self.run("tools/find_python.sh", *names)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def real(path: str) -> Path:
    return Path(path.strip()).resolve()


def test_the_first_suitable_interpreter_is_taken(project: Project) -> None:
    """Launchers that fail and other versions are passed over."""
    project.add("python3.12", SHIM)
    project.add("python3.11", OTHER_VERSION)
    project.add("python3.13", f'#!/bin/sh\nexec {BASE} "$@"\n')
    project.add("python3", "#!/bin/sh\necho /wrong\n")
    done = project.search()
    assert (done.returncode, done.stderr) == (0, "") and real(done.stdout) == real(BASE)


def test_an_activated_environment_gives_its_base(project: Project) -> None:
    """make removes .venv/ before it makes the new one."""
    (project.bin / "python3").symlink_to(sys.executable)
    assert real(project.search().stdout) == real(BASE)
    done = project.search(sys.executable)
    assert real(done.stdout) == real(BASE) and ".venv" not in done.stdout


@pytest.mark.parametrize("python", [WITH_PIP, WITH_VENV])
def test_uv_fetches_one_into_the_project(project: Project, python: str) -> None:
    project.add("python3", python)
    project.add("pip_of_this_test", WITH_PIP)
    done = project.search()
    assert done.returncode == 0 and real(done.stdout) == real(BASE)
    assert "fetching Python 3.12 with uv into .uv/" in done.stderr
    assert (project.folder / ".uv/python/python").exists()


@pytest.mark.parametrize("uv", ["#!/bin/sh\nexit 1\n", None])
def test_without_any_the_way_out_is_named(project: Project, uv: str | None) -> None:
    """No half-made folder is left."""
    if uv:
        project.add("uv", uv)
    make = str(shutil.which("make"))
    done = project.run(make, "demo")
    assert done.returncode == 2
    assert "Python 3.10 to 3.13 with the modules venv and ensurepip is missing" in done.stderr
    assert "make PYTHON=/path/to/python" in done.stderr
    assert not (project.folder / ".uv").exists() and not (project.folder / ".venv").exists()


def test_an_interpreter_may_lie_in_a_folder_with_a_space(project: Project) -> None:
    folder = project.folder / "my python"
    folder.mkdir()
    (folder / "python3").write_text(OTHER_VERSION)
    done = project.run(str(shutil.which("make")), f"PYTHON={folder}/python3", "setup")
    assert done.returncode == 2 and f"{folder}/python3 is no Python 3.10" in done.stderr


def test_a_named_interpreter_is_the_only_one_tried(project: Project) -> None:
    (project.bin / "python3").symlink_to(BASE)
    project.add("python3.9", OTHER_VERSION)
    (project.folder / ".venv").mkdir()
    done = project.run(str(shutil.which("make")), "PYTHON=python3.9", "setup")
    assert done.returncode == 2
    assert "python3.9 is no Python 3.10 to 3.13 with the modules venv" in done.stderr
    assert (project.folder / ".venv").is_dir(), "the old environment stays"
