"""People frame by frame -> answers: logits of the scene and of each person, by windows of a clip
network or by the steps of a streaming one. Memory does not grow with the number of frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dataset.padding import valid_frames
from dataset.protocols import MAX_FRAME
from deploy.predictor import Predictor
from deploy.score_maps import ScoreMapPredictor
from deploy.stream_predictor import Answer as StreamAnswer
from deploy.stream_predictor import StreamPredictor
from errors import UserError
from reader.ntu.prenormalise import transform
from reader.shared import energy

SCENE = -1  # instead of a person
MIN_SHARE = 0.25  # of a window in which a person must be there
FIRST_SHARE = 0.5  # of a window that the first answer needs
People = Mapping[int, np.ndarray]  # person -> joints (3, V) of one frame, as the network wants them


@dataclass(frozen=True)
class Answer:
    """who: a person, or SCENE. frame: the middle of the frames it was computed from. logits:
    (num_class,)."""

    who: int
    frame: float
    logits: np.ndarray


class Recogniser(Protocol):
    """Takes one frame after another. intensity: person -> (V,), how much the network makes of each
    joint in the newest frames that it has seen; empty where it does not say."""

    intensity: dict[int, np.ndarray]

    def push(self, people: People) -> list[Answer]:
        """The next frame -> the answers that it completes."""

    def drop(self, person: int) -> None:
        """A person has gone and will not come back."""

    def finish(self) -> list[Answer]:
        """No more frames -> the answers that were still on their way."""

    def whole(self) -> np.ndarray | None:
        """After `finish`: logits (num_class,) that the network gives for all frames as one clip;
        None where it cannot, because there were too many, or nobody."""


class Looks:
    """Looks at the last `size` frames every `hop` frames, at the start as soon as there are
    FIRST_SHARE of them, and at the end once more. limit: frames of the longest clip."""

    def __init__(self, size: int, hop: int, limit: int, num_joint: int) -> None:
        if size > limit:
            raise UserError(f"--window: {size} frames; the model's clips have {limit}")
        self.size, self.hop, self.limit, self.num_joint = size, hop, limit, num_joint
        self.first = max(round(FIRST_SHARE * size), 1)
        self.frames: deque[People] = deque(maxlen=size)
        self.all: list[People] | None = []  # as long as they are one clip
        self.count = self.looked = 0
        self.intensity: dict[int, np.ndarray] = {}

    def push(self, people: People) -> list[Answer]:
        self.frames.append(people)
        self.count += 1
        if self.all is not None:
            self.all.append(people)
            if len(self.all) > self.limit:
                self.all = None
        is_due = self.count >= self.first and (self.count - self.first) % self.hop == 0
        return self._look_if_somebody() if is_due else []

    def drop(self, person: int) -> None:
        """Nothing to forget: a person leaves the window with its frames."""

    def finish(self) -> list[Answer]:
        return self._look_if_somebody() if self.count > self.looked else []

    def whole(self) -> np.ndarray | None:
        if self.all is None or not any(self.all):
            return None
        everybody = sorted({who for people in self.all for who in people})
        return self._whole(self._clip(self.all, everybody))

    def _look_if_somebody(self) -> list[Answer]:
        new, self.looked = self.count - self.looked, self.count
        frames = list(self.frames)
        seen = [who for people in frames for who in people]
        least = max(MIN_SHARE * len(frames), 1)
        present = [who for who in sorted(set(seen)) if seen.count(who) >= least]
        return self._look(self._clip(frames, present), present, new) if present else []

    def _clip(self, frames: Sequence[People], who: Sequence[int]) -> np.ndarray:
        return clip_of(frames, who, self.num_joint)

    def _look(self, clip: np.ndarray, present: Sequence[int], new: int) -> list[Answer]:
        """clip: (3, T, V, M) of the persons `present`, of which `new` frames are new."""
        raise NotImplementedError

    def _whole(self, clip: np.ndarray) -> np.ndarray:
        """The logits of (3, T, V, M) as one clip."""
        raise NotImplementedError


class Windows(Looks):
    """A clip network. A person alone is the scene; of more, the network sees the most active ones
    together, and then each one alone."""

    def __init__(self, predictor: Predictor, size: int, hop: int) -> None:
        super().__init__(size, hop, predictor.pipeline.num_frame, predictor.skeleton.num_joint)
        self.predictor = predictor

    def _look(self, clip: np.ndarray, present: Sequence[int], new: int) -> list[Answer]:
        chosen = most_active(clip, self.predictor.clip_persons)
        clips = [self._as_trained(clip[..., chosen])]
        if len(present) > 1:
            alone = [from_start(clip[..., [m]]) for m in range(len(present))]
            clips += [self._as_trained(person) for person in alone]
        logits = self.predictor.run(batch_of(clips)).logits
        if self.predictor.has_feature:
            intensity = self.predictor.intensity(clips[0])  # T', V, M
            now = -(-clip.shape[1] * len(intensity) // self.limit) - 1
            self.intensity = {present[m]: intensity[now, :, n] for n, m in enumerate(chosen)}
        middle = self.count - clip.shape[1] / 2
        rows = logits if len(present) > 1 else [logits[0], logits[0]]
        return [Answer(who, middle, row) for who, row in zip([SCENE, *present], rows)]

    def _whole(self, clip: np.ndarray) -> np.ndarray:
        chosen = most_active(clip, self.predictor.clip_persons)
        return self.predictor.run(self._as_trained(clip[..., chosen])[None]).logits[0]

    def _as_trained(self, clip: np.ndarray) -> np.ndarray:
        """(3, T, V, M) as main.py -gd stores the data that the network was trained on."""
        if not self.predictor.input.transform:
            return clip
        empty = [(0, 0), (0, MAX_FRAME - clip.shape[1]), (0, 0), (0, 0)]
        return transform(np.pad(clip, empty))


class Maps(Looks):
    """A network that gives a score map of any number of persons and frames (contract ailia): the
    scene is the sum of all scores, and each person has an answer every few frames, the sum over the
    joints."""

    def __init__(self, predictor: ScoreMapPredictor, size: int, hop: int) -> None:
        layout, limit = predictor.input.skeleton, predictor.input.pipeline.num_frame
        if predictor.input.transform:
            raise UserError(
                "the model's clips were normalised as a whole (transform: true); export it with "
                "--contract clips"
            )
        super().__init__(size, hop, limit, layout.num_joint)
        self.predictor = predictor

    def _look(self, clip: np.ndarray, present: Sequence[int], new: int) -> list[Answer]:
        maps = self.predictor.run(clip)
        _, places, _, _ = maps.scores.shape
        self.intensity = {who: maps.intensity[-1, :, m] for m, who in enumerate(present)}
        frames = clip.shape[1]
        found = [Answer(SCENE, self.count - frames / 2, maps.scores.mean(axis=(1, 2, 3)))]
        for place in range(places):
            frame = (place + 0.5) * frames / places
            if frame < frames - new:
                continue  # answered when it was new
            for m, who in enumerate(present):
                scores = maps.scores[:, place, :, m].mean(axis=1)
                found.append(Answer(who, self.count - frames + frame, scores))
        return found

    def _whole(self, clip: np.ndarray) -> np.ndarray:
        return self.predictor.run(clip).scores.mean(axis=(1, 2, 3))


class Steps:
    """A streaming network: one stream for the scene, of its first persons, and one for each person
    as soon as there are two. An answer is the mean over the last `size` frames."""

    def __init__(self, predictor: StreamPredictor, size: int) -> None:
        self.predictor, self.size = predictor, size
        self.chunk: list[People] = []
        self.slots: list[int | None] = [None] * predictor.input.clip_persons
        self.started: dict[int, int] = {}  # SCENE or person -> first frame of its stream
        self.answered: dict[int, int] = {}  # the same -> last position that was answered
        self.alone: int | None = None  # the person whose answers are those of the scene
        self.count = 0
        self.clip: np.ndarray | None = None
        self.intensity: dict[int, np.ndarray] = {}  # a step does not give it

    def push(self, people: People) -> list[Answer]:
        self.chunk.append(people)
        return self._run() if len(self.chunk) == self.predictor.plan.chunk else []

    def drop(self, person: int) -> None:
        self.slots = [None if who == person else who for who in self.slots]
        if person in self.started:
            self.predictor.reset(str(person))
            del self.started[person]
            self.answered.pop(person, None)

    def finish(self) -> list[Answer]:
        found = self._run() if self.chunk else []
        for who in list(self.started):
            last = self.predictor.flush(str(who))
            found += self._answers(who, last)
            if who == SCENE:
                self.clip = last[-1].clip
        return found

    def whole(self) -> np.ndarray | None:
        return self.clip

    def _run(self) -> list[Answer]:
        present = sorted({who for people in self.chunk for who in people})
        for who in present:
            if who not in self.slots and None in self.slots:
                self.slots[self.slots.index(None)] = who
        known = sorted({*present, *self.started} - {SCENE})
        if present:
            self.alone = known[0] if len(known) == 1 and known[0] not in self.started else None
        num_joint = self.predictor.input.skeleton.num_joint
        frames: dict[int, np.ndarray] = {}
        if present or SCENE in self.started:
            frames[SCENE] = clip_of(self.chunk, self.slots, num_joint)
        if self.alone is None:
            frames.update({who: clip_of(self.chunk, [who], num_joint) for who in known})
        for who in frames:
            self.started.setdefault(who, self.count)
        self.count += len(self.chunk)
        self.chunk = []
        if not frames:
            return []
        steps = self.predictor.push_all({str(who): clip for who, clip in frames.items()})
        return [a for who in frames for a in self._answers(who, steps[str(who)])]

    def _answers(self, who: int, answers: Sequence[StreamAnswer]) -> list[Answer]:
        """Of positions that have not been answered: `flush` may repeat the last one."""
        start, targets = self.started[who], [who]
        if who == SCENE and self.alone is not None:
            targets.append(self.alone)
        found = []
        for answer in answers:
            if answer.frame > self.answered.get(who, -1):
                self.answered[who] = answer.frame
                middle = start + answer.frame - min(answer.frame, self.size) / 2
                found += [Answer(target, middle, answer.mean) for target in targets]
        return found


def clip_of(frames: Sequence[People], who: Sequence[int | None], num_joint: int) -> np.ndarray:
    """(3, T, V, M) of these persons, zeros where one is missing."""
    clip = np.zeros((3, len(frames), num_joint, len(who)), np.float32)
    for t, people in enumerate(frames):
        for m, person in enumerate(who):
            if person is not None and person in people:
                clip[:, t, :, m] = people[person]
    return clip


def most_active(clip: np.ndarray, count: int) -> np.ndarray:
    """The `count` persons of (3, T, V, M) with the highest motion energy, as main.py -gd chooses
    them, in their order."""
    rank = [-energy(body) for body in clip.transpose(3, 1, 2, 0)]
    return np.sort(np.argsort(rank, kind="stable")[:count])


def from_start(clip: np.ndarray) -> np.ndarray:
    """Without the frames before the first occupied one; it must have one."""
    return clip[:, valid_frames(clip)[0] :]


def batch_of(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Clips (3, T, V, M) as one batch, with zeros after their frames and persons."""
    batch = np.zeros((len(clips), *np.max([clip.shape for clip in clips], axis=0)), np.float32)
    for row, clip in zip(batch, clips):
        row[:, : clip.shape[1], :, : clip.shape[3]] = clip
    return batch
