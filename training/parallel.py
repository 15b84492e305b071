"""Several processes that train one network: who is who, what they add up, what is said when one
of them is lost. `python -m paddle.distributed.launch` starts them and tells them who they are
through the environment. Paddle is imported inside the functions that need it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import utils
from errors import UserError
from training.watch import Watch

if TYPE_CHECKING:
    from paddle import nn

# Paddle's gloo gives up a sum when another process is 30 s late, whatever it is told. Rank 0
# writes files and ranks are not equally fast, so on CPUs they meet before they sum: see `meet`.
PATIENCE = 1800.0  # seconds that a process waits for the others
_STATISTICS = ("._mean", "._variance")
_OF_PADDLE = ("gloo", "NCCL", "TCPStore", "tcp_utils")  # in what it raises for a lost connection
_WATCH: list[Watch] = []  # this process's over the others, from `join` on
_ENDING = threading.Lock()


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
    from paddle.base import core

    host = os.environ["PADDLE_TRAINER_ENDPOINTS"].split(":")[0]
    store = core.create_or_get_global_tcp_store()  # a dictionary that rank 0 keeps for all
    _WATCH.append(Watch(here.rank, here.size, host, store, _end_at_once))
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
    if world().size == 1 or on_gpu():
        return
    late = _WATCH[0].meet(PATIENCE)
    if late:
        _end(f"rank {', '.join(map(str, late))}, for which it waited {PATIENCE:g} s")


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
    """Within this block the loss of another process ends this one with one line and code 1; behind
    it the others know that this one has ended well."""
    try:
        yield
    except RuntimeError as error:
        if world().size == 1 or not any(word in str(error) for word in _OF_PADDLE):
            raise
        _end(f"another rank ({' '.join(str(error).split())[-120:]})")
    for watch in _WATCH:
        watch.leave()


def _end_at_once(rank: int) -> None:
    """From the watching thread: the main one may sit in Paddle for long, waiting for the lost."""
    with contextlib.suppress(SystemExit):
        _end(f"rank {rank}")
    os._exit(1)


def _end(lost: str) -> None:
    if _ENDING.acquire(blocking=False):  # one message is enough
        logging.error(
            "rank %d of %d has lost %s. The workerlog files in the launcher's --log_dir say why; "
            "go on from the last whole epoch with -r",
            *(world().rank, world().size, lost),
        )
    raise SystemExit(1)
