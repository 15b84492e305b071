"""Frames of people in, a timeline out, and at any time what each of them does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apps.video.recognition import SCENE, Answer, People, Recogniser
from apps.video.timeline import NO_ACTION, NOTHING, Labels, Row, Smoothing
from deploy.predictions import top_classes
from reader.tracking import MAX_GAP


class Session:
    """One source, from its first frame to its last. class_names: of the network, may be empty.
    frame_rate: frames/s."""

    def __init__(
        self,
        recogniser: Recogniser,
        class_names: Sequence[str],
        smoothing: Smoothing,
        frame_rate: float,
    ) -> None:
        self.recogniser, self.class_names = recogniser, class_names
        self.smoothing, self.frame_rate = smoothing, frame_rate
        self.count = 0  # frames
        self._open: dict[int, Labels] = {}  # SCENE and persons that are there
        self._seen: dict[int, int] = {}  # of these, the last frame
        self._rows: list[Row] = []  # of persons and scenes that have ended
        self._total, self._answers = np.zeros(0), 0  # of the logits of the scene

    def push(self, people: People) -> None:
        """The people of the next frame."""
        for who in [*people, *([SCENE] if people else [])]:
            self._open.setdefault(who, Labels(self.count, self.smoothing))
            self._seen[who] = self.count
        self.count += 1
        for who, last in list(self._seen.items()):
            if self.count - last > MAX_GAP:
                self._end(who)
                if who != SCENE:
                    self.recogniser.drop(who)
        self._take(self.recogniser.push(people))

    def said(self, who: int) -> tuple[str, float] | None:
        """The label of a person or of SCENE now, and its probability; None before the first
        answer."""
        labels = self._open.get(who)
        if labels is None or not labels.probability.size:
            return None
        if labels.current == NOTHING:
            return NO_ACTION, float(labels.probability.max())
        return self._name(labels.current), float(labels.probability[labels.current])

    def best(self, count: int) -> list[tuple[str, float]]:
        """The likeliest classes of the scene now; empty before the first answer."""
        labels = self._open.get(SCENE)
        probability = labels.probability if labels else np.zeros(0)
        order = np.argsort(-probability, kind="stable")[:count]
        return [(self._name(c), float(probability[c])) for c in order]

    def finish(self, topk: int) -> dict[str, Any]:
        """No more frames -> `top`, the topk best classes of all of it, and the timelines `scene`
        and `persons`, in seconds; all empty where nobody was there for long enough."""
        self._take(self.recogniser.finish())
        for who in list(self._open):
            self._end(who)
        whole = self.recogniser.whole()
        logits = self._total / max(self._answers, 1) if whole is None else whole
        rows = sorted(self._rows, key=lambda row: (row["person"], row["start"]))
        return {
            "num_frame": self.count,
            "top": top_classes(logits, self.class_names, topk) if self._answers else [],
            "scene": [
                {key: row[key] for key in ("start", "end", "label", "confidence")}
                for row in rows
                if row["person"] == SCENE
            ],
            "persons": [row for row in rows if row["person"] != SCENE],
        }

    def _take(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if answer.who == SCENE:
                self._total = self._total + answer.logits if self._answers else answer.logits
                self._answers += 1
            if answer.who in self._open:
                self._open[answer.who].push(answer.frame, answer.logits)

    def _end(self, who: int) -> None:
        end = self._seen.pop(who) + 1
        rows = self._open.pop(who).rows(end, self._name, self.frame_rate)
        self._rows += [{"person": who, **row} for row in rows]

    def _name(self, number: int) -> str:
        return self.class_names[number] if self.class_names else f"class {number}"
