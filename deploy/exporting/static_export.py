"""Network -> .pdmodel and .pdiparams, with constants folded; .pdmodel -> .json."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import paddle
from paddle.static import InputSpec

import model
from deploy.engines.paddle_engine import STATIC_MODE
from deploy.exporting.formats import Shape, static_shape
from deploy.exporting.wrappers import Wrapper
from errors import UserError
from model.fold import fold_network

# Networks have no branches on values of tensors, so they are traced as they are. Paddle would first
# rewrite the source of each function, which took ten times as long as everything else.
paddle.jit.ignore_module([model])


def write_static(layer: Wrapper, target: Path, shapes: Mapping[str, Shape]) -> None:
    """Fold a wrapped network in place, for evaluation only, and write it as `target` + .pdmodel and
    .pdiparams. shapes: of the inputs, by name. Raises UserError where Paddle writes no .pdmodel."""
    layer.eval()
    fold_network(layer)
    specs = [InputSpec(static_shape(shape), "float32", name) for name, shape in shapes.items()]
    paddle.jit.save(layer, str(target), layer.arranged(specs))
    if not all(os.path.isfile(Path(f"{target}{suffix}")) for suffix in (".pdiparams", ".pdmodel")):
        raise UserError(
            f"Paddle {paddle.version.full_version} wrote no .pdmodel; unset FLAGS_enable_pir_api, "
            "or install paddlepaddle==3.1.1"
        )


def write_json(program: Path, target: Path) -> None:
    """Translate a .pdmodel file (.pdiparams beside it) to Paddle's newer format.

    A process writes either format, chosen before Paddle is imported (`utils.prepare_process`);
    translating needs no second process. The .pdiparams written beside `target` has the same bytes.
    """
    with STATIC_MODE, paddle.static.scope_guard(paddle.base.core.Scope()):
        paddle.enable_static()
        try:
            executor = paddle.static.Executor(paddle.CPUPlace())
            source = str(program.with_suffix(""))
            old, _, _ = paddle.static.load_inference_model(source, executor)
            new = paddle.base.core.pir.translate_to_pir(old.desc)
            ops = new.global_block().ops
            feeds = [v for op in ops if op.name() == "pd_op.feed" for v in op.results()]
            fetches = [v for op in ops if op.name() == "pd_op.fetch" for v in op.operands_source()]
            prefix = str(target.with_suffix(""))
            with paddle.pir_utils.IrGuard():
                paddle.static.save_inference_model(prefix, feeds, fetches, executor, program=new)
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[-200:]
            raise UserError(f"Paddle cannot write this model as .json: {reason}") from error
        finally:
            paddle.disable_static()
