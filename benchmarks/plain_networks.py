"""Our networks in the plain writing of public code, with the same weights: what the benchmarks
compare ours with. As a script it writes the public Paddle port's form of a static model: input
(N, I, C, T, V, M), 5-D einsum, nothing folded, whole clips, every person slot, a fixed batch.

python benchmarks/plain_networks.py --config 2001 --weights W --target FOLDER/port --batch 16
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from errors import run_command


def write_plainly() -> None:
    """Put the plain writing in the place of ours, in this process."""
    import paddle
    import paddle.nn.functional as F
    from paddle import Tensor, nn

    from model import attention, conv, efficientgcn, layers, stgcn, temporal

    def graph_conv(x: Tensor, adjacency: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = F.conv2d(x, weight, bias)
        p, kc, t, v = y.shape
        k = adjacency.shape[0]
        return paddle.einsum("nkctv,kvw->nctw", y.reshape([p, k, kc // k, t, v]), adjacency)

    # No lambdas: Paddle cannot write them into static models.
    def conv_then_norm(x: Tensor, conv: nn.Layer, norm: nn.Layer) -> Tensor:
        return norm(conv(x))

    def swish(self: nn.Layer, x: Tensor) -> Tensor:
        return F.swish(x)

    def mean_over_frames(x: Tensor, training: bool, tail: None) -> Tensor:
        return x.mean(axis=2, keepdim=True)

    efficientgcn.graph_conv = stgcn.graph_conv = graph_conv
    conv.Conv2D.forward = nn.Conv2D.forward
    for module in (layers, temporal, stgcn):
        module.conv_then_norm = conv_then_norm
    layers.Swish.forward = swish
    attention.mean_over_frames = mean_over_frames


def write_like_the_port() -> None:
    """`write_plainly`, and the port's joint attention: one product of both gates, at full size."""
    import paddle
    import paddle.nn.functional as F
    from paddle import Tensor

    from model import attention

    def forward(self: attention.STJointAttention, x: Tensor, tail: None = None) -> Tensor:
        _, _, t, v = x.shape
        over_joints = x.mean(axis=2, keepdim=True).transpose([0, 1, 3, 2])  # (P, C, V, 1)
        means = paddle.concat([x.mean(axis=3, keepdim=True), over_joints], axis=2)
        time_part, joint_part = paddle.split(self.act(self.fcn(means)), [t, v], axis=2)
        joint_gate = F.sigmoid(self.conv_v(joint_part.transpose([0, 1, 3, 2])))
        return x * (F.sigmoid(self.conv_t(time_part)) * joint_gate)

    write_plainly()
    attention.STJointAttention.forward = forward


def write_port_model(config_name: str, weights: str, target: str, batch: int) -> None:
    """`target` + .pdmodel and .pdiparams, without a meta file, as the port leaves them."""
    import paddle
    from paddle.static import InputSpec

    import configs
    from dataset.protocols import data_spec
    from model.build import build_network
    from training.checkpoint import load_pretrained

    write_like_the_port()
    config = configs.load(config_name)
    spec = data_spec(config.dataset, config.data.own_layout)
    persons, joints = spec.num_person, spec.skeleton.num_joint
    network = build_network(config, spec, persons)
    load_pretrained(network, weights)
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
    from utils import prepare_process

    prepare_process()
    write_port_model(args.config, args.weights, args.target, args.batch)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
