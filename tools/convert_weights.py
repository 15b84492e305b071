"""Convert PyTorch weights of ST-GCN and EfficientGCN to .pdparams, without torch and without
executing code from the file.

    python tools/convert_weights.py st_gcn.ntu-xsub.pt -c 1001 -o xsub.pdparams
    python main.py -c 1001 -e -pp xsub.pdparams

The weights are first loaded into the network of configuration -c: missing names, unexpected names
and other shapes are an error that lists them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

import configs
from dataset.protocols import data_spec
from errors import UserError, run_command
from tools.torch_reader import read_torch
from training.checkpoint import load_weights, save_checkpoint, weights_of
from utils import new_parser, prepare_process

# Keys under which training code saves the state dict; otherwise it is the whole content.
STATE_KEYS = ("model", "state_dict", "model_state_dict", "net")
_DATA_PARALLEL = "module."
_RENAMED = {"running_mean": "_mean", "running_var": "_variance"}
_DROPPED = {
    r"num_batches_tracked": "BatchNorm counters, which Paddle does not have",
    r"st_gcn_networks\.\d+\.gcn\.conv0\.(weight|bias)": "conv0, which the 4-D ST-GCN does not use",
}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("source", metavar="IN", help="file of torch.save: .pt, .pth, .pth.tar")
    parser.add_argument("-c", "--config", required=True, help="number in configs/, or a .yaml file")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="a .pdparams file")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend",
        help="override any key of the configuration, e.g. --set dataset=ntu-xview",
    )  # fmt: skip
    return parser.parse_args(argv)


def state_dict_of(content: Any, source: str) -> tuple[dict[str, np.ndarray], str]:
    """The weights in the content of a torch file, and their key ('' for the whole content).

    Raises UserError, which lists the keys of the content, if there are none.
    """
    if _is_state_dict(content):
        return content, ""
    keys = list(content) if isinstance(content, dict) else []
    for key in STATE_KEYS:
        if key in keys and _is_state_dict(content[key]):
            return content[key], key
    shown = ", ".join(map(str, keys[:8])) or f"a {type(content).__name__}"
    raise UserError(
        f"{source}: no weights found; the file contains {shown}, allowed keys of weights: "
        f"{', '.join(STATE_KEYS)}"
    )


def _is_state_dict(value: Any) -> bool:
    items = value.items() if isinstance(value, dict) else ()
    kinds = [isinstance(name, str) and isinstance(array, np.ndarray) for name, array in items]
    return bool(kinds) and all(kinds)


def paddle_names(state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Counter[str]]:
    """A torch state dict with this project's names, and the number of tensors per kind of change.

    Only BatchNorm's statistics have other names. Shapes are equal, because neither ST-GCN nor
    EfficientGCN has a Linear layer in its public code.
    """
    done: Counter[str] = Counter()
    parallel = all(name.startswith(_DATA_PARALLEL) for name in state)
    weights = {}
    for full_name, array in state.items():
        name = full_name[len(_DATA_PARALLEL) :] if parallel else full_name
        parent, _, leaf = name.rpartition(".")
        reasons = [why for form, why in _DROPPED.items() if re.fullmatch(rf"(.*\.)?{form}", name)]
        if reasons:
            done[f"dropped ({reasons[0]})"] += 1
        elif leaf in _RENAMED:
            weights[f"{parent}.{_RENAMED[leaf]}"] = array
            done["BatchNorm statistics renamed"] += 1
        else:
            weights[name] = array
    if parallel:
        done[f"prefix {_DATA_PARALLEL} removed"] = len(state)
    return weights, done


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    config = configs.load(args.config, configs.parse_set(args.set))
    if not args.output.endswith(".pdparams"):
        raise UserError(f"-o is {args.output!r}; allowed: a name that ends in .pdparams")
    content, form = read_torch(args.source)
    state, key = state_dict_of(content, args.source)
    found = f"{len(state)} tensors" + f" in '{key}'" * bool(key)
    print(f"{args.source}: torch's {form} format, {found}")
    weights, done = paddle_names(state)
    for what, count in done.items():
        print(f"  {count:4d} {what}")

    prepare_process(config.cpu_setup)
    from model.build import build_network

    network = build_network(config, data_spec(config.dataset, config.data.own_layout), 1)
    load_weights(network, weights, args.source)
    size = sum(p.size for p in network.parameters() if not p.stop_gradient)
    print(f"  {len(weights):4d} loaded into {config.model_type}: {size:,} trainable parameters")
    save_checkpoint(args.output, {"model": weights_of(network)})
    print(f"{args.output} written; python main.py -c {args.config} -e -pp {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
