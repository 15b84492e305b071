"""The state of a stream between two steps, and the step of several streams. NumPy only: `run` is
either a network (model/streaming/network.py) or an engine with an exported step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from errors import UserError
from model.streaming.plan import Plan, WindowSum

FRAMES, MASK = "frames", "mask"  # names of the inputs that are not states
Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


class RunningSum:
    """Sum over the last frames of a stream in float64, at a constant cost for each frame.

    Rounding does not accumulate: what was added is subtracted exactly, as float32 numbers of
    similar size have exact sums in float64.
    """

    def __init__(self, window: WindowSum, shape: tuple[int, ...]) -> None:
        """shape: of the frames of a step, (P, C, count, V)."""
        p, c, _, v = shape
        self.spacing = window.spacing
        # The newest frame of a phase replaces the one that leaves the sum.
        self.ring = np.zeros((max(window.taps - 1, 0) * window.spacing, p, c, 1, v), np.float32)
        self.total = np.zeros((window.spacing, p, c, 1, v))

    def past(self, first: int, count: int) -> np.ndarray:
        """(P, C, count, V) float32: for each of the next frames, the sum of those in its window
        that came before them all. first: the number of the first one."""
        total, sums = self.total.copy(), []
        for frame in range(first, first + count):
            phase = frame % self.spacing
            sums.append(total[phase].astype(np.float32))
            if frame - first < len(self.ring):
                total[phase] -= self.ring[frame % len(self.ring)]
        return sums[0] if count == 1 else np.concatenate(sums, axis=2)

    def push(self, first: int, x: np.ndarray) -> None:
        """The next frames, (P, C, count, V)."""
        for n in range(x.shape[2] if len(self.ring) else 0):
            oldest = self.ring[(first + n) % len(self.ring)]
            total = self.total[(first + n) % self.spacing]
            total += x[:, :, n : n + 1]
            total -= oldest
            oldest[:] = x[:, :, n : n + 1]


class StreamState:
    """A stream between two steps, zeros at its start.

    first: frames before the next step. carried: state -> (P, C, frames, V) float32. sums: state ->
    sum over time. rows: P, the persons.
    """

    def __init__(self, plan: Plan, rows: int) -> None:
        self.first, self.rows = 0, rows
        shapes = {name: (rows, *shape) for name, shape in plan.states.items()}
        self.carried: dict[str, np.ndarray] = {
            name: np.zeros(shape, np.float32)
            for name, shape in shapes.items()
            if name not in plan.sums
        }
        self.sums = {name: RunningSum(window, shapes[name]) for name, window in plan.sums.items()}

    @property
    def num_bytes(self) -> int:
        """Memory of the state."""
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, for a file; `load` reads them."""
        found = {"first": np.array(self.first), **self.carried}
        for name, total in self.sums.items():
            found[f"{name}.ring"], found[f"{name}.total"] = total.ring, total.total
        return found

    def load(self, arrays: Mapping[str, np.ndarray], where: str) -> None:
        """Raises UserError, starting with `where`, for anything but the arrays of a state of the
        same plan and rows."""
        for name, array in self.arrays().items():
            given = arrays.get(name)
            if given is None or given.shape != array.shape or given.dtype != array.dtype:
                raise UserError(f"{where}: {name} is missing or of another shape")
            if not np.isfinite(given).all() or (name == "first" and given < 0):
                raise UserError(f"{where}: {name} holds NaN, infinity or a number below 0")
        self.first = int(arrays["first"])
        self.carried = {name: np.array(arrays[name]) for name in self.carried}
        for name, total in self.sums.items():
            total.ring[:], total.total[:] = arrays[f"{name}.ring"], arrays[f"{name}.total"]


def advance(
    run: Run,
    plan: Plan,
    states: Sequence[StreamState],
    frames: Sequence[np.ndarray],
    lengths: Sequence[int | None],
) -> list[np.ndarray]:
    """One step of several streams in one batch. Changes the states.

    frames: of each stream, (P, V, I*C, chunk) float32. lengths: of each stream's clip, where known:
    frames from there on do not belong to it, and their values do not matter as long as they are
    finite. Returns the logits of each stream, (P, num_class, positions); `Plan.positions` says of
    which frames.
    """
    feeds = {FRAMES: _joined(frames)}
    if plan.slots:
        masks = [plan.mask(s.first, n).repeat(s.rows, axis=0) for s, n in zip(states, lengths)]
        feeds[MASK] = _joined(masks)
    for name in plan.states:
        if name in plan.sums:
            count = plan.states[name][1]
            feeds[name] = _joined([state.sums[name].past(state.first, count) for state in states])
        else:
            feeds[name] = _joined([state.carried[name] for state in states])
    logits, *news = run(feeds)
    ends = np.cumsum([state.rows for state in states])
    for name, new in zip(plan.states, news):
        for state, part in zip(states, np.split(new, ends[:-1])):
            if name in plan.sums:
                state.sums[name].push(state.first, part)
            else:
                state.carried[name] = part
    for state in states:
        state.first += plan.chunk
    return np.split(logits.reshape(*logits.shape[:2], -1), ends[:-1])


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
