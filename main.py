"""Generate data, train, evaluate, export: parse, load the configuration, dispatch.

python main.py -c 2001 -gd                       recordings -> data on disk
python main.py -c 2001                           train
python main.py -c 2002 -e -pp xview.pdparams     evaluate
python main.py -c 2001 -ex -pp xsub.pdparams     export for static inference
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import configs
from configs.schema import Config
from safe_io import UserError, run_command, whole_file
from utils import log_to_file, num_cores, prepare_process, setup_logging

# Where and how a run shows itself; everything else must be the same when it is resumed.
_NOT_TRAINING = ("pretrained_path", "work_dir", "no_progress_bar", "gpus", "cpu_setup")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--config", required=True, help="number in configs/, or a .yaml file")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend",
        help="override any key, e.g. --set dataset_args.ntu.num_frame=64",
    )  # fmt: skip

    mode = parser.add_argument_group("what to do (default: train)").add_mutually_exclusive_group()
    mode.add_argument("-gd", "--generate_data", action="store_true", help="make data on disk")
    mode.add_argument("-e", "--evaluate", action="store_true", help="evaluate the weights of -pp")
    mode.add_argument("-ex", "--extract", action="store_true", help="export the weights of -pp")
    mode.add_argument(
        "-r", "--resume", action="store_true",
        help="continue the newest run of this configuration, or the one of -pp",
    )  # fmt: skip

    keys = parser.add_argument_group("keys of the configuration")
    keys.add_argument("-g", "--gpus", type=int, nargs="*", help="GPU number; none is the CPU")
    keys.add_argument("-s", "--seed", type=int, help="random seed")
    keys.add_argument("-pp", "--pretrained_path", help="weights (.pdparams)")
    keys.add_argument("-w", "--work_dir", help="where runs are kept")
    keys.add_argument("-d", "--dataset", help="protocol, e.g. ntu-xview")
    keys.add_argument("-mt", "--model_type", help="e.g. EfficientGCN-B2 or ST-GCN")
    keys.add_argument("-o", "--optimizer", help="Momentum or Adam")
    keys.add_argument("-ls", "--lr_scheduler", help="cosine or step")
    keys.add_argument("-db", "--debug", action="store_true", default=None, help="300 clips a split")
    keys.add_argument(
        "-np", "--no_progress_bar", action="store_true", default=None, help="plain lines"
    )

    other = parser.add_argument_group("other")
    other.add_argument("--split", choices=("eval", "train"), default="eval", help="for -e")
    other.add_argument("--workers", type=int, default=num_cores(), help="readers for -gd")
    other.add_argument("-dh", "--delay_hours", type=float, default=0.0, help="wait before starting")
    other.add_argument("--no_cpu_setup", action="store_true", help="leave threads, malloc alone")
    return parser.parse_args(argv)


def resolve(args: argparse.Namespace) -> Config:
    """The configuration with the command line's overrides; --set has the last word."""
    flags = ("gpus", "seed", "pretrained_path", "work_dir", "dataset", "model_type", "optimizer")
    flags += ("lr_scheduler", "debug", "no_progress_bar")
    overrides: dict[str, Any] = {
        name: getattr(args, name) for name in flags if getattr(args, name) is not None
    }
    if args.no_cpu_setup:
        overrides["cpu_setup"] = False
    return configs.load(args.config, {**overrides, **configs.parse_set(args.set)})


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    config = resolve(args)
    if not 0 <= args.delay_hours < 10_000 or args.workers < 1:
        raise UserError("--delay_hours must be 0 to 10000, and --workers 1 or more")
    time.sleep(args.delay_hours * 3600)
    if args.generate_data:
        return generate(config, args.workers)
    prepare_process(config.cpu_setup)
    if args.extract:
        return extract(config)
    return evaluate(config, args.split) if args.evaluate else train(config, resume=args.resume)


def generate(config: Config, workers: int) -> int:
    from generator import generate

    setup_logging()
    generate(config, workers=workers, progress=not config.no_progress_bar)
    return 0


def extract(config: Config) -> int:
    from export import export

    setup_logging()
    export(config)
    return 0


def evaluate(config: Config, split: str) -> int:
    if not config.pretrained_path:
        raise UserError(f"-e needs weights: python main.py -c {config.name} -e -pp FILE.pdparams")
    setup_logging()
    from initializer import Initializer
    from processor import Processor

    session = Initializer(config).for_evaluation(split)
    run_dir = new_run_dir(config, prefix=f"evaluate-{split}-")
    log_to_file(run_dir / "log.txt")
    Processor(session, run_dir, settings_of(config)).evaluate()
    return 0


def train(config: Config, *, resume: bool) -> int:
    checkpoint = last_checkpoint(config) if resume else None
    setup_logging()
    from initializer import Initializer
    from processor import Processor

    session = Initializer(config).for_training(load_weights=not resume)
    run_dir = checkpoint.parent if checkpoint else new_run_dir(config)
    log_to_file(run_dir / "log.txt")
    Processor(session, run_dir, settings_of(config)).train(checkpoint)
    return 0


def settings_of(config: Config) -> str:
    """What a run must have in common with the run that it resumes, as YAML."""
    defaults = {f.name: f.default for f in dataclasses.fields(Config) if f.name in _NOT_TRAINING}
    name = Path(config.name).stem  # however the path of the file was typed
    return configs.dump(dataclasses.replace(config, name=name, **defaults))


def new_run_dir(config: Config, prefix: str = "") -> Path:
    """A fresh folder <work_dir>/<run_name>/<prefix><time>, with the resolved config in it."""
    parent = Path(config.work_dir) / config.run_name
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        run_dir = parent / f"{prefix}{stamp}{suffix}"
        try:
            run_dir.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{run_dir}: cannot be made: {error.strerror}") from error
        break
    with whole_file(run_dir / "config.yaml", "w") as file:
        file.write(configs.dump(config))
    return run_dir


def last_checkpoint(config: Config) -> Path:
    """What -r continues: the checkpoint of -pp, or last.pdparams of this configuration's newest
    run."""
    if config.pretrained_path:
        return Path(config.pretrained_path)
    parent = Path(config.work_dir) / config.run_name
    runs = sorted(parent.glob("[0-9]*"))
    if not runs or not (runs[-1] / "last.pdparams").is_file():
        what = f"{runs[-1]} has no last.pdparams yet" if runs else f"there is no run in {parent}"
        raise UserError(
            f"nothing to resume: {what}; start anew: python main.py -c {config.name}, or name a "
            "checkpoint with -pp"
        )
    return runs[-1] / "last.pdparams"


if __name__ == "__main__":
    sys.exit(run_command(main))
