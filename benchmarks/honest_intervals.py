"""Do the reported intervals hold the truth as often as they say?

    python benchmarks/honest_intervals.py [--resamplings 2000]

A cheap classifier (TF-IDF and logistic regression) is trained on part of a real data set and
predicts the large rest, the pool. The pool's own value is the truth. Samples of 30, 100 and 300
rows are drawn from it with replacement, ``metrics.score`` computes each sample's intervals, and
the share that holds the truth is the coverage. Demanded: accuracy 94 to 97 % and ECE 93 to 97 % on
average over the sets at each size, macro-F1 at least 93 % from 100 rows. Beyond the demand:
banking77, whose 77 classes have 4 (13) rows each in samples of 300 (1,000).

With `copies`, samples have several rows of each text, which intervals count as one group: four of
each, or uneven numbers.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, counts, rate, share, table

from holdfast.contract.predictions import same_text_groups
from holdfast.core.records import Outputs
from holdfast.core.seeds import generator
from holdfast.metrics.score import score

DATA = Path(
    os.environ.get("HOLDFAST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
MANY_CLASSES = "banking77"
TRAIN_ROWS = {"cr": 800, "mr": 800, "trec": 800, MANY_CLASSES: 3000}
METRICS = ("accuracy", "f1_macro", "f1_weighted", "precision_macro", "recall_macro", "loss", "ece")
BOOTSTRAP = 1000
# Results that do not say so are of an older interval of ECE, and no evidence for this one.
CURVE = "calibration curve"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resamplings", type=int, default=2000)
    count = parser.parse_args().resamplings
    run_cells("honest_intervals", cells(count), coverage)


def coverage(cell: Cell) -> Result:
    """Each metric's share of intervals that hold the pool's value, and their mean width."""
    pool, classes = make_pool(cell["data"])
    metrics = score(pool, classes, resamples=2).metrics
    truth = {name: e.value for name, e in metrics.items() if e.value is not None}
    held, width = dict.fromkeys(METRICS, 0), dict.fromkeys(METRICS, 0.0)
    rng = generator(0, "honest intervals", cell["data"], cell["rows"])
    started = time.perf_counter()
    for seed in range(cell["resamplings"]):
        sample = draw(pool, rng, cell["rows"], cell.get("copies", ""))
        metrics = score(sample, classes, seed=seed, resamples=BOOTSTRAP).metrics
        for name in METRICS:
            low, high = metrics[name].low, metrics[name].high
            if low is not None and high is not None:
                held[name] += low <= truth[name] <= high
                width[name] += (high - low) / cell["resamplings"]
    shares = {name: held[name] / cell["resamplings"] for name in METRICS}
    widths = {f"{name}_width": width[name] for name in METRICS}
    truths = {f"{name}_truth": truth[name] for name in METRICS}
    return {
        **shares,
        **widths,
        **truths,
        "ece_interval": CURVE,
        "pool": len(pool.rows),
        "classes": len(classes),
        "seconds": round(time.perf_counter() - started, 1),
    }


def make_pool(name: str) -> tuple[Outputs, tuple[str, ...]]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, names = read(name)
    classes = tuple(sorted(set(names)))
    labels = np.array([classes.index(label) for label in names])
    order = generator(0, "pool", name).permutation(len(texts))
    train, rest = order[: TRAIN_ROWS[name]], order[TRAIN_ROWS[name] :]
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    features = vectors.fit_transform([texts[i] for i in train])
    model = LogisticRegression(C=10, max_iter=2000).fit(features, labels[train])
    logits = model.predict_log_proba(vectors.transform([texts[i] for i in rest]))
    losses = -logits[np.arange(len(rest)), labels[rest]]
    return Outputs(rest, labels[rest], logits.astype(np.float32), losses), classes


def read(name: str) -> tuple[list[str], list[str]]:
    texts, labels = [], []
    for path in sorted((DATA / name).glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                texts.append(line["text"])
                labels.append(line["label"])
    return texts, labels


def take(pool: Outputs, rows: Any) -> Outputs:
    return Outputs(pool.rows[rows], pool.labels[rows], pool.logits[rows], pool.losses[rows])


# Rows with the same text, drawn for each text.
COPIES = {"4 each": (4,), "1 to 10": (1, 1, 1, 2, 3, 10)}


def draw(pool: Outputs, rng: np.random.Generator, rows: int, copies: str) -> Outputs:
    """``rows`` rows of the pool; with ``copies`` about as many, of fewer texts, in groups as a run
    makes them."""
    if not copies:
        return take(pool, rng.integers(0, len(pool.rows), rows))
    sizes = COPIES[copies]
    texts = rng.integers(0, len(pool.rows), round(rows / np.mean(sizes)))
    sample = np.repeat(texts, rng.choice(sizes, len(texts)))
    return replace(take(pool, sample), groups=same_text_groups(sample))


def cells(count: int = 2000) -> list[dict[str, Any]]:
    found = grid(rows=[30, 100, 300], data=["cr", "mr", "trec"], resamplings=[count])
    found += grid(rows=[300, 1000], data=[MANY_CLASSES], resamplings=[count])
    return found + grid(
        rows=[100, 300], data=["cr", "mr", "trec"], resamplings=[count], copies=COPIES
    )


def finding(lines: Lines) -> str:
    independent = [one for one in lines if "copies" not in one and one["data"] != MANY_CLASSES]
    parts = [
        f"{name} in {share(*counts(independent, field, 'resamplings', shares=True), long=True)}"
        for field, name in (("accuracy", "accuracy"), ("f1_macro", "macro-F1"))
    ]
    copies = [one for one in lines if "copies" in one]
    many = [one for one in lines if one["data"] == MANY_CLASSES]
    more = ""
    for some, field, words in (
        (copies, "accuracy", "Accuracy where several rows have the same text"),
        (many, "f1_macro", "Macro F1 of 77 classes with 4 or 13 rows each"),
    ):
        if some:
            more += (
                f" {words}: {share(*counts(some, field, 'resamplings', shares=True), long=True)}."
            )
    return (
        "The reported 95 % intervals contain the true "
        f"{' and the true '.join(parts)} samples.{more}"
    )


CLAIM = Claim(
    "honest_intervals",
    "Decisions and intervals",
    "Coverage of the reported intervals",
    """\
A classifier (TF-IDF, logistic regression) is trained on part of a real set and predicts the rest,
whose scores are the truth. Samples of rows are drawn from that rest. The coverage in the table is
the share of samples whose 95 % interval contains the truth.""",
    cells,
    finding,
    [
        table(
            {"copies": "Rows of each text", "rows": "Rows", "data": "Set"},
            {
                f"{metric}, %": rate(metric, "resamplings", shares=True)
                for metric in METRICS
                if metric != "ece"
            },
        )
    ],
    """\
The coverage is below 95 % for macro precision on TREC, for the loss in most cells with 30 and 100
rows, for macro averages of 77 classes, and by one or two points for other metrics in single cells
(accuracy on MR with 100 rows and on TREC with 300). Where several rows have the same text, they
count as one group; as independent rows, four of each text would hold the true accuracy in about 65
% of samples. The coverage is then too low for 1 to 10 rows of each text in samples of 100 rows (33
texts), and for macro averages of six classes. A resampling of texts in place of the jackknife was
tried for macro averages: better by 2 points with two classes, worse by 5 with six. The calibration
error (ECE) is not listed: its interval has changed since.""",
)


if __name__ == "__main__":
    main()
