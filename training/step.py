"""One optimizer step, over its micro-batches and processes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal

import paddle

from training import parallel
from training.session import TrainingSession

_AMP_TYPES: dict[str, Literal["bfloat16", "float16"]] = {"bf16": "bfloat16", "fp16": "float16"}


class TrainingStep:
    """Call `backward` for each of the `accumulate` micro-batches, then `update`. The gradient is
    the mean over all clips of the step: all micro-batches have the same number of clips."""

    def __init__(self, session: TrainingSession) -> None:
        """Waits for the other processes and copies the weights of rank 0 to all of them."""
        self.session, self.config = session, session.config
        self.replica = parallel.replicate(session.network)
        # Scales small gradients above the smallest float16 number; bfloat16 does not need it.
        self.scaler = paddle.amp.GradScaler() if self.config.amp == "fp16" else None

    def backward(self, clips: paddle.Tensor, targets: paddle.Tensor) -> tuple[float, paddle.Tensor]:
        """Add a micro-batch's part of the gradient. Returns its loss and outputs, float32."""
        amp = self.config.amp
        precision = paddle.amp.auto_cast(dtype=_AMP_TYPES[amp]) if amp else nullcontext()
        with parallel.own_gradients(self.replica):
            with precision:
                outputs = self.replica(clips)
            outputs = outputs.astype("float32")
            loss = self.session.task.loss(outputs, targets)
            part = loss / self.config.accumulate
            (part if self.scaler is None else self.scaler.scale(part)).backward()
        return float(loss), outputs

    def update(self) -> float:
        """Average the gradient over processes and update the weights. Returns the learning rate
        of this update."""
        parallel.share_gradients(self.session.network)
        optimizer, rate = self.session.optimizer, self.session.optimizer.get_lr()
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
        optimizer.clear_grad()
        self.session.scheduler.step()
        return rate
