"""Write a static model in the form of the public Paddle port: input (N, I, C, T, V, M), 5-D einsum,
BatchNorm not folded, whole clips, all person slots, a fixed batch size.

python benchmarks/port_model.py --config 2001 --weights W --target FOLDER/port --batch 16
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import configs
from dataset.protocols import data_spec
from errors import run_command
from utils import prepare_process


def write_port_model(config_name: str, weights: str, target: str, batch: int) -> None:
    """Write `target` + .pdmodel and .pdiparams, without metadata, like the port."""
    import paddle
    from paddle.static import InputSpec

    from benchmarks.plain_networks import use_plain_forms
    from training.checkpoint import load_network

    use_plain_forms(port_attention=True)
    config = configs.load(config_name, {"pretrained_path": weights})
    spec = data_spec(config.dataset, config.data.own_layout)
    persons, joints = spec.num_person, spec.skeleton.num_joint
    network = load_network(config, spec)
    channels, frames = network.branch_channels, config.data.num_frame
    clip_shape = [batch, persons * joints, sum(channels), frames]

    class PortForm(paddle.nn.Layer):
        """(N, I, C, T, V, M) -> logits (N, num_class)."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return self.network(x.transpose([0, 5, 4, 1, 2, 3]).reshape(clip_shape))

    form = PortForm()
    form.eval()
    shape = [batch, len(channels), channels[0], frames, joints, persons]
    paddle.jit.save(form, target, [InputSpec(shape, "float32", "clips")])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("config", "weights", "target"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--batch", type=int, required=True)
    args = parser.parse_args()
    prepare_process()
    write_port_model(args.config, args.weights, args.target, args.batch)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
