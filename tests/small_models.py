"""A small network exported in several forms (the fixture `models`), and its expected logits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle

import configs
import export as export_cli
from configs.schema import Config
from dataset.features import clip_tensor
from tests.networks import NTU_25, network_of
from training.checkpoint import save_checkpoint, weights_of

SMALL = {
    "dataset_args.ntu.num_frame": 16,
    "model_args.stem_channel": 8,
    "model_args.block_args": [[16, 1, 0], [16, 1, 0], [16, 2, 1]],
}


def settings(changes: dict[str, object]) -> list[str]:
    """The arguments --set of these settings."""
    return ["--set", *(f"{key}={json.dumps(value)}" for key, value in changes.items())]


SET = settings(SMALL)


def write_weights(config: Config, path: Path) -> None:
    """Weights that give every clip different logits; random ones give nearly the same to all."""
    network = network_of(config)
    rng = np.random.RandomState(0)
    for parameter in network.parameters():
        if not parameter.stop_gradient:
            noise = rng.standard_normal(parameter.shape).astype(np.float32)
            parameter.set_value(parameter + 0.3 * paddle.to_tensor(noise))
    save_checkpoint(path, {"model": weights_of(network)})


def export_small(folder: Path) -> None:
    """Write `<name>/small.pdmodel`: for whole clips, per person, with a fixed batch, and with the
    feature as second output."""
    write_weights(configs.load("9001", SMALL), folder / "small.pdparams")
    argv = ["-c", "9001", "-pp", str(folder / "small.pdparams"), *SET]
    for name, flags in {
        "whole": [],
        "person": ["--per_person"],
        "fixed": ["--batch_size", "5", "--per_person"],
        "feature": ["--with_feature"],
    }.items():
        assert export_cli.main([*argv, "--save_dir", str(folder / name), *flags]) == 0


def logits_by_dygraph(models: Path, clips: np.ndarray) -> np.ndarray:
    """Raw clips (N, C, T, V, M) -> logits (N, num_class) of the network behind `models`."""
    config = configs.load("9001", {**SMALL, "pretrained_path": str(models / "small.pdparams")})
    network = network_of(config)
    network.eval()
    tensors = np.stack([clip_tensor(c, NTU_25, "JVB", 16) for c in clips])
    with paddle.no_grad():
        return network(paddle.to_tensor(tensors)).numpy()


def eval_clips(tiny_data: Path, kind: str = "original") -> Path:
    return tiny_data / kind / "synthetic-xsub/eval_data.npy"
