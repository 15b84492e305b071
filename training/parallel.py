"""Several processes that train one network: ranks, barriers and all-reduces. `python -m
paddle.distributed.launch` starts them and passes their ranks in the environment. Paddle is
imported inside the functions that need it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np

import utils
from errors import UserError
from training.watch import Watch

if TYPE_CHECKING:
    from paddle import nn

# Paddle's gloo times out an all-reduce after 30 s, whatever the settings say. Rank 0 writes files
# and ranks differ in speed, so on CPUs a `barrier` precedes every all-reduce.
TIMEOUT = 1800.0  # of a barrier, in seconds
_STATISTICS = ("._mean", "._variance")
_OF_PADDLE = ("gloo", "NCCL", "TCPStore", "tcp_utils")  # in its errors for a lost connection
_WATCH: list[Watch] = []  # of this process, set by `join`
_ENDING = threading.Lock()


class World(NamedTuple):
    """rank: of this process, from 0. size: all processes. local_size: those on this machine."""

    rank: int
    size: int
    local_size: int

    @property
    def main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0


def world() -> World:
    """Rank and sizes as the launcher set them; (0, 1, 1) without one."""
    size = int(os.environ.get("PADDLE_TRAINERS_NUM", 1))
    rank = int(os.environ.get("PADDLE_TRAINER_ID", 0))
    return World(rank, size, int(os.environ.get("PADDLE_LOCAL_SIZE", size)))


def share_cores() -> None:
    """Divide this machine's cores among its processes; call it before Paddle is imported. The
    launcher imports Paddle, which sets OMP_NUM_THREADS to 1 for the processes it starts, so a 1 is
    overridden. FLAGS_paddle_num_threads is a setting of the user and stays."""
    local_size, environ = world().local_size, os.environ
    unset = "FLAGS_paddle_num_threads" not in environ and environ.get("OMP_NUM_THREADS", "1") == "1"
    if local_size > 1 and unset:
        share = str(max(1, utils.num_cores() // local_size))
        environ["OMP_NUM_THREADS"] = environ["FLAGS_paddle_num_threads"] = share


def refuse_several(what: str) -> None:
    """Raises UserError under a launcher that started several processes."""
    if world().size > 1:
        started = f"{what} runs in one process, and the launcher started {world().size}"
        raise UserError(f"{started}; leave out `-m paddle.distributed.launch`")


def join(gpus: tuple[int, ...]) -> World:
    """Set the device and connect to the other processes. gpus: the GPU of a single process. Raises
    UserError if it is given to several, which get theirs from the launcher."""
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

    with contextlib.redirect_stderr(io.StringIO()):  # it prints the flags that we set
        paddle.distributed.init_parallel_env()
    from paddle.base import core

    host = os.environ["PADDLE_TRAINER_ENDPOINTS"].split(":")[0]
    store = core.create_or_get_global_tcp_store()  # a dictionary on rank 0
    _WATCH.append(Watch(here.rank, here.size, host, store, _end_at_once))
    return here


def on_gpu() -> bool:
    """Whether this process computes on a GPU. Call it after `join`."""
    import paddle

    return paddle.device.get_device().startswith("gpu")


def replicate(network: nn.Layer) -> nn.Layer:
    """The network to call in training, with the weights of rank 0."""
    if world().size == 1:
        return network
    import paddle

    barrier()
    return paddle.DataParallel(network)


def own_gradients(replica: nn.Layer) -> contextlib.AbstractContextManager[None]:
    """Within this block a backward pass adds to this process's own gradient only. DataParallel
    would all-reduce it there, where Paddle aborts without a message when a process is lost."""
    return replica.no_sync() if world().size > 1 else contextlib.nullcontext()


def share_gradients(network: nn.Layer) -> None:
    """Replace every gradient by its mean over processes; in each the same parameters have one."""
    size = world().size
    if size == 1:
        return
    import paddle

    own = [gradient for p in network.parameters() if (gradient := p.grad) is not None]
    flat = paddle.concat([gradient.flatten() for gradient in own])
    barrier()
    paddle.distributed.all_reduce(flat)
    for gradient, part in zip(own, paddle.split(flat / size, [g.size for g in own])):
        gradient.set_value(part.reshape(gradient.shape))


def barrier() -> None:
    """Wait until every process has called this as often as this one; call it before every
    all-reduce. GPUs need none. Ends the process when others are late by `TIMEOUT`."""
    if world().size == 1 or on_gpu():
        return
    late = _WATCH[0].barrier(TIMEOUT)
    if late:
        _end(f"rank {', '.join(map(str, late))}: not at the barrier after {TIMEOUT:g} s")


def summed(array: np.ndarray) -> np.ndarray:
    """The sum over all processes of an array that has the same shape in each."""
    if world().size == 1:
        return array
    import paddle

    barrier()
    tensor = paddle.to_tensor(array)
    paddle.distributed.all_reduce(tensor)
    return tensor.numpy()


def gathered(rows: np.ndarray, total: int) -> np.ndarray:
    """The rows of all clips, in order, (total, ...). rows: (n, ...), of every size-th clip from
    this process's rank on."""
    here = world()
    if here.size == 1:
        return rows
    all_rows = np.zeros((total, *rows.shape[1:]), rows.dtype)
    all_rows[here.rank :: here.size] = rows
    return summed(all_rows)


def average_statistics(network: nn.Layer) -> None:
    """Average BatchNorm's running means and variances over all processes, each of which normalises
    its own clips; after this call all have the same network."""
    if world().size == 1:
        return
    own = [t for name, t in network.state_dict().items() if name.endswith(_STATISTICS)]
    flat = summed(np.concatenate([t.numpy().ravel() for t in own])) / world().size
    for tensor, values in zip(own, np.split(flat, np.cumsum([t.size for t in own])[:-1])):
        tensor.set_value(values.reshape(tensor.shape).astype(np.float32))


@contextlib.contextmanager
def report_lost_rank() -> Iterator[None]:
    """Within this block the loss of another process ends this one with one line and exit code 1.
    After it the others know that this process ends normally."""
    try:
        yield
    except RuntimeError as error:
        if world().size == 1 or not any(word in str(error) for word in _OF_PADDLE):
            raise
        _end(f"another rank ({' '.join(str(error).split())[-120:]})")
    for watch in _WATCH:
        watch.leave()


def _end_at_once(rank: int) -> None:
    """Called in the watching thread: the main thread may be blocked in an all-reduce."""
    with contextlib.suppress(SystemExit):
        _end(f"rank {rank}")
    os._exit(1)


def _end(lost: str) -> NoReturn:
    if _ENDING.acquire(blocking=False):  # one message per process
        logging.error(
            "rank %d of %d has lost %s. The workerlog files in the launcher's --log_dir say why; "
            "resume from the last complete epoch with -r",
            *(world().rank, world().size, lost),
        )
    raise SystemExit(1)
