"""Speed, memory and test loss against Seq2SeqTrainer and Trainer, by task (language models:
``language.py``).

    python benchmarks/vs_trainer_tasks.py                 # both tasks, three seeds
    python benchmarks/vs_trainer_tasks.py --job pictures  # one task
    python benchmarks/vs_trainer_tasks.py --minutes 60    # start no new cell after an hour
    python benchmarks/vs_trainer_tasks.py --quick         # a smoke test, nothing is kept

- summaries: dialogues of SAMSum, the small T5 of make_base_models.py, Seq2SeqTrainer
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import make_base_models
from cells import Cell, grid, run_cells
from claims import (
    Claim,
    Gap,
    Lines,
    Metric,
    ReadmeRow,
    average,
    comparison,
    loss_and_speed,
    paired,
    pick,
    runs,
    table,
)
from peers.script import options, results_path
from peers.task_arms import TaskArm, run_task_arm
from peers.task_rows import MAKERS, TaskParts

NAME = "vs_trainer_tasks"
BY = ("job", "seed")
SEEDS = 3
SIZES, QUICK_SIZES = (600, 100, 200), (48, 16, 24)
PICTURE_SIZES = (1000, 100, 300)
RATES = {"summaries": 1e-3, "pictures": 2e-3}
OURS, THEIRS = "holdfast", "trainer"


def arms(job: str, quick: bool) -> dict[str, TaskArm]:
    """Both arms of a job, in float32, with the same epochs, batch and rate."""
    epochs = 1 if quick else 3 if job == "pictures" else 2
    ours: dict[str, Any] = {
        "train.epochs": epochs,
        "train.batch_size": 16,
        "train.precision": "float32",
        "train.learning_rate": RATES[job],
    }
    if job == "pictures":
        ours["methods.probe_first"] = "false"
    theirs = {"epochs": epochs, "batch_size": 16, "learning_rate": RATES[job]}
    return {OURS: TaskArm("holdfast", ours), THEIRS: TaskArm("peer", theirs)}


def cells(job: str | None = None, quick: bool = False) -> list[dict[str, Any]]:
    """Arms side by side on the same rows."""
    jobs = [job] if job else list(RATES)
    return grid(seed=range(1 if quick else SEEDS), job=jobs, arm=[OURS, THEIRS])


def base_model(job: str, quick: bool) -> Path:
    """The weights that every arm starts from."""
    return small_resnet() if job == "pictures" else trained_base("t5", quick)


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
    config = ResNetConfig(  # type: ignore[call-arg]
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


def main(words: Sequence[str]) -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--job", choices=sorted(RATES), help="one task alone")
    chosen = parser.parse_args(words)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    path = results_path(NAME, chosen.threads, chosen.quick)
    todo = cells(chosen.job, chosen.quick)
    run = functools.partial(run_one, quick=chosen.quick, threads=chosen.threads)
    run_cells(NAME, todo, run, path, minutes=chosen.minutes)


NAMES = {
    "summaries": "dialogue summaries, T5 of 5 million parameters",
    "pictures": "images, small ResNet",
}
PEERS = {"summaries": "Seq2SeqTrainer", "pictures": "Trainer"}


def _gaps(lines: Lines) -> Iterator[tuple[str, Gap, Gap]]:
    """Of each task with pairs of runs, the difference in test loss and the ratio of speeds."""
    for job in RATES:
        some = pick(lines, job=job)
        loss = paired(some, "test_loss", OURS, THEIRS, BY)
        speed = paired(some, "examples_per_s", OURS, THEIRS, BY, times=True)
        if loss and speed:
            yield job, loss, speed


def finding(lines: Lines) -> str:
    parts = [
        f"{NAMES[job]}, {PEERS[job]}: {speed.words(1, 2, ' times', sign=False)} the rows "
        f"per second, test loss {loss.words(1, 3, ' nats')}"
        for job, loss, speed in _gaps(lines)
    ]
    compared = "Holdfast compared with the libraries' own trainers (a lower test loss is better)"
    return f"{compared}: {'; '.join(parts)}." if parts else ""


def with_task(lines: Lines) -> Lines:
    return [{**line, "task": line["job"].replace("pictures", "images")} for line in lines]


def rows_of_readme(lines: Lines) -> list[ReadmeRow]:
    return [
        row
        for job, loss, speed in _gaps(lines)
        for row in loss_and_speed(
            f"{NAMES[job][0].upper()}{NAMES[job][1:]}", PEERS[job], loss, speed
        )
    ]


CLAIM = Claim(
    NAME,
    "Speed and memory",
    "Summaries and images: Holdfast against the libraries' trainers",
    """\
600 training rows (images: 1,000), batches of 16, float32, the same rows and weights. Summaries: a
small T5, that of `make_base_models.py`, against Seq2SeqTrainer; images: a small ResNet against
Trainer. Language models are on [another page](language.md).""",
    cells,
    finding,
    [
        lambda lines: comparison(
            [(OURS, THEIRS)],
            {
                "Rows per second, ratio": Metric("examples_per_s", 1, 2, times=True),
                "Rows per processor second, ratio": Metric("examples_per_cpu_s", 1, 2, times=True),
                "Test loss, nats": Metric("test_loss", 1, 3),
                "Peak memory, ratio": Metric("peak_mb", 1, 2, times=True),
            },
            "task",
            by=BY,
        )(with_task(lines)),
        lambda lines: table(
            {"task": "Task", "arm": "System"},
            {
                "Runs": runs,
                "Rows per second": average("examples_per_s", limits=False),
                "Training, s": average("train_s", limits=False),
                "Peak memory, MB": average("peak_mb", 1, 0, limits=False),
                "Test loss": average("test_loss", 1, 3, limits=False),
                "Test accuracy, %": average("test_accuracy", 100, limits=False),
            },
        )(with_task(lines)),
    ],
    """\
Holdfast's seconds include the linear probe that it fits before the first update, its baseline: on
these images about 2 of 10 seconds. Without it and the evaluations an update on images takes as long
as with Trainer. Both systems ran beside other work. The test accuracy of texts is that of single
tokens.""",
    readme=rows_of_readme,
)


if __name__ == "__main__":
    main(sys.argv[1:])
