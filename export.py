"""Checkpoint -> static model (.pdmodel, .pdiparams, .meta.yaml), proven equal to the network.

python export.py -c 2001 -pp xsub.pdparams
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import configs
from configs.schema import Config
from safe_io import UserError, run_command
from utils import file_hash, num_cores, prepare_process, setup_logging

if TYPE_CHECKING:
    import numpy as np
    from paddle import nn

    from deploy.meta import StaticMeta
    from initializer import Initializer

TOLERANCE = 1e-4  # difference allowed, relative to the largest number of an output (noise: 1e-6)
BATCH_SIZES = (1, 3)  # compared with the network


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
        batch_size=args.batch_size,
        per_person=args.per_person,
        with_feature=args.with_feature,
        whole_clips=args.whole_clips,
    )
    logging.info("Next: python infer.py --model_file %s.pdmodel --data_file DATA.npy", target)
    return 0


def export(
    config: Config,
    save_dir: Path | None = None,
    *,
    batch_size: int = 0,
    per_person: bool = False,
    with_feature: bool = False,
    whole_clips: bool = False,
) -> Path:
    """Write and check the static model of a configuration and its `pretrained_path`.

    Returns the path without its endings, named after the weights. Raises UserError when the
    written model differs from the network by more than TOLERANCE, or breaks the promise of rank 4
    and no einsum; then nothing is left in save_dir.
    """
    from deploy.meta import meta_path
    from deploy.static_export import publish, write_static
    from initializer import Initializer

    weights = config.pretrained_path
    if save_dir and save_dir.exists() and not save_dir.is_dir():
        raise UserError(f"--save_dir {save_dir} is a file; allowed: a folder")
    if not weights:
        logging.warning("No -pp: exporting FRESH weights, good for benchmarks and compilers only")
    initializer = Initializer(config)
    spec = initializer.spec
    args, persons = config.data, 1 if per_person else spec.num_person
    reference = initializer.network(persons, load=True)
    folded = initializer.network(persons, load=False)
    folded.set_state_dict(reference.state_dict())
    margin, stride = reference.tail_margin()
    too_short = args.num_frame <= margin  # to be cut; such a program would look behind the clip
    if whole_clips or with_feature or too_short or args.num_frame % stride:
        margin = stride = 0
    meta = _meta(initializer, per_person, batch_size, with_feature, margin, stride)
    name = Path(weights).stem if weights else f"{Path(config.name).stem}_fresh"
    target = (save_dir or Path(weights).parent) / name
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / name
        shapes = meta.input_shapes(spec.skeleton.num_joint)
        write_static(folded, trial, shapes, with_feature=with_feature)
        _check(trial, reference, meta, shapes[0])
        meta.of_files(f"{trial}.pdmodel", f"{trial}.pdiparams").save(meta_path(trial))
        publish(trial, target)
    logging.info("Static model: %s.pdmodel, .pdiparams, .meta.yaml", target)
    return target


def _check(target: Path, reference: nn.Layer, meta: StaticMeta, clip_shape: list[int]) -> None:
    import paddle

    from deploy.engine import CPU_ENGINES, open_engine
    from deploy.verify import inspect_program, largest_difference, trial_clips

    model_file = Path(f"{target}.pdmodel")
    facts = inspect_program(model_file)
    operators = sum(facts.ops.values())
    logging.info("Program: %d operators, largest rank %d", operators, facts.max_rank)
    if facts.problems:
        raise UserError(
            f"{model_file.name} breaks the 4-D promise: {'; '.join(facts.problems[:5])}"
        )
    reference.eval()

    def by_network(clips: np.ndarray) -> list[np.ndarray]:
        with paddle.no_grad():
            return [output.numpy() for output in reference.with_feature(paddle.to_tensor(clips))]

    sizes = (meta.batch_size,) if meta.batch_size else BATCH_SIZES
    trials = trial_clips([*clip_shape[1:3], meta.num_frame], sizes, meta)
    for name in CPU_ENGINES[model_file.suffix]:
        engine = open_engine(model_file, None, name, num_cores())
        outputs = largest_difference(engine.run, by_network, trials)
        for output, (difference, scale) in zip(("logits", "feature"), outputs):
            allowed = TOLERANCE * scale
            logging.info(
                "Largest difference of engine %s from the network: %.2e at a scale of %.2e "
                "(%s, allowed %.0e)", name, difference, scale, output, allowed
            )  # fmt: skip
            if not difference <= allowed:
                raise UserError(
                    f"{model_file.name}, run by engine {name}, differs from the network by "
                    f"{difference:.2e} ({output}), allowed {allowed:.0e}; nothing was exported"
                )


def _meta(
    initializer: Initializer,
    per_person: bool,
    batch_size: int,
    with_feature: bool,
    tail_margin: int,
    tail_stride: int,
) -> StaticMeta:
    import paddle

    from dataset.skeletons import to_mapping
    from deploy.meta import StaticMeta

    config, args, spec = initializer.config, initializer.args, initializer.spec
    weights = config.pretrained_path
    return StaticMeta(
        config=config.name,
        model_type=config.model_type,
        dataset=config.dataset,
        skeleton=to_mapping(spec.skeleton),
        inputs=args.inputs,
        num_frame=args.num_frame,
        persons=1 if per_person else spec.num_person,
        clip_persons=spec.num_person,
        per_person=per_person,
        resample=args.resample,
        centre=args.centre,
        num_axis=args.num_axis,
        transform=args.transform,
        normalisation="2s-AGCN: centred, rotated, looped" if args.transform else "none",
        batch_size=batch_size,
        tail_margin=tail_margin,
        tail_stride=tail_stride,
        outputs=["logits", "feature"] if with_feature else ["logits"],
        class_names=list(spec.class_names),
        weights=Path(weights).name if weights else "fresh",
        weights_sha256=file_hash(weights) if weights else "",
        paddle_version=paddle.__version__,
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
