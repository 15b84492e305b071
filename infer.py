"""Static inference: predictions, accuracy and speed of an exported model on a clip file.

python infer.py --model_file xsub.pdmodel --data_file tiny_eval.npy
python infer.py --model_file xsub.pdmodel --data_file all.npy --shard 3/8 --output part3.json
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy.engines.engine import AUTO, ENGINES
from errors import UserError, run_command
from safe_io import file_hash, whole_file
from utils import num_cores, prepare_environment, setup_logging

if TYPE_CHECKING:
    from dataset.storage import ClipSet
    from deploy.predictor import Predictor, Scores


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    files = parser.add_argument_group("files")
    files.add_argument("--model_file", type=Path, required=True, help=".pdmodel, .json or .onnx")
    files.add_argument("--data_file", type=Path, required=True, help=".npy, (N, 3, T, V, M) metres")
    files.add_argument("--params_file", type=Path, help="default: .pdiparams beside the model")
    files.add_argument(
        "--label_file", type=Path, help="default: X_label.pkl or X.pkl beside X_data.npy or X.npy"
    )
    files.add_argument("--output", type=Path, help="write predictions to a .json or .csv file")
    files.add_argument(
        "--shard", default="1/1", metavar="I/N",
        help="only part I of N of the clips, for job arrays; tools/merge_predictions.py joins them",
    )  # fmt: skip

    run = parser.add_argument_group("how to run")
    run.add_argument("-b", "--batch_size", "--batch-size", type=int, default=16, help="clips")
    run.add_argument(
        "--engine", choices=ENGINES, default=AUTO,
        help="on the CPU (default auto: the fastest that works)",
    )  # fmt: skip
    run.add_argument("--cpu_threads", type=int, default=num_cores(), help="default: all cores")
    run.add_argument("--use_gpu", action="store_true", help="run on GPU 0")
    run.add_argument("--inputs", default="", help="branches of a public port's model (default JVB)")
    run.add_argument("--topk", type=int, default=5, help="classes listed for each clip")
    run.add_argument("--no_cpu_setup", action="store_true", help="leave MKL, malloc alone")
    run.add_argument("--benchmark", action="store_true", help="measure speed instead of predicting")
    run.add_argument("-np", "--no_progress_bar", action="store_true", help="no lines for batches")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    for name in ("batch_size", "cpu_threads", "topk"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}; allowed: 1 or more")
    if args.output and args.output.suffix not in (".json", ".csv"):
        raise UserError(f"--output {args.output}: allowed: a name ending in .json or .csv")
    part, parts = parse_shard(args.shard)
    if parts > 1 and (args.output is None or args.output.suffix != ".json" or args.benchmark):
        raise UserError(f"--shard {args.shard} needs --output FILE.json, and no --benchmark")
    from dataset.storage import open_clips

    clips = open_clips(args.data_file, args.label_file)
    prepare_environment(not args.no_cpu_setup)  # Paddle is imported by engines that need it
    setup_logging()
    from deploy.predictor import Predictor

    model = Predictor.load(
        args.model_file,
        params_file=args.params_file,
        engine="gpu" if args.use_gpu else args.engine,
        cpu_threads=args.cpu_threads,
        inputs=args.inputs,
    )
    model.check_data(clips)
    if clips.manifest is None:
        logging.warning("%s: no manifest.json beside it; taken as what the model wants", clips.path)
    if args.benchmark:
        return benchmark(model, clips, args)
    shard = range(len(clips) * (part - 1) // parts, len(clips) * part // parts)
    return predict(model, clips, shard, args)


def parse_shard(text: str) -> tuple[int, int]:
    """'3/8' -> (3, 8). Raises UserError for anything but I/N with I from 1 to N."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    part, parts = (int(number) for number in match.groups()) if match else (0, 0)
    if not 1 <= part <= parts:
        raise UserError(f"--shard is {text!r}; allowed: I/N, the part from 1 to N, e.g. 3/8")
    return part, parts


def predict(model: Predictor, clips: ClipSet, shard: range, args: argparse.Namespace) -> int:
    """Run the clips of the shard, in order; print the public port's lines, names and the
    accuracy."""
    rows: list[dict[str, Any]] = []
    num_right = 0
    for start in range(shard.start, shard.stop, args.batch_size):
        stop = min(start + args.batch_size, shard.stop)
        scores = run_batch(model, clips, start, stop)
        predicted = scores.logits.argmax(axis=1)
        names = clips.names[start:stop]
        line = f"Batch action class Predict: {predicted.tolist()}"
        if clips.labels is not None:
            labels = clips.labels[start:stop]
            right = int((predicted == labels).sum())
            num_right += right
            line += f" Batch action class True: {labels.tolist()}"
            line += f" Batch Accuracy: {right / len(labels):.4g}"
        batch_rows = [
            row_of(model, clips, scores, n, start + n, args.topk) for n in range(len(names))
        ]
        rows += batch_rows
        if not args.no_progress_bar:
            print(f"{line} Batch sample Name: {names}")
            for row in batch_rows:
                print(f"  {describe(row)}")
    accuracy = num_right / len(shard) if clips.labels is not None and shard else None
    if args.output:
        about = {
            "engine": model.engine.name,
            "model": file_hash(args.model_file),
            "data": str(args.data_file),
            "shard": [shard.start, shard.stop, len(clips)],
            "accuracy": accuracy,
        }
        write_output(args.output, about, rows)
    print_accuracy(accuracy, len(shard))
    return 0


def print_accuracy(accuracy: float | None, num_clip: int) -> None:
    """The public port's last line, or that there is nothing to compare with."""
    if accuracy is None:
        print(f"{num_clip} clips predicted; no labels, so no accuracy")
    else:
        print(f"Infer Mean Accuracy: {accuracy:.6g}")


def run_batch(model: Predictor, clips: ClipSet, start: int, stop: int) -> Scores:
    """Scores of some clips of the file; an error says which."""
    try:
        return model.run(clips.data[start:stop])
    except UserError as error:
        raise UserError(f"{clips.path}, clips {start} to {stop - 1}: {error}") from error


def row_of(
    model: Predictor, clips: ClipSet, scores: Scores, n: int, index: int, topk: int
) -> dict[str, Any]:
    """What is known of one clip: name, label, best classes with probability, and each person's
    class where the model works by person."""
    logits = scores.logits[n].astype(np.float64)
    probability = np.exp(logits - logits.max())
    probability /= probability.sum()
    best = np.argsort(-logits, kind="stable")[:topk]
    row: dict[str, Any] = {"name": clips.names[index]}
    if clips.labels is not None:
        label = int(clips.labels[index])
        row.update(label=label, label_name=class_name(model, label))
    row["top"] = [
        {"class": int(c), "name": class_name(model, c), "probability": round(probability[c], 6)}
        for c in best
    ]
    if scores.person_logits is not None:
        classes = scores.person_logits[n].argmax(axis=1)
        row["persons"] = [
            {"person": m, "class": int(c), "name": class_name(model, c)}
            for m, c in enumerate(classes)
            if scores.exists[n, m]
        ]
    return row


def class_name(model: Predictor, label: int) -> str:
    """Its name, or 'class 7' for a model without names."""
    names = model.class_names
    return names[label] if label < len(names) else f"class {label}"


def describe(row: dict[str, Any]) -> str:
    """One clip in one line: 'name: drink water 0.981, eat meal/snack 0.012'."""
    text = ", ".join(f"{top['name']} {top['probability']:.3f}" for top in row["top"])
    persons = "; ".join(f"person {p['person']}: {p['name']}" for p in row.get("persons", []))
    return f"{row['name']}: {text}" + (f" ({persons})" if persons else "")


def write_output(path: Path, about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """All rows as one JSON object, or as CSV with the best class of each clip.

    about: engine, model (SHA-256 of its file), data, shard ([first clip, behind the last, clips
    in all]) and accuracy; JSON keeps it.
    """
    if path.suffix == ".json":
        with whole_file(path, "w") as file:
            json.dump({**about, "clips": rows}, file, indent=1)
        return
    from report import write_csv

    header = ["name", "label", "class", "class_name", "probability", "persons"]
    table = [header]
    for row in rows:
        best, persons = row["top"][0], row.get("persons", [])
        each = "; ".join(f"{p['person']}: {p['name']}" for p in persons)
        label = row.get("label", "")
        table.append([row["name"], label, best["class"], best["name"], best["probability"], each])
    write_csv(path, table)


def benchmark(model: Predictor, clips: ClipSet, args: argparse.Namespace) -> int:
    """Latency from raw clips in memory to logits, batch after batch through the file."""
    from deploy.speed import measure

    print(measure(model, clips.data, args.batch_size, args.cpu_threads))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
