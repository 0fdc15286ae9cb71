"""What a small language model forgets when it is tuned, and what each guard keeps of it.

    python benchmarks/forgetting.py --base          # the model that knows novels (some minutes)
    python benchmarks/forgetting.py --minutes 5     # cells, as many as fit; call again to go on

A Llama of 1.2 million parameters that was trained on 43 novels (``forgetting_parts/base.py``) is
tuned on 560 rows: on instructions, or on one novelist whom it never read. Target loss: 150 rows of
that kind that take no part. General loss: 150 paragraphs of two other authors whom nobody trains
on; the probe that a run sees are others of theirs. Replayed rows are of novels that the base knows,
paragraphs that it never saw; nothing of the two authors.

"Removed" is the share of plain tuning's rise in general perplexity that is gone. "Compute" is
tokens passed forward and back, a forward pass counting a third, over those of plain tuning; tokens
that a model writes itself count as a forward pass each.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import RESULTS, Cell, grid, run_cells
from claims import Claim, Line, Lines, average, number, pick, runs, table
from forgetting_parts import rows
from forgetting_parts.base import base

from holdfast.contract.fit import FittedModel
from holdfast.fits.fit import fit
from holdfast.models.network_copy import copy_network
from holdfast.prepare.general import with_general
from holdfast.prepare.model import prepare
from holdfast.recipe.recipe import parse
from holdfast.tasks import task_definition

NAME = "forgetting"
TASKS = ("novelist", "instructions")
RATE = 1e-3
FORWARD = 1 / 3
LINE = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
LORA = {"model.adapter.kind": "lora"}
WITH_LINE = ("plain", "replay 10 %")
ARMS: dict[str, Mapping[str, Any]] = {
    "plain": {},
    "average": {"methods.wise.within": 0.02},
    "replay 10 % + average": {"methods.replay.share": 0.10, "methods.wise.within": 0.02},
    "replay 5 %": {"methods.replay.share": 0.05},
    "replay 10 %": {"methods.replay.share": 0.10},
    "own texts 10 %": {"methods.replay.share": 0.10, "data.general": None},
    "kl 1": {"methods.kl_start.weight": 1.0},
    "kl 4": {"methods.kl_start.weight": 4.0},
    "ewc 0.01": {"methods.ewc.weight": 0.01},
    "lora 4": {**LORA, "model.adapter.rank": 4, "train.learning_rate": 3 * RATE},
    "lora 16": {**LORA, "model.adapter.rank": 16, "train.learning_rate": 3 * RATE},
    "lora 64": {**LORA, "model.adapter.rank": 64, "train.learning_rate": 3 * RATE},
}


def run_one(cell: Cell) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        return _run(cell, Path(scratch))


def _run(cell: Cell, folder: Path) -> dict[str, Any]:
    task, arm, seed = str(cell["task"]), str(cell["arm"]), int(cell["seed"])
    files = rows.general(folder)
    path, tests = rows.own(task, folder, seed)
    plain = {
        "task": "causal-lm",
        "seed": seed,
        "data.path": str(path),
        "data.general": str(files["replay"]),
        "probes.forgetting.data": str(files["probe"]),
        "model.name": str(base()),
        "model.max_length": 128,
        "train.epochs": 3,
        "train.learning_rate": RATE,
        "train.evaluations": 3,
        "train.threads": 1,
        "train.precision": "float32",
        "train.pack": True,
        "control.policy": "off",
        **ARMS[arm],
    }
    recipe = parse(_nested(plain), arm)
    definition = task_definition("causal-lm")
    table = definition.read(str(path), recipe.data, None)
    start = time.perf_counter()
    prepared = with_general(prepare(recipe, table), (table,))
    wrote = time.perf_counter() - start
    mine = len(table) - tests
    order = np.random.default_rng(seed).permutation(mine)
    valid = mine // 8
    fitted = fit(prepared, np.sort(order[valid:]), np.sort(order[:valid]))
    own = fitted.encode(table.take(np.arange(mine, len(table))))
    general = fitted.encode(definition.read_general(str(files["test"]), recipe.data, table))
    looks = fitted.trained.history
    before, after = looks[0].general_loss, looks[-1].general_loss
    assert before is not None
    assert after is not None
    result = {
        "target": _loss(fitted, fitted.network, own),
        "general": _loss(fitted, fitted.network, general),
        "kept": [one.decision.because[:60] for one in fitted.trained.offers],
        "compute": _work(fitted, arm) + (_written(prepared) if arm.startswith("own") else 0),
        "train_s": round(fitted.trained.train_s, 1),
        "prepare_s": round(wrote, 1),
        "best_step": fitted.trained.best_step,
        "verdict": fitted.trained.verdict.label,
        "probe_rise": after - before,
    }
    if arm == "plain":
        # What every arm began with, since the rows and the base are the same.
        begun = fitted.base_network()
        result["target_start"] = _loss(fitted, begun, own)
        result["general_start"] = _loss(fitted, begun, general)
    if arm not in WITH_LINE:
        return result
    sides = {"valid": fitted.training_plan.valid, "target": own, "general": general}
    return {**result, "line": [_along(fitted, alpha, sides) for alpha in LINE]}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for name, value in flat.items():
        *parts, last = name.split(".")
        place = whole
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return whole


def _loss(fitted: FittedModel, network: Any, examples: Any) -> float:
    """The mean over target tokens, in nats."""
    from holdfast.training.observe import Observer

    job = fitted.job
    observer = Observer(job.accelerator, job.task, alone=True)
    losses, kept = observer.measure(network, examples, np.arange(len(examples)))
    return float((losses * kept[:, 0]).sum() / kept[:, 0].sum())


def _along(fitted: FittedModel, alpha: float, sides: Mapping[str, Any]) -> dict[str, float]:
    """The losses at w₀ + α (w − w₀)."""
    start, now = fitted.trained.initial_tensors, dict(fitted.network.named_parameters())
    mixed = {name: torch.lerp(start[name], now[name].detach(), alpha) for name in start}
    network = copy_network(fitted.network, mixed).eval()
    return {"alpha": alpha, **{n: _loss(fitted, network, rows) for n, rows in sides.items()}}


def _work(fitted: FittedModel, arm: str) -> float:
    """Tokens passed forward and back by all updates; of what is passed forward alone a third."""
    total, job = 0.0, fitted.job
    phase = job.plan.phases[-1]
    pool = phase.pool(job.learned_examples, job.plan.seed)
    for step in range(fitted.trained.last_step):
        draw = phase.source.draw(pool, step)
        total += float(job.learned_examples.lengths[draw.rows].sum())
        if draw.auxiliary is not None:
            total += float(draw.auxiliary.examples.lengths[draw.auxiliary.positions].sum())
    if arm.startswith("kl"):
        total *= 1 + FORWARD * 0.4
    # The looks at the line: its points, and the weights that are kept once more.
    assert job.general_examples is not None
    looked = float(job.valid.lengths.sum() + job.general_examples.lengths.sum())
    return total + (FORWARD * 12 * looked if arm.endswith("average") else 0)


def _written(prepared: Any) -> float:
    return FORWARD * float(prepared.general.rows_examples.lengths.sum())


def cells(seeds: int) -> list[dict[str, Any]]:
    return grid(seed=range(seeds), arm=ARMS, task=TASKS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", action="store_true", help="make the base model alone")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", help="of these alone, by commas")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.base:
        print(base(given.minutes))
        return
    out = given.out or RESULTS / f"{NAME}.jsonl"
    wanted = cells(given.seeds)
    if given.arms:
        wanted = [one for one in wanted if one["arm"] in given.arms.split(",")]
    run_cells(NAME, wanted, run_one, out, minutes=given.minutes)


def perplexities(lines: Lines) -> list[Line]:
    return [{**line, "perplexity": math.exp(line["general"])} for line in lines]


def finding(lines: Lines) -> str:
    lines = perplexities(lines)
    parts = []
    for task in TASKS:
        plain = next(iter(pick(lines, task=task, arm="plain")), None)
        other = next(iter(pick(lines, task=task, arm="replay 10 %")), None)
        if plain and other:
            before = math.exp(plain["general_start"])
            parts.append(
                f"{task}: {number(before)} before, {number(plain['perplexity'])} after plain "
                "tuning, "
                f"{number(other['perplexity'])} with 10 % of general texts replayed"
            )
    return f"Perplexity on general texts, one seed: {'; '.join(parts)}." if parts else ""


CLAIM = Claim(
    NAME,
    "Verdicts",
    "What a small language model forgets",
    """\
A Llama of 1.2 million parameters that knows novels is tuned on 560 rows of one novelist, or of
instructions. The target loss is in nats a token on rows that take no part. "Average" is
`methods.wise`.""",
    lambda: cells(2),
    finding,
    [
        lambda lines: table(
            {"task": "Task", "arm": "Training"},
            {
                "Runs": runs,
                "Target loss": average("target", 1, 3),
                "General perplexity": average("perplexity"),
            },
        )(perplexities(lines))
    ],
    "One seed: the last digits mean little, and there is no interval.",
)


if __name__ == "__main__":
    main()
