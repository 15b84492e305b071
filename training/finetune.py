"""Fine-tuning: those weights of another network that fit this one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from safe_io import PathLike, UserError

if TYPE_CHECKING:
    from paddle import nn

LEAST_SHARE = 0.5  # of the network's values that must be found; less is another network


def load_fitting(network: nn.Layer, weights: Mapping[str, np.ndarray], source: PathLike) -> None:
    """Put every weight whose name and shape fit into a network, and log what was loaded, what
    starts fresh and what is not used.

    A layer is loaded whole or not at all: where one of its tensors does not fit, as with another
    number of classes or of input branches, all of them start fresh. Adjacencies are no weights:
    they stay those of this network's skeleton. Raises UserError where a value that fits is not a
    finite number, or where less than half of the network's values is found.
    """
    constants = {name for name, _ in network.named_buffers()}
    target = {n: tensor for n, tensor in network.state_dict().items() if n not in constants}
    stored_shapes = getattr(network, "checkpoint_shapes", {})
    ready, odd = {}, set()
    for name, tensor in target.items():
        shape = list(tensor.shape)
        array = np.asarray(weights.get(name, np.empty(0)))
        if list(array.shape) not in (shape, stored_shapes.get(name, shape)):
            odd.add(_layer(name))
        elif array.dtype.kind != "f" or not np.isfinite(array).all():
            raise UserError(f"{source}: {name} holds values that are not finite numbers")
        else:
            ready[name] = array.reshape(shape).astype(np.float32)
    ready = {name: array for name, array in ready.items() if _layer(name) not in odd}
    found, total = (sum(target[n].size for n in names) for names in (ready, target))
    if found < LEAST_SHARE * total:
        raise UserError(
            f"{source}: only {100 * found / total:.1f} % of the network's values fit by name and "
            f"shape ({_grouped(n for n in target if n not in ready)} do not); fine-tuning wants "
            "half or more: choose the -mt and model_args that the weights were trained with"
        )
    network.set_state_dict({**network.state_dict(), **ready})
    known = ready.keys() | constants
    logging.info(
        "Fine-tuning from %s: %d of %d tensors loaded, %.1f %% of the values",
        *(source, len(ready), len(target), 100 * found / total),
    )
    logging.info("Starts fresh: %s", _grouped(n for n in target if n not in ready) or "nothing")
    logging.info("Not used: %s", _grouped(n for n in weights if n not in known) or "nothing")


def _layer(name: str) -> str:
    """'main_stream.block-0_scn.bn.weight' -> 'main_stream.block-0_scn.bn'."""
    return name.rpartition(".")[0] or name


def _grouped(names: Iterable[str]) -> str:
    """Names counted by their first two parts: 'input_branches.2 (38), classifier.fc (2)'."""
    counts = Counter(".".join(name.split(".")[:-1][:2]) or name for name in names)
    return ", ".join(f"{prefix} ({count})" for prefix, count in counts.items())
