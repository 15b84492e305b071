"""Network -> static model: written, proven equal to the network, then published."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
from pathlib import Path

import paddle

from configs.schema import Config
from dataset.pipeline import ClipPipeline
from dataset.protocols import DataSpec
from dataset.skeletons import to_mapping
from deploy.engines.engine import AUTO, CPU_ENGINES
from deploy.engines.probe import mark_as_known
from deploy.exporting.contracts import CONTRACTS, ExportOptions, check_options
from deploy.exporting.formats import FORMATS, PARAMS, Format
from deploy.exporting.graph_check import check_graph
from deploy.exporting.static_export import write_json, write_static
from deploy.exporting.verify import prove
from deploy.exporting.wrappers import Wrapper
from deploy.meta import StaticMeta, meta_path
from errors import UserError
from model.network import ClipNetwork
from model.streaming.plan import Plan
from safe_io import MODEL_BYTES, file_hash, read_bytes, temporary_folder, whole_file
from utils import num_cores


def export_network(
    network: ClipNetwork,
    config: Config,
    spec: DataSpec,
    options: ExportOptions,
    save_dir: Path | None = None,
) -> Path:
    """Export a network with its weights; the network itself is not changed.

    config: whose `pretrained_path` these weights are from, or '' for random ones; the files are
    named after it. save_dir: default: beside the weights. Returns the file that engines load.
    Raises UserError where the contract does not allow the configuration or the options, and where
    the written model violates the rules of its graph or differs from the network; then nothing is
    left in save_dir.
    """
    check_options(config, options)
    if options.format == "onnx":
        from deploy.exporting.onnx_export import check_converter

        check_converter()
    weights, chosen = config.pretrained_path, FORMATS[options.format]
    if save_dir and os.path.exists(save_dir) and not os.path.isdir(save_dir):
        raise UserError(f"--save_dir {save_dir} is a file; allowed: a folder")
    if not weights:
        logging.warning("No -pp: exporting random weights, for benchmarks and compilers only")
    name = Path(weights).stem if weights else f"{Path(config.name).stem}_fresh"
    target = (save_dir or Path(weights).parent) / name
    _refuse_shared_params(target, chosen)
    reference = copy.deepcopy(network)
    reference.eval()
    streams = options.contract == "stream"
    reference.persons = 1 if options.per_person or streams else spec.num_person
    wrapper = CONTRACTS[options.contract].wrapper(reference, options)
    meta = static_meta(reference, config, spec, options, wrapper.plan)
    with temporary_folder() as folder:
        _write_proven(wrapper, meta, spec.skeleton.num_joint, options.format, folder / name)
        publish(folder / name, target, chosen.files)
    # Proven above; the names of the draft's files do not count.
    program = Path(f"{target}{chosen.program}")
    engines = [AUTO, *CPU_ENGINES[chosen.program]]
    mark_as_known(program, Path(f"{target}{PARAMS}"), engines)
    logging.info("Static model: %s%s", target, ", ".join(reversed(chosen.files)))
    return program


def static_meta(
    network: ClipNetwork,
    config: Config,
    spec: DataSpec,
    options: ExportOptions,
    plan: Plan | None = None,
) -> StaticMeta:
    """The metadata of a network's static model, without hashes of its files. plan: of a streaming
    network."""
    args, weights, geometry = config.data, config.pretrained_path, network.geometry
    contract = CONTRACTS[options.contract]
    truncates = contract.truncates and network.truncates
    # A clip not longer than the margin cannot be truncated: the graph would slice behind its end.
    if args.num_frame <= geometry.tail_margin or args.num_frame % geometry.stride:
        truncates = False
    if options.whole_clips or options.with_feature:
        truncates = False
    return StaticMeta(
        config=config.name,
        model_type=config.model_type,
        dataset=config.dataset,
        skeleton=to_mapping(spec.skeleton),
        pipeline=ClipPipeline.from_config(args, training=False).to_mapping(),
        persons=network.persons,
        clip_persons=spec.num_person,
        per_person=options.per_person or plan is not None,
        transform=args.transform,
        normalisation="2s-AGCN: centred, rotated, looped" if args.transform else "none",
        batch_size=options.batch_size,
        tail_margin=geometry.tail_margin if truncates else 0,
        tail_stride=geometry.stride if truncates else 0,
        outputs=[
            *contract.outputs,
            *["feature"] * options.with_feature,
            *(f"{name}_next" for name in (plan.states if plan else ())),
        ],
        contract=options.contract,
        class_names=list(spec.class_names),
        weights=Path(weights).name if weights else "fresh",
        weights_sha256=file_hash(weights) if weights else "",
        paddle_version=paddle.version.full_version,
        stream=plan.to_mapping() if plan else {},
    )


def _write_proven(
    wrapper: Wrapper, meta: StaticMeta, num_joint: int, kind: str, draft: Path
) -> None:
    """Write all files of a model as `draft` + ending. Raises UserError where the model violates
    the rules of its graph or differs from the network."""
    contract, sizes = CONTRACTS[meta.contract], meta.sizes(num_joint)
    shapes = contract.inputs(sizes)
    written = Path(f"{draft}.pdmodel")
    program = Path(f"{draft}{FORMATS[kind].program}")
    write_static(copy.deepcopy(wrapper), draft, shapes)
    if kind == "json":
        write_json(written, program)
    elif kind == "onnx":
        from deploy.exporting.onnx_export import write_onnx

        write_onnx(written, program, meta, shapes)
    check_graph(program, contract.border_rank)
    prove(program, wrapper.dummy_inputs(sizes), meta.outputs, num_cores())
    if kind != "onnx":  # which has its metadata inside
        hashes = file_hash(program), file_hash(f"{draft}{PARAMS}")
        meta = dataclasses.replace(meta, program_sha256=hashes[0], params_sha256=hashes[1])
        meta.save(meta_path(program))


def publish(draft: Path, target: Path, files: tuple[str, ...]) -> None:
    """Write the checked files `draft` + ending under their final names, `target` + ending.

    Files of an older model are removed first, its metadata before the rest, and the new metadata is
    written last: even after a kill no two files of different models lie side by side. Raises
    UserError where the folder is not writable.
    """
    try:
        for ending in reversed(files):
            Path(f"{target}{ending}").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{target.parent}: cannot be written: {error.strerror}") from error
    for ending in files:
        with whole_file(f"{target}{ending}") as file:
            file.write(read_bytes(f"{draft}{ending}", MODEL_BYTES))


def _refuse_shared_params(target: Path, chosen: Format) -> None:
    """Raises UserError where a model of Paddle's other format has the same name: the two would
    share one .pdiparams and one .meta.yaml."""
    for other in FORMATS.values():
        program = Path(f"{target}{other.program}")
        shares = PARAMS in chosen.files and PARAMS in other.files and other != chosen
        if shares and os.path.exists(program):
            raise UserError(
                f"{program} exists, and {target}{PARAMS} belongs to it; choose another "
                "--save_dir, or remove it first"
            )
