"""No row wasted: cross-fitted runs against a division, and how often out-of-fold intervals hold.

    python benchmarks/few_rows.py                    # every cell that is missing; resumable
    python benchmarks/few_rows.py --only trec-100    # those whose name begins so
    python benchmarks/few_rows.py --intervals        # the intervals alone

**Runs**: MiniLM, so many labelled rows, of which 15 % are set aside as test rows and used by
neither. ``division`` learns from 70 %, and 15 % judge; ``cross-fitted`` (``train.folds=3``) learns
from those 85 %. Both are scored on 800 other rows. A run that was killed goes on.

**Probes**: what the rows that a division sets aside are worth to a linear probe, for want of time
to tune a model that often.

**Intervals**: ``data.split.test=0`` in the small. Linear probes (C fixed) on vectors of the
untouched MiniLM: five folds give the out-of-fold score of so many rows, with the intervals of
``metrics/score.py``; the truth is what the probe fitted on all of them does on the rest of
3,000 rows. Classes with less than 5 % of the rows are left out, and rows drawn until each class has
five. What corrects the intervals was chosen on CR and TREC (n ÷ 1.3), and made more careful
(n ÷ 1.5) after ten classes of BANKING77 at 100 rows, not looked at before, were held in 92.6 % of
500 draws, macro-F1 in 90.4; MR at 100 rows was held in 96.0 and 94.6.
"""

from __future__ import annotations

import csv
import functools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cells import RESULTS, Cell, Result, grid, run_cells
from claims import (
    LEAST_RUNS,
    Claim,
    Lines,
    Metric,
    comparison,
    interval,
    mean_interval,
    number,
    paired,
    pick,
    share,
)
from peers.rows import Rows, clean_set, data_folder, stratified, without_copies
from peers.tables import markdown

from holdfast.contract.fit import PreparedData
from holdfast.core.records import Outputs
from holdfast.core.seeds import generator
from holdfast.metrics.score import corrected, score
from holdfast.models.probes.probe import fit_probe
from holdfast.pipeline.main import train
from holdfast.prepare.embedding import last_layer_vectors
from holdfast.prepare.model import prepare
from holdfast.recipe import parse
from holdfast.split.folds import make_folds
from holdfast.stats.temperature import losses_at
from holdfast.tasks import task_definition

NAME = "few_rows"
SETS = ("trec", "cr", "mr", "banking10")
SIZES = (100, 50, 200, 400)
FOLDS, OUTER = 3, 5
ARMS = ("division", "cross-fitted")
MACHINE = {"threads": 1, "matmul": "default", "precision": "float32"}
POOL, VECTORS = 800, 3000
C, RESAMPLES = 0.3, 100
METRICS = ("accuracy", "f1_macro", "loss")


def runs(seeds: int = 1) -> list[dict[str, Any]]:
    return grid(part=["runs"], rows=SIZES, seed=range(seeds), data=SETS, arm=ARMS)


def probes() -> list[dict[str, Any]]:
    return grid(part=["probe"], data=SETS)


def intervals() -> list[dict[str, Any]]:
    return grid(part=["interval"], rows=[100, 300], data=("cr", "trec", "mr", "banking10"))


@functools.cache
def rows_of(name: str) -> Rows:
    """A set without copies; ``banking10`` are ten classes of BANKING77, drawn once."""
    if name != "banking10":
        return clean_set(name)
    lines: list[tuple[str, str]] = []
    for file in ("train.csv", "test.csv"):
        with (data_folder() / "banking77" / file).open(encoding="utf-8", newline="") as open_file:
            lines += [(row["text"], row["label"]) for row in csv.DictReader(open_file)]
    classes = sorted({label for _, label in lines})
    kept = set(generator(0, "banking10").choice(classes, 10, replace=False).tolist())
    lines = [line for line in lines if line[1] in kept and line[0].strip()]
    return without_copies(Rows(tuple(t for t, _ in lines), tuple(name for _, name in lines)))


def prepared_of(rows: Rows, seed: int) -> PreparedData:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        path = Path(name) / "rows.jsonl"
        lines = zip(rows.texts, rows.labels, strict=True)
        path.write_text("\n".join(json.dumps({"text": t, "label": y}) for t, y in lines), "utf-8")
        plain = {"path": str(path), "text": "text", "label": "label", "label_kind": "class"}
        recipe = parse(
            {"task": "text-classification", "seed": seed, "data": plain, "train": MACHINE},
            "benchmark",
        )
        table = task_definition("text-classification").read(str(path), recipe.data, None)
        return prepare(recipe, table)


def run_one(cell: Cell) -> Result:
    kinds = {"runs": one_run, "probe": worth, "interval": coverage}
    return kinds[cell["part"]](cell)


def one_run(cell: Cell) -> Result:
    """A run of 85 % of these rows: divided 82/18, or cross-fitted. One that was killed goes on."""
    rows, n = rows_of(cell["data"]), cell["rows"]
    order = generator(cell["seed"], "few rows", cell["data"]).permutation(len(rows))
    pool, rest = order[:POOL], order[POOL:]
    labelled = stratified(rows, rest, n - round(0.15 * n), 4)
    place = RESULTS / NAME / shown(cell)
    place.mkdir(parents=True, exist_ok=True)
    for name, positions in (("rows", labelled), ("test", pool)):
        lines = zip(rows.take(positions).texts, rows.take(positions).labels, strict=True)
        text = "\n".join(json.dumps({"text": t, "label": y}) for t, y in lines)
        (place / f"{name}.jsonl").write_text(text, "utf-8")
    recipe = parse(
        {
            "seed": cell["seed"],
            "data": {"path": str(place / "rows.jsonl"), "test": str(place / "test.jsonl")},
            "train": {**MACHINE, "folds": FOLDS if cell["arm"] == ARMS[1] else 0},
        },
        "benchmark",
    )
    result = train(recipe, place / "run", resume=(place / "run").exists())
    shutil.rmtree(place)
    timing = result["timing"]
    return {
        "accuracy": result["test"]["metrics"]["accuracy"]["value"],
        "believed": result["valid"]["metrics"]["accuracy"]["value"],
        "kept": result["best_step"] / max(1, result["last_step"]),
        "rows_passed": timing["examples_per_s"] * timing["train_s"],
        "train_s": timing["train_s"],
    }


def worth(cell: Cell, draws: int = 100) -> Result:
    """What a linear probe gains by the 15 % of the rows that a division sets aside, in points."""
    vectors, labels = vectors_and_labels(cell["data"])
    many, found = int(labels.max()) + 1, {}
    for count in sorted(SIZES):
        gains = []
        for draw in range(draws):
            rng = generator(draw, "worth", cell["data"], count)
            mine, others = drawn(labels, round(0.85 * count), rng, least=2)
            right = []
            for part in (mine[: round(0.7 * count)], mine):
                probe = fit_probe(vectors[part], labels[part], classes=many, seed=draw, c=C)
                answers = probe.logits(vectors[others]).argmax(axis=1)
                right.append(float((answers == labels[others]).mean()))
            gains.append(100 * (right[1] - right[0]))
        found[f"{count}"] = float(np.mean(gains))
        found[f"{count} error"] = float(np.std(gains, ddof=1) / np.sqrt(draws))
    return found


def vectors_and_labels(name: str) -> tuple[Any, Any]:
    """Of 3,000 rows at most, without their rare classes."""
    whole = rows_of(name)
    order = generator(0, "vectors", name).permutation(len(whole))[:VECTORS]
    prepared = prepared_of(whole.take(order), 0)
    vectors = last_layer_vectors(prepared, prepared.examples).astype(np.float64)
    labels = np.asarray(prepared.rows.column("label"))
    common = np.flatnonzero(np.bincount(labels) >= 0.05 * len(labels))
    kept = np.isin(labels, common)
    return vectors[kept], np.searchsorted(common, labels[kept])


def coverage(cell: Cell, repetitions: int = 500) -> Result:
    """The share of intervals that hold the truth: those of this module's score, and plain ones."""
    vectors, labels = vectors_and_labels(cell["data"])
    classes = tuple(str(number) for number in range(int(labels.max()) + 1))
    held = {way: dict.fromkeys(METRICS, 0) for way in ("corrected", "plain")}
    started, bias = time.perf_counter(), []
    for repetition in range(repetitions):
        rng = generator(repetition, "intervals", cell["data"], cell["rows"])
        mine, others = drawn(labels, cell["rows"], rng)
        truth, said = once(vectors, labels, classes, (mine, others), repetition)
        bias.append(said["plain"]["accuracy"].value - truth["accuracy"])
        for way, estimates in said.items():
            for name in METRICS:
                one = estimates[name]
                held[way][name] += one.low is not None and one.low <= truth[name] <= one.high
    shares = {
        f"{way} {name}": count / repetitions
        for way, counts in held.items()
        for name, count in counts.items()
    }
    return {
        **shares,
        "bias": float(np.mean(bias)),
        "repetitions": repetitions,
        "seconds": round(time.perf_counter() - started, 1),
    }


def drawn(labels: Any, count: int, rng: np.random.Generator, least: int = OUTER) -> tuple[Any, Any]:
    """So many rows, as many of each class at least, and the rest."""
    while True:
        order = rng.permutation(len(labels))
        if np.bincount(labels[order[:count]], minlength=int(labels.max()) + 1).min() >= least:
            return order[:count], order[count:]


def once(
    vectors: Any, labels: Any, classes: tuple[str, ...], rows: tuple[Any, Any], seed: int
) -> tuple[dict[str, float], dict[str, Mapping[str, Any]]]:
    """The truth of the probe from all rows, and what the folds say of it, corrected and plain."""
    mine, others = rows
    many, x, y = len(classes), vectors[mine], labels[mine]
    logits = np.zeros((len(mine), many))
    for fold in make_folds(np.arange(len(mine)), y, OUTER, seed):
        probe = fit_probe(x[fold.train], y[fold.train], classes=many, seed=seed, c=C)
        logits[fold.held_out] = probe.logits(x[fold.held_out])
    final = fit_probe(x, y, classes=many, seed=seed, c=C).logits(vectors[others])
    fresh = Outputs(others, labels[others], final, losses_at(final, labels[others], 1.0))
    truth = score(fresh, classes, resamples=2).metrics
    outputs = Outputs(mine, y, logits, losses_at(logits, y, 1.0))
    plain = score(outputs, classes, seed=seed, resamples=RESAMPLES)
    said = {"corrected": corrected(plain, outputs, OUTER).metrics, "plain": plain.metrics}
    return {name: float(truth[name].value or 0.0) for name in METRICS}, said


def shown(cell: Cell) -> str:
    """``trec-100-0-division``, or ``trec-100-interval``."""
    names = {"runs": ("data", "rows", "seed", "arm"), "probe": ("part", "data")}
    return "-".join(str(cell[n]) for n in names.get(cell["part"], ("data", "rows", "part")))


def main() -> None:
    asked = sys.argv[1:]
    every = [*runs(), *probes(), *intervals()]
    todo = every
    if "--intervals" in asked:
        todo = intervals()
    if "--only" in asked:
        start = asked[asked.index("--only") + 1].split(",")
        todo = [cell for cell in todo if shown(cell).startswith(tuple(start))]
    minutes = float(asked[asked.index("--minutes") + 1]) if "--minutes" in asked else None
    run_cells(NAME, todo, run_one, minutes=minutes)


def probe_gains(lines: Lines) -> str:
    lines = pick(lines, part="probe")
    sizes = [str(size) for size in sorted(SIZES)]
    rows = [
        [
            line["data"],
            *(f"{line[n]:+.2f} (± {1.96 * line[f'{n} error']:.2f})" for n in sizes if n in line),
        ]
        for line in lines
    ]
    return markdown(["Set", *(f"{size} rows" for size in sizes)], rows) if rows else ""


def held(lines: Lines) -> str:
    """How often the out-of-fold intervals hold the score of the model from all rows."""
    rows = [
        [line["data"], str(line["rows"]), name]
        + [
            share(round(line[f"{way} {name}"] * line["repetitions"]), line["repetitions"])
            for way in ("corrected", "plain")
        ]
        for line in pick(lines, part="interval")
        for name in METRICS
    ]
    head = ["Set", "Rows", "Metric", "Corrected interval covers, %", "Uncorrected covers, %"]
    return markdown(head, rows) if rows else ""


def finding(lines: Lines) -> str:
    gap = paired(pick(lines, part="runs"), "accuracy", "cross-fitted", "division")
    if gap and gap.has_interval:
        return f"Cross-fitting adds {gap.words(100, 1, ' points')} of accuracy to a fixed split."
    gains = [line["100"] for line in pick(lines, part="probe") if "100" in line]
    if len(gains) < LEAST_RUNS:
        return ""
    middle, low, high = mean_interval(gains)
    return (
        "Training on the 15 % of the rows that a fixed split sets aside for validation changes the "
        "accuracy of a linear probe with 100 labelled rows by "
        f"{number(middle, 1, True)} points (95 % CI {interval(low, high, 1, True)}, {len(gains)} "
        "sets)."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Training on every row of a small data set",
    """\
`train.folds=3` (cross-fitting; [the default](default_plans.md) now has two folds) also trains on
the validation rows and makes every choice on out-of-fold predictions. It is compared with a fixed
split of 70/15/15 on the same rows; the test set is 800 other rows. The linear probe learns from 70
and from 85 % of the rows, 100 draws each. With `data.split.test=0` the score comes from outer
folds, and its 95 % interval is corrected (as for n
÷ 1.5 rows).""",
    lambda: [*runs(), *probes(), *intervals()],
    finding,
    [
        lambda lines: comparison(
            [("cross-fitted", "fixed split")],
            {
                "Accuracy, points": Metric("accuracy", 100),
                "Training time, ratio": Metric("train_s", 1, 1, times=True),
                "Rows trained on, ratio": Metric("rows_passed", 1, 1, times=True),
            },
            "rows",
        )(
            [
                {**line, "arm": line["arm"].replace("division", "fixed split")}
                for line in pick(lines, part="runs")
            ]
        ),
        lambda lines: (
            "Points of accuracy that a linear probe gains from 85 instead of 70 % of the rows "
            f"(95 % limits):\n\n{probe_gains(lines)}"
        ),
        lambda lines: (
            "Out-of-fold 95 % intervals: how often they contain the true score of a linear probe "
            f"that is trained on all rows:\n\n{held(lines)}"
        ),
    ],
    "The corrected interval of the loss covers less often than it says (table).",
)


if __name__ == "__main__":
    main()
