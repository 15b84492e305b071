"""Join what the jobs of an array have written with infer.py --shard I/N --output partI.json.

python tools/merge_predictions.py part*.json --output all.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from errors import UserError, run_command
from infer import print_accuracy, write_output

SAME = ("model", "data")  # what all parts must have in common
KEYS = {*SAME, "engine", "shard", "accuracy", "clips"}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", type=Path, nargs="+", help=".json files of all shards, any order")
    parser.add_argument("--output", type=Path, required=True, help="a .json or .csv file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.output.suffix not in (".json", ".csv"):
        raise UserError(f"--output {args.output}: allowed: a name ending in .json or .csv")
    about, rows = merge({str(path): _read(path) for path in args.parts})
    write_output(args.output, about, rows)
    print_accuracy(about["accuracy"], len(rows))
    return 0


def merge(parts: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(about, rows) of the whole, as `infer.write_output` takes them; parts: file name -> content.

    Raises UserError for parts of different models or data, and where clips are missing or come
    twice.
    """
    ordered = sorted(parts.items(), key=lambda item: item[1]["shard"])
    first_name, first = ordered[0]
    reached = 0
    rows: list[dict[str, Any]] = []
    for name, part in ordered:
        for key in SAME:
            if part[key] != first[key]:
                raise UserError(f"{name} and {first_name} differ in {key}; merge parts of one run")
        start, stop, total = part["shard"]
        if start != reached or total != first["shard"][2]:
            what = "are missing" if start > reached else "come twice"
            raise UserError(
                f"{name}: clips {min(start, reached)} to {max(start, reached) - 1} {what}"
            )
        rows += part["clips"]
        reached = stop
    if reached != first["shard"][2]:
        raise UserError(f"clips {reached} to {first['shard'][2] - 1} are missing: give every part")
    labelled = [row for row in rows if "label" in row]
    right = sum(row["label"] == row["top"][0]["class"] for row in labelled)
    about = {key: first[key] for key in SAME}
    about["engine"] = ", ".join(sorted({part["engine"] for _, part in ordered}))
    about["shard"] = [0, reached, reached]
    about["accuracy"] = right / len(rows) if labelled else None
    return about, rows


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(content, dict) or set(content) != KEYS:
        raise UserError(f"{path}: not written by infer.py --output")
    shard, rows = content["shard"], content["clips"]
    whole = isinstance(shard, list) and [type(n) for n in shard] == [int] * 3
    if not whole or not isinstance(rows, list) or len(rows) != shard[1] - shard[0]:
        raise UserError(f"{path}: its clips do not fit its shard {shard}; run that part again")
    return content


if __name__ == "__main__":
    sys.exit(run_command(main))
