"""Process plumbing: CPU set-up, seed, logging, checkpoints, counting. Knows nothing of skeletons
and imports Paddle only inside the functions that need it."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Mapping
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_io import PathLike, UserError, load_pickle, read_yaml, whole_file

if TYPE_CHECKING:
    from paddle import nn

_LOG_FORMAT = "[ %(asctime)s ] %(message)s"
# What each optimizer remembers of a parameter, as Paddle calls it.
_OPTIMIZER_MEMORY = {
    "Momentum": ("velocity_0",),
    "Adam": ("moment1_0", "moment2_0", "beta1_pow_acc_0", "beta2_pow_acc_0"),
}

# glibc's mallopt numbers
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_MALLOC_SETTINGS = (
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_MMAP_MAX_",
    "MALLOC_ARENA_MAX",
    "GLIBC_TUNABLES",
)


def prepare_process(cpu_setup: bool = True) -> None:
    """`prepare_environment`, and Paddle imported."""
    prepare_environment(cpu_setup)
    import_paddle_quietly()


def prepare_environment(cpu_setup: bool = True) -> None:
    """Settings that count only before Paddle is imported; call it first.

    Static graphs are written as .pdmodel, not as .json. With cpu_setup: all cores compute, MKL
    takes its fast path on AMD, and freed memory is kept for the next operator instead of going
    back to the kernel (docs/performance.md has the price). What the user has set stays.
    """
    os.environ.setdefault("FLAGS_enable_pir_api", "0")
    os.environ.setdefault("GLOG_minloglevel", "2")
    if cpu_setup:
        _set_up_cpu()


def _set_up_cpu() -> None:
    cores = str(num_cores())
    if "OMP_NUM_THREADS" not in os.environ and "FLAGS_paddle_num_threads" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = os.environ["FLAGS_paddle_num_threads"] = cores
    # How long, in ms, MKL's threads spin after a product: those of model/threads.py need the cores.
    os.environ.setdefault("KMP_BLOCKTIME", "1")
    if _is_amd():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    if sys.platform == "linux" and not any(name in os.environ for name in _MALLOC_SETTINGS):
        _keep_freed_memory()


def import_paddle_quietly() -> None:
    """Without its notes on a missing ccache and on the number of threads, which was just set."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("paddle")
    # Said at every BatchNorm in training mode, and true of every framework.
    warnings.filterwarnings("ignore", message="When training, we now always track global mean")


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _keep_freed_memory() -> None:
    """Page faults on fresh memory cost more than arithmetic here (docs/performance.md)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library than glibc
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 256 * 2**20)
    mallopt(_M_ARENA_MAX, 1)  # what one thread has freed is there for all (model/threads.py)


def set_device(gpus: tuple[int, ...]) -> str:
    """Choose the GPU asked for, or the CPU where none is. Raises UserError when it is absent."""
    import paddle

    if not gpus:
        return paddle.set_device("cpu")
    count = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if gpus[0] >= count:
        raise UserError(
            f"GPU {gpus[0]} was asked for, but Paddle {paddle.__version__} sees {count} GPUs here; "
            "leave out -g for the CPU, or install paddlepaddle-gpu"
        )
    return paddle.set_device(f"gpu:{gpus[0]}")


def set_seed(seed: int, epoch: int = 0, rank: int = 0) -> None:
    """Seed weights and dropout. Called again at every epoch, so that a resumed run draws what an
    uninterrupted one would. rank: of several processes, whose dropout must differ."""
    import paddle

    paddle.seed((seed * 1_000_003 + epoch + rank * 15_485_863) % 2**31)


def setup_logging(level: int = logging.INFO) -> None:
    """Log lines '[ time ] text' to the console, and remember them for `log_to_file`."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(logging.Formatter(_LOG_FORMAT))
    root.addHandler(console)
    root.addHandler(MemoryHandler(capacity=1000, flushLevel=logging.CRITICAL, flushOnClose=False))
    root.setLevel(level)


def log_to_file(path: Path) -> None:
    """Append to a file what was logged since `setup_logging`, and everything from now on."""
    try:
        file = logging.FileHandler(path, mode="a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    file.setFormatter(logging.Formatter(_LOG_FORMAT))
    root = logging.getLogger()
    for memory in [h for h in root.handlers if isinstance(h, MemoryHandler)]:
        memory.setTarget(file)
        memory.flush()
        root.removeHandler(memory)
    root.addHandler(file)


def format_duration(seconds: float) -> str:
    """3725 -> '00d-01h-02m-05s'."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"{day:02d}d-{hour:02d}h-{minute:02d}m-{second:02d}s"


def save_checkpoint(path: PathLike, content: Mapping[str, Any]) -> None:
    """Write a .pdparams file that `paddle.load` reads; whole or not at all."""
    import paddle

    buffer = io.BytesIO()
    paddle.save(dict(content), buffer)
    with whole_file(path) as file:
        file.write(buffer.getbuffer())


def load_checkpoint(path: PathLike) -> dict[str, Any]:
    """Read a checkpoint without running code from it.

    Accepts this project's files, the public Paddle port's, and a bare state dict. Returns a dict
    with 'model' (name -> array) and whatever else the file holds. Raises UserError otherwise.
    """
    content = _without_names(load_pickle(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; allowed: a dict of weights")
    if not isinstance(content.get("model"), dict):
        content = {"model": content}
    weights = content["model"]
    weights.pop("StructuredToParameterName@@", None)
    strange = [str(k) for k, v in weights.items() if not isinstance(v, np.ndarray)]
    if strange or not weights:
        raise UserError(f"{path}: no weights found (not arrays: {', '.join(strange[:5]) or 'all'})")
    return content


def _without_names(value: Any) -> Any:
    """Paddle pickles a tensor as (name, array); the array alone is kept."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray):
        return value[1]
    if isinstance(value, dict):
        return {key: _without_names(inner) for key, inner in value.items()}
    return value


def file_hash(path: PathLike) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def optimizer_state(network: nn.Layer, optimizer: Any) -> dict[str, Any]:
    """The optimizer's memory under the network's own names: '<parameter>.velocity_0'. Paddle's
    names count the layers that a process has made, so another process would not find its own."""
    state = optimizer.state_dict()
    return {
        f"{name}.{key[len(parameter.name) + 1 :]}": state[key]
        for name, parameter in network.named_parameters()
        for key in state
        if key.startswith(f"{parameter.name}_")
    }


def load_optimizer_state(
    network: nn.Layer, optimizer: Any, stored: Mapping[str, np.ndarray], source: PathLike
) -> None:
    """Put back what `optimizer_state` gave. Raises UserError where it belongs to another network
    or to another optimizer, or is not complete."""
    parameters = {n: p.name for n, p in network.named_parameters() if not p.stop_gradient}
    memories = _OPTIMIZER_MEMORY[type(optimizer).__name__]
    expected = {f"{name}.{m}": f"{parameters[name]}_{m}" for name in parameters for m in memories}
    odd = sorted(set(expected) ^ set(stored))
    if odd:
        raise UserError(
            f"{source}: its optimizer state does not fit: {', '.join(odd[:3])} missing or "
            f"unexpected ({len(odd)} in all); it cannot be resumed"
        )
    optimizer.set_state_dict({expected[key]: array for key, array in stored.items()})


def different_keys(a: str, b: str) -> list[str]:
    """Full keys whose values differ between two configurations, given as YAML texts."""

    def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(tree, dict):
            return {prefix[:-1]: tree}
        pairs = [flat(value, f"{prefix}{key}.").items() for key, value in tree.items()]
        return dict(pair for items in pairs for pair in items)

    first, second = flat(read_yaml(a, "settings")), flat(read_yaml(b, "settings"))
    keys = sorted(set(first) | set(second))
    return [key for key in keys if first.get(key) != second.get(key)]


def weights_of(network: nn.Layer) -> dict[str, Any]:
    """The network's state under checkpoint names and shapes (see `checkpoint_shapes`)."""
    state = dict(network.state_dict())
    for name, shape in getattr(network, "checkpoint_shapes", {}).items():
        state[name] = state[name].reshape(shape)
    return state


def load_weights(network: nn.Layer, weights: Mapping[str, np.ndarray], source: PathLike) -> None:
    """Put checkpoint weights into a network, all or none.

    Raises UserError listing names that are missing, unexpected or of another shape.
    """
    target = network.state_dict()
    stored_shapes = getattr(network, "checkpoint_shapes", {})
    problems = [f"missing {name}" for name in target if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in target]
    ready = {}
    for name, tensor in target.items():
        if name not in weights:
            continue
        array, shape = np.asarray(weights[name]), list(tensor.shape)
        if list(array.shape) not in (shape, stored_shapes.get(name, shape)):
            problems.append(f"{name} is {list(array.shape)}, the network has {shape}")
        elif array.dtype.kind != "f" or not np.isfinite(array).all():
            problems.append(f"{name} holds values that are not finite numbers")
        else:
            ready[name] = array.reshape(shape).astype(np.float32)
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" * (len(problems) > 6))
        raise UserError(
            f"{source}: does not fit the network of this configuration: {shown}. "
            "Choose the configuration (-c) that the weights were trained with"
        )
    network.set_state_dict(ready)
