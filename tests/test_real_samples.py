"""Seven real NTU RGB+D recordings and the weights released by the public Paddle port: data
generation, evaluation, export and every engine, against golden arrays."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import paddle
import pytest

import configs
import export as export_cli
import infer as infer_cli
import main as cli
from dataset.features import clip_tensor
from dataset.protocols import protocol
from deploy.engines.engine import CPU_ENGINES
from deploy.predictor import Predictor
from tests.networks import NTU_25, network_of

pytestmark = pytest.mark.slow
CASES = {"2001": ("xsub", "original"), "2002": ("xview", "transformed")}


def golden_logits(samples: Path, config: str) -> np.ndarray:
    weights, kind = CASES[config]
    return np.load(samples / f"golden/ntu7_{weights}_{kind}_logits.npy")


def weights_file(samples: Path, config: str) -> Path:
    return samples / f"samples/weights/{CASES[config][0]}.pdparams"


@pytest.mark.parametrize("config", CASES)
def test_golden_logits_by_dygraph(samples: Path, config: str) -> None:
    golden = np.load(samples / "golden/ntu7_generated.npz")
    keys = {"pretrained_path": str(weights_file(samples, config))}
    network = network_of(configs.load(config, keys))
    network.eval()
    clips = golden[CASES[config][1]]
    tensors = np.stack([clip_tensor(c, NTU_25, "JVB", 288) for c in clips])
    with paddle.no_grad():
        logits = network(paddle.to_tensor(tensors)).numpy()
    np.testing.assert_allclose(logits, golden_logits(samples, config), atol=1e-3)


@pytest.mark.parametrize(
    ("config", "dataset", "engine"),
    [
        ("2001", "ntu-xsub", "dygraph"),
        ("2002", "ntu-xview", "dygraph"),
        ("2002", "ntu-xsub", "dygraph"),
        ("2001", "ntu-xsub", "openvino"),
        ("2002", "ntu-xview", "openvino"),
    ],
)
def test_seven_of_seven(
    samples: Path, tmp_path: Path, config: str, dataset: str, engine: str, capsys
) -> None:
    keys = ["--set", f"dataset_args.ntu.root_folder={tmp_path}", f"work_dir={tmp_path / 'work'}"]
    keys += [f"dataset_args.ntu.ntu60_path={samples / 'samples/ntu'}"]
    argv = ["-c", config, "-d", dataset, "-np"]
    assert cli.main([*argv, "-gd", *keys]) == 0
    right = total = 0
    for split in ("train", "eval"):
        capsys.readouterr()
        weights = str(weights_file(samples, config))
        evaluation = ["-e", "-pp", weights, "--split", split, "--engine", engine]
        assert cli.main([*argv, *evaluation, *keys]) == 0
        counts = re.search(r"Top-1 accuracy: (\d+)/(\d+)", capsys.readouterr().out)
        right, total = right + int(counts[1]), total + int(counts[2])
    assert (right, total) == (7, 7)


@pytest.fixture(scope="module", params=sorted(CASES))
def exported(request, samples: Path, tmp_path_factory: pytest.TempPathFactory):
    """(config, folder): static models of the released weights, for whole clips and per person, and
    the seven clips as a data file with labels."""
    config, folder = request.param, tmp_path_factory.mktemp("static")
    for name, flags in (("whole", []), ("person", ["--per_person"])):
        argv = ["-c", config, "-pp", str(weights_file(samples, config))]
        assert export_cli.main([*argv, "--save_dir", str(folder / name), *flags]) == 0
    golden = np.load(samples / "golden/ntu7_generated.npz")
    np.save(folder / "tiny_eval.npy", golden[CASES[config][1]])
    names = [str(name) for name in golden["names"]]
    labels = (names, [int(n[n.index("A") + 1 :][:3]) - 1 for n in names])
    (folder / "tiny_eval_label.pkl").write_bytes(pickle.dumps(labels))
    return config, folder


@pytest.mark.parametrize("engine", CPU_ENGINES[".pdmodel"])
@pytest.mark.parametrize("form", ["whole", "person"])
def test_every_engine_gives_golden_logits(exported, samples: Path, engine: str, form: str) -> None:
    config, folder = exported
    model_file = folder / form / f"{CASES[config][0]}.pdmodel"
    model = Predictor.load(model_file, engine=engine, cpu_threads=2)
    scores = model.run(np.load(folder / "tiny_eval.npy"))
    np.testing.assert_allclose(scores.logits, golden_logits(samples, config), atol=1e-3)
    assert scores.exists.sum(axis=1).tolist() == [1, 1, 2, 2, 1, 1, 1]


def test_the_readme_command(exported, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    config, folder = exported
    name = CASES[config][0]
    monkeypatch.chdir(folder)
    for suffix in (".pdmodel", ".pdiparams", ".meta.yaml"):
        (folder / f"{name}{suffix}").write_bytes((folder / f"person/{name}{suffix}").read_bytes())
    assert infer_cli.main(["--model_file", f"{name}.pdmodel", "--data_file", "tiny_eval.npy"]) == 0
    out = capsys.readouterr().out
    assert "Infer Mean Accuracy: 1\n" in out
    assert protocol("ntu-xsub").spec().class_names[57] in out  # handshaking
