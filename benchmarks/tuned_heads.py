"""Ways to fit the head to features that fine-tuning has moved, and its temperature, in whole runs.

    python benchmarks/tuned_heads.py --minutes 4    # start no new cell after that; resumable

The default recipe on CR, MR, TREC and BANKING77 without copies (82 % training and 18 % validation
rows; 1,000 test rows that are the same for every seed). Of the state that is kept: the head as it
was trained, logistic regression on the tuned features of the training rows, and the mean of that
and a discriminant analysis; the temperature of each is fitted on the validation rows with one
pseudo-row. ``worse`` is how sure the validation rows are that the refitted head is worse (one-sided
paired t).

Then the temperature itself: 30 times, 10, 36 and 288 of the test rows stand for validation rows,
and the loss of the others is that of the raw logits, of a temperature always, only where it lowers
the mean cross-fitted loss (``improves``), and unless it is proven to harm (``calibrate``).
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Result, grid, run_cells
from claims import Claim, Line, Lines, Metric, average, comparison, paired, table
from peers import rows as rows_of
from peers.rows import clean_set, draw, labelled_counts

from holdfast.core.records import Outputs
from holdfast.metrics.reliability import calibrate
from holdfast.models.probes.head_fit import fit_head
from holdfast.models.probes.probe import ExtraRows
from holdfast.stats.paired_tests import paired_t
from holdfast.stats.temperature import best_temperature, losses_at

NAME = "tuned_heads"
SETS, SIZES, TESTED = ("trec", "cr", "mr", "banking77"), (100, 400, 1600), 1000
DRAWS, HELD = 30, (10, 36, 288)
RULES = ("always", "improves", "unless harm")
Array = np.ndarray[Any, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    run_cells(NAME, cells(args.seeds), run_one, minutes=args.minutes)


def run_one(cell: Cell) -> Result:
    """The heads and the temperature of one run."""
    return measured(trained(cell["data"], cell["rows"], cell["seed"]))


def trained(data: str, rows: int, seed: int) -> dict[str, Any]:
    """The features [rows, width] of all rows in the kept state of a run of the default recipe, with
    ``ends`` of training, validation and test rows among them, labels, and the trained head."""
    from holdfast.fits.fit import fit
    from holdfast.prepare.model import prepare
    from holdfast.prepare.signals import with_signals
    from holdfast.recipe import Recipe, override
    from holdfast.tasks import task_definition
    from holdfast.training.observe import Observer
    from holdfast.training.task import labels_of

    rows_of.FILES["banking77"] = ("train.csv", "test.csv")
    parts = draw(clean_set(data), seed=seed, pool=TESTED, **labelled_counts(rows))
    every = [parts.train, parts.valid, parts.test]
    ends = np.cumsum([len(one) for one in every])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            lines = [row for one in every for row in zip(one.texts, one.labels, strict=True)]
            csv.writer(file).writerows([("text", "label"), *lines])
        given = [f"data.path={path}", f"seed={seed}", "train.threads=1", "train.precision=float32"]
        recipe = override(Recipe(task="text-classification"), given)
        table = task_definition("text-classification").read(str(path), recipe.data, None)
        prepared = prepare(recipe, table)
    train, valid = np.arange(ends[0]), np.arange(ends[0], ends[1])
    prepared = with_signals(prepared, train)
    fitted = fit(prepared, train, valid, {"methods.refit_head": False})
    observer = Observer(fitted.job.accelerator, fitted.job.task, alone=True)
    network: Any = fitted.network
    added: Any = fitted.training_plan.splits.added
    found: dict[str, Any] = {
        "features": observer.features(network, prepared.examples, np.arange(ends[-1])),
        "labels": labels_of(prepared.examples),
        "ends": ends,
        "weight": network.head.weight.detach().numpy(),
        "bias": network.head.bias.detach().numpy(),
        "kept": fitted.trained.best_step,
        "last": fitted.trained.last_step,
        "contrast_only": fitted.training_plan.plan.phases[-1].head == "refit",
        "seed": seed,
    }
    if added is not None:
        features = observer.features(network, added, np.arange(len(added)))
        found["beside"] = ExtraRows(features, added.labels, added.weights)
    return found


def measured(run: Mapping[str, Any]) -> Result:
    """What is said of a run's kept state."""
    x, y, ends = np.asarray(run["features"], dtype=np.float64), run["labels"], run["ends"]
    train, valid, test = np.split(np.arange(ends[-1]), ends[:-1])
    classes, beside = int(y.max()) + 1, run.get("beside")
    heads = {
        kind: fit_head(
            x[train], y[train], classes=classes, seed=run["seed"], head_type=kind, extra_rows=beside
        ).logits(x)
        for kind in ("logistic", "both")
    }
    heads = {"trained": x @ run["weight"].T + run["bias"], **heads}
    found: Result = {name: run[name] for name in ("kept", "last", "contrast_only")}
    on_valid = {}
    for name, logits in heads.items():
        calm = best_temperature(logits[valid], y[valid], smoothing=1)[0]
        on_valid[name] = losses_at(
            logits[valid], y[valid], best_temperature(logits[valid], y[valid])[0]
        )
        found[f"{name} accuracy"] = float((logits[test].argmax(axis=1) == y[test]).mean())
        found[f"{name} loss"] = float(losses_at(logits[test], y[test], calm).mean())
        found[f"{name} valid loss"] = float(on_valid[name].mean())
    gap = on_valid["logistic"] - on_valid["trained"]
    same = np.ptp(gap) == 0
    found["worse"] = 0.5 if same else paired_t(on_valid["logistic"], on_valid["trained"]).above
    return found | tempered(heads["trained"][test], y[test])


def tempered(logits: Array, labels: Array) -> Result:
    """What temperatures fitted on some of these rows do to the loss of the others."""
    found: Result = {}
    for held in HELD:
        changed: dict[str, list[float]] = {rule: [] for rule in RULES}
        for turn in range(DRAWS):
            order = np.random.default_rng(turn).permutation(len(labels))
            few, others = order[:held], order[held:]
            raw = losses_at(logits[few], labels[few], 1.0)
            rows = Outputs(few, labels[few], logits[few], raw)
            always = best_temperature(logits[few], labels[few], smoothing=1)[0]
            chosen = calibrate(rows, seed=turn)
            improves = always if chosen.loss_after < chosen.loss_before else 1.0
            before = losses_at(logits[others], labels[others], 1.0).mean()
            for rule, t in zip(RULES, (always, improves, chosen.temperature), strict=True):
                after = losses_at(logits[others], labels[others], t).mean()
                changed[rule].append(float(after - before))
        found |= {f"{rule} {held}": float(np.mean(gaps)) for rule, gaps in changed.items()}
    return found


def cells(seeds: int = 2) -> list[dict[str, Any]]:
    sizes = grid(seed=range(seeds), rows=SIZES, data=SETS)
    # 77 classes need 77 validation rows and more.
    return [c for c in sizes if c["data"] != "banking77" or c["rows"] == 1600]


def by_head(lines: Lines) -> list[Line]:
    return [
        {**line, "arm": head, "accuracy": line[f"{head} accuracy"], "loss": line[f"{head} loss"]}
        for line in lines
        for head in ("trained", "logistic", "both")
    ]


def finding(lines: Lines) -> str:
    gap = paired(by_head(lines), "accuracy", "logistic", "trained")
    if not gap:
        return ""
    points = gap.words(100, 2, " points")
    return (
        "Replacing the head after fine-tuning by logistic regression on the fine-tuned features "
        f"changes test accuracy by {points}."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "The head after fine-tuning",
    """\
The default recipe. The head trained with the network ("trained") is compared with heads fitted to
the fine-tuned features ("both": the mean of logistic regression and discriminant analysis). Losses
are measured after temperature scaling on the validation rows.

The second table is the change of the loss of new rows, in nats (below 0 is better), by a
temperature fitted on so many validation rows. It is used always; only where it lowers the
cross-fitted loss ("improves"); or unless that loss is shown to be higher ("unless harm", the
default).""",
    cells,
    finding,
    [
        lambda lines: comparison(
            [("logistic", "trained"), ("both", "trained")],
            {"Accuracy, points": Metric("accuracy", 100, 2), "Loss, nats": Metric("loss", 1, 3)},
            "rows",
        )(by_head(lines)),
        lambda lines: table(
            {"held": "Validation rows"}, {rule: average(rule, 1, 4) for rule in RULES}
        )(
            [
                {"held": held} | {rule: l[f"{rule} {held}"] for rule in RULES}
                for held in HELD
                for l in lines
            ]
        ),
    ],
)


if __name__ == "__main__":
    main()
