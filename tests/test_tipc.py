"""test_tipc/: the chain succeeds on generated data, and fails on a wrong command."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.processes import ROOT, run_process

MODEL = "EfficientGCN-B0"
VERDICTS = ("successfully", "failed")
CONFIG = f"test_tipc/configs/{MODEL}/train_infer_python.txt"
# Replaces Python: prints its arguments, and creates the files of a training or an export.
STUB = """#!/usr/bin/env bash
echo "CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-none} $*"
for word in "$@"; do
    case $word in
        work_dir=*/evaluation | --*=*.p* ) ;;
        work_dir=*) mkdir -p "${word#*=}/tiny_EfficientGCN-B0_synthetic-xsub/1"
            touch "${word#*=}/tiny_EfficientGCN-B0_synthetic-xsub/1/best.pdparams" ;;
        --save_dir=*) mkdir -p "${word#*=}"; touch "${word#*=}/best.pdmodel" ;;
    esac
done
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder in which the project's commands can run and write without changing the project."""
    for name in ("main.py", "export.py", "infer.py", "dataset"):
        (tmp_path / name).symlink_to(ROOT / name)
    ignored = shutil.ignore_patterns("data", "output", "pretrained")
    shutil.copytree(ROOT / "test_tipc", tmp_path / "test_tipc", ignore=ignored)
    return tmp_path


def edit(project: Path, changes: dict[int, str]) -> None:
    """Replace lines of the configuration, counted from 1."""
    path = project / CONFIG
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, text in changes.items():
        lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def bash(
    project: Path, script: str, *argv: str, python: str = sys.executable
) -> CompletedProcess[str]:
    command = ["bash", f"test_tipc/{script}.sh", *argv]
    return run_process(command, cwd=project, environ={"PYTHON": python})


def run_chain(
    project: Path, mode: str, *argv: str, python: str = sys.executable
) -> tuple[int, list[str]]:
    """The exit code and the lines of the result, which are printed and written to a file."""
    done = bash(project, "test_train_inference_python", CONFIG, mode, *argv, python=python)
    log = project / f"test_tipc/output/{MODEL}/{mode}/results_python.log"
    lines = log.read_text(encoding="utf-8").splitlines()
    *printed, count = done.stdout.splitlines()
    assert printed == lines
    good, bad = (sum(f"Run {how} with command - " in s for s in lines) for how in VERDICTS)
    assert good + bad == len(lines)
    assert f"{MODEL} {mode}: {good} commands succeeded, {bad} failed" in count
    assert len({line.rsplit(" - ", 1)[1] for line in lines}) == len(lines), "a log for each command"
    return done.returncode, lines


def texts_of_logs(project: Path, lines: list[str]) -> list[str]:
    return [(project / line.rsplit(" - ", 1)[1]).read_text(encoding="utf-8") for line in lines]


@pytest.mark.slow
def test_lite_mode_succeeds_on_its_own_data_and_fails_on_a_wrong_option(project: Path) -> None:
    """One epoch and one setting of inference, then a wrong option of inference."""
    prepared = bash(project, "prepare", CONFIG, "lite_train_lite_infer")
    assert prepared.returncode == 0, prepared.stderr
    edit(
        project,
        {
            7: "scheduler_args.cosine.max_epoch:lite_train_lite_infer=1",
            42: "--engine:openvino",
            43: "--cpu_threads:2",
            44: "--batch_size:16",
        },
    )
    code, lines = run_chain(project, "lite_train_lite_infer")
    assert code == 0, "\n".join(lines)
    commands = [line.split(" - ")[2].split()[1] for line in lines]
    assert commands == ["main.py", "main.py", "export.py", "infer.py"]
    training, evaluation, exported, inferred = texts_of_logs(project, lines)
    assert "Epoch: 1/1" in training and "Finish training!" in training
    assert "Batch: 6/6" in training, "36 clips in batches of 6, as line 9 says"
    right = re.search(r"Top-1 accuracy: (\d+)/36", evaluation)
    assert right and "Largest difference of engine openvino" in exported
    assert f"Infer Mean Accuracy: {int(right[1]) / 36:.6g}\n" in inferred

    (model,) = (project / f"test_tipc/output/{MODEL}").glob("*/*/export")
    shutil.copytree(model, project / "model")
    edit(project, {37: "infer_model:model", 38: "infer_export:null", 51: "--no_such_option:1"})
    code, (line,) = run_chain(project, "whole_infer")
    assert code == 1 and line.startswith(f"Run failed with command - {MODEL} - ")
    assert "--no_such_option=1" in line
    assert "unrecognized arguments: --no_such_option=1" in texts_of_logs(project, [line])[0]


def test_a_wrong_command_fails_and_ends_its_chain(project: Path) -> None:
    edit(project, {16: "norm_train:main.py -c test_tipc/none.yaml -np --set"})
    code, (line,) = run_chain(project, "lite_train_lite_infer")
    assert code == 1 and line.startswith(f"Run failed with command - {MODEL} - ")
    assert "test_tipc/none.yaml: no such file" in texts_of_logs(project, [line])[0]


def stub(project: Path) -> str:
    path = project / "stub"
    path.write_text(STUB, encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_commands_of_a_chain(project: Path) -> None:
    """Every command of a chain, word by word: on the CPU, on one GPU and on two."""
    edit(
        project,
        {
            4: "gpu_list:-1|0|2,3",
            5: "gpus:[]|[0]|[]",
            7: "max_epoch:whole_infer=3|lite_train_lite_infer=2",
            13: "seed:5",
            41: "--use_gpu:False|True",
            42: "--engine:onednn|openvino",
            43: "--cpu_threads:1",
            44: "--batch_size:1|4",
            50: "--benchmark:True",
        },
    )
    code, lines = run_chain(project, "lite_train_lite_infer", python=stub(project))
    assert code == 0
    calls = [text.splitlines()[0] for text in texts_of_logs(project, lines)]
    assert len(calls) == 3 * (3 + 2 * 2 + 2)
    output = f"test_tipc/output/{MODEL}/lite_train_lite_infer"
    config = f"-c test_tipc/configs/{MODEL}/tiny.yaml"
    data = f"test_tipc/data/{MODEL}/npy/original/synthetic-xsub/eval_data.npy"
    settings = "max_epoch=2 dataset_args.ntu.train_batch_size=6 seed=5"
    for n, (gpu, keys, visible, launcher) in enumerate(
        (
            ("-1", "gpus=[]", "none", ""),
            ("0", "gpus=[0]", "0", ""),
            ("2,3", "gpus=[]", "2,3", "-m paddle.distributed.launch "),
        )
    ):
        folder = f"{output}/norm_train_gpus_{gpu}_autocast_null"
        weights = f"{folder}/tiny_{MODEL}_synthetic-xsub/1/best.pdparams"
        chain = calls[9 * n : 9 * n + 9]
        first = f"CUDA_VISIBLE_DEVICES={visible} "
        assert chain[0] == (
            f"{first}{launcher}main.py {config} -np --set {keys} work_dir={folder} {settings}"
        )
        first = first.split(",")[0].strip() + " "
        assert chain[1] == (
            f"{first}main.py {config} -np -e --set pretrained_path={weights} {keys} "
            f"work_dir=./{output}/evaluation"
        )
        assert chain[2] == (
            f"{first}export.py {config} --pretrained_path={weights} --save_dir={folder}/export"
        )
        model = f"--model_file={folder}/export/best.pdmodel --data_file={data} --benchmark"
        devices = [f"--engine={engine} --cpu_threads=1" for engine in ("onednn", "openvino")]
        assert chain[3:] == [
            f"{first}infer.py {device} --batch_size={batch} {model}"
            for device in (*devices, "--use_gpu")
            for batch in (1, 4)
        ]


def test_whole_infer_exports_random_and_given_weights(project: Path) -> None:
    edit(project, {37: "infer_model:null|w.pdparams", 38: "infer_export:export.py|export.py -x"})
    edit(project, {42: "--engine:auto", 43: "--cpu_threads:1", 44: "--batch_size:1"})
    code, lines = run_chain(project, "whole_infer", "1", python=stub(project))
    assert code == 0
    calls = [text.splitlines()[0] for text in texts_of_logs(project, lines)]
    output = f"test_tipc/output/{MODEL}/whole_infer"
    first = "CUDA_VISIBLE_DEVICES=1 "
    assert calls[0] == f"{first}export.py --save_dir={output}/model_0"
    assert f"--model_file={output}/model_0/best.pdmodel" in calls[1]
    assert calls[2] == (
        f"{first}export.py -x --pretrained_path=w.pdparams --save_dir={output}/model_1"
    )


def test_no_text_of_the_configuration_is_run_by_a_shell(project: Path) -> None:
    strange = "$(touch evil) `touch evil` ; touch evil * 'a"
    edit(project, {16: f"norm_train:main.py {strange} --set", 51: f"{strange}:{strange}"})
    code, lines = run_chain(project, "lite_train_lite_infer", python=stub(project))
    assert code == 0 and strange in texts_of_logs(project, lines)[0]
    assert not (project / "evil").exists()


@pytest.mark.parametrize(
    ("changes", "mode", "message"),
    [
        ({}, "whole_train", "mode is 'whole_train'; allowed: lite_train_lite_infer, whole_infer"),
        ({51: "null:null\nnull:null"}, "whole_infer", "52 lines; the layout"),
        ({22: "=", 23: "##"}, "whole_infer", "line 23 must be the heading eval_params"),
        ({15: "trainer:pact_train"}, "lite_train_lite_infer", "names the trainer 'pact_train'"),
        ({4: "gpu_list:-1|0"}, "lite_train_lite_infer", "lines 4 and 5 must have as many values"),
        ({11: "train_model_name:x"}, "lite_train_lite_infer", "0 files match test_tipc/output"),
        ({41: "--use_gpu:1"}, "whole_infer", "line 41: 1; allowed: True, False, or both"),
    ],
)
def test_a_wrong_configuration_is_refused(
    project: Path, changes: dict[int, str], mode: str, message: str
) -> None:
    edit(project, changes)
    script = "test_train_inference_python"
    done = bash(project, script, CONFIG, mode, python=stub(project))
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("error: ") == 1


def test_a_missing_interpreter_or_configuration_is_refused(project: Path) -> None:
    for script in ("prepare", "test_train_inference_python"):
        done = bash(project, script, CONFIG, "whole_infer", python="no-such-python")
        assert done.returncode == 2 and "there is no 'no-such-python' here" in done.stderr
        done = bash(project, script, "none.txt", "whole_infer")
        assert done.returncode == 2 and "none.txt: no such file" in done.stderr
        done = bash(project, script)
        assert done.returncode == 2 and "usage: bash test_tipc/" in done.stderr


def test_a_chain_without_commands_fails(project: Path) -> None:
    edit(project, {37: "infer_model:"})
    code = bash(project, "test_train_inference_python", CONFIG, "whole_infer").returncode
    assert code == 1
