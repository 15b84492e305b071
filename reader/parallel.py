"""An ordered parallel map over recordings."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from errors import UserError
from reader.clip import BadRecording
from reader.source import Item

Result = TypeVar("Result")

BATCH = 8  # recordings per task: few enough to balance the load, enough to hide a task's overhead
AHEAD = 4  # tasks in flight per worker: bounds the memory of results that wait for earlier ones

_work: Callable[[Item], Any]  # of a worker process: its reader keeps files open between tasks


def in_order(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Generator[Result | BadRecording, None, None]:
    """The result of `work` for each item, in order, or the BadRecording that it raised.

    work: e.g. a Source's `read`; each process gets a copy. workers: number of processes; 0 or
    1 uses this process. The results do not depend on it. Raises UserError if a worker is killed or
    fails to start.
    """
    if workers <= 1:
        for item in items:
            yield _result(work, item)
        return
    # Not forked: this process may have threads (Paddle, progress bar), which break after a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(work,))
    try:
        for results in _batches(pool, items, workers * AHEAD):
            yield from results
    except BrokenProcessPool as error:
        raise UserError(
            "a reader process was killed (out of memory?) or failed to start; try --workers 1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(pool: ProcessPoolExecutor, items: Sequence[Item], ahead: int) -> Iterator[list[Any]]:
    tasks: deque[Future[list[Any]]] = deque()
    for start in range(0, len(items), BATCH):
        tasks.append(pool.submit(_do_batch, items[start : start + BATCH]))
        if len(tasks) == ahead:
            yield tasks.popleft().result()
    while tasks:
        yield tasks.popleft().result()


def _begin_worker(work: Callable[[Item], Any]) -> None:
    """Leave Ctrl-C to the parent, and exit when the parent exits, even after kill -9; otherwise the
    worker would wait on the pool's queues forever."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do_batch(items: Sequence[Item]) -> list[Any]:
    return [_result(_work, item) for item in items]


def _result(work: Callable[[Item], Result], item: Item) -> Result | BadRecording:
    try:
        return work(item)
    except BadRecording as error:
        return error
