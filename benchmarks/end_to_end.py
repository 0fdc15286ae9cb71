"""Every task by the command line on real data: the run folder, the score, the reload, a kill.

    python benchmarks/end_to_end.py                # every data set
    python benchmarks/end_to_end.py --data samsum  # one of them
    python benchmarks/end_to_end.py --minutes 20   # start no new cell after this time
    python benchmarks/end_to_end.py --quick        # a few rows and steps, nothing is kept

A cell is one data set: its rows are written as a user has them, ``holdfast train`` runs on a recipe
that names them, and then it is checked that

- every file of the run folder is there, and its rows are those that were given;
- the test score has an interval that holds it, and the baseline beside it the same metrics;
- the saved model, in plain Transformers or PEFT in a process without Holdfast, gives every test
  row what ``predictions.parquet`` says, within 1e-4;
- for one data set a task: a second run that is killed with SIGKILL after its first checkpoint and
  continued leaves the same bytes in ``model/`` and ``predictions.parquet``.

A check that fails fails the cell. Texts are generated for 8 rows. The text models start from
MiniLM and from the small ones of ``make_base_models.py``; pictures from a small ResNet with random
weights: the pretrained CIFAR ResNets have a stem of one 3 × 3 convolution and shortcuts without
weights, which no architecture of Transformers has, so none could be saved as a plain folder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from cells import Cell, run_cells
from claims import Claim, Line, Lines
from peers.arms import COMMAND
from peers.process import commit, environment, run_process
from peers.real_sets import SETS, Made, RealSet
from peers.script import options, results_path
from peers.tables import markdown
from vs_trainer_tasks import small_resnet, trained_base

NAME = "end_to_end"
HERE = Path(__file__).resolve().parent
FILES = (
    "recipe.yaml",
    "result.json",
    "events.jsonl",
    "report.html",
    "model/README.md",
    "predictions.parquet",
    "splits.parquet",
)
HEADLINES = {
    "text-classification": "accuracy",
    "image-classification": "accuracy",
    "seq2seq": "loss",
    "causal-lm": "loss",
}
WITHIN = 1e-4
QUICK, QUICK_CLASSES = (32, 8, 8), (240, 60, 40)
QUICK_SETTINGS = {"train.epochs": 1, "train.max_steps": 2}


def model_of(real: RealSet, quick: bool) -> str:
    if real.model == "embedded":
        return "embedded"
    return str(small_resnet() if real.model == "resnet" else trained_base(real.model, quick))


def write_recipe(real: RealSet, made: Made, model: str, folder: Path) -> Path:
    path = folder / "recipe.yaml"
    recipe = {"task": real.task, "seed": 0, "data": dict(made.data), "model": {"name": model}}
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def run_one(cell: Cell, quick: bool, threads: int) -> dict[str, Any]:
    real = SETS[cell["data"]]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        folder = Path(name)
        made = real.make(folder, _few(real) if quick else real.sizes)
        recipe = write_recipe(real, made, model_of(real, quick), folder)
        settings = {**real.settings, **(_short(real) if quick else {})}
        given = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
        words = ["train", str(recipe), "--json", "--quiet", *given]
        run = folder / "run"
        ended = run_process([*command(words), "--out", str(run)], folder, threads)
        found = examined(run, real.task)
        found |= reloaded(run, real, made, folder, threads)
        found["resumed"] = killed(run, words, folder, threads) if real.killed else None
    print(
        f"  {found['metric']} {found['value']:.3f}, difference {found['difference']:.1e}, "
        f"resumed: {found['resumed']}",
        flush=True,
    )
    return {**found, **asdict(ended), "load_before": round(load, 2), "commit": commit()}


def _few(real: RealSet) -> tuple[int, int, int]:
    return QUICK_CLASSES if real.model == "embedded" else QUICK


def _short(real: RealSet) -> dict[str, Any]:
    few = {"generate.rows": 0} if real.task in ("seq2seq", "causal-lm") else {}
    return {**QUICK_SETTINGS, **few}


def command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", COMMAND, *words]


def examined(run: Path, task: str) -> dict[str, Any]:
    """The headline and its baseline, of a folder in which nothing is missing."""
    missing = [name for name in FILES if not (run / name).is_file()]
    if missing or (run / "checkpoints").exists():
        raise AssertionError(f"the run folder lacks {missing}, or still has checkpoints")
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    name = HEADLINES[task]
    score = result["test"]["metrics"][name]
    before = result["baseline"]["test"]["metrics"][name]
    if not score["low"] <= score["value"] <= score["high"]:
        raise AssertionError(f"{name} {score} lies outside of its interval")
    return {
        "metric": name,
        **{key: score[key] for key in ("value", "low", "high")},
        "baseline": before["value"],
        "baseline_low": before["low"],
        "baseline_high": before["high"],
        "baseline_what": result["baseline"]["what"],
        "task": task,
        "verdict": result["verdict"]["label"],
        "train_rows": result["data"]["train"],
        "test_rows": result["test"]["n"],
        "train_s": result["timing"]["train_s"],
        "steps": result["last_step"],
        "precision": result["model_facts"]["precision"],
    }


def reloaded(run: Path, real: RealSet, made: Made, folder: Path, threads: int) -> dict[str, Any]:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    told = {
        "task": real.task,
        "rows": list(made.rows),
        "classes": result["classes"],
        "length": recipe["model"]["max_length"],
        "target_length": recipe["model"].get("max_target_length"),
    }
    (folder / "check.json").write_text(json.dumps(told), encoding="utf-8")
    script = HERE / "peers" / "plain_check.py"
    run_process([sys.executable, str(script), str(folder), str(run)], folder, threads)
    checked: dict[str, Any] = json.loads((folder / "checked.json").read_text(encoding="utf-8"))
    if checked["difference"] > WITHIN or not checked["compared"]:
        raise AssertionError(f"the reloaded model differs: {checked}")
    return checked


def killed(whole: Path, words: Sequence[str], folder: Path, threads: int) -> str:
    """Kill a second run after its first checkpoint, continue it, compare the bytes."""
    run = folder / "killed"
    mine = [*command(words), "--out", str(run)]
    process = subprocess.Popen(
        mine,
        cwd=folder,
        env=environment(threads),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not list((run / "checkpoints").glob("step-*.pt")):
        time.sleep(0.02)
    if process.poll() is not None:
        raise AssertionError("the run ended before it could be killed")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    step = max(int(path.stem[5:]) for path in (run / "checkpoints").glob("step-*.pt"))
    run_process([*mine, "--resume"], folder, threads)
    if digests(run) != digests(whole):
        raise AssertionError(f"killed at step {step} and continued: other files")
    return f"same bytes, killed after step {step}"


def digests(run: Path) -> dict[str, str]:
    """The card holds times, so it is left out."""
    files = [run / "predictions.parquet", *(run / "model").rglob("*")]
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and path.name != "README.md"
    }


def main(words: Sequence[str]) -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--data", choices=sorted(SETS), help="one data set alone")
    chosen = parser.parse_args(words)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    path = results_path(NAME, chosen.threads, chosen.quick)
    ask = [{"data": name} for name in SETS if chosen.data in (None, name)]
    run = functools.partial(run_one, quick=chosen.quick, threads=chosen.threads)
    run_cells(NAME, ask, run, path, minutes=chosen.minutes)


def finding(lines: Lines) -> str:
    largest = max(line["difference"] for line in lines)
    killed = [line for line in lines if line.get("resumed")]
    same = sum("same bytes" in line["resumed"] for line in killed)
    return (
        f"On {len(lines)} real sets of {len({line['task'] for line in lines})} tasks every saved "
        f"model gives the same predictions in plain Transformers or PEFT (largest difference "
        f"{largest:.0e}), and {same} of {len(killed)} runs that were killed and resumed end with "
        "the same bytes as a run that was not killed."
    )


def scores(lines: Lines) -> str:
    def shown(line: Line, name: str) -> str:
        low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
        return f"{line[name]:.3f} ({line[low]:.3f}–{line[high]:.3f})"

    rows = [
        [
            line["data"],
            line["task"],
            f"{line['train_rows']}, {line['test_rows']}",
            line["metric"],
            shown(line, "value"),
            f"{shown(line, 'baseline')}, {line['baseline_what']}",
            f"{line['command_s']:.0f}",
        ]
        for line in lines
    ]
    head = ["Set", "Task", "Training, test rows", "Metric", "Test score (95 % CI)", "Baseline"]
    return markdown([*head, "Command, s"], rows)


CLAIM = Claim(
    NAME,
    "Other",
    "Every task from end to end",
    """\
`holdfast train` on a recipe for each real set. Every run folder is checked for its files, and
every saved model predicts the test rows again in a process without Holdfast. For each task one run
is killed and continued. The loss is in nats (lower is better).""",
    lambda: [{"data": name} for name in SETS],
    finding,
    [scores],
    "Where the intervals overlap, the model is not shown to be better than the baseline. One run a "
    "set.",
)


if __name__ == "__main__":
    main(sys.argv[1:])
