"""Convert weights of ST-GCN and EfficientGCN to this project's .pdparams: files of PyTorch, or of
Paddle under PyTorch's names; without torch and without executing code from the file.

    python tools/convert_weights.py st_gcn.ntu-xsub.pt -c 1001 -o xsub.pdparams
    python main.py -c 1001 -e -pp xsub.pdparams

The weights are first loaded into the network of configuration -c, as by main.py -pp, which reads
the same files: missing names, unexpected names and other shapes are an error that lists them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import configs
from dataset.protocols import data_spec
from errors import UserError, run_command
from safe_io import check_writable
from utils import new_parser, prepare_process, setup_logging


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("source", metavar="IN", help="any name, e.g. .pt, .pth.tar, .pdparams")
    parser.add_argument("-c", "--config", required=True, help="number in configs/, or a .yaml file")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="a .pdparams file")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend",
        help="override any key of the configuration, e.g. --set dataset=ntu-xview",
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if not args.output.endswith(".pdparams"):
        raise UserError(f"-o is {args.output!r}; allowed: a name that ends in .pdparams")
    if not os.path.isfile(Path(args.source)):
        raise UserError(f"{args.source}: no such file of weights")
    check_writable(args.output, args.source)
    overrides = {**configs.parse_set(args.set), "pretrained_path": args.source, "finetune": False}
    config = configs.load(args.config, overrides)
    prepare_process(config.cpu_setup)
    setup_logging()
    from training.checkpoint import load_network, save_checkpoint, weights_of

    network = load_network(config, data_spec(config.dataset, config.data.own_layout))
    weights = weights_of(network)
    save_checkpoint(args.output, {"model": weights})
    print(f"{len(weights)} tensors loaded into {config.model_type}")
    print(f"{args.output} written; python main.py -c {args.config} -e -pp {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
