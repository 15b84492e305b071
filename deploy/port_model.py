"""Static models of the public Paddle port: 6-D input (N, I, C, T, V, M), no metadata."""

from __future__ import annotations

import numpy as np

from dataset.features import branch_channels
from dataset.pipeline import ClipPipeline
from dataset.skeletons import skeleton
from deploy.clip_input import ClipInput
from errors import UserError

INPUTS = "JVB"  # branches of the port's released models


class PortInput(ClipInput):
    """The input of a model of the port, which takes whole clips."""

    def features(self, clip: np.ndarray) -> np.ndarray:
        """Prepared clip (3, T, V, M) -> (I, C, T, V, M) float32."""
        tensor = super().features(clip)  # (M*V, I*C, T)
        i, t = len(self.pipeline.channels), tensor.shape[-1]
        split = tensor.reshape(self.clip_persons, self.skeleton.num_joint, i, -1, t)
        return split.transpose(2, 3, 4, 1, 0)  # (M, V, I, C, T) -> (I, C, T, V, M)


def port_input(shape: list[int], inputs: str) -> PortInput:
    """shape: of the model's input, -1 for a dynamic axis. inputs: letters of its branches, '' for
    those of the port. Raises UserError where the two do not fit together."""
    inputs = inputs or INPUTS
    channels = branch_channels(inputs)
    layout = skeleton("ntu-25")
    wanted = [len(channels), channels[0], layout.num_joint]
    if len(shape) != 6 or [shape[1], shape[2], shape[4]] != wanted:
        raise UserError(
            f"the model has no .meta.yaml beside it and takes {shape}; allowed without: the "
            f"public port's (N, {len(channels)}, {channels[0]}, T, 25, M) for --inputs {inputs}"
        )
    return PortInput(layout, ClipPipeline(inputs, shape[3]), clip_persons=shape[5])
