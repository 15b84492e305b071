"""Checkpoint -> static model, proven equal to the network.

python export.py -c 2001 -pp xsub.pdparams
python export.py -c 2001 -pp xsub.pdparams --format onnx
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import configs
from dataset.protocols import data_spec
from deploy.exporting.contracts import CONTRACTS, ExportOptions
from deploy.exporting.formats import FORMATS
from errors import UserError, run_command
from utils import prepare_process, setup_logging


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("-c", "--config", required=True, help="number in configs/, or a .yaml file")
    add("-pp", "--pretrained_path", default="", help="weights (.pdparams, .pth); default: random")
    add("-d", "--dataset", help="protocol, e.g. ntu-xview")
    add("--accept", nargs="+", default=[], metavar="SETTING", help="see main.py --help")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend")
    add("--save_dir", type=Path, help="default: beside the weights, or .")
    add("--batch_size", type=int, default=0, help="static batch axis (default: dynamic)")
    add("--per_person", action="store_true", help="input of one person: skips empty person slots")
    add("--with_feature", action="store_true", help="second output: feature (P, C', T', V)")
    add("--dilated", action="store_true", help="with stream: an answer for every frame")
    add("--chunk", type=int, default=0, help="with stream: frames of a step (default: the fewest)")
    add("--whole_clips", action="store_true", help="static T, one input: no truncated clips")
    add(
        "--format", choices=FORMATS, default="paddle",
        help="paddle: .pdmodel (default); onnx: one .onnx file, opset 12, for chips "
        "too; json: Paddle's newer format; see docs/export.md",
    )  # fmt: skip
    add(
        "--contract", choices=CONTRACTS, default="clips",
        help="ailia: data (1, C, T, V, M) -> output, feature, for the public sample of ST-GCN; "
        "stream: the next frames of a live recording, docs/streaming.md",
    )  # fmt: skip
    add("--no_cpu_setup", action="store_true", help="skip CPU tuning (threads, malloc)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.batch_size < 0:
        raise UserError(f"--batch_size is {args.batch_size}; allowed: 1 or more, or leave it out")
    overrides = {"pretrained_path": args.pretrained_path, "accept": args.accept}
    overrides.update(configs.parse_set(args.set))
    if args.dataset:
        overrides["dataset"] = args.dataset
    config = configs.load(args.config, overrides)
    prepare_process(config.cpu_setup and not args.no_cpu_setup)
    setup_logging()
    from deploy.exporting.export import export_network
    from training.checkpoint import load_network

    spec = data_spec(config.dataset, config.data.own_layout)
    options = ExportOptions(**{f.name: getattr(args, f.name) for f in fields(ExportOptions)})
    program = export_network(load_network(config, spec), config, spec, options, args.save_dir)
    stream = " --stream" if args.contract == "stream" else ""
    if CONTRACTS[args.contract].predictor or stream:
        logging.info(
            "Next: python infer.py%s --model_file %s --data_file DATA.npy", stream, program
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
