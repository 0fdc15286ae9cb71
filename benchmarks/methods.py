"""Every registered method against the default recipe on the same rows.

    python benchmarks/methods.py --jobs 2

400 labelled rows of CR, MR and TREC, 82 % of them training rows; 1,000 test rows, the same for all
of a set. An arm has the rows, the seed and the settings of the default run beside it but for its
own. MiniLM, and a stand-in for it that trains in a second (``peers/stand_in.py``).
"""

from __future__ import annotations

from typing import Any

from cells import Cell, Result, grid, run_command
from claims import Claim, Line, Lines, Metric, Section, comparison, paired
from peers.in_process import holdfast_fit, stand_in_fit

NAME = "methods"
WHOLE, STAND_IN = "MiniLM", "stand-in"
DEFAULT = "default"
SETS, ROWS, SEEDS = ("trec", "cr", "mr"), 400, 2
# Those that need settings of their own; other registered methods are tried with their usual ones.
TRIES: dict[str, dict[str, Any]] = {
    "contrast before": {"methods.contrast.steps": 75},
    "ema": {"methods.ema": True},
    "wise": {"methods.wise": True},
    "mixup": {"methods.mixup": True},
    "gce": {"methods.gce": True},
    "reinit": {"methods.reinit": True},
    "hype": {"methods.hype": True},
    "rdrop": {"methods.rdrop": True},
    "label_smoothing": {"train.label_smoothing": 0.1},
    "word_dropout": {"methods.word_dropout": True},
    "soup": {"methods.soup": True},
    "unfreeze": {"methods.unfreeze": True},
    "swa": {"methods.swa": True},
    "l2_sp": {"methods.l2_sp": True},
    "schedule=one_cycle": {"train.schedule": "one_cycle"},
    "layer_decay=0.9": {"train.layer_decay": 0.9},
    "weight_decay=0": {"train.weight_decay": 0.0},
    "weight_decay=0.1": {"train.weight_decay": 0.1},
    "keep=last": {"train.keep": "last"},
    "schedule=cosine": {"train.schedule": "cosine"},
    "sam": {"methods.sam": True},
    "dropout": {"methods.dropout.hidden": 0.2},
}
# Part of the default; or of no use where a row has a class.
NOT_HERE = ("contrast", "probe_first", "neftune", "replay")
# The stand-in reads vectors, in which no word can be changed.
WORDS = ("word_dropout",)


def arms() -> dict[str, dict[str, Any]]:
    """Every arm whose method is registered, in the order in which they are run."""
    from holdfast.methods.optimizers import SCHEDULES
    from holdfast.methods.registry import all_methods

    known = all_methods()
    found = {}
    for name, settings in TRIES.items():
        wanted = [key.split(".")[1] for key in settings if key.startswith("methods.")]
        schedule = settings.get("train.schedule", "linear")
        if all(one in known for one in wanted) and schedule in SCHEDULES:
            found[name] = settings
    for name, entry in known.items():
        if entry.key is None and name not in (*NOT_HERE, *found):
            found[name] = {f"methods.{name}": True}
    return found


def cells() -> list[dict[str, Any]]:
    """The stand-in first; by seed and set, so that the arms of a set share what is prepared."""
    every = grid(
        model=(STAND_IN, WHOLE), seed=range(SEEDS), data=SETS, rows=[ROWS], arm=[DEFAULT, *arms()]
    )
    return [cell for cell in every if cell["model"] == WHOLE or cell["arm"] not in WORDS]


def run_one(cell: Cell) -> Result:
    """One fit; what is refused is kept as that, with the reason."""
    from holdfast.core.errors import InputError

    settings = {} if cell["arm"] == DEFAULT else arms()[cell["arm"]]
    try:
        if cell["model"] == STAND_IN:
            return stand_in_fit(cell, settings)
        return holdfast_fit(cell, settings, probe=cell["arm"] == DEFAULT)
    except InputError as refused:
        return {"refused": str(refused)}


BY = ("model", "data", "rows", "seed")


def measured(lines: Lines, model: str) -> list[Line]:
    return [line for line in lines if line["model"] == model and "accuracy" in line]


def screen(model: str) -> Section:
    return lambda lines: comparison(
        [(arm, DEFAULT) for arm in arms()],
        {
            "Accuracy, points": Metric("accuracy", 100, 2),
            "Processor time, ratio": Metric("fit_s", 1, 2, times=True),
        },
        by=BY,
        heading=f"{MODELS[model]}:",
    )(measured(lines, model))


def finding(lines: Lines) -> str:
    parts = []
    for model in (WHOLE, STAND_IN):
        gaps = {
            arm: gap
            for arm in arms()
            if (gap := paired(measured(lines, model), "accuracy", arm, DEFAULT, BY))
            and gap.has_interval
        }
        better = [
            f"`{arm}` {gap.words(100, 2, ' points')}" for arm, gap in gaps.items() if gap.low > 0
        ]
        if gaps:
            shown = ", ".join(better) or "none"
            parts.append(f"with {NAMES[model]} for {shown} of {len(gaps)} methods")
    if not parts:
        return ""
    compared = "the 95 % CI of the difference in accuracy from the default recipe lies above 0"
    return f"Switched on alone, {compared} {'; '.join(parts)}."


NAMES = {WHOLE: "MiniLM", STAND_IN: "a small stand-in for it"}
MODELS = {
    WHOLE: "MiniLM",
    STAND_IN: "Two residual blocks over frozen MiniLM vectors (a stand-in that trains in a second)",
}
CLAIM = Claim(
    NAME,
    "Accuracy",
    "Methods compared with the default recipe",
    """\
Each registered method, switched on in the default recipe (`methods.NAME` or `train.NAME=VALUE`),
against the default on the same rows with the same seed; [docs/recipe.md](../../docs/recipe.md)
describes the methods. 400 labelled rows of CR, MR and TREC, 82 % of them training rows, without
cross-fitting; 1,000 test rows. "Contrast before" is a contrastive stage of 75 steps before
fine-tuning.""",
    cells,
    finding,
    [screen(WHOLE), screen(STAND_IN)],
    """\
No difference is shown: that does not mean that a method has no effect. With at most six pairs, most
intervals are one to two points wide, and they are not corrected for the number of methods. The
stand-in shows what a method does to the fitting of few rows, not to the features of an encoder.""",
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
