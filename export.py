"""Checkpoint -> static model, proven equal to the network.

python export.py -c 2001 -pp xsub.pdparams
python export.py -c 2001 -pp xsub.pdparams --format onnx
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import configs
from configs.schema import Config
from dataset.protocols import data_spec
from errors import UserError, run_command
from safe_io import file_hash
from utils import num_cores, prepare_process, set_seed, setup_logging

if TYPE_CHECKING:
    from dataset.protocols import DataSpec
    from deploy.meta import StaticMeta
    from model.network import ClipNetwork

PROGRAMS = {"paddle": ".pdmodel", "onnx": ".onnx", "json": ".json"}  # format -> ending


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--config", required=True, help="number in configs/, or a .yaml file")
    parser.add_argument(
        "-pp", "--pretrained_path", default="", help="weights; without: fresh ones, for trials"
    )
    parser.add_argument("-d", "--dataset", help="protocol, e.g. ntu-xview")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend")
    parser.add_argument("--save_dir", type=Path, help="default: beside the weights, or .")
    parser.add_argument(
        "--batch_size", type=int, default=0, help="fix the batch axis (default: free)"
    )
    parser.add_argument(
        "--per_person", action="store_true", help="one person an input: empty slots cost nothing"
    )
    parser.add_argument(
        "--with_feature", action="store_true", help="second output: feature (P, C', T', V)"
    )
    parser.add_argument(
        "--whole_clips", action="store_true", help="T fixed and no cut tails: one input, for chips"
    )
    parser.add_argument(
        "--format", choices=list(PROGRAMS), default="paddle",
        help="paddle: .pdmodel (default); onnx: one .onnx file, opset 12, for chips "
        "too; json: Paddle's newer format; see docs/export.md",
    )  # fmt: skip
    parser.add_argument(
        "--contract", choices=("clips", "ailia"), default="clips",
        help="ailia: data (1, C, T, V, M) -> output, feature, for the public sample of ST-GCN",
    )  # fmt: skip
    parser.add_argument("--no_cpu_setup", action="store_true", help="leave threads, malloc alone")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.batch_size < 0:
        raise UserError(f"--batch_size is {args.batch_size}; allowed: 1 or more, or leave it out")
    overrides = {"pretrained_path": args.pretrained_path, **configs.parse_set(args.set)}
    if args.dataset:
        overrides["dataset"] = args.dataset
    config = configs.load(args.config, overrides)
    prepare_process(config.cpu_setup and not args.no_cpu_setup)
    setup_logging()
    target = export(
        config,
        args.save_dir,
        kind=args.format,
        contract=args.contract,
        batch_size=args.batch_size,
        per_person=args.per_person,
        with_feature=args.with_feature,
        whole_clips=args.whole_clips,
    )
    if args.contract == "clips":
        program = f"{target}{PROGRAMS[args.format]}"
        logging.info("Next: python infer.py --model_file %s --data_file DATA.npy", program)
    return 0


def export(
    config: Config,
    save_dir: Path | None = None,
    *,
    kind: str = "paddle",
    contract: str = "clips",
    batch_size: int = 0,
    per_person: bool = False,
    with_feature: bool = False,
    whole_clips: bool = False,
) -> Path:
    """Write and check the static model of a configuration and its `pretrained_path`.

    kind: of file, 'paddle', 'json' or 'onnx'. contract: 'clips' or 'ailia', see
    deploy/exporting/contracts.py.
    Returns the path without its endings, named after the weights. Raises UserError when the
    written model differs from the network, or breaks the promise of rank 4 and no einsum
    (deploy/exporting/verify.py); then nothing is left in save_dir.
    """
    from deploy.exporting.static_export import FILES, publish, refuse_shared_weights
    from model.build import build_network
    from training.checkpoint import load_pretrained

    weights = config.pretrained_path
    if save_dir and save_dir.exists() and not save_dir.is_dir():
        raise UserError(f"--save_dir {save_dir} is a file; allowed: a folder")
    name = Path(weights).stem if weights else f"{Path(config.name).stem}_fresh"
    target = (save_dir or Path(weights).parent) / name
    refuse_shared_weights(target, kind)
    if not weights:
        logging.warning("No -pp: exporting FRESH weights, good for benchmarks and compilers only")
    spec = data_spec(config.dataset, config.data.own_layout)
    if contract == "ailia":
        _check_ailia(config, batch_size, per_person, with_feature, whole_clips)
    set_seed(config.seed)
    reference = build_network(config, spec, 1 if per_person else spec.num_person)
    if weights:
        load_pretrained(reference, weights)
    geometry = reference.geometry
    margin, stride = geometry.tail_margin, geometry.stride
    num_frame = config.data.num_frame
    too_short = num_frame <= margin  # to be cut; such a program would look behind the clip
    whole = whole_clips or with_feature or contract == "ailia"
    if whole or too_short or num_frame % stride:
        margin = stride = 0
    meta = _meta(config, spec, contract, per_person, batch_size, with_feature, margin, stride)
    with tempfile.TemporaryDirectory() as folder:
        _write_proven(reference, spec.skeleton.num_joint, meta, kind, Path(folder) / name)
        publish(Path(folder) / name, target, FILES[kind])
    logging.info("Static model: %s%s", target, ", ".join(reversed(FILES[kind])))
    return target


def _write_proven(
    reference: ClipNetwork, num_joint: int, meta: StaticMeta, kind: str, trial: Path
) -> None:
    """All files of the model as `trial` with their endings. Raises UserError where it is not what
    the network is."""
    from deploy.exporting.contracts import BORDER_RANK, INPUTS, make_trials
    from deploy.exporting.static_export import write_json, write_static
    from deploy.exporting.verify import prove
    from deploy.meta import meta_path

    folded = copy.deepcopy(reference)
    program = Path(f"{trial}{PROGRAMS[kind]}")
    write_static(folded, trial, meta, num_joint)
    if kind == "json":
        write_json(Path(f"{trial}.pdmodel"), program)
    elif kind == "onnx":
        from deploy.exporting.onnx_export import write_onnx

        names = INPUTS[meta.contract][: len(meta.input_shapes(num_joint))]
        write_onnx(Path(f"{trial}.pdmodel"), program, meta, list(names))
    trials = make_trials(reference, meta, num_joint)
    prove(program, trials, meta.outputs, BORDER_RANK[meta.contract], num_cores())
    if kind != "onnx":
        meta.of_files(program, f"{trial}.pdiparams").save(meta_path(program))


def _check_ailia(
    config: Config,
    batch_size: int,
    per_person: bool,
    with_feature: bool,
    whole_clips: bool,
) -> None:
    """Raises UserError for what has no meaning under this contract."""
    model_type = config.model_type
    if model_type != "ST-GCN" or len(config.data.inputs) != 1:
        raise UserError(
            f"--contract ailia is for ST-GCN with one input branch; configuration "
            f"{config.name} is {model_type} of {config.data.inputs}; try -c 1005"
        )
    if batch_size or per_person or with_feature or whole_clips:
        raise UserError(
            "--contract ailia takes one clip of any T and M and gives its feature; leave out "
            "--batch_size, --per_person, --with_feature, --whole_clips"
        )


def _meta(
    config: Config,
    spec: DataSpec,
    contract: str,
    per_person: bool,
    batch_size: int,
    with_feature: bool,
    tail_margin: int,
    tail_stride: int,
) -> StaticMeta:
    import paddle

    from dataset.pipeline import ClipPipeline
    from dataset.skeletons import to_mapping
    from deploy.meta import StaticMeta

    args = config.data
    weights = config.pretrained_path
    outputs = ["logits", "feature"] if with_feature else ["logits"]
    if contract == "ailia":
        outputs = ["output", "feature"]
    return StaticMeta(
        config=config.name,
        model_type=config.model_type,
        dataset=config.dataset,
        skeleton=to_mapping(spec.skeleton),
        pipeline=ClipPipeline.from_config(args, training=False).to_mapping(),
        persons=1 if per_person else spec.num_person,
        clip_persons=spec.num_person,
        per_person=per_person,
        transform=args.transform,
        normalisation="2s-AGCN: centred, rotated, looped" if args.transform else "none",
        batch_size=batch_size,
        tail_margin=tail_margin,
        tail_stride=tail_stride,
        outputs=outputs,
        contract=contract,
        class_names=list(spec.class_names),
        weights=Path(weights).name if weights else "fresh",
        weights_sha256=file_hash(weights) if weights else "",
        paddle_version=paddle.__version__,
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
