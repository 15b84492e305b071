"""Play clips and recordings through a streaming model as if they were live: answers, latencies, and
at the end of each clip the row of ordinary inference (deploy/predictions.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dataset.padding import valid_length
from dataset.storage import ClipSet
from deploy.predictions import Row, row_of, top_classes
from deploy.predictor import Scores
from deploy.stream_input import without_centring
from deploy.stream_predictor import Answer, StreamPredictor
from errors import UserError

PLAYED = "played"  # stream_id
OnAnswer = Callable[[str, Row, float], None]  # name of the clip, its best class, seconds


@dataclass
class Playback:
    """seconds: of each step, from its frames to its answer. rows: of the clips. missing: joints
    that were NaN."""

    predictor: StreamPredictor
    topk: int
    on_answer: OnAnswer | None = None
    seconds: list[float] = field(default_factory=list)
    missing: int = 0

    def clip(self, clips: ClipSet, index: int, *, real_frames: bool) -> Row:
        """Play a clip of a data file with the frames that the clip network sees, zero padding
        included. real_frames: stop at its last occupied frame."""
        try:
            frames = prepared(self.predictor, clips.data[index])
            length = valid_length(frames) if real_frames else frames.shape[1]
            return self.frames(frames[:, : max(length, 1)], clips.names[index], clips.label(index))
        except UserError as error:
            raise UserError(f"{clips.path}, clip {index}: {error}") from error

    def frames(self, frames: np.ndarray, name: str, label: int | None = None) -> Row:
        """Play (3, T, V, M) and flush. Returns the row of ordinary inference, and its `timeline`:
        the best class of the running mean at each position."""
        predictor, chunk = self.predictor, self.predictor.plan.chunk
        answers: list[Answer] = []
        for start in range(0, frames.shape[1], chunk):
            begin = time.perf_counter()
            found = predictor.push(frames[:, start : start + chunk], name)
            self._record(name, found, time.perf_counter() - begin)
            answers += found
        self.missing += predictor.missing(name)
        begin = time.perf_counter()
        found = predictor.flush(name)
        last = found[-1]
        share = (time.perf_counter() - begin) / len(found)
        for answer in found if not answers or found[0].frame > answers[-1].frame else []:
            self._record(name, [answer], share)
            answers.append(answer)
        assert last.clip is not None and last.persons is not None  # of a flushed stream
        exists = np.zeros(len(last.persons), bool)
        exists[: frames.shape[3]] = np.nan_to_num(frames).any(axis=(0, 1, 2))
        scores = Scores(last.clip[None], last.persons[None], exists[None])
        row = row_of(predictor.class_names, name, label, scores, 0, self.topk)
        row["timeline"] = [self._best(answer) for answer in answers]
        return row

    def _best(self, answer: Answer) -> Row:
        return {
            "frame": answer.frame,
            **top_classes(answer.mean, self.predictor.class_names, 1)[0],
        }

    def _record(self, name: str, answers: list[Answer], seconds: float) -> None:
        """Pushes without an answer belong to the start of a stream, but cost a step too."""
        self.seconds.append(seconds)
        if self.on_answer:
            for answer in answers:
                self.on_answer(name, self._best(answer), seconds)

    def latency_line(self) -> str:
        """Median, 95th percentile and worst latency of a step."""
        millis = 1000 * np.array(self.seconds)
        return (
            f"Engine: {self.predictor.engine.name}, latency of a step of "
            f"{self.predictor.plan.chunk} frames: median {np.median(millis):.2f} ms, 95th "
            f"percentile {np.percentile(millis, 95):.2f} ms, worst {millis.max():.2f} ms "
            f"({len(millis)} steps)"
        )


def prepared(predictor: StreamPredictor, clip: np.ndarray) -> np.ndarray:
    """Clip (3, T, V, M) -> the frames that the clip network sees, (3, num_frame, V, M), zero
    padding included. Raises UserError as `ClipInput.prepare`."""
    return without_centring(predictor.input).prepare(clip[None], None)[0][0]


def played(predictor: StreamPredictor, clips: np.ndarray) -> np.ndarray:
    """Clips (N, 3, T, V, M), one after another -> the logits (N, num_class) at the end of each, as
    `Predictor.run` gives them for the clip network. Raises UserError as `ClipInput.prepare`."""
    logits = []
    for clip in clips:
        predictor.push(prepared(predictor, clip), PLAYED)
        last = predictor.flush(PLAYED)[-1].clip
        assert last is not None  # of a flushed stream
        logits.append(last)
    return np.stack(logits)
