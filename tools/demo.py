"""The complete workflow on synthetic recordings, `make demo`: prints and runs the commands that a
user would type, then prints a table of results and the commands for NTU RGB+D data.

With --video, `make demo-video`: recognises what a synthetic person does over time, and paints it;
after the workflow, unless that has left its model.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # run as a script: the project's root replaces this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.synthetic.recordings import ACTIONS, EVAL_SUBJECTS, recording
from safe_io import read_json

ROOT = Path(__file__).resolve().parent.parent
DEMO = Path("demo")
DATA = "synthetic-xsub"
REQUIRED_PERCENT = 90  # accuracy on held-out subjects; chance is 1 in 12
SCENES = ("wave right hand", "squat", "kick")
REQUIRED_SCENES = 2  # of these
VIDEO_FILES = ("scenes.skeleton", "recognised.json")

NEXT = """
Next, with NTU RGB+D (https://rose1.ntu.edu.sg/dataset/actionRecognition):
  python main.py -c 2001 -gd --set dataset_args.ntu.ntu60_path=nturgbd_skeletons_s001_to_s017.zip
  python main.py -c 2001
  python main.py -c 2001 -e -pp workdir/2001_EfficientGCN-B0_ntu-xsub/<run>/best.pdparams
(python is .venv/bin/python here; every key: docs/configs.md)"""


def run(command: str) -> str:
    """Run a command line of the project and echo its output. Returns the output."""
    print(f"\n$ python {command}", flush=True)
    argv, lines = [sys.executable, *shlex.split(command)], []
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode != 0:
        sys.exit(f"demo stopped: exit code {process.returncode} of: python {command}")
    return "".join(lines)


def percent(pattern: str, text: str) -> str:
    return f"{re.findall(pattern, text)[-1]} %"


def write_scenes(path: Path) -> None:
    """One recording of a held-out subject who does all of SCENES, one after the other."""
    frames, lines = 0, []
    for name in SCENES:
        text = recording(1, 1, EVAL_SUBJECTS[0], 1, ACTIONS.index(name) + 1)
        count, *rest = text.splitlines()
        frames += int(count)
        lines += rest
    path.write_text("\n".join([str(frames), *lines]) + "\n", encoding="utf-8")


def video() -> int:
    model, scenes, found = (DEMO / name for name in ("static/best.pdmodel", *VIDEO_FILES))
    if not os.path.isfile(ROOT / model):
        workflow()
    write_scenes(ROOT / scenes)
    outputs = f"--output {found} --video {found.with_suffix('.gif')}"
    run(f"recognise.py {scenes} --model_file {model} --window 1.5 --hop 0.25 {outputs} -np")
    rows = read_json(ROOT / found)["scene"]
    labels = {row["label"] for row in rows}
    right = sum(name in labels for name in SCENES)
    print(f"\n{right} of {len(SCENES)} actions found; see {found.with_suffix('.gif')}")
    print("Next, the pose networks for video and cameras, and what they are for:")
    run("-m apps.video.weights")
    print("  python recognise.py 0 --model_file xsub.pdmodel --show")
    if right < REQUIRED_SCENES:
        sys.exit(f"fewer than {REQUIRED_SCENES} actions were found")
    return 0


def workflow() -> int:
    start = time.time()
    rows: list[tuple[str, str, str]] = []
    run(f"dataset/synthetic.py --save_dir {DEMO}/recordings")
    run("main.py -c 9001 -gd")
    data = DEMO / "data/original" / DATA
    clips = read_json(ROOT / data / "manifest.json")["clips"]
    rows.append(("data", f"{clips['train']} + {clips['eval']} clips", str(data)))

    text = run("main.py -c 9001")
    runs = sorted((ROOT / DEMO / "workdir").glob(f"9001_*_{DATA}/[0-9]*"))
    run_dir = runs[-1].relative_to(ROOT)
    rows.append(("training", percent(r"Best top-1 accuracy: ([\d.]+)%", text), f"{run_dir}"))

    text = run(f"main.py -c 9001 -e -pp {run_dir}/best.pdparams")
    top1 = percent(r"Top-1 accuracy: .*?\(([\d.]+)%\)", text)
    rows.append(("evaluation", top1, "confusion.png and per_class.csv beside the run"))

    run(f"export.py -c 9001 -pp {run_dir}/best.pdparams --save_dir {DEMO}/static --per_person")
    run(
        f"dataset/tiny_data_gen.py --source_path {DEMO}/data --data_num 60 --mode eval "
        f"--save_dir {DEMO}/tiny"
    )
    text = run(
        f"infer.py --model_file {DEMO}/static/best.pdmodel -np "
        f"--data_file {DEMO}/tiny/original/{DATA}/eval_data.npy --output {DEMO}/predictions.json"
    )
    tiny = float(re.findall(r"Infer Mean Accuracy: ([\d.]+)", text)[-1])
    rows.append(("static inference", f"{100 * tiny:.2f} % of 60", f"{DEMO}/predictions.json"))

    print(f"\nDemo finished in {time.time() - start:.0f} s; all files are in {DEMO}/")
    for stage, result, path in rows:
        print(f"  {stage:<18}{result:<20}{path}")
    print(f"  curves: {run_dir}/curves.png")
    print(NEXT)
    if float(top1.split()[0]) < REQUIRED_PERCENT:
        sys.exit(f"accuracy {top1} is below the required {REQUIRED_PERCENT} %")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video", action="store_true", help="recognise and paint a recording")
    return video() if parser.parse_args().video else workflow()


if __name__ == "__main__":
    sys.exit(main())
