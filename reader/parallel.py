"""Recordings -> clips in their order, by as many processes as asked for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Union

from reader.ntu_reader import Clip, parse
from reader.recordings import BadRecording, Recording, RecordingFiles
from reader.transformer import transform
from safe_io import UserError

ClipOrBad = Union[Clip, BadRecording]

BATCH = 8  # recordings a task: few enough to share out evenly, enough to hide a task's cost
# Finished clips wait for their turn; this many tasks a worker bound what they can take up.
AHEAD = 4

_files = RecordingFiles()  # of a worker process: its archives stay open from task to task


def read_clips(
    recordings: Sequence[Recording], normalise: bool, workers: int
) -> Iterator[ClipOrBad]:
    """One Clip a recording, in order, or the BadRecording that says why there is none.

    normalise: apply `transform`. workers: processes; 0 or 1 reads in this one. The clips are the
    same for any number. Raises UserError when a worker is killed or cannot start.
    """
    if workers <= 1:
        with RecordingFiles() as files:
            for recording in recordings:
                yield _read(recording, normalise, files)
        return
    # Not forked: this process may run threads (Paddle's, a progress bar's) that a fork breaks.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker)
    try:
        for clips in _in_order(pool, recordings, normalise, workers * AHEAD):
            yield from clips
    except BrokenProcessPool as error:
        raise UserError(
            "a reading process was ended (out of memory?) or could not start; try --workers 1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, recordings: Sequence[Recording], normalise: bool, ahead: int
) -> Iterator[list[ClipOrBad]]:
    tasks: deque[Future[list[ClipOrBad]]] = deque()
    for start in range(0, len(recordings), BATCH):
        tasks.append(pool.submit(_read_batch, recordings[start : start + BATCH], normalise))
        if len(tasks) == ahead:
            yield tasks.popleft().result()
    while tasks:
        yield tasks.popleft().result()


def _begin_worker() -> None:
    """Ctrl-C is the parent's to handle, and when the parent is gone, even by kill -9, so is the
    worker: the pool's own queues would keep it waiting for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _read_batch(recordings: Sequence[Recording], normalise: bool) -> list[ClipOrBad]:
    return [_read(recording, normalise, _files) for recording in recordings]


def _read(recording: Recording, normalise: bool, files: RecordingFiles) -> ClipOrBad:
    try:
        clip = parse(files.read(recording), recording.where)
    except BadRecording as error:
        return error
    return replace(clip, positions=transform(clip.padded())) if normalise else clip
