"""Every command of the README is run, on data that the project generates; links and flags exist."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import configs
from apps.video.weights import pose_weights
from errors import UserError
from tests.keypoint_data import annotation, body, write_pickle
from tests.networks import network_of
from tests.processes import ROOT, run_process
from tests.test_frames import write_video
from tests.torch_files import tensors, write_zip
from training.checkpoint import load_checkpoint, save_checkpoint, weights_of

README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| .* \| `(python .*)` \|$", README, flags=re.MULTILINE)
CONVERTER = importlib.util.find_spec("paddle2onnx") is not None  # not on Python 3.13
NUM_NTU = 17  # commands of the first table
COMMANDS = [command for row in ROWS for command in row.split("` and `")]
ONE_EPOCH = "scheduler_args.cosine.max_epoch=1 scheduler_args.cosine.warm_up=0"
SMALL = "model_args.stem_channel=8 model_args.block_args=[[16,1,0],[16,1,0],[16,2,1]]"
TINY = f"--set dataset_args.ntu.num_frame=16 dataset_args.ntu.num_workers=0 {SMALL} {ONE_EPOCH}"


def run(command: str, folder: Path) -> str:
    """Run a command in `folder` as if it were the project's. Returns what it prints."""
    for name in ("main.py", "export.py", "infer.py", "recognise.py", "tools", "dataset"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = run_process(["bash", "-c", command], cwd=folder, environ={"PATH": path})
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def fetched() -> bool:
    """Whether the pose networks are here, or can be fetched."""
    try:
        return bool(pose_weights())
    except UserError:
        return False


@pytest.mark.slow
def test_every_command_on_ntu(tmp_path: Path) -> None:
    """In the order of the table, in an empty folder, with files of the names that it uses. Only the
    network is smaller, and the recordings are synthetic."""
    from dataset.synthetic.recordings import write_recordings

    write_recordings(tmp_path / "raw", subjects=(1, 2, 3), cameras=(1, 2))
    run("python -m zipfile -c nturgbd_skeletons_s001_to_s017.zip raw", tmp_path)
    assert len(COMMANDS) == NUM_NTU + 12, "a table has changed: adapt these tests"
    generate, train, resume, evaluate, by_engine, export, *others = COMMANDS[:NUM_NTU]
    per_person, onnx, tiny, infer, measure, compare, *whos, step, play, synthetic = others
    run(generate, tmp_path)
    assert "Finish training!" in run(f"{train} {TINY}", tmp_path)
    assert "Resuming" in run(f"{resume} {TINY}", tmp_path)
    (best,) = tmp_path.glob("workdir/2001_*/*/best.pdparams")
    assert load_checkpoint(best)["epoch"] == 1
    for name in ("xsub.pdparams", "xview.pdparams"):  # like the released ones: weights alone
        save_checkpoint(tmp_path / name, {"model": load_checkpoint(best)["model"]})
    x_view = "dataset_args.ntu.ntu60_path=raw"
    run(f"python main.py -c 2002 -gd --set {x_view}", tmp_path)
    counts = [
        re.findall("Top-1 accuracy: .*", run(f"{command} {TINY}", tmp_path))
        for command in (evaluate, by_engine)
    ]
    assert counts[0] and counts[0] == counts[1]
    run(f"{export} {TINY}", tmp_path)
    run(f"{per_person} {TINY}", tmp_path)
    if CONVERTER:
        run(f"{onnx} {TINY}", tmp_path)
    run(tiny, tmp_path)
    assert "Infer Mean Accuracy" in run(infer, tmp_path)
    assert "clips/s" in run(f"{measure} -b 2", tmp_path)
    engine = "onnxruntime (.onnx)" if CONVERTER else "openvino (.pdmodel)"
    assert engine in run(compare, tmp_path)
    (recording, *_) = sorted((tmp_path / "raw").glob("*.skeleton"))
    named = "S001C001P001R001A001.skeleton"
    in_recording, in_video = whos
    assert "recognition" in run(in_recording.replace(named, f"raw/{recording.name}"), tmp_path)
    if fetched():
        write_video(tmp_path / "walk.mp4", np.arange(12) / 30)
        assert "nobody is there" in run(in_video, tmp_path)
    files = ["who.json", "who.gif", *["who.mp4", "who.srt"] * fetched()]
    assert all((tmp_path / file).is_file() for file in files)
    narrow = "model_args.block_args=[[8,1],[8,2]]"
    network = network_of(configs.load("1001", configs.parse_set([narrow])))
    save_checkpoint(tmp_path / "stgcn.pdparams", {"model": weights_of(network)})
    run(f"{step} --set {narrow}", tmp_path)
    played = run(play.replace(named, f"raw/{recording.name}"), tmp_path)
    assert f"{recording.name}, frame 0: " in played and "95th percentile" in played
    run(f"{synthetic} --subjects 2", tmp_path)
    assert list((tmp_path / "recordings").glob("*.skeleton"))


@pytest.mark.slow
def test_every_command_on_own_recordings(tmp_path: Path) -> None:
    """The second table, on a pickle of random clips, with small networks."""
    names = {part: [f"{part}{n}" for n in range(27)] for part in ("train", "test")}
    clips = [
        annotation(name, n, body(n, num_joint=20)[None])
        for part in names.values()
        for n, name in enumerate(part)
    ]
    write_pickle(tmp_path / "utd_mhad.pkl", clips, names)
    generate, train, launch, tune, *others = COMMANDS[NUM_NTU:]
    assert "27 classes" in run(generate, tmp_path)
    keys = "dataset_args.keypoint.num_workers=0 dataset_args.keypoint.train_batch_size=4"
    small = f"-w runs --set {keys} {ONE_EPOCH}"
    run(f"{train} {small} {SMALL}", tmp_path)
    run(f"{launch} {small} {SMALL}", tmp_path)
    assert "Finish training!" in (tmp_path / "log/workerlog.0").read_text()
    weights = min(tmp_path.glob("runs/2101_*/*/best.pdparams"))
    (tmp_path / "other.pdparams").write_bytes(weights.read_bytes())
    assert "Random weights: nothing" in run(f"{tune} {small} {SMALL}", tmp_path)

    train_joint, train_bone, evaluate_joint, evaluate_bone, fuse, convert, shard, merge = others
    narrow = "model_args.block_args=[[8,1],[8,2]]"
    for command, number, name in ((train_joint, 1101, "joint"), (train_bone, 1111, "bone")):
        run(f"{command} {small} {narrow}", tmp_path)
        (best,) = tmp_path.glob(f"runs/{number}_*/*/best.pdparams")
        (tmp_path / f"{name}.pdparams").write_bytes(best.read_bytes())
    for command in (evaluate_joint, evaluate_bone):
        run(f"{command} --set {narrow}", tmp_path)
    assert "equal" in run(fuse, tmp_path)

    weights = load_checkpoint(tmp_path / "joint.pdparams")["model"]
    write_zip(tmp_path / "st_gcn.pth", tensors(weights))
    assert "loaded into ST-GCN" in run(convert.replace("1001", f"1101 --set {narrow} "), tmp_path)
    files = "dataset_args.keypoint.root_folder=data/npy_dataset"
    run(f"python export.py -c 1101 -pp joint.pdparams --set {narrow} {files}", tmp_path)
    (data,) = tmp_path.glob("data/npy_dataset/*/utd-mhad/eval_data.npy")
    for part in range(1, 9):
        command = shard.replace("xsub.", "joint.").replace("1/8", f"{part}/8")
        command = command.replace("part1", f"part{part}")
        run(re.sub(r"data/tiny\S+", str(data), command), tmp_path)
    assert "Infer Mean Accuracy" in run(merge, tmp_path)


def test_links_and_numbers() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
    for number in re.findall(r"-c (\d{4})", README):
        assert configs.load(number).name == number


def test_every_flag_in_the_documents_exists() -> None:
    """--flags in README and docs are flags of some command line of the project."""
    known = set()
    folders = (ROOT, *(ROOT / name for name in ("dataset", "benchmarks", "tools")))
    for path in [path for folder in folders for path in folder.glob("*.py")]:
        known |= set(re.findall(r'"(--?[a-zA-Z_]+)"', path.read_text(encoding="utf-8")))
    dropped = {"--visualize", "--static", "--dataset_args", "--model_args", "--optimizer_args"}
    dropped |= {"--scheduler_args", "--help"}
    others = {"--nproc_per_node", "--master", "--nnodes", "--rank", "--devices", "--log_dir"}
    others |= {"--host", "--elastic_level"}  # with those above, of Paddle's launcher
    others |= {"--framework", "--model", "--input_shape", "--soc_version"}  # Ascend's compiler
    others |= {"--dirname", "--model_filename", "--params_filename", "--serving_server"}
    others |= {"--serving_client", "--port", "--thread", "--array"}  # Paddle Serving, Slurm
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        used = set(re.findall(r"(?<![\w-])--[a-zA-Z_]+", page.read_text(encoding="utf-8")))
        assert used - known - dropped - others == set(), page.name
