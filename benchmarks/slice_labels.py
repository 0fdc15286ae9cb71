"""Labels of more rows of a weak slice, compared with a higher weight of its training rows.

    python benchmarks/slice_labels.py

A logistic regression on frozen MiniLM vectors of 400 rows stands in for the model. Slices are found
on its out-of-fold predictions and confirmed on a third of the other rows, as in a run; the slice
with the highest total excess of errors is used, and another third is the test set. The last third
is the pool: 100 of its rows are labelled, those of the slice, random ones, or those with the
smallest margin between the two most probable classes. Or nothing is labelled, and the slice's
training rows get a weight of 2 or 4.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from cells import Cell, Result, grid, run_command
from claims import Claim, Lines, Metric, comparison, melt, paired, pick
from peers.rows import Rows, clean_set
from peers.sets import PLAIN, WHOLE, cut
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from holdfast.analyses.slices.analysis import SliceData, confirm_candidates
from holdfast.analyses.slices.conditions import RowFacts
from holdfast.analyses.slices.search import pool_of, search
from holdfast.augment.text_forms import meaning
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator

NAME = "slice_labels"
SETS, SEEDS = ("trec", "cr", "mr", "instructions", "queries"), 8
ROWS, LABELLED, MOST = 400, 100, 6000
NOTHING, OF_SLICE, RANDOM, MARGIN = "nothing", "of the slice", "random", "smallest margin"
WEIGHTS = {f"weight {factor}": factor for factor in (2, 4)}


def cells() -> list[dict[str, Any]]:
    return grid(data=SETS, seed=range(SEEDS))


def run_one(cell: Cell) -> Result:
    """The accuracy of each option on the rows of the slice and on all test rows, where a slice is
    confirmed."""
    texts, labels, vectors = encoded(cell["data"])
    rng = generator(cell["seed"], "benchmark", NAME, cell["data"])
    train, rest = np.split(rng.permutation(len(texts)), [ROWS])
    judged, tested, pool = np.array_split(rest, 3)

    def facts(rows: Ints) -> RowFacts:
        return RowFacts(len(rows), tuple(texts[at] for at in rows))

    def fitted(rows: Ints, weights: Floats | None = None) -> Any:
        model = LogisticRegression(C=10, max_iter=2000)
        return model.fit(vectors[rows], labels[rows], sample_weight=weights)

    unseen = cross_val_predict(
        LogisticRegression(C=10, max_iter=2000), vectors[train], labels[train], cv=5
    )
    errors = np.asarray(unseen != labels[train], dtype=float)
    candidates = search(pool_of(facts(train), cell["seed"]), errors)
    model = fitted(train)
    wrong = np.asarray(model.predict(vectors[judged]) != labels[judged], dtype=float)
    data = SliceData(wrong, judged)
    found = confirm_candidates(candidates, facts(judged), data, seed=cell["seed"])
    confirmed = [one for one in found if one.confirmed]
    if not confirmed:
        return {"confirmed": 0}
    worst = max(confirmed, key=lambda one: (one.difference or 0) * one.n)
    condition = worst.candidate.condition
    inside = condition.holds(facts(tested))
    of_slice = pool[condition.holds(facts(pool))][:LABELLED]
    top = np.sort(model.predict_proba(vectors[pool]), axis=1)
    uncertain = pool[np.argsort(top[:, -1] - top[:, -2], kind="stable")]
    added = {
        OF_SLICE: of_slice,
        RANDOM: rng.permutation(pool)[: len(of_slice)],
        MARGIN: uncertain[: len(of_slice)],
    }
    models = {
        NOTHING: model,
        **{way: fitted(np.concatenate([train, rows])) for way, rows in added.items()},
        **{
            way: fitted(train, np.where(condition.holds(facts(train)), float(factor), 1.0))
            for way, factor in WEIGHTS.items()
        },
    }
    told: dict[str, Any] = {
        "confirmed": len(confirmed),
        "slice": str(condition),
        "share": float(inside.mean()),
        "labelled": len(of_slice),
    }
    for way, one in models.items():
        right = one.predict(vectors[tested]) == labels[tested]
        told[f"all, {way}"], told[f"slice, {way}"] = (
            float(right.mean()),
            float(right[inside].mean()),
        )
    return told


@functools.lru_cache(maxsize=1)
def encoded(name: str) -> tuple[list[str], Ints, Floats]:
    rows: Rows = cut(clean_set(name)) if name in PLAIN else WHOLE[name]()
    order = generator(0, "benchmark", NAME, name).permutation(len(rows))[:MOST]
    texts = [rows.texts[at] for at in order]
    labels = np.unique([rows.labels[at] for at in order], return_inverse=True)[1]
    return texts, labels, meaning().vectors(texts)


def _by_way(lines: Lines) -> list[Any]:
    """A line for each way, with the accuracy on all rows and on those of the slice."""
    ways = (NOTHING, OF_SLICE, RANDOM, MARGIN, *WEIGHTS)
    some = [line for line in lines if line["confirmed"]]
    everything = melt(some, {way: f"all, {way}" for way in ways}, "all")
    inside = melt(some, {way: f"slice, {way}" for way in ways}, "slice")
    return [{**one, "slice": two["slice"]} for one, two in zip(everything, inside, strict=True)]


def finding(lines: Lines) -> str:
    by_way = _by_way(lines)
    shown = [
        f"{way}: {gap.words(100, 1, ' points')}"
        for way in (OF_SLICE, RANDOM, MARGIN)
        if (gap := paired(by_way, "slice", way, NOTHING, BY))
    ]
    if not shown:
        return ""
    return (
        f"Change of accuracy on a confirmed weak slice with up to {LABELLED} more labels: "
        f"{'; '.join(shown)}."
    )


BY = ("data", "seed")
CLAIM = Claim(
    NAME,
    "Data",
    "Labels for a weak slice",
    """\
A logistic regression on frozen MiniLM vectors of 400 rows stands in for the model. Its weak slices
are found on out-of-fold predictions and confirmed on other rows, as in a run; the slice with the
highest total excess of errors is used. "Nothing" is the model without more labels. 100 rows of a
pool are labelled (fewer if the pool has fewer rows of the slice): rows of the slice, random rows,
or those with the smallest margin between the two most probable classes. Alternatively, the slice's
training rows get a weight of 2 or 4. Accuracy is measured on separate test rows: those of the
slice, and all.""",
    cells,
    finding,
    [
        lambda lines: comparison(
            [*((way, NOTHING) for way in (OF_SLICE, RANDOM, MARGIN, *WEIGHTS)), (OF_SLICE, RANDOM)],
            {
                "Accuracy on the slice, points": Metric("slice", 100),
                "Accuracy on all rows, points": Metric("all", 100),
            },
            by=BY,
        )(_by_way(lines)),
        lambda lines: (
            f"A slice is confirmed in {len([one for one in lines if one['confirmed']])} of "
            f"{len(pick(lines))} draws."
        ),
    ],
    """\
No gain on the slice is shown for higher weights. A weight of 4 lowers the accuracy on all rows. A
fine-tuned model may gain differently. Only one slice of each draw is used.""",
)


if __name__ == "__main__":
    run_command(NAME, __doc__ or "", cells, run_one)
