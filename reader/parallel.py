"""Recordings -> clips in their order, by as many processes as asked for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from errors import UserError
from reader.clip import BadRecording
from reader.source import Item

Result = TypeVar("Result")

BATCH = 8  # recordings a task: few enough to share out evenly, enough to hide a task's cost
# Finished clips wait for their turn; this many tasks a worker bound what they can take up.
AHEAD = 4

_work: Callable[[Item], object]  # of a worker process: its reader's files stay open between tasks


def in_order(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result | BadRecording]:
    """What `work` makes of each item, in order, or the BadRecording that it raised.

    work: e.g. an ItemReader's `read`; each process gets a copy. workers: processes; 0 or 1 works
    in this one. The results are the same for any number. Raises UserError when a worker is killed
    or cannot start.
    """
    if workers <= 1:
        for item in items:
            yield _result(work, item)
        return
    # Not forked: this process may run threads (Paddle's, a progress bar's) that a fork breaks.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(work,))
    try:
        for results in _batches(pool, items, workers * AHEAD):
            yield from results
    except BrokenProcessPool as error:
        raise UserError(
            "a reading process was ended (out of memory?) or could not start; try --workers 1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(pool: ProcessPoolExecutor, items: Sequence[Item], ahead: int) -> Iterator[list]:
    tasks: deque[Future[list]] = deque()
    for start in range(0, len(items), BATCH):
        tasks.append(pool.submit(_do_batch, items[start : start + BATCH]))
        if len(tasks) == ahead:
            yield tasks.popleft().result()
    while tasks:
        yield tasks.popleft().result()


def _begin_worker(work: Callable[[Item], object]) -> None:
    """Ctrl-C is the parent's to handle, and when the parent is gone, even by kill -9, so is the
    worker: the pool's own queues would keep it waiting for ever."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do_batch(items: Sequence[Item]) -> list:
    return [_result(_work, item) for item in items]


def _result(work: Callable[[Item], object], item: Item) -> object:
    try:
        return work(item)
    except BadRecording as error:
        return error
