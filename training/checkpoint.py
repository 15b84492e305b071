"""Weights and optimizer state between checkpoints and networks."""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.schema import Config
from dataset import identity
from dataset.identity import Identity
from dataset.protocols import DataSpec
from errors import UserError
from model.build import build_network
from model.network import ClipNetwork
from safe_io import PathLike, whole_file
from safe_pickle import load_pickle
from training import weight_names
from training.torch_file import is_torch_file, read_torch
from utils import set_seed

if TYPE_CHECKING:
    from paddle import nn

# Paddle's names of each optimizer's accumulators of a parameter.
_ACCUMULATORS = {
    "Momentum": ("velocity_0",),
    "Adam": ("moment1_0", "moment2_0", "beta1_pow_acc_0", "beta2_pow_acc_0"),
}
GRAPH_TOLERANCE = 5e-3  # between adjacencies of one graph; bfloat16 rounds 1 by 4e-3
FINETUNE = "fine-tune: -ft"
LEAST_SHARE = 0.5  # of the network's values that must fit; with less it is another network


def save_checkpoint(path: PathLike, content: Mapping[str, Any]) -> None:
    """Write a .pdparams file that `paddle.load` reads, atomically."""
    import paddle

    buffer = io.BytesIO()
    paddle.save(dict(content), buffer)
    with whole_file(path) as file:
        file.write(buffer.getbuffer())


def load_checkpoint(path: PathLike) -> dict[str, Any]:
    """Read a checkpoint of this project or of the public Paddle port, or the weights in a file of
    Paddle or torch (training/weight_names.py), by its content and without running code from it.
    Returns 'model' (name -> array) and, where the file has that key too, its other entries. Raises
    UserError for any other file."""
    if is_torch_file(path):
        content, form = read_torch(path)
        weights, key = weight_names.find_weights(content, path)
        place = f"torch's {form} format, {len(weights)} tensors" + f" in '{key}'" * bool(key)
        logging.info("%s: %s", path, place)
        return {"model": weight_names.from_torch(weights)}
    content = _without_names(load_pickle(path))
    weights, key = weight_names.find_weights(content, path)
    return {**(content if key == "model" else {}), "model": weights}


def _without_names(value: Any) -> Any:
    """Paddle pickles a tensor as (name, array); keep the array only."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray):
        return value[1]
    if isinstance(value, dict):
        return {key: _without_names(inner) for key, inner in value.items()}
    return value


def _named_as(
    network: nn.Layer, weights: Mapping[str, np.ndarray], source: PathLike
) -> dict[str, np.ndarray]:
    """The weights under the network's names (training/weight_names.py); logs what was changed."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    named, changes = weight_names.for_network(weights, shapes)
    if changes:
        done = "; ".join(f"{count} {change}" for change, count in changes.items())
        logging.info("%s: names of another project: %s", source, done)
    return named


def weights_of(network: nn.Layer) -> dict[str, Any]:
    """The network's state under checkpoint names and shapes (see `checkpoint_shapes`)."""
    state = dict(network.state_dict())
    for name, shape in getattr(network, "checkpoint_shapes", {}).items():
        state[name] = state[name].reshape(shape)
    return state


def load_weights(
    network: ClipNetwork,
    weights: Mapping[str, np.ndarray],
    source: PathLike,
    accept: Collection[str] = (),
) -> None:
    """Load checkpoint weights into a network, all or none. accept: with 'graph' or 'skeleton', the
    adjacency that the weights were trained with replaces the network's. Raises UserError listing
    names that are missing, unexpected or of another shape, and for another adjacency."""
    weights = _named_as(network, weights, source)
    target, fitting = network.state_dict(), _fitting(network, weights)
    problems = {name: f"missing {name}" for name in target if name not in weights}
    problems.update({n: f"unexpected {n}" for n in weights if n not in target})
    for name in (n for n in target if n in weights):
        if name not in fitting:
            shape = list(np.shape(weights[name]))
            problems[name] = f"{name} is {shape}, the network has {list(target[name].shape)}"
        elif not _is_finite(fitting[name]):
            problems[name] = f"{name} holds values that are not finite numbers"
    if problems:
        shown = "; ".join(list(problems.values())[:6])
        more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
        advice = "Choose the configuration (-c) that the weights were trained with"
        if all(name.startswith(f"{network.classifier_name}.") for name in problems):
            advice = f"Only the classifier differs: to train one for these classes, {FINETUNE}"
        raise UserError(
            f"{source}: does not fit the network of this configuration: {shown}{more}. {advice}"
        )
    if not {"graph", "skeleton"} & set(accept):
        _check_graph(network, fitting, source)
    for name, array in fitting.items():
        target[name].set_value(array.astype(np.float32))


def _check_graph(network: ClipNetwork, fitting: Mapping[str, np.ndarray], source: PathLike) -> None:
    """Raises UserError where weights were trained with another adjacency than the network's."""
    for name, tensor in network.named_buffers():
        if not np.allclose(fitting[name], tensor.numpy(), rtol=0, atol=GRAPH_TOLERANCE):
            raise UserError(
                f"{source}: {name} is the adjacency of another joint layout or graph strategy than "
                "this configuration's. Choose the skeleton and model_args that the weights were "
                f"trained with, or {FINETUNE}; to run them with their own graph: --accept graph"
            )


def _fitting(network: nn.Layer, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights whose name and shape fit the network, in its shapes and order."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    stored = {**shapes, **getattr(network, "checkpoint_shapes", {})}
    return {
        name: np.reshape(weights[name], shape)
        for name, shape in shapes.items()
        if name in weights and np.shape(weights[name]) in (shape, tuple(stored[name]))
    }


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool(np.isfinite(array).all())


def load_network(config: Config, spec: DataSpec) -> ClipNetwork:
    """The network of a configuration with the weights of its `pretrained_path`, with `finetune`
    those that fit, or with random weights of its seed. Raises UserError, also for weights that were
    trained with other settings, unless `accept` names these."""
    set_seed(config.seed)
    network, path = build_network(config, spec, spec.num_person), config.pretrained_path
    if path:
        content, about = load_checkpoint(path), identity.of_weights(config, spec)
        weights = content["model"]
        if config.finetune:
            classes = stored_identity(path, content).get("class_names", about["class_names"])
            if classes != about["class_names"] and "class_names" not in config.accept:
                logging.info("%s: its classes are other ones; random weights for these", path)
                prefix = f"{network.classifier_name}."
                weights = {n: array for n, array in weights.items() if not n.startswith(prefix)}
            load_fitting(network, weights, path)
        else:
            fix = f"Choose the configuration that they were trained with, or {FINETUNE}"
            compare_identity(path, content, about, fix=fix, accept=config.accept)
            load_weights(network, weights, path, config.accept)
        logging.info("Weights: %s", path)
    size = sum(p.size for p in network.parameters() if not p.stop_gradient)
    logging.info("Model: %s, %s trainable parameters", config.model_type, f"{size:,}")
    return network


def compare_identity(
    path: PathLike,
    content: Mapping[str, Any],
    wanted: Identity,
    *,
    fix: str,
    accept: Collection[str],
) -> None:
    """`identity.compare` of a checkpoint's content with the configuration's identity."""
    stored = stored_identity(path, content)
    if not stored:
        logging.info("%s: does not say what it was trained on: not compared", path)
    source, other = f"{path}: these weights", "the configuration"
    identity.compare(stored, wanted, source=source, other=other, fix=fix, accept=accept)


def stored_identity(path: PathLike, content: Mapping[str, Any]) -> Identity:
    """The identity in a checkpoint's content; empty for weights of other projects and of older
    versions. Raises UserError for a damaged one."""
    try:
        stored = json.loads(content.get("identity", "{}"))
    except (TypeError, ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict):
        raise UserError(f"{path}: its identity is damaged (not a JSON object); train it again")
    return stored


def load_fitting(network: nn.Layer, weights: Mapping[str, np.ndarray], source: PathLike) -> None:
    """Load every weight whose name and shape fit into a network, and log what happens to the rest.

    A layer is loaded completely or not at all: where one of its tensors does not fit, all keep
    their random values. Adjacencies are not weights: they stay those of this network's skeleton.
    Raises UserError where a value that fits is not finite, or less than half of the values fit.
    """
    weights = _named_as(network, weights, source)
    constants = {name for name, _ in network.named_buffers()}
    target = {n: tensor for n, tensor in network.state_dict().items() if n not in constants}
    ready = {n: array for n, array in _fitting(network, weights).items() if n in target}
    for name, array in ready.items():
        if not _is_finite(array):
            raise UserError(f"{source}: {name} holds values that are not finite numbers")
    layer = {name: name.rpartition(".")[0] or name for name in target}
    odd = {layer[name] for name in target if name not in ready}
    ready = {name: array for name, array in ready.items() if layer[name] not in odd}
    found, total = (sum(target[n].size for n in names) for names in (ready, target))
    share = 100 * found / total
    random = _grouped(n for n in target if n not in ready)
    if found < LEAST_SHARE * total:
        raise UserError(
            f"{source}: only {share:.1f} % of the network's values fit by name and shape ({random} "
            "do not); fine-tuning needs at least half: choose the -mt and model_args that the "
            "weights were trained with"
        )
    for name, array in ready.items():
        target[name].set_value(array.astype(np.float32))
    counts = f"{len(ready)} of {len(target)} tensors loaded, {share:.1f} % of the values"
    logging.info("Fine-tuning from %s: %s", source, counts)
    unused = _grouped(n for n in weights if n not in ready.keys() | constants)
    logging.info("Random weights: %s", random or "nothing")
    logging.info("Not used: %s", unused or "nothing")


def _grouped(names: Iterable[str]) -> str:
    """Counts by the first two parts of names: 'input_branches.2 (38), classifier.fc (2)'."""
    counts = Counter(".".join(name.split(".")[:-1][:2]) or name for name in names)
    return ", ".join(f"{prefix} ({count})" for prefix, count in counts.items())


def optimizer_state(network: nn.Layer, optimizer: Any) -> dict[str, Any]:
    """The optimizer's state under the network's own names: '<parameter>.velocity_0'. Paddle's
    names number the layers that a process has created, so they differ between processes."""
    state = optimizer.state_dict()
    return {
        f"{name}.{key[len(parameter.name) + 1 :]}": state[key]
        for name, parameter in network.named_parameters()
        for key in state
        if key.startswith(f"{parameter.name}_")
    }


def fitting_optimizer_state(
    network: nn.Layer, optimizer: Any, stored: Mapping[str, Any], source: PathLike
) -> dict[str, np.ndarray]:
    """What `optimizer_state` returned, under Paddle's names, for `optimizer.set_state_dict`. Raises
    UserError where it belongs to another network or optimizer, is incomplete, or not finite."""
    parameters = {n: p for n, p in network.named_parameters() if not p.stop_gradient}
    accumulators = _ACCUMULATORS[type(optimizer).__name__]
    shapes = {
        f"{name}.{kind}": [1] if kind.endswith("pow_acc_0") else list(parameter.shape)
        for name, parameter in parameters.items()
        for kind in accumulators
    }
    odd = [
        f"{key} missing or unexpected" for key in sorted(map(str, shapes.keys() ^ stored.keys()))
    ]
    for key, shape in shapes.items() if not odd else ():
        if list(np.shape(stored[key])) != shape:
            odd.append(f"{key} is {list(np.shape(stored[key]))} instead of {shape}")
        elif not _is_finite(np.asarray(stored[key])):
            odd.append(f"{key} holds values that are not finite numbers")
    if odd:
        more = f"; {len(odd)} in all" * (len(odd) > 3)
        raise UserError(
            f"{source}: its optimizer state does not fit: {'; '.join(odd[:3])}{more}; it cannot be "
            "resumed"
        )
    return {
        f"{parameter.name}_{kind}": stored[f"{name}.{kind}"]
        for name, parameter in parameters.items()
        for kind in accumulators
    }
