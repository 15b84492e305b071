"""One optimizer step of training, over the micro-batches and processes that share it."""

from __future__ import annotations

import contextlib

import paddle
import paddle.nn.functional as F

from training import parallel
from training.session import Session

_AMP_TYPES = {"bf16": "bfloat16", "fp16": "float16"}


class TrainingStep:
    """Call `backward` for each of the session's `accumulate` micro-batches, then `update`.

    The gradient is the mean over all clips of the step, whichever process and micro-batch they
    are in: each micro-batch has as many clips as any other.
    """

    def __init__(self, session: Session) -> None:
        """Meets the other processes: theirs becomes the network of rank 0."""
        self.session, self.config = session, session.config
        self.replica = parallel.replicate(session.network)
        # Lifts small gradients over the smallest number of float16. bfloat16 needs none.
        self.scaler = paddle.amp.GradScaler() if self.config.amp == "fp16" else None

    def backward(self, clips: paddle.Tensor, labels: paddle.Tensor) -> tuple[float, paddle.Tensor]:
        """Add a micro-batch's part of the gradient. Returns the micro-batch's loss and logits
        (N, num_class) float32."""
        with parallel.own_gradients(self.replica):
            with self._precision():
                logits = self.replica(clips)
            logits = logits.astype("float32")
            loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
            part = loss / self.config.accumulate
            (part if self.scaler is None else self.scaler.scale(part)).backward()
        return float(loss), logits

    def update(self) -> float:
        """Share the gathered gradient between processes and move the weights along it. Returns
        the rate at which."""
        parallel.share_gradients(self.session.network)
        optimizer = self.session.optimizer
        rate = optimizer.get_lr()
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
        optimizer.clear_grad()
        self.session.scheduler.step()
        return rate

    def _precision(self) -> contextlib.AbstractContextManager[None]:
        if not self.config.amp:
            return contextlib.nullcontext()
        return paddle.amp.auto_cast(dtype=_AMP_TYPES[self.config.amp])
