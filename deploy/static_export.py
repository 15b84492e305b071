"""Network -> .pdmodel and .pdiparams, with constants folded."""

from __future__ import annotations

from pathlib import Path

import paddle
from paddle import Tensor, nn
from paddle.static import InputSpec

from deploy.meta import meta_path
from model.fold import fold_network
from safe_io import UserError, whole_file

SUFFIXES = (".pdiparams", ".pdmodel")
INPUTS = ("clips", "cut")


class WithFeature(nn.Layer):
    """Gives (logits, feature (P, C', T', V)) where the network alone gives logits."""

    def __init__(self, network: nn.Layer) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.with_feature(clips)


def write_static(
    network: nn.Layer, target: Path, input_shapes: list[list[int]], *, with_feature: bool
) -> None:
    """Fold a network and write it as `target` + .pdmodel and .pdiparams.

    The network is changed by the folding and stays good for evaluation only. input_shapes: of the
    clip tensor, and of `cut` where tails may be cut; -1 for a free axis.
    """
    network.eval()
    fold_network(network)
    program = WithFeature(network) if with_feature else network
    specs = [InputSpec(shape, "float32", name) for name, shape in zip(INPUTS, input_shapes)]
    paddle.jit.save(program, str(target), specs)
    if not all(Path(f"{target}{suffix}").is_file() for suffix in SUFFIXES):
        raise UserError(
            f"Paddle {paddle.__version__} wrote no .pdmodel; unset FLAGS_enable_pir_api, or "
            "install paddlepaddle==3.1.1"
        )


def publish(trial: Path, target: Path) -> None:
    """Put a checked model under its final name. An older one goes first, its meta file before the
    rest, and the new meta file comes last: even after a kill no file stands beside another
    model's. Raises UserError when the folder cannot be written."""
    sources, finals = (
        [meta_path(path), *(Path(f"{path}{suffix}") for suffix in reversed(SUFFIXES))]
        for path in (trial, target)
    )
    try:
        for final in finals:
            final.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{target.parent}: cannot be written: {error.strerror}") from error
    for source, final in reversed(list(zip(sources, finals))):
        with whole_file(final) as file:
            file.write(source.read_bytes())
