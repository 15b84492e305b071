"""Latency and throughput of a static model, from raw clips to logits."""

from __future__ import annotations

import time

import numpy as np

from deploy.predictor import Predictor

WARM_UP_RUNS = 2
MIN_RUNS, MAX_RUNS, MAX_SECONDS = 8, 200, 20.0


def measure(model: Predictor, data: np.ndarray, batch_size: int, cpu_threads: int) -> str:
    """One line: warm-up, median and 95th percentile latency of a batch (ms), throughput (clips/s),
    threads, engine. data: (N, 3, T, V, M); batches cycle through it."""

    def run(number: int) -> float:
        clips = data[np.arange(number * batch_size, (number + 1) * batch_size) % len(data)]
        start = time.perf_counter()
        model.run(clips)
        return time.perf_counter() - start

    warm_up = sum(run(number) for number in range(WARM_UP_RUNS))
    begin = time.perf_counter()
    seconds: list[float] = []
    for number in range(MAX_RUNS):
        if number >= MIN_RUNS and time.perf_counter() - begin >= MAX_SECONDS:
            break
        seconds.append(run(number))
    median, tail = np.median(seconds), np.percentile(seconds, 95)
    return (
        f"Engine: {model.engine.name}, threads: {cpu_threads}, batch: {batch_size} clips, "
        f"warm-up: {1000 * warm_up:.0f} ms, latency median: {1000 * median:.1f} ms, "
        f"95th percentile: {1000 * tail:.1f} ms ({len(seconds)} runs), "
        f"{batch_size / median:.1f} clips/s"
    )
