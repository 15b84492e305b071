"""Generate data, train, evaluate, export: parse, load the configuration, dispatch.

python main.py -c 2001 -gd                       recordings -> data on disk
python main.py -c 2001                           train
python main.py -c 2002 -e -pp xview.pdparams     evaluate (--engine openvino: faster)
python main.py -c 2001 -ex -pp xsub.pdparams     export for static inference
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import configs
from configs.schema import Config
from dataset.protocols import data_spec
from deploy.engines.engine import AUTO, CPU_ENGINES, ENGINES
from errors import UserError, run_command
from safe_io import temporary_folder
from training import parallel
from training.run_folder import last_checkpoint, new_run_dir, record_session
from utils import check_counts, log_to_file, num_cores, prepare_process, setup_logging

if TYPE_CHECKING:
    from deploy.predictor import Predictor
    from training.session import Data, Session

DYGRAPH = "dygraph"


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
    mode.add_argument(
        "-gd", "--generate_data", action="store_true", help="recordings -> data on disk"
    )
    mode.add_argument("-e", "--evaluate", action="store_true", help="evaluate the weights of -pp")
    mode.add_argument("-ex", "--extract", action="store_true", help="export the weights of -pp")
    mode.add_argument(
        "-r", "--resume", action="store_true",
        help="resume the newest run of this configuration, or the checkpoint of -pp",
    )  # fmt: skip

    add = parser.add_argument_group("keys of the configuration").add_argument
    add("-g", "--gpus", type=int, nargs="*", help="GPU number (default: CPU)")
    add("-s", "--seed", type=int, help="random seed")
    add("-pp", "--pretrained_path", help="weights (.pdparams, .pth, ...)")
    add(
        "-ft", "--finetune", action="store_true", default=None,
        help="start from the weights of -pp that fit (other classes or inputs)",
    )  # fmt: skip
    add(
        "--accept", nargs="+", metavar="SETTING",
        help="differences between data, weights and configuration that are deliberate",
    )  # fmt: skip
    add("-w", "--work_dir", help="folder of the runs")
    add("-d", "--dataset", help="protocol, e.g. ntu-xview")
    add("-mt", "--model_type", help="e.g. EfficientGCN-B2 or ST-GCN")
    add("-o", "--optimizer", help="Momentum or Adam")
    add("-ls", "--lr_scheduler", help="cosine or step")
    add("-db", "--debug", action="store_true", default=None, help="300 clips per split")
    add("-np", "--no_progress_bar", action="store_true", default=None, help="no progress bars")
    add("--amp", choices=("bf16", "fp16"), help="mixed precision (GPU)")
    add("--log_every", type=int, help="log every N steps")

    other = parser.add_argument_group("other")
    other.add_argument(
        "--split", choices=("eval", "train"), default="eval", help="of -e (default: eval)"
    )
    other.add_argument(
        "--engine", choices=(DYGRAPH, *ENGINES), default=DYGRAPH,
        help="of -e: what runs the network; all but dygraph export it first (faster)",
    )  # fmt: skip
    other.add_argument("--workers", type=int, default=num_cores(), help="reading processes of -gd")
    other.add_argument(
        "-dh", "--delay_hours", type=float, default=0.0, help="delay of the start, hours"
    )
    other.add_argument(
        "--no_cpu_setup", action="store_true", help="skip CPU tuning (threads, malloc)"
    )
    return parser.parse_args(argv)


def resolve(args: argparse.Namespace) -> Config:
    """The configuration with the command line's overrides; --set has the last word."""
    keys = {field.name for field in dataclasses.fields(Config)}
    overrides = {k: value for k, value in vars(args).items() if k in keys and value is not None}
    if args.no_cpu_setup:
        overrides["cpu_setup"] = False
    overrides.update(configs.parse_set(args.set))
    trains = not (args.generate_data or args.evaluate or args.extract)
    for key, fits in (("finetune", trains and not args.resume), ("amp", trains)):
        if overrides.get(key) and not fits:
            raise UserError(f"{key} is for training only; leave it out here")
    if args.resume:  # the run started from these weights; they are not its checkpoint
        overrides.setdefault("pretrained_path", "")
    return configs.load(args.config, overrides)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    config = resolve(args)
    check_counts(args, "workers")
    if not 0 <= args.delay_hours <= 10_000:
        raise UserError(f"--delay_hours is {args.delay_hours:g}; allowed: 0 to 10000")
    if args.engine != DYGRAPH:
        check_engine(args, config)
    if args.generate_data or args.extract:
        parallel.refuse_several("-gd" if args.generate_data else "-ex")
    time.sleep(args.delay_hours * 3600)
    if args.generate_data:
        from generator import generate

        setup_logging()
        generate(config, workers=args.workers, progress=not config.no_progress_bar)
        return 0
    if config.cpu_setup:
        parallel.share_cores()
    prepare_process(config.cpu_setup)
    setup_logging(logging.INFO if parallel.world().main else logging.WARNING)
    command = shlex.join(["main.py", *(sys.argv[1:] if argv is None else argv)])
    with parallel.report_lost_rank():
        if args.extract:
            extract(config)
        elif args.evaluate:
            evaluate(config, args.split, args.engine, command)
        else:
            train(config, command, resume=args.resume)
    return 0


def extract(config: Config) -> None:
    from deploy.exporting.contracts import ExportOptions
    from deploy.exporting.export import export_network
    from training.checkpoint import load_network

    spec = data_spec(config.dataset, config.data.own_layout)
    export_network(load_network(config, spec), config, spec, ExportOptions())


def check_engine(args: argparse.Namespace, config: Config) -> None:
    """Raises UserError where a static engine has no place."""
    if not args.evaluate:
        raise UserError(f"--engine {args.engine} is for -e alone; leave it out here")
    if config.gpus:
        raise UserError(f"--engine {args.engine} runs on the CPU; leave out -g, or --engine")
    parallel.refuse_several(f"--engine {args.engine}")


def evaluate(config: Config, split: str, engine: str, command: str) -> None:
    if not config.pretrained_path:
        raise UserError(f"-e needs weights: python main.py -c {config.name} -e -pp FILE.pdparams")
    from initializer import Initializer
    from processor import Processor

    session = Initializer(config).for_evaluation(split)
    run_dir = _begin_records(config, command, [session.eval], prefix=f"evaluate-{split}-")
    processor = Processor(config, run_dir)
    processor.evaluate(session, None if engine == DYGRAPH else static_model(session, engine))


def static_model(session: Session, engine: str) -> Predictor:
    """The session's network, exported and loaded. For one person at a time, which gives the same
    logits, because the head is linear, and skips empty person slots."""
    from deploy.exporting.contracts import ExportOptions
    from deploy.exporting.export import export_network
    from deploy.predictor import Predictor

    runs_paddle = engine in (AUTO, *CPU_ENGINES[".pdmodel"])
    options = ExportOptions(format="paddle" if runs_paddle else "onnx", per_person=True)
    config = session.config
    spec = data_spec(config.dataset, config.data.own_layout)
    with temporary_folder() as folder:
        program = export_network(session.network, config, spec, options, folder)
        return Predictor.load(program, engine=engine)


def train(config: Config, command: str, *, resume: bool) -> None:
    checkpoint = last_checkpoint(config) if resume else None
    from initializer import Initializer
    from processor import Processor

    session = Initializer(config).for_training(load_weights=not resume)
    run_dir = _begin_records(config, command, [session.train, session.eval], checkpoint)
    Processor(config, run_dir).train(session, checkpoint)


def _begin_records(
    config: Config,
    command: str,
    splits: Sequence[Data[Any] | None],
    checkpoint: Path | None = None,
    prefix: str = "",
) -> Path | None:
    """The folder of a new run, or of a checkpoint's. None but on rank 0, which alone reports."""
    if not parallel.world().main:
        return None
    run_dir = checkpoint.parent if checkpoint else new_run_dir(config, prefix)
    for part in run_dir.glob(".*.part"):  # incomplete files of a killed session
        part.unlink(missing_ok=True)
    log_to_file(run_dir / "log.txt")
    data = [(split.feeder.clips.path, len(split.feeder)) for split in splits if split]
    record_session(run_dir, command, config.seed, data)
    return run_dir


if __name__ == "__main__":
    sys.exit(run_command(main))
