"""Latency and throughput of a static model, from raw clips to logits."""

from __future__ import annotations

import time

import numpy as np

from deploy.predictor import Predictor

WARM_UP_RUNS = 2
MIN_RUNS, MAX_RUNS, MAX_SECONDS = 8, 200, 20.0


def measure(model: Predictor, data: np.ndarray, batch_size: int, cpu_threads: int) -> str:
    """One line: warm-up, median and 95th percentile latency of a batch, throughput in clips/s,
    threads, engine. data: (N, 3, T, V, M); batches cycle through it. Computing the features
    counts."""

    def run(number: int) -> float:
        rows = [(number * batch_size + n) % len(data) for n in range(batch_size)]
        clips = np.stack([data[row] for row in rows])
        start = time.perf_counter()
        model.run(clips)
        return time.perf_counter() - start

    warm_up = [run(number) for number in range(WARM_UP_RUNS)]
    begin = time.perf_counter()
    seconds: list[float] = []
    while len(seconds) < MAX_RUNS and (
        len(seconds) < MIN_RUNS or time.perf_counter() - begin < MAX_SECONDS
    ):
        seconds.append(run(len(seconds)))
    median, tail = np.median(seconds), np.percentile(seconds, 95)
    return (
        f"Engine: {model.engine.name}, threads: {cpu_threads}, batch: {batch_size} clips, "
        f"warm-up: {1000 * sum(warm_up):.0f} ms, latency median: {1000 * median:.1f} ms, "
        f"95th percentile: {1000 * tail:.1f} ms ({len(seconds)} runs), "
        f"{batch_size / median:.1f} clips/s"
    )
