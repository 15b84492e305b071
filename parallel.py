"""Several processes that train one network: who is who, what they add up, what is said when one
of them is lost. `python -m paddle.distributed.launch` starts them and tells them who they are
through the environment. Paddle is imported inside the functions that need it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import utils
from safe_io import UserError

if TYPE_CHECKING:
    from paddle import nn

# Paddle's gloo gives up a sum when another process is 30 s late, whatever it is told. Rank 0
# writes files and ranks are not equally fast, so on CPUs they meet before they sum: see `meet`.
PATIENCE = 1800.0  # seconds that a process waits for the others
GRACE = 10.0  # seconds that a process has to end after it was told to
_STATISTICS = ("._mean", "._variance")
_ADVICE = (
    "The workerlog files in the launcher's --log_dir say which and why; go on from the last whole "
    "epoch with -r"
)


class World(NamedTuple):
    """rank: this process, from 0. size: processes in all. local_size: those on this machine."""

    rank: int
    size: int
    local_size: int

    @property
    def main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0


def world() -> World:
    """Who this process is, as the launcher says; (0, 1, 1) without one."""
    environ = os.environ
    size = int(environ.get("PADDLE_TRAINERS_NUM", 1))
    rank, local_size = environ.get("PADDLE_TRAINER_ID", 0), environ.get("PADDLE_LOCAL_SIZE", size)
    return World(int(rank), size, int(local_size))


def share_cores() -> None:
    """Give each process of this machine its share of the cores; call it before Paddle is
    imported. The launcher imports Paddle, which sets OMP_NUM_THREADS to 1 for those whom it
    starts, so a 1 does not count as the user's wish; FLAGS_paddle_num_threads does."""
    local_size, environ = world().local_size, os.environ
    if local_size == 1 or "FLAGS_paddle_num_threads" in environ:
        return
    if environ.get("OMP_NUM_THREADS", "1") == "1":
        share = str(max(1, utils.num_cores() // local_size))
        environ["OMP_NUM_THREADS"] = environ["FLAGS_paddle_num_threads"] = share


def refuse_several(what: str) -> None:
    """Raises UserError under a launcher that started several processes."""
    if world().size > 1:
        raise UserError(
            f"{what} runs in one process, and the launcher started {world().size}; leave out "
            "`-m paddle.distributed.launch`"
        )


def join(gpus: tuple[int, ...]) -> World:
    """Set the device and, where there are other processes, meet them. gpus: the GPU of a single
    process; several get theirs from the launcher."""
    here = world()
    if here.size == 1:
        utils.set_device(gpus)
        return here
    if gpus:
        raise UserError(
            f"gpus is {list(gpus)}, which chooses the GPU of a single process; leave it out and "
            "give the launcher --devices"
        )
    import paddle.distributed

    with contextlib.redirect_stderr(io.StringIO()):  # a list of the flags that we set
        paddle.distributed.init_parallel_env()
    return here


def on_gpu() -> bool:
    """Whether this process computes on a GPU. Call it behind `join`."""
    import paddle

    return paddle.get_device().startswith("gpu")


def replicate(network: nn.Layer) -> nn.Layer:
    """What to call in training, with the weights of rank 0; its gradients are shared by
    `share_gradients`."""
    if world().size == 1:
        return network
    import paddle

    meet()
    return paddle.DataParallel(network)


@contextlib.contextmanager
def own_gradients(replica: nn.Layer) -> Iterator[None]:
    """Within this block a backward pass adds to this process's own gradient only.

    DataParallel would share it during the backward pass, from where Paddle aborts the process
    without a word when another one is lost.
    """
    with replica.no_sync() if world().size > 1 else contextlib.nullcontext():
        yield


def share_gradients(network: nn.Layer) -> None:
    """Make every gradient the mean over all processes; each trainable parameter has one."""
    size = world().size
    if size == 1:
        return
    import paddle

    own = [p for p in network.parameters() if not p.stop_gradient]
    flat = paddle.concat([p.grad.flatten() for p in own])
    meet()
    paddle.distributed.all_reduce(flat)
    for parameter, part in zip(own, paddle.split(flat / size, [p.size for p in own])):
        parameter.grad.set_value(part.reshape(parameter.shape))


def meet() -> None:
    """Wait until every process has come here as often as this one: before a gradient is shared or
    a sum made. GPUs need none. Ends the process where others are not there after `PATIENCE`."""
    here = world()
    if here.size == 1 or on_gpu():
        return
    from paddle.base import core

    store = core.create_or_get_global_tcp_store()  # a dictionary that rank 0 keeps for all
    own = store.add(f"meet/{here.rank}", 1)
    late, start, pause = [r for r in range(here.size) if r != here.rank], time.monotonic(), 0.0002
    while late := [r for r in late if store.add(f"meet/{r}", 0) < own]:
        if time.monotonic() - start > PATIENCE:
            names = ", ".join(map(str, late))
            _end(f"rank {here.rank} of {here.size} has waited {PATIENCE:.0f} s for rank {names}")
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def summed(array: np.ndarray) -> np.ndarray:
    """Sum over all processes of an array that each of them has in the same shape."""
    if world().size == 1:
        return array
    import paddle

    meet()
    tensor = paddle.to_tensor(array)
    paddle.distributed.all_reduce(tensor)
    return tensor.numpy()


def gathered(rows: np.ndarray, total: int) -> np.ndarray:
    """The rows of all clips, in order. rows: (n, C), this process's clips: every size-th of
    `total` from its rank on. Returns (total, C)."""
    here = world()
    if here.size == 1:
        return rows
    everything = np.zeros((total, *rows.shape[1:]), rows.dtype)
    everything[here.rank :: here.size] = rows
    return summed(everything)


def average_statistics(network: nn.Layer) -> None:
    """Give every process the mean of all processes' running means and variances of BatchNorm.
    Each normalises its own half of a step's clips, so each has seen other statistics; from here
    on all evaluate, save and train the same network."""
    if world().size == 1:
        return
    own = [t for name, t in network.state_dict().items() if name.endswith(_STATISTICS)]
    flat = summed(np.concatenate([t.numpy().ravel() for t in own])) / world().size
    for tensor, values in zip(own, np.split(flat, np.cumsum([t.size for t in own])[:-1])):
        tensor.set_value(values.reshape(tensor.shape).astype(np.float32))


@contextlib.contextmanager
def lost_rank_is_said() -> Iterator[None]:
    """Within this block the loss of another process ends this one with one line and code 1,
    whether it is noticed here (the connection breaks) or by the launcher (which then ends us)."""
    here = world()
    if here.size == 1:
        yield
        return
    _watch_for_the_end(f"rank {here.rank} of {here.size} is told to stop")
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in ("gloo", "NCCL", "TCPStore", "tcp_utils")):
            raise
        reason = " ".join(str(error).split())[-120:]
        _end(f"rank {here.rank} of {here.size} has lost another rank ({reason})")


def _watch_for_the_end(message: str) -> None:
    """Log that the launcher ends us. A thread does it, for Python's own signal handlers wait until
    the main thread comes out of Paddle, and the launcher kills what is left after 3 seconds."""
    inlet, outlet = os.pipe()
    os.set_blocking(outlet, False)

    def watch() -> None:
        while os.read(inlet, 1)[0] != signal.SIGTERM:
            pass
        logging.error("%s, as when another rank is lost. %s", message, _ADVICE)
        time.sleep(GRACE)
        os._exit(1)

    def forget() -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    threading.Thread(target=watch, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    signal.set_wakeup_fd(outlet, warn_on_full_buffer=False)  # the signal's number is written there
    os.register_at_fork(after_in_child=forget)  # workers of a DataLoader


def _end(what: str) -> None:
    logging.error("%s. %s", what, _ADVICE)
    raise SystemExit(1)
