"""The command line from data on disk to a trained, resumed and evaluated network."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from networks import network_of

import configs
import main as cli
from errors import run_command
from tests.processes import run_python
from training.checkpoint import load_checkpoint, save_checkpoint

# Dies as by kill -9 at the moment when the third last.pdparams would get its name.
DIE_WHILE_SAVING = """
import os, signal, sys
import safe_io
real, seen = os.replace, []
def replace(source, target):
    seen.extend([target] if str(target).endswith("last.pdparams") else [])
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
safe_io.os.replace = replace
import main
sys.exit(main.main(sys.argv[1:]))
"""

AUGMENT = ("random_rotate=20", "random_choose=12", "jitter=0.01")


def run_dirs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "work/9001_EfficientGCN-B0_synthetic-xsub").iterdir())


def weights(run_dir: Path, name: str = "last") -> dict[str, np.ndarray]:
    return load_checkpoint(run_dir / f"{name}.pdparams")["model"]


def run_main(*argv: str) -> str:
    """What main.py prints, in a process of its own that must end well."""
    done = run_python("main.py", *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@dataclass(frozen=True)
class Finished:
    """A training of 4 epochs that nothing interrupted. argv: of main.py, but for the work_dir."""

    argv: Callable[[Path], list[str]]
    run_dir: Path
    log: str

    def copy_to(self, tmp_path: Path) -> Path:
        """The run's folder in a work_dir of a test's own."""
        shutil.copytree(self.run_dir.parent, tmp_path / "work" / self.run_dir.parent.name)
        return run_dirs(tmp_path)[0]


@pytest.fixture(scope="module")
def finished(
    small_run: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """Trained in a process of its own, as a user's is: a static engine that ran in this process may
    have changed the number of MKL's threads, and with it the order of sums."""

    def argv(tmp_path: Path) -> list[str]:
        augment = [f"dataset_args.ntu.augment.{key}" for key in AUGMENT]
        return ["-c", "9001", "-np", *small_run(tmp_path / "work"), *augment]

    folder = tmp_path_factory.mktemp("finished")
    log = run_main(*argv(folder))
    (run_dir,) = run_dirs(folder)
    return Finished(argv, run_dir, log)


@pytest.mark.slow
def test_training_leaves_curves_log_and_configuration(finished: Finished) -> None:
    log, run_dir = finished.log, finished.run_dir
    assert re.search(r"Epoch: 4/4, Training accuracy: \d+/24\(\d+\.\d\d%\), Training time: ", log)
    pattern = r"Top-1 accuracy: \d+/24\(.*%\), Top-5 accuracy: \d+/24\(.*%\), Mean loss:\d+\.\d{4}"
    assert re.search(pattern, log)
    assert re.search(r"Evaluating time: .*s, Speed: .* sequences/second", log)
    assert len(list(csv.reader((run_dir / "curves.csv").open()))) == 5
    assert (run_dir / "curves.png").is_file()
    assert "Finish training!" in (run_dir / "log.txt").read_text()
    assert configs.load(str(run_dir / "config.yaml")).dataset_args.ntu.num_frame == 16


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(finished: Finished, tmp_path: Path) -> None:
    """Killed while it saves its third checkpoint, resumed in the same folder: weights, optimizer
    and history are those of the run that nothing interrupted."""
    argv = finished.argv(tmp_path)
    assert run_python("-c", DIE_WHILE_SAVING, *argv).returncode == -9
    (run_dir,) = run_dirs(tmp_path)
    assert load_checkpoint(run_dir / "last.pdparams")["epoch"] == 2
    assert list(run_dir.glob(".*.part"))
    run_main("-r", *argv)
    assert not list(run_dir.glob(".*.part"))
    assert run_dirs(tmp_path) == [run_dir]
    resumed, whole = (load_checkpoint(d / "last.pdparams") for d in (run_dir, finished.run_dir))
    assert_same(resumed["model"], whole["model"])
    assert resumed["history"] == whole["history"] and resumed["epoch"] == 4
    for name, array in resumed["opt"].items():
        np.testing.assert_array_equal(array, whole["opt"][name])


@pytest.mark.slow
def test_evaluation_repeats_the_best_epoch_at_any_batch_size(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights_file = finished.run_dir / "best.pdparams"
    argv = ["-e", "-pp", str(weights_file), *finished.argv(tmp_path)]
    best = load_checkpoint(weights_file)["best_state"]
    right = round(24 * float(best["acc_top1"]))
    for keys in ([], *([f"dataset_args.ntu.eval_batch_size={batch}"] for batch in (5, 24))):
        assert cli.main([*argv, *keys]) == 0
        log = capsys.readouterr().out
        assert f"Top-1 accuracy: {right}/24" in log and "Mean class accuracy" in log
    evaluation = run_dirs(tmp_path)[0]
    assert evaluation.name.startswith("evaluate-eval")
    matrix = np.array(list(csv.reader((evaluation / "confusion.csv").open())))[1:, 1:].astype(int)
    np.testing.assert_array_equal(matrix, best["cm"])
    assert "Model: EfficientGCN-B0" in (evaluation / "log.txt").read_text()


@pytest.mark.slow
def test_what_cannot_be_resumed_is_named(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other settings, a complete run, a newest run without a checkpoint."""
    argv = ["-r", *finished.argv(tmp_path)]
    run_dir = finished.copy_to(tmp_path)
    assert run_command(lambda: cli.main([*argv, "model_args.drop_prob=0.5"])) == 2
    assert "other settings of model_args.drop_prob" in capsys.readouterr().err
    assert cli.main(argv) == 0
    assert "complete: nothing to resume" in capsys.readouterr().out
    (run_dir.parent / "2099-01-01_00-00-00").mkdir()
    assert run_command(lambda: cli.main(argv)) == 2
    assert "2099-01-01_00-00-00 has no last.pdparams" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        *({"opt": {}}, {"epoch": "x"}, {"epoch": -5}, {"epoch": True}, {"history": [{}]}),
        *({"history": [{"epoch": "1"}]}, {"history": []}, {"best_state": {}}, {"best_state": 5}),
    ],
    ids=str,
)
def test_a_damaged_checkpoint_is_named(
    finished: Finished, change: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = load_checkpoint(finished.run_dir / "last.pdparams")
    save_checkpoint(tmp_path / "odd.pdparams", {**content, **change})
    argv = ["-r", *finished.argv(tmp_path), "-pp", str(tmp_path / "odd.pdparams")]
    assert run_command(lambda: cli.main(argv)) == 2
    assert "odd.pdparams" in capsys.readouterr().err


@pytest.mark.slow
def test_odd_parts_of_a_checkpoint_are_named(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = load_checkpoint(finished.run_dir / "last.pdparams")
    best, (row, *rows) = content["best_state"], content["history"]
    name, velocity = next(iter(content["opt"].items()))
    odd = {
        "best_state": [
            {**best, "cm": -best["cm"]},
            {**best, "cm": np.zeros((2, *best["cm"].shape))},
        ],
        "history": [[{**row, "train_loss": "low"}, *rows], [{**row, "epoch": 2}, *rows]],
        "opt": [
            {**content["opt"], name: value}
            for value in (velocity[None], velocity * np.nan, velocity.astype("U"), [1.0], None)
        ],
    }
    odd["best_state"] += [{**best, "epoch": 99}, {**best, "acc_top5": np.inf}, {**best, "cm": "x"}]
    for part, values in odd.items():
        for value in values:
            save_checkpoint(tmp_path / "odd.pdparams", {**content, part: value})
            argv = ["-r", *finished.argv(tmp_path), "-pp", str(tmp_path / "odd.pdparams")]
            assert run_command(lambda argv=argv: cli.main(argv)) == 2, value
            error = capsys.readouterr().err
            what = name if part == "opt" else part
            assert what in error and error.count("\n") == 1, error


@pytest.mark.slow
def test_settings_that_change_a_run(tiny_keys: list[str], tmp_path: Path) -> None:
    """Seed, starting weights, optimizer, schedule and debug all reach the training."""
    epochs = ["scheduler_args.cosine.max_epoch=2", "scheduler_args.step.max_epoch=2"]
    keys = [*tiny_keys, *epochs, "scheduler_args.step.warm_up=0"]

    def last_weights(*extra: str) -> dict[str, np.ndarray]:
        before = set((tmp_path / "work").glob("*/*"))
        assert cli.main(["-c", "9001", "-np", *extra, *keys]) == 0
        (run_dir,) = set((tmp_path / "work").glob("*/*")) - before
        return weights(run_dir)

    plain = last_weights()
    assert_same(plain, last_weights("-db"))  # 24 clips are below debug's limit
    assert_same(plain, last_weights("--set", "dataset_args.ntu.num_workers=2"))
    for extra in (["-s", "2"], ["-o", "Adam"], ["-ls", "step"]):
        bias = last_weights(*extra)["classifier.fc.bias"]
        assert (bias != plain["classifier.fc.bias"]).any(), extra
    wide = last_weights("-mt", "EfficientGCN-B4")  # 16 channels * 1.2^4, to a multiple of 16
    assert wide["classifier.fc.weight"].shape[1] == 32

    start = max((tmp_path / "work").glob("*/*/last.pdparams"), key=lambda p: p.stat().st_mtime)
    keys += ["model_type=EfficientGCN-B4"]
    keys += ["optimizer_args.Momentum.learning_rate=1e-20"]
    again = last_weights("-pp", str(start))["classifier.fc.weight"]
    np.testing.assert_allclose(again, load_checkpoint(start)["model"]["classifier.fc.weight"])


def test_evaluating_the_training_split(tiny_keys: list[str], tmp_path: Path, capsys) -> None:
    from training.checkpoint import save_checkpoint, weights_of

    config = configs.load("9001", configs.parse_set(tiny_keys[1:]))
    network = network_of(config)
    save_checkpoint(tmp_path / "w.pdparams", {"model": weights_of(network)})
    argv = ["-c", "9001", "-np", "-e", "-pp", str(tmp_path / "w.pdparams"), *tiny_keys]
    assert cli.main([*argv, "--split", "train"]) == 0
    log = capsys.readouterr().out
    assert "24 train clips" in log and "/24" in log


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-c", "9001", "-e"], "-e needs weights"),
        (["-c", "9001", "-e", "-pp", "none.pdparams"], "none.pdparams: cannot be read"),
        (["-c", "9001", "-r"], "nothing to resume: there is no run in"),
        (
            ["-c", "9001", "-d", "ntu-xsub"],
            "not found in .*ntu-xsub; run: python main.py -c 9001 -gd",
        ),
        (
            ["-c", "9001", "-d", "ntu"],
            r"is not a benchmark \(allowed: kinetics-skeleton, ntu-xset120",
        ),
        (["-c", "9001", "-g", "0"], "GPU 0 is requested"),
        (["-c", "9001", "-dh", "nan"], "--delay_hours"),
        (
            ["-c", "9001", "--set", "model_args.reduct_ratio=17"],
            "allowed: 1 to 16",
        ),
        (["-c", "9001", "-gd", "--workers", "0"], "--workers is 0; allowed: 1 to 1024"),
        (["-c", "9001", "seed"], "key=value"),
    ],
)
def test_wrong_commands_end_in_one_line(
    argv: list[str], message: str, tiny_keys: list[str], tmp_path: Path, capsys
) -> None:
    keys = [k for k in tiny_keys if k != "seed"] + [a for a in argv if a == "seed"]
    argv = [a for a in argv if a != "seed"]
    assert run_command(lambda: cli.main([*argv, *keys])) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert not (tmp_path / "work").exists(), "a refused command leaves nothing behind"


def test_diverging_training_and_broken_clips_are_told_apart(
    tiny_data: Path, tiny_keys: list[str], tmp_path: Path, capsys
) -> None:
    argv = ["-c", "9001", "-np", *tiny_keys]
    wild = [*argv, "optimizer_args.Momentum.learning_rate=1e20"]
    assert run_command(lambda: cli.main(wild)) == 2
    assert "training diverged" in capsys.readouterr().err
    folder = tmp_path / "npy/original/synthetic-xsub"
    folder.mkdir(parents=True)
    for file in (tiny_data / "original/synthetic-xsub").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    data = np.load(folder / "train_data.npy", mmap_mode="r+")
    data[3, 0, 5, 7, 0] = np.nan
    data.flush()
    assert (
        run_command(lambda: cli.main([*argv, f"dataset_args.ntu.root_folder={tmp_path / 'npy'}"]))
        == 2
    )
    assert re.search(r"train_data.npy: clip S\d+.* holds NaN", capsys.readouterr().err)


def test_help_and_generation_never_import_paddle(tmp_path: Path) -> None:
    code = (
        "import sys, errors, main\n"
        "sys.argv[1:] and errors.run_command(lambda: main.main(sys.argv[1:]))\n"
        "assert 'paddle' not in sys.modules\n"
    )
    path = f"dataset_args.ntu.ntu60_path={tmp_path}"
    for argv in ([], ["-c", "2001", "-gd", "--set", path]):
        done = run_python("-c", code, *argv)
        assert done.returncode == 0, done.stderr
