"""Paddle2ONNX as a subprocess of deploy/exporting/onnx_export.py, which says why:
python -m deploy.exporting.paddle_to_onnx PDMODEL ONNX OPSET"""

from __future__ import annotations

import sys
from pathlib import Path

from utils import prepare_process


def main(program: str, target: str, opset: str) -> None:
    """Convert without the optimizers of Paddle2ONNX: its default one installs packages."""
    prepare_process(cpu_setup=False)
    import paddle2onnx

    paddle2onnx.export(
        program,
        str(Path(program).with_suffix(".pdiparams")),
        target,
        opset_version=int(opset),
        auto_upgrade_opset=False,
        optimize_tool="None",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
