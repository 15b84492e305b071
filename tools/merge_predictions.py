"""Merge what the jobs of an array have written with infer.py --shard I/N --output partI.json.

python tools/merge_predictions.py part*.json --output all.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deploy.predictions import accuracy_line, check_output, merge, read, write
from errors import run_command
from safe_io import check_writable
from utils import new_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("parts", type=Path, nargs="+", help=".json files of all shards, any order")
    parser.add_argument("--output", type=Path, required=True, help="a .json or .csv file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    check_output(args.output)
    check_writable(args.output, *args.parts)
    whole = merge([read(path) for path in args.parts])
    write(args.output, whole)
    print(accuracy_line(whole))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
