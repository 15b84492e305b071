"""Weights of other projects under this project's names: where a file keeps them, and what it calls
them. One table for -pp, -ft, export.py and tools/convert_weights.py. NumPy only.

A 2-D `weight` is that of a Linear layer: (out, in) in torch, (in, out) in Paddle; `from_torch`
turns the first into the second. Either the network's shape fits or its transpose. For a square one
both do: it is read as the library of the file stores it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from errors import UserError

# Keys under which training code saves the state dict; otherwise it is the whole content.
STATE_KEYS = ("model", "state_dict", "model_state_dict", "net")
PREFIXES = ("module.", "_layers.", "backbone.")  # of wrappers for several devices, and of trunks
RENAMED = {"running_mean": "_mean", "running_var": "_variance"}
COUNTER = "num_batches_tracked"
IGNORED = {
    COUNTER: "BatchNorm counters, which Paddle does not have",
    r"st_gcn_networks\.\d+\.gcn\.conv0\.(weight|bias)": "conv0, which the 4-D ST-GCN does not use",
}
_PADDLE_NAMES = "StructuredToParameterName@@"  # an entry of Paddle's files that is no weight

Weights = dict[str, np.ndarray]


def find_weights(content: Any, source: object) -> tuple[Weights, str]:
    """The weights in the content of a file, and their key ('' for the whole content). bfloat16,
    which Paddle's files hold as uint16, becomes float32.

    Raises UserError, which lists the keys of the content, if there are none.
    """
    if (weights := _state_dict(content)) is not None:
        return weights, ""
    keys = list(content) if isinstance(content, dict) else []
    for key in STATE_KEYS:
        if key in keys and (weights := _state_dict(content[key])) is not None:
            return weights, key
    shown = ", ".join(map(str, keys[:8])) or f"a {type(content).__name__}"
    raise UserError(
        f"{source}: no weights found; the file contains {shown}, allowed keys of weights: "
        f"{', '.join(STATE_KEYS)}, each with arrays by name"
    )


def _state_dict(value: Any) -> Weights | None:
    items = dict(value) if isinstance(value, dict) else {}
    items.pop(_PADDLE_NAMES, None)
    weights = {}
    for name, array in items.items():
        if not isinstance(name, str):
            return None
        if name.endswith(COUNTER) and isinstance(array, (int, np.integer)):
            array = np.asarray(array)
        if not isinstance(array, np.ndarray):
            return None
        weights[name] = _from_bfloat16(array) if array.dtype == np.uint16 else array
    return weights or None


def _from_bfloat16(halves: np.ndarray) -> np.ndarray:
    """The upper halves of float32 values, as uint16 -> float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def from_torch(weights: Mapping[str, np.ndarray]) -> Weights:
    """A torch state dict with its Linear weights in Paddle's form, (in, out)."""
    return {name: a.T if _is_linear(name, a) else a for name, a in weights.items()}


def _is_linear(name: str, array: np.ndarray) -> bool:
    return array.ndim == 2 and name.rpartition(".")[2] == "weight"


def for_network(
    weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Weights, Counter[str]]:
    """Weights under the names of a network, and the number of tensors per kind of change.

    shapes: of the network's tensors. A name that the network has is kept. Any other is changed only
    into one that the network has, and only if no second tensor claims it: what is left over keeps
    its name, for the caller to report.
    """
    found = {name: _network_name(name, shapes) for name in weights}
    claims = Counter(new for new, _ in found.values())
    fitted, changes = {}, Counter[str]()
    for name, array in weights.items():
        new, done = found[name]
        if claims[new] > 1 and name not in shapes:
            new, done = name, []
        reasons = [why for form, why in IGNORED.items() if re.fullmatch(rf"(.*\.)?{form}", name)]
        if new not in shapes and reasons:
            changes[f"ignored ({reasons[0]})"] += 1
            continue
        if new in shapes and _is_linear(new, array):
            array, how = _as_linear(array, tuple(shapes[new]))
            done = [*done, *how]
        changes.update(done)
        fitted[new] = array
    return fitted, changes


def _network_name(name: str, shapes: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The network's name for a tensor of a file, the file's if there is none, and what changed."""
    start = 0  # of the name without prefixes
    while True:
        form, removed = name[start:], [f"prefix {name[:start]} removed"] * (start > 0)
        if form in shapes:
            return form, removed
        parent, dot, leaf = form.rpartition(".")
        renamed = f"{parent}{dot}{RENAMED.get(leaf, leaf)}"
        if renamed in shapes:
            return renamed, [*removed, "BatchNorm statistics renamed"]
        prefix = next((p for p in PREFIXES if form.startswith(p)), "")
        if not prefix:
            return name, []
        start += len(prefix)


def _as_linear(array: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    """A Linear weight (in, out) in a network's shape: (in, out), or (out, in, 1, ...) of a 1x1
    convolution. Unchanged where it does not fit."""
    if len(shape) == 2:
        if array.shape != shape and array.T.shape == shape:
            return array.T, ["Linear weight transposed"]
        return array, []
    if any(size != 1 for size in shape[2:]) or shape[:2] not in (array.shape, array.T.shape):
        return array, []
    square = ", a square one as the library of the file stores it" * (shape[0] == shape[1])
    matrix = array.T if array.T.shape == shape[:2] else array
    return matrix.reshape(shape), [f"Linear weight read as 1x1 convolution{square}"]
