"""What the task recipes give on scans that no setting was chosen by, and what RandAugment and captions change there.

    python -m benchmarks.held_out_tasks FOLDER [--held_out 0] [--runs vqa vqa_captions ...]

The recipes were tuned on every fifth scan from the fifth on. Here another fifth is held out, of the digits model's
training too, and the recipes run as they are; the runs that are named after a setting have that setting beside. A
folder that is there is gone on with: what has run is not run again. Printed: each run's accuracy on the held-out rows.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# of each run: the recipe, the held-out rows, the task, and what is set beside the recipe
RUNS: dict[str, tuple[str, str, str, list[str]]] = {
    "classification": ("task_classification_digits_finetuned", "data/digits/val.csv", "classification", []),
    "classification_augmented": (
        "task_classification_digits_finetuned",
        "data/digits/val.csv",
        "classification",
        ["data.augment={}"],
    ),
    "vqa": ("task_vqa_digits", "data/digit_tasks/vqa/val.csv", "vqa", []),
    "vqa_captions": ("task_vqa_digits", "data/digit_tasks/vqa/val.csv", "vqa", ["head.caption_weight=1"]),
    "entailment": ("task_entailment_digits", "data/digit_tasks/entailment/val.csv", "entailment", []),
    "nlvr2": ("task_nlvr2_digits", "data/digit_tasks/nlvr2/val.csv", "nlvr2", []),
    "motions": ("task_motions", "data/digit_tasks/motions/val.csv", "video_classification", []),
}


def program(folder: Path, *words: str) -> str:
    """Run one of the repository's programs in a folder; returns what it prints."""
    command = [sys.executable, str(ROOT / words[0]), *words[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--held_out", default="0", help="which fifth (default 0); 4 is the one of the recipes")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--seed", default="0", help="of each run (default 0)")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    fifth = ("--held_out", arguments.held_out)
    if not (folder / "data/digits").exists():
        program(folder, "examples/digits/make_digits.py", "data/digits", *fifth)
    program(folder, "train.py", "-c", "train_digits", "output.val_images=0")
    for run in arguments.runs:
        recipe, rows, task, settings = RUNS[run]
        kind = Path(rows).parts[-2]  # of data, as the folder of its rows is called
        if kind != "digits" and not (folder / f"data/digit_tasks/{kind}").exists():
            program(folder, "examples/digits/make_digit_tasks.py", "data/digit_tasks", "--tasks", kind, *fifth)
        made = f"outputs/{run}_{arguments.seed}"
        own = [f"output.dir={made}", f"train.seed={arguments.seed}", "output.val_images=0", *settings]
        program(folder, "train.py", "-c", recipe, *own)
        printed = program(folder, "evaluate.py", task, "-c", f"{made}/final.yaml", "--data", rows)
        print(f"{run}: {' '.join(printed.split())}", flush=True)


if __name__ == "__main__":
    main()
