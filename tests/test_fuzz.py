"""infer.py on mutated data, labels, metadata, models and weights: a correct answer, or one line and
exit code 2; no traceback, hang or crash, and no code of a file is run.

$SKELETON_FUZZ is the number of cases (default 40; 250 in the slow test), $SKELETON_FUZZ_SEED
selects others (default 0).
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz_cases import CANARY, any_bytes, mutate
from tests.fuzz_worker import Case, Outcome, fuzz, printed_line_of, to_file
from tests.networks import network_of

QUICK = int(os.environ.get("SKELETON_FUZZ", "40"))
MANY = max(QUICK, 250)
SEED = int(os.environ.get("SKELETON_FUZZ_SEED", "0"))
HANG = 300.0  # seconds after which a case is taken for a hang
# One case in so many is a model of the public port. It has no metadata, so it is probed in a
# subprocess first.
PORT_EVERY = 25
TOLERANCE = 1e-4  # of logits, relative to their scale

FILES = ("x_data.npy", "x_label.pkl", "m.meta.yaml", "m.pdmodel", "m.pdiparams")
Network = Callable[[np.ndarray], np.ndarray]  # clips -> logits


@pytest.fixture(scope="module")
def whole_files(models: Path, tiny_data: Path, tmp_path_factory) -> Path:
    """`own/` and `port/`: valid files of one of our models, and of one without metadata."""
    import paddle

    from dataset.storage import open_clips
    from safe_pickle import dump_pickle
    from tests.small_models import eval_clips
    from tests.test_infer import PortContract

    folder = tmp_path_factory.mktemp("fuzz")
    clips = open_clips(eval_clips(tiny_data))
    for kind in ("own", "port"):
        (folder / kind).mkdir()
        np.save(folder / kind / "x_data.npy", clips.data[:4, :, :16])
        with open(folder / kind / "x_label.pkl", "wb") as file:
            dump_pickle((clips.names[:4], clips.labels[:4].tolist(), [16] * 4), file)
    for suffix in (".pdmodel", ".pdiparams", ".meta.yaml"):
        shutil.copy(models / f"whole/small{suffix}", folder / f"own/m{suffix}")
    shutil.copy(models / "small.pdparams", folder / "weights.pdparams")
    spec = [paddle.static.InputSpec([4, 3, 6, 16, 25, 2], "float32")]
    network = PortContract(small_network(folder / "weights.pdparams"))
    paddle.jit.save(network, str(folder / "port/m"), spec)
    return folder


def small_network(weights: Path) -> object:
    import configs
    from tests.small_models import SMALL

    config = configs.load("9001", {**SMALL, "pretrained_path": str(weights)})
    network = network_of(config)
    network.eval()
    return network


def reference(weights: Path) -> Network:
    """The dygraph network, which shares with static inference only the input features."""
    import paddle

    from dataset.features import clip_tensor
    from dataset.skeletons import skeleton

    network, layout = small_network(weights), skeleton("ntu-25")

    def logits(clips: np.ndarray) -> np.ndarray:
        frames, persons = max(16 - clips.shape[2], 0), 2 - clips.shape[-1]
        padded = np.pad(clips, [(0, 0), (0, 0), (0, frames), (0, 0), (0, persons)])
        tensors = np.stack([clip_tensor(clip, layout, "JVB", 16) for clip in padded])
        with paddle.no_grad():
            return network(paddle.to_tensor(tensors)).numpy()

    return logits


def answer_is_wrong(output: Path, folder: Path, network: Network, is_port: bool) -> str:
    """What is wrong with an answer; '' if nothing."""
    rows = json.loads(output.read_text(encoding="utf-8"))["clips"]
    if is_port:  # the right answer of damaged weights is unknown
        finite = all(np.isfinite(row["top"][0]["probability"]) for row in rows)
        return "" if rows and finite else "no finite numbers"
    clips = np.load(folder / "x_data.npy", allow_pickle=False)
    with np.errstate(all="ignore"):
        expected = network(clips)
    if len(rows) != len(clips) or not np.isfinite(expected).all():
        return f"{len(rows)} answers for {len(clips)} clips, or the network gives NaN"
    noise = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    for row, logits in zip(rows, expected):
        softmax = np.exp(logits - logits.max(), dtype=np.float64)
        softmax /= softmax.sum()
        for rank, top in enumerate(row["top"]):
            if logits[top["class"]] < np.sort(logits)[-1 - rank] - 2 * noise:
                return f"class {top['class']} at rank {rank} of {row['name']}"
            if noise < 0.1 and abs(softmax[top["class"]] - top["probability"]) > 2 * noise + 1e-6:
                return f"probability {top['probability']} of {row['name']}"
    if not (folder / "x_label.pkl").is_file():
        return ""
    labels = read_labels(folder) or read_labels(folder.parent.parent / "own")
    return "" if [row["label"] for row in rows] == labels else "other labels"


def read_labels(folder: Path) -> list[int]:
    """[] where Python's C unpickler is stricter than the one written in Python: frame sizes."""
    with open(folder / "x_label.pkl", "rb") as file:
        try:
            return list(ArrayUnpickler(file, encoding="latin1").load()[1])
        except pickle.UnpicklingError:
            return []


class ArrayUnpickler(pickle.Unpickler):
    """Python's unpickler, restricted to NumPy arrays."""

    def find_class(self, module: str, name: str) -> object:
        if module.split(".")[0] != "numpy" or name not in (
            "_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer"
        ):  # fmt: skip
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


def prepare(base: Path) -> Case:
    """In the worker process: what runs infer.py on one mutated set of files."""
    import utils

    utils.prepare_process(cpu_setup=False)
    import deploy.engines.probe

    deploy.engines.probe.SECONDS = HANG / 2
    network = reference(base / "weights.pdparams")
    return partial(run_case, base=base, network=network)


def run_case(number: int, base: Path, network: Network) -> Outcome:
    import infer
    from errors import run_command

    folder = Path(f"case-{number}").absolute()
    rng = random.Random(f"{SEED}-{number}")
    is_port = number % PORT_EVERY == PORT_EVERY - 1
    shutil.copytree(base / ("port" if is_port else "own"), folder)
    if is_port:
        name, mutation = rng.choice(("m.pdmodel", "m.pdiparams")), "any_bytes"
        any_bytes(rng, folder / name)
    else:
        name, mutation = mutate(rng, folder)
    what = f"case {number}, {mutation} of {name}"
    output, stderr = folder.with_suffix(".json"), folder.with_suffix(".txt")
    engine = rng.choice(("paddle", "paddle", "paddle", "auto"))
    argv = ["--model_file", folder / "m.pdmodel", "--data_file", folder / "x_data.npy", "-np"]
    argv += ["--engine", engine, "--output", output, "--cpu_threads", 1, "--no_cpu_setup"]
    with to_file(stderr):
        code = run_command(lambda: infer.main([str(a) for a in argv]))
    if any(base.parent.rglob(CANARY)) or Path(CANARY).exists():
        return f"{what}: code of the file was run", False
    if code or stderr.stat().st_size:
        wrong = printed_line_of(stderr, code)
        wrong = wrong or "a half-written file" * output.exists()
    else:
        wrong = answer_is_wrong(output, folder, network, is_port)
    if wrong:
        return f"{what}: {wrong}", False
    shutil.rmtree(folder)
    return "", code == 0


def test_mutated_files(whole_files: Path) -> None:
    found, answers = fuzz(prepare, whole_files, range(QUICK), HANG)
    assert not found, "\n".join(found)
    assert QUICK // 20 <= answers <= QUICK // 2, "some mutations change no answer"


@pytest.mark.slow
def test_hundreds_of_mutated_files(whole_files: Path) -> None:
    found, answers = fuzz(prepare, whole_files, range(QUICK, MANY), HANG)
    assert not found, "\n".join(found)
    assert answers >= (MANY - QUICK) // 20
