"""Speed, memory and test loss against Seq2SeqTrainer, TRL's SFTTrainer and Trainer, by task.

    python benchmarks/vs_trainer_tasks.py                 # every pair of arms, three seeds
    python benchmarks/vs_trainer_tasks.py --job pictures  # one task
    python benchmarks/vs_trainer_tasks.py --minutes 60    # start no new cell after an hour
    python benchmarks/vs_trainer_tasks.py --quick         # a smoke test, nothing is kept
    python benchmarks/vs_trainer_tasks.py --tables        # the tables of what is there

- summaries: dialogues of SAMSum, the small T5 of make_base_models.py, Seq2SeqTrainer
- instructions: the small Llama of make_base_models.py, loss on the answers alone, Trainer and
  SFTTrainer; also packed, and with LoRA (rank 8, every linear layer)
- pictures: CIFAR-10, a small ResNet with random weights, whose features give a linear probe that
  training would first unlearn: it is not the start (`methods.probe_first=false`); Trainer

600 training, 100 validation and 200 test rows (pictures: 1,000, 100 and 300), batches of 16, the
same epochs, rate, precision and starting weights; the rest is each side's default, the trainers
evaluating once an epoch. No side generates text. Examples per second are rows forward and backward
÷ `train_s` (Holdfast: from the loaded model to the restored best state; Trainer: the wall time of
`train()`, its rows tokenised or decoded before). On a machine that others use too the wall time is
also theirs, so the same is reported per second of the processor time of that stretch. The test loss
is that of the saved model, computed for every arm by the same script, in nats a target token
(pictures: a picture). Memory is the peak of the whole process, which scores its test rows and, with
Holdfast, the untuned model on them.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import make_base_models
from cells import Cell, publish, run_cells
from peers.script import options, results_path
from peers.tables import column, foot, gap, markdown, matched, ratio, records, spread, target, times
from peers.task_arms import TaskArm, run_task_arm
from peers.task_rows import MAKERS, TaskParts

NAME = "vs_trainer_tasks"
BY = ("job", "seed")
SEEDS = 3
SIZES, QUICK_SIZES = (600, 100, 200), (48, 16, 24)
PICTURE_SIZES = (1000, 100, 300)
TARGET = 1.2
BASES = {"summaries": "t5", "instructions": "llama"}
RATES = {"summaries": 1e-3, "instructions": 5e-4, "pictures": 2e-3}
LORA_RATE = 3e-3
# Ours, and the peer that it is compared with.
PAIRS = {
    "summaries": (("holdfast", "trainer"),),
    "instructions": (
        ("holdfast", "trainer"),
        ("holdfast", "sft"),
        ("holdfast packed", "sft packed"),
        ("holdfast lora", "sft lora"),
    ),
    "pictures": (("holdfast", "trainer"),),
}


def arms(job: str, quick: bool) -> dict[str, TaskArm]:
    """Every arm of a job, in float32, ours and theirs with the same epochs, batch and rate."""
    epochs = 1 if quick else 3 if job == "pictures" else 2
    ours: dict[str, Any] = {
        "train.epochs": epochs,
        "train.batch_size": 16,
        "train.precision": "float32",
        "train.learning_rate": RATES[job],
    }
    if job == "pictures":
        ours["methods.probe_first"] = "false"
    theirs: dict[str, Any] = {"epochs": epochs, "batch_size": 16, "learning_rate": RATES[job]}
    sft = theirs | {"trainer": "sft"}
    adapter = {"train.learning_rate": LORA_RATE, "model.adapter.kind": "lora"}
    return {
        "holdfast": TaskArm("holdfast", ours),
        "trainer": TaskArm("peer", theirs),
        "sft": TaskArm("peer", sft),
        "holdfast packed": TaskArm("holdfast", ours | {"train.pack": "true"}),
        "sft packed": TaskArm("peer", sft | {"packing": True}),
        "holdfast lora": TaskArm("holdfast", ours | adapter),
        "sft lora": TaskArm("peer", sft | {"lora": True, "learning_rate": LORA_RATE}),
    }


def cells(job: str | None, quick: bool) -> list[dict[str, Any]]:
    """Arms side by side on the same rows; SFTTrainer only where TRL is installed."""
    jobs = [job] if job else list(PAIRS)
    has_trl = find_spec("trl") is not None
    names = {j: list(dict.fromkeys(a for pair in PAIRS[j] for a in pair)) for j in jobs}
    return [
        {"seed": seed, "job": j, "arm": arm}
        for seed in range(1 if quick else SEEDS)
        for j in jobs
        for arm in names[j]
        if has_trl or not arm.startswith("sft")
    ]


def base_model(job: str, quick: bool) -> Path:
    """The weights that every arm starts from."""
    return small_resnet() if job == "pictures" else trained_base(BASES[job], quick)


def trained_base(name: str, quick: bool) -> Path:
    """A model of make_base_models.py; with ``quick`` one of two steps, made on the spot."""
    if quick:
        folder = Path(tempfile.gettempdir()) / f"holdfast-bench-quick-{name}"
        if not (folder / "made.json").exists():
            make_base_models.make(name, 2, folder, 0.01)
        return folder
    folder = make_base_models.cache_folder() / name
    if not (folder / "made.json").exists():
        raise RuntimeError(f"not run: {folder} is not there; python benchmarks/make_base_models.py")
    return folder


def small_resnet() -> Path:
    """A ResNet of 0.7 million parameters for pictures of 32 pixels, drawn with a fixed seed."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification
    from transformers.models.vit import ViTImageProcessorPil

    folder = make_base_models.cache_folder() / "resnet"
    if (folder / "model.safetensors").exists():
        return folder
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 128],
        depths=[2, 2, 2],
        layer_type="basic",
        num_labels=10,
    )
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    ResNetForImageClassification(config).save_pretrained(folder)
    return folder


@functools.cache
def parts_of(job: str, seed: int, quick: bool) -> TaskParts:
    sizes = QUICK_SIZES if quick else PICTURE_SIZES if job == "pictures" else SIZES
    return MAKERS[job](base_model(job, quick), sizes, seed)


def run_one(cell: Cell, quick: bool, threads: int) -> dict[str, Any]:
    job, seed = cell["job"], cell["seed"]
    result = run_task_arm(
        arms(job, quick)[cell["arm"]],
        job,
        base_model(job, quick),
        parts_of(job, seed, quick),
        seed=seed,
        threads=threads,
    )
    print(
        f"  test loss {result['test_loss']:.3f}, {result['examples_per_s']:.1f} rows/s, "
        f"train {result['train_s']:.1f} s",
        flush=True,
    )
    return result


def report(todo: Sequence[Cell], results: Sequence[Any], threads: int) -> str:
    done = records(todo, results)
    lines = [
        line for job, pairs in PAIRS.items() for pair in pairs for line in targets(job, *pair, done)
    ]
    return "\n\n".join(
        [
            "## Against the trainers, task by task",
            "600 training rows (pictures: 1,000), batches of 16, float32; mean ± standard "
            "deviation "
            "over runs; ratios and differences over pairs of runs on the same rows, with 95 % "
            "intervals.",
            by_job(done),
            "\n".join(lines),
            foot("python benchmarks/vs_trainer_tasks.py", len(todo), done, threads),
        ]
    )


def by_job(done: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for job in PAIRS:
        for arm in dict.fromkeys(r["arm"] for r in done if r["job"] == job):
            chosen = [r for r in done if r["job"] == job and r["arm"] == arm]
            lines.append([job, arm, str(len(chosen)), *figures(chosen)])
    head = [
        "Task",
        "System",
        "Runs",
        "Rows/s",
        "Tokens/s",
        "Train, s",
        "Rows per processor s",
        "Train, processor s",
        "Peak, MB",
        "Test loss",
        "Test accuracy, %",
    ]
    return markdown(head, lines)


def figures(chosen: Sequence[Mapping[str, Any]]) -> list[str]:
    def shown(name: str, scale: float = 1.0, digits: int = 1) -> str:
        values = [float(r[name]) for r in chosen if r.get(name) is not None]
        return spread(values, scale, digits) if values else ""

    return [
        shown("examples_per_s"),
        shown("tokens_per_s", 1, 0),
        shown("train_s"),
        shown("examples_per_cpu_s"),
        shown("train_cpu_s"),
        shown("peak_mb", 1, 0),
        shown("test_loss", 1, 3),
        shown("test_accuracy", 100),
    ]


def targets(job: str, ours: str, peer: str, done: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of one comparison: speed, test loss, memory."""
    groups = matched([r for r in done if r["job"] == job], BY, (ours, peer))
    what = f"{job}, {ours} against {peer}"
    if not groups:
        return [target(f"{what}: faster by {TARGET}×", None, "")]

    def both(name: str) -> tuple[list[float], list[float]]:
        return column(groups, ours, name), column(groups, peer, name)

    speed = ratio(*both("examples_per_s"), f"{what} speed")
    work = ratio(*both("examples_per_cpu_s"), f"{what} processor")
    memory = ratio(*both("peak_mb"), f"{what} memory")
    loss = gap(*both("test_loss"), f"{what} loss")
    limits = f" ({loss.low:+.3f} to {loss.high:+.3f})" if len(groups) > 1 else ""
    return [
        target(
            f"{what}: rows per second at least {TARGET}×",
            speed.value >= TARGET,
            f"{times(speed)} over {speed.n} pairs",
        ),
        target(
            f"{what}: rows per second of processor time at least {TARGET}×",
            work.value >= TARGET,
            times(work),
        ),
        target(
            f"{what}: test loss the same or lower",
            loss.value <= 0 or loss.low <= 0,
            f"{loss.value:+.3f}{limits} nats",
        ),
        target(f"{what}: peak memory no higher", memory.value <= 1, times(memory)),
    ]


def main(words: Sequence[str]) -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--job", choices=sorted(PAIRS), help="one task alone")
    chosen = parser.parse_args(words)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    path = results_path(NAME, chosen.threads, chosen.quick)
    todo = cells(chosen.job, chosen.quick)
    run = functools.partial(run_one, quick=chosen.quick, threads=chosen.threads)
    minutes = 0 if chosen.tables else chosen.minutes
    text = report(todo, run_cells(NAME, todo, run, path, minutes=minutes), chosen.threads)
    print(f"\n{text}")
    if not chosen.quick and not chosen.job:
        publish(path.stem, text)


if __name__ == "__main__":
    main(sys.argv[1:])
