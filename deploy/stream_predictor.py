"""Live frames -> answers: many independent streams over one exported step (contract `stream`).

predictor = StreamPredictor.load("xsub.pdmodel")
for frames in camera:  # (3, F, V, M) metres, F 1 or more
    for answer in predictor.push(frames):
        print(answer.frame, predictor.class_names[answer.mean.argmax()])
clip_logits = predictor.flush()[-1].clip  # as of the clip network
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from dataset.skeletons import from_mapping
from dataset.storage import ClipSet
from deploy.clip_input import ClipInput, check_data
from deploy.engines.engine import AUTO, Engine, open_engine
from deploy.meta import StaticMeta, read_meta
from deploy.stream_clock import FrameClock
from deploy.stream_input import StreamInput
from errors import UserError
from model.streaming.plan import Plan
from model.streaming.state import StreamState, advance
from safe_io import PathLike, read_npz, whole_file
from utils import num_cores

DEFAULT_STREAM = "0"
# For a step, which is small, where it runs the file (docs/performance.md).
FASTEST = "onnxruntime"
MOST_ROWS = 8  # in a batch: the states of more exceed the processor's caches


@dataclass(frozen=True)
class Answer:
    """frame: the position of the stream that the logits belong to; it came `delay` frames before
    the newest. logits: (num_class,) of this position. mean: over the last positions, as many as a
    training clip has, fewer at the start. clip: only of the last answer of a flushed stream: the
    logits that the clip network gives for the whole stream; else None. persons: the same of each
    person slot, (M, num_class)."""

    frame: int
    logits: np.ndarray
    mean: np.ndarray
    clip: np.ndarray | None = None
    persons: np.ndarray | None = None


class RunningMean:
    """Mean of the last `size` rows (M, num_class), at a constant cost for each, in float64; before
    there are as many, the mean of those."""

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        self.ring = np.zeros((size, *shape), np.float32)
        self.total = np.zeros(shape)
        self.count = np.zeros((), np.int64)

    def push(self, row: np.ndarray) -> None:
        oldest = self.ring[self.count % len(self.ring)]
        self.total += row
        self.total -= oldest
        oldest[:] = row
        self.count += 1

    @property
    def newest(self) -> np.ndarray:
        """The last row, (M, num_class); there must be one."""
        return self.ring[(self.count - 1) % len(self.ring)]

    @property
    def value(self) -> np.ndarray:
        """(M, num_class)."""
        return self.total / min(int(self.count), len(self.ring))


class Stream:
    """One stream: its input, its state and its sums of logits. window: positions of the mean.
    frame_rate: of the training data, None where frames come without times."""

    def __init__(
        self,
        input_: ClipInput,
        plan: Plan,
        num_class: int,
        window: int,
        frame_rate: float | None,
    ) -> None:
        rows = input_.clip_persons
        self.plan = plan
        joints = input_.skeleton.num_joint
        self.clock = None if frame_rate is None else FrameClock(frame_rate, joints, rows)
        self.input = StreamInput(input_)
        self.state = StreamState(plan, rows)
        shape = rows, joints, sum(input_.pipeline.channels), 0
        self.waiting: np.ndarray = np.zeros(shape, np.float32)
        self.mean = RunningMean(window, (rows, num_class))
        self.total = np.zeros((rows, num_class))  # over the positions of the clip network
        self.count = np.zeros((), np.int64)
        self.length: int | None = None  # known once the stream has ended

    @property
    def is_ready(self) -> bool:
        return self.waiting.shape[-1] >= self.plan.chunk

    def push(self, frames: ArrayLike, seconds: ArrayLike | None) -> None:
        """Its next frames. Raises UserError before anything changes."""
        if (seconds is None) != (self.clock is None):
            raise UserError(
                "frames come with their times in seconds if, and only if, the predictor was loaded "
                "with the frame_rate of the training data"
            )
        checked = self.input.checked(frames)
        if self.clock is not None and seconds is not None:
            checked = self.clock.push(checked, seconds)
        self._add(self.input.push(checked))

    def _add(self, features: np.ndarray) -> None:
        """Features (M, V, I*C, F) of its next frames."""
        self.waiting = np.concatenate([self.waiting, features], axis=-1)

    def end(self) -> None:
        """No more frames: what is missing for all positions is added as frames behind the end."""
        self._add(self.input.finish())
        self.length = self.state.first + self.waiting.shape[-1]
        if self.length:
            missing = self.plan.steps(self.length) * self.plan.chunk - self.length
            self._add(np.zeros((*self.waiting.shape[:-1], max(missing, 0)), np.float32))

    def next_chunk(self) -> tuple[np.ndarray, int | None]:
        """The frames of its next step, and the length of the stream where they reach its end."""
        chunk = self.plan.chunk
        frames, self.waiting = self.waiting[..., :chunk], self.waiting[..., chunk:]
        ends = self.length is not None and self.state.first + chunk > self.length
        return np.ascontiguousarray(frames), self.length if ends else None

    def answer(self, logits: np.ndarray, length: int | None) -> list[Answer]:
        """The answers of the step that has just been made, none before the first position. logits:
        (M, num_class, positions)."""
        answers = []
        for frame, row in zip(self.positions(length), np.moveaxis(logits, 2, 0)):
            if frame is not None:
                self.mean.push(row)
                if frame % self.plan.stride == 0:
                    self.total += row
                    self.count += 1
                answers.append(self.newest(frame))
        return answers

    def positions(self, length: int | None) -> list[int | None]:
        """Of the step that has just been made: see `Plan.positions`."""
        return self.plan.positions(self.state.first - self.plan.chunk, length)

    def newest(self, frame: int) -> Answer:
        """The last answer, which was for this position."""
        return Answer(frame, self.mean.newest.mean(axis=0), self.mean.value.mean(axis=0))

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, for a file; `load` reads them."""
        found: dict[str, np.ndarray] = {
            "waiting": self.waiting,
            "mean.ring": self.mean.ring,
            "mean.total": self.mean.total,
            "mean.count": self.mean.count,
            "total": self.total,
            "count": self.count,
        }
        for part, owner in self._parts().items():
            found.update({f"{part}.{name}": a for name, a in owner.arrays().items()})
        return found

    def _parts(self) -> dict[str, StreamInput | StreamState | FrameClock]:
        parts: dict[str, StreamInput | StreamState | FrameClock]
        parts = {"input": self.input, "state": self.state}
        return {**parts, "clock": self.clock} if self.clock else parts

    def load(self, arrays: Mapping[str, np.ndarray], where: str) -> None:
        """Raises UserError, starting with `where`, for anything but the arrays of a stream of the
        same model."""
        own = self.arrays()
        for name in ("waiting", "mean.ring", "mean.total", "mean.count", "total", "count"):
            given, axes = arrays.get(name), -1 if name == "waiting" else None
            if (
                given is None
                or given.shape[:axes] != own[name].shape[:axes]
                or given.dtype != own[name].dtype
                or not np.isfinite(given).all()
            ):
                raise UserError(f"{where}: {name} is missing or of another model")
        if self.clock is None and "clock.times" in arrays:
            raise UserError(f"{where}: of a stream with times; load the predictor with frame_rate")
        for part, owner in self._parts().items():
            start = f"{part}."
            own_arrays = {n[len(start) :]: a for n, a in arrays.items() if n.startswith(start)}
            owner.load(own_arrays, where)
        self.waiting, self.total = arrays["waiting"], arrays["total"].copy()
        self.mean.ring[:], self.mean.total[:] = arrays["mean.ring"], arrays["mean.total"]
        self.mean.count[...], self.count[...] = arrays["mean.count"], arrays["count"]


class StreamPredictor:
    """Streams over one engine. Streams never share state. Not thread-safe: use one predictor per
    thread. window: frames of the running mean (default: those of a training clip). frame_rate: of
    the training data, frames/s, for frames that come with their times. Raises UserError where
    engine and metadata do not fit together."""

    def __init__(
        self,
        engine: Engine,
        meta: StaticMeta,
        window: int | None = None,
        frame_rate: float | None = None,
    ) -> None:
        if not meta.stream:
            raise UserError(
                f"the model follows the {meta.contract} contract, which takes whole clips; export "
                "again with --contract stream"
            )
        layout = from_mapping(meta.skeleton, "skeleton of .meta.yaml")
        expected = meta.inputs(layout.num_joint)
        if engine.inputs != expected:
            raise UserError(
                f"the model takes {engine.inputs}, its .meta.yaml says {expected}: they do not "
                "belong together; export again"
            )
        self.engine, self.meta, self.plan = engine, meta, meta.plan()
        self.class_names = meta.class_names
        self.input = ClipInput(layout, meta.clip_pipeline(), meta.clip_persons)
        self.input = dataclasses.replace(self.input, transform=meta.transform)
        window = window or self.input.pipeline.num_frame
        self._window = max(window // self.plan.output.spacing, 1)
        self._frame_rate = frame_rate
        self._streams: dict[str, Stream] = {}
        self._new()  # raises UserError for another frame_rate
        self._pool = ThreadPoolExecutor(engine.max_concurrency)

    @classmethod
    def load(
        cls,
        model_file: PathLike,
        *,
        params_file: PathLike | None = None,
        engine: str = AUTO,
        cpu_threads: int | None = None,
        window: int | None = None,
        frame_rate: float | None = None,
    ) -> StreamPredictor:
        """model_file: .pdmodel, .json or .onnx, written by export.py --contract stream. Other
        arguments: see `Predictor.load` and the class. Raises UserError."""
        model_file = Path(model_file)
        params_file = Path(params_file or model_file.parent / f"{model_file.stem}.pdiparams")
        meta = read_meta(model_file)
        if meta:
            meta.check_files(model_file, params_file)
        elif os.path.isfile(model_file):  # never opened: engines may crash on it
            raise UserError(f"{model_file}: has no .meta.yaml; export again with --contract stream")
        threads = cpu_threads or num_cores()
        opened = open_engine(model_file, params_file, engine, threads, FASTEST)
        assert meta is not None  # the model file exists, or open_engine raises
        return cls(opened, meta, window, frame_rate)

    @property
    def streams(self) -> list[str]:
        """Of which frames have come and that have not ended."""
        return list(self._streams)

    def check_data(self, clips: ClipSet, accept: Collection[str] = ()) -> None:
        """Raises UserError where a data set does not fit the model. accept: settings that may
        differ (dataset/identity.py)."""
        self.input.check_shape(clips.data.shape, str(clips.path))
        check_data(clips, self.meta, accept)
        self.input.check_metres(clips.data, str(clips.path))

    def push(
        self,
        frames: ArrayLike,
        stream_id: str = DEFAULT_STREAM,
        seconds: ArrayLike | None = None,
    ) -> list[Answer]:
        """The next frames of a stream, (3, F, V, M): see `StreamInput.checked`. A new stream_id
        starts a stream. seconds: the time of each frame. Returns an answer for every step that they
        complete."""
        times = None if seconds is None else {stream_id: seconds}
        return self.push_all({stream_id: frames}, times)[stream_id]

    def push_all(
        self, frames: Mapping[str, ArrayLike], seconds: Mapping[str, ArrayLike] | None = None
    ) -> dict[str, list[Answer]]:
        """The next frames of several streams, and their times, which run in batches. Raises
        UserError, naming the stream, where frames cannot be used; those of the streams before it
        have been taken."""
        for stream_id, given in frames.items():
            stream = self._streams.get(stream_id) or self._new()
            try:
                stream.push(given, (seconds or {}).get(stream_id))
            except UserError as error:
                raise UserError(f"stream {stream_id}: {error}") from error
            self._streams[stream_id] = stream
        return self._run(list(frames))

    def flush(self, stream_id: str = DEFAULT_STREAM) -> list[Answer]:
        """End a stream, and release it. Returns the answers that were still on their way, or the
        newest one again; the last one has the logits of the clip network for the whole stream.
        Raises UserError for a stream without frames."""
        stream = self._open(stream_id)
        try:
            stream.end()
            answers = self._run([stream_id])[stream_id]
        finally:
            del self._streams[stream_id]
        if not answers:
            found = [frame for frame in stream.positions(stream.length) if frame is not None]
            answers = [stream.newest(found[-1])]  # no frame is missing, so the last step gave it
        persons = stream.total / stream.count
        last = dataclasses.replace(answers[-1], clip=persons.mean(axis=0), persons=persons)
        return [*answers[:-1], last]

    def clip_logits(self, stream_ids: Collection[str]) -> dict[str, np.ndarray]:
        """The logits (num_class,) that the clip network gives for the frames of each stream so far,
        which `flush` would give now. The streams go on. Raises UserError for a stream without
        frames."""
        ended = {name: f"{name}, ended" for name in stream_ids}
        copies = {copy: self._copy(name) for name, copy in ended.items()}
        for stream in copies.values():
            stream.end()
        kept = {copy: self._streams[copy] for copy in copies if copy in self._streams}
        self._streams.update(copies)
        try:
            self._run(list(copies))
        finally:
            for copy in copies:
                del self._streams[copy]
            self._streams.update(kept)  # a stream may have such a name
        results = {name: copies[copy] for name, copy in ended.items()}
        return {name: (s.total / s.count).mean(axis=0) for name, s in results.items()}

    def reset(self, stream_id: str = DEFAULT_STREAM) -> None:
        """Forget a stream, if there is one: its next frames start a new one."""
        self._streams.pop(stream_id, None)

    def missing(self, stream_id: str = DEFAULT_STREAM) -> int:
        """Joints of a stream that came as NaN. Raises UserError for a stream without frames."""
        return self._open(stream_id).input.missing

    def save(self, path: PathLike, stream_id: str = DEFAULT_STREAM) -> None:
        """Write the state of a stream (.npz), for `restore`."""
        arrays = self._open(stream_id).arrays()
        arrays["model"] = np.array(self._identity())
        with whole_file(path) as file:
            np.savez(file, allow_pickle=False, **arrays)

    def restore(self, path: PathLike, stream_id: str = DEFAULT_STREAM) -> None:
        """Go on with a saved stream. Raises UserError for a state of another model, and for a file
        that `save` did not write."""
        arrays = read_npz(path, "the state of a stream")
        if str(arrays.get("model")) != self._identity():
            raise UserError(f"{path}: the state of another model; start the stream again")
        stream = self._new()
        stream.load(arrays, str(path))
        self._streams[stream_id] = stream

    def _copy(self, stream_id: str) -> Stream:
        stream = self._new()
        arrays = {name: array.copy() for name, array in self._open(stream_id).arrays().items()}
        stream.load(arrays, f"stream {stream_id}")
        return stream

    def _identity(self) -> str:
        return self.meta.program_sha256 + self.meta.params_sha256

    def _new(self) -> Stream:
        return Stream(self.input, self.plan, len(self.class_names), self._window, self._frame_rate)

    def _open(self, stream_id: str) -> Stream:
        if stream_id not in self._streams:
            known = ", ".join(self._streams) or "none"
            raise UserError(f"stream {stream_id}: no frames have come; open streams: {known}")
        return self._streams[stream_id]

    def _run(self, stream_ids: list[str]) -> dict[str, list[Answer]]:
        """Steps until none of these streams has the frames of another."""
        answers: dict[str, list[Answer]] = {stream_id: [] for stream_id in stream_ids}
        while ready := [name for name in stream_ids if self._streams[name].is_ready]:
            parts = self._batches(ready)
            step = partial(self._step, shared=len(parts) > 1)
            found = self._pool.map(step, parts) if len(parts) > 1 else map(step, parts)
            for part, logits in zip(parts, found):
                for name, (rows, length) in zip(part, logits):
                    answers[name] += self._streams[name].answer(rows, length)
        return answers

    def _batches(self, ready: list[str]) -> list[list[str]]:
        """Streams that run together: as many batches as threads may run."""
        rows = self.input.clip_persons
        fixed = self.meta.batch_size
        if fixed and fixed < rows:
            raise UserError(f"a batch of {fixed} is smaller than {rows} persons; export again")
        size = -(-len(ready) // self.engine.max_concurrency)
        size = max(min(size, (fixed or MOST_ROWS) // rows), 1)
        return [ready[start : start + size] for start in range(0, len(ready), size)]

    def _step(self, names: list[str], shared: bool) -> list[tuple[np.ndarray, int | None]]:
        """One step of streams in one batch: the logits of each, (M, num_class, positions), and its
        length where it is known."""
        streams = [self._streams[name] for name in names]
        chunks = [stream.next_chunk() for stream in streams]
        lengths = [length for _, length in chunks]
        states = [stream.state for stream in streams]

        def run(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            return self._run_batch(feeds, exclusive=not shared)

        logits = advance(run, self.plan, states, [frames for frames, _ in chunks], lengths)
        return list(zip(logits, lengths))

    def _run_batch(self, feeds: dict[str, np.ndarray], exclusive: bool) -> list[np.ndarray]:
        """A model of a fixed batch size gets zeros for the missing rows."""
        count = len(next(iter(feeds.values())))
        empty = self.meta.batch_size - count
        if empty > 0:
            feeds = {n: np.pad(x, [(0, empty)] + [(0, 0)] * 3) for n, x in feeds.items()}
        outputs = self.engine.run(feeds, exclusive=exclusive)
        if not np.isfinite(outputs[0][:count]).all():
            raise UserError("the model answers with NaN or infinity: its files are damaged")
        return [y[:count] for y in outputs] if empty > 0 else outputs
