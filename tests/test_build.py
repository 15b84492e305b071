"""model/build.py: every configuration builds a network that runs."""

from __future__ import annotations

import typing

import numpy as np
import paddle
import pytest

import configs
from configs import model as model_args
from dataset.graph import STRATEGIES
from dataset.protocols import data_spec
from model import build
from model.build import build_network
from model.layers import ACTIVATIONS
from tests.networks import network_of

NAMES = sorted(path.stem for path in configs.FOLDER.glob("*.yaml"))
# Configurations that differ from one of these in their input letter alone are left out
# (tests/test_configs.py).
BUILT = [name for name in NAMES if name[0] in "24" or name[2] == "0" or name in ("1011", "1131")]


@pytest.mark.parametrize("name", BUILT)
def test_every_config_builds_and_runs(name: str) -> None:
    config = configs.load(name)
    spec = data_spec(config.dataset, config.data.own_layout)
    network = build_network(config, spec, spec.num_person)
    network.eval()
    channels = 18 if config.data.inputs == "JVB" else 3
    shape = (1, spec.num_person * spec.skeleton.num_joint, channels, 16)
    clips = paddle.to_tensor(np.random.RandomState(0).randn(*shape).astype("float32"))
    with paddle.no_grad():
        logits = network(clips)
    assert list(logits.shape) == [1, spec.num_class]
    assert len(spec.class_names) == spec.num_class
    assert np.isfinite(logits.numpy()).all()


def test_branches_of_stgcn_are_concatenated_on_channels() -> None:
    config = configs.load("2001", {"model_type": "ST-GCN", "dataset_args.ntu.inputs": "JB"})
    network = network_of(config)
    network.eval()
    assert list(network(paddle.ones([1, 50, 12, 16])).shape) == [1, 60]


def test_allowed_names_are_those_of_the_parts() -> None:
    """Each name that configurations may use has a row in the table of its parts, and vice versa."""
    assert set(model_args.ACT_TYPES) == set(ACTIVATIONS)
    assert set(model_args.LAYER_TYPES) == set(build.TEMPORAL_LAYERS)
    assert set(model_args.ATT_TYPES) == {*build.ATTENTIONS, "none"}
    assert set(model_args.STRATEGIES) == set(STRATEGIES)
    assert set(typing.get_args(model_args.ModelArgs)) == set(build.FAMILIES)
