"""Network -> .pdmodel and .pdiparams, with constants folded; .pdmodel -> .json; files under their
final names."""

from __future__ import annotations

from pathlib import Path

import paddle
from paddle import nn
from paddle.static import InputSpec

import model
from deploy.engines.paddle_engine import STATIC_MODE
from deploy.exporting.contracts import INPUTS, traced
from deploy.meta import StaticMeta
from errors import UserError
from model.fold import fold_network
from safe_io import whole_file

# Networks have no branches on what tensors hold: they are traced as they are. Paddle would first
# rewrite the source of each function, which took ten times as long as all else.
paddle.jit.ignore_module([model])

# Files of a model by format, in the order in which they appear; the program is the last but meta.
FILES = {
    "paddle": (".pdiparams", ".pdmodel", ".meta.yaml"),
    "json": (".pdiparams", ".json", ".meta.yaml"),
    "onnx": (".onnx",),
}


def write_static(network: nn.Layer, target: Path, meta: StaticMeta, num_joint: int) -> None:
    """Fold a network and write it by its contract as `target` + .pdmodel and .pdiparams.

    The network is changed by the folding and stays good for evaluation only.
    """
    network.eval()
    fold_network(network)
    shapes = zip(INPUTS[meta.contract], meta.input_shapes(num_joint))
    specs = [InputSpec(shape, "float32", name) for name, shape in shapes]
    paddle.jit.save(traced(network, meta), str(target), specs)
    if not all(Path(f"{target}{suffix}").is_file() for suffix in (".pdiparams", ".pdmodel")):
        raise UserError(
            f"Paddle {paddle.__version__} wrote no .pdmodel; unset FLAGS_enable_pir_api, or "
            "install paddlepaddle==3.1.1"
        )


def write_json(program: Path, target: Path) -> None:
    """Translate a .pdmodel file (.pdiparams beside it) to Paddle's newer format.

    A process writes either format, chosen before Paddle is imported (`utils.prepare_process`);
    translating needs no second process. The .pdiparams written beside `target` has the same bytes.
    """
    with STATIC_MODE, paddle.static.scope_guard(paddle.static.Scope()):
        paddle.enable_static()
        try:
            executor = paddle.static.Executor(paddle.CPUPlace())
            prefix = str(program.with_suffix(""))
            old, _, _ = paddle.static.load_inference_model(prefix, executor)
            new = paddle.pir.translate_to_pir(old.desc)
            ops = new.global_block().ops
            feeds = [value for op in ops if op.name() == "pd_op.feed" for value in op.results()]
            fetches = [
                value for op in ops if op.name() == "pd_op.fetch" for value in op.operands_source()
            ]
            with paddle.pir_utils.IrGuard():
                paddle.static.save_inference_model(
                    str(target.with_suffix("")), feeds, fetches, executor, program=new
                )
        except (RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[-200:]
            raise UserError(f"Paddle cannot write this model as .json: {reason}") from error
        finally:
            paddle.disable_static()


def publish(trial: Path, target: Path, endings: tuple[str, ...] = FILES["paddle"]) -> None:
    """Put a checked model under its final name. An older one goes first, its meta file before the
    rest, and the new meta file comes last: even after a kill no file stands beside another
    model's. Raises UserError when the folder cannot be written."""
    try:
        for ending in reversed(endings):
            Path(f"{target}{ending}").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{target.parent}: cannot be written: {error.strerror}") from error
    for ending in endings:
        with whole_file(f"{target}{ending}") as file:
            file.write(Path(f"{trial}{ending}").read_bytes())


def refuse_shared_weights(target: Path, kind: str) -> None:
    """Raises UserError where a model of the other format of Paddle stands under the same name:
    both would call one .pdiparams and one .meta.yaml their own."""
    other = {"paddle": ".json", "json": ".pdmodel"}.get(kind)
    if other and Path(f"{target}{other}").exists():
        raise UserError(
            f"{target}{other} stands there, and {target}.pdiparams belongs to it; choose another "
            "--save_dir, or remove it first"
        )
