"""Write a small subset of a data set, for quick runs, TIPC and static inference.

    python dataset/tiny_data_gen.py --source_path data/npy_dataset --data_num 80 \\
        --save_dir data/tiny --mode eval

source_path may be a root with {original,transformed}/<dataset>/ folders (each gets a subset, in the
same folders of save_dir), or one such <dataset> folder. Labels and manifest are included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

if __name__ == "__main__":  # run as a script: the project's modules are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dataset.storage import MANIFEST, PHASES, content_hash, open_split, read_manifest
from errors import UserError, run_command
from safe_io import whole_file
from safe_pickle import dump_pickle


def choose_clips(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted indices of `count` clips, as many of each class as of any other, to within one (the
    first clip of every class is chosen before the second of any). All clips if there are fewer."""
    rng = np.random.RandomState(seed)
    order = rng.permutation(len(labels))
    turn = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        turn[mine] = np.arange(len(mine))
    tie = rng.permutation(len(labels))
    return np.sort(np.lexsort((tie, turn))[:count])


def write_tiny(folder: Path, save_dir: Path, phase: str, count: int, seed: int) -> int:
    """Write the subset of one split of one data folder; returns the number of its clips."""
    clips = open_split(folder, phase, command="python main.py -c <config> -gd")
    all_labels = clips.required_labels()
    chosen = choose_clips(all_labels, count, seed)
    all_lengths = clips.lengths or [clips.data.shape[2]] * len(clips)
    names, labels = [clips.names[n] for n in chosen], all_labels[chosen].tolist()
    lengths = [all_lengths[n] for n in chosen]
    target = save_dir / f"{phase}_data.npy"
    with contextlib.ExitStack() as stack:  # publishes the first file last
        np.save(stack.enter_context(whole_file(target)), clips.data[chosen])
        label_file = stack.enter_context(whole_file(save_dir / f"{phase}_label.pkl"))
        dump_pickle((names, labels, lengths), label_file)
        if clips.manifest is not None:
            # A second call may add the other split; the manifest then describes both.
            before = read_manifest(save_dir) or {}
            manifest = {
                **clips.manifest,
                "clips": {**before.get("clips", {}), phase: len(chosen)},
                "sha256": {**before.get("sha256", {}), phase: content_hash(names, labels)},
                "tiny": {**before.get("tiny", {}), phase: {"data_num": count, "seed": seed}},
            }
            file = stack.enter_context(whole_file(save_dir / MANIFEST, "w"))
            json.dump(manifest, file, indent=1)
        # After a kill from here on there are no clips, rather than older ones with new labels.
        target.unlink(missing_ok=True)
    return len(chosen)


def data_folders(source: Path, phase: str) -> dict[Path, Path]:
    """Data folders at or below `source` -> their relative path in the output folder."""
    name = f"{phase}_data.npy"
    if os.path.isfile(source / name):
        return {source: Path()}
    found = sorted(source.glob(f"*/*/{name}"))
    return {file.parent: file.parent.relative_to(source) for file in found}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write a small subset of a data set.")
    parser.add_argument("--source_path", type=Path, default=Path("data/npy_dataset"))
    parser.add_argument("--data_num", type=int, default=80, help="clips to keep (default 80)")
    parser.add_argument("--save_dir", type=Path, default=Path("data/tiny_dataset"))
    parser.add_argument("--mode", choices=PHASES, default="eval", help="which split (default eval)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of clips (default 1)")
    args = parser.parse_args(argv)
    if args.data_num < 1 or not 0 <= args.seed < 2**32:
        raise UserError("--data_num must be 1 or more, and --seed 0 to 4294967295")
    folders = data_folders(args.source_path, args.mode)
    if not folders:
        raise UserError(
            f"no {args.mode}_data.npy in {args.source_path} or in its "
            "{original,transformed}/<dataset> folders; run: python main.py -c 2001 -gd"
        )
    for folder, relative in folders.items():
        target = args.save_dir / relative
        if target.resolve() == folder.resolve():
            raise UserError(f"--save_dir {args.save_dir} would overwrite its source")
        count = write_tiny(folder, target, args.mode, args.data_num, args.seed)
        print(f"{count} clips of {folder} -> {target / args.mode}_data.npy")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
