"""What other forms of the training rows are worth: each enrichment of texts beside none.

    python benchmarks/enrich_texts.py                # both parts
    python benchmarks/enrich_texts.py --minutes 3    # start no new cell after three minutes

CR and TREC without copies; 200 labelled rows, of which 164 are learned from, stratified; the test
rows are 1,000 others, the same for every seed. Two parts:

- ``frozen``, the screen: a linear probe on MiniLM's vectors, its penalty chosen on the rows alone;
  four forms of each row are learned from beside it, of a quarter of its weight each.
- ``trained``: the default recipe, everything but the enrichment alike. A seed's arms begin with the
  same rows and weights.

All differences are to the arm without, paired by seed.
"""

from __future__ import annotations

import csv
import functools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, grid, run_cells
from claims import Claim, Lines, Metric, comparison, paired
from peers.rows import clean_set, draw, labelled_counts
from peers.script import options, results_path

NAME = "enrich_texts"
SETS, ROWS, TEST = ("cr", "trec"), 200, 1000
OFF = "none"
SEEDS = {"frozen": 5, "trained": 3}
FORMS = 4
ARMS = {
    "frozen": (OFF, "aeda", "cutout", "delete", "eda", "insert", "swap", "synonyms"),
    "trained": (OFF, "aeda", "eda", "synonyms"),
}


@functools.lru_cache(maxsize=1)
def _prepared(data: str, seed: int) -> tuple[Any, Any, Any, Any]:
    """Rows and model, and which rows are training, validation and test."""
    from holdfast.prepare.model import prepare
    from holdfast.recipe import Recipe, override
    from holdfast.tasks import task_definition

    parts = draw(clean_set(data), seed=seed, pool=TEST, **labelled_counts(ROWS))
    every = [parts.train, parts.valid, parts.test]
    ends = np.cumsum([0, *map(len, every)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            lines = [row for one in every for row in zip(one.texts, one.labels, strict=True)]
            csv.writer(file).writerows([("text", "label"), *lines])
        task = "task=text-classification"
        recipe = override(Recipe(), [task, f"data.path={path}", f"seed={seed}"])
        table = task_definition("text-classification").read(str(path), recipe.data, None)
        assert len(table) == ends[-1]
        prepared = prepare(recipe, table)
    train, valid, test = (np.arange(ends[k], ends[k + 1]) for k in range(3))
    return prepared, train, valid, test


def run_one(cell: Cell) -> dict[str, Any]:
    """Accuracy on the test rows, and how long the training took."""
    return {"frozen": frozen, "trained": trained}[cell["part"]](cell)


@functools.lru_cache(maxsize=1)
def _tested(data: str) -> tuple[Any, Any]:
    """The vectors and labels of the test rows, which are the same for every seed."""
    from holdfast.augment.text_forms import meaning

    parts = draw(clean_set(data), seed=0, pool=TEST, **labelled_counts(ROWS))
    return meaning().vectors(parts.test.texts), np.array(parts.test.labels)


def frozen(cell: Cell) -> dict[str, Any]:
    """The accuracy of a linear probe on vectors, with forms of the rows beside them."""
    from holdfast.augment.registry import check_enrich, make_all
    from holdfast.augment.text_forms import meaning
    from holdfast.augment.texts.word_edits import lost
    from holdfast.core.seeds import derive_seed
    from holdfast.models.probes.probe import ExtraRows, fit_probe

    seed, arm = cell["seed"], cell["arm"]
    parts = draw(clean_set(cell["data"]), seed=seed, pool=TEST, **labelled_counts(ROWS))
    vectors, names = _tested(cell["data"])
    texts, classes = list(parts.train.texts), sorted(set(parts.train.labels))
    labels = np.array([classes.index(label) for label in parts.train.labels])
    features, count = meaning().vectors(texts), len(classes)
    start = time.perf_counter()
    probe = fit_probe(features, labels, classes=count, seed=seed)
    changed = 0
    if arm != OFF:
        way = make_all(check_enrich({arm: {}}))[arm]
        forms, whose = [], []
        for turn in range(FORMS):
            seeds = [derive_seed(seed, arm, turn, k) for k in range(len(texts))]
            for k, (old, new) in enumerate(zip(texts, way.changes(texts, seeds), strict=True)):
                if old != new and lost(old, new) is None:
                    forms.append(new)
                    whose.append(k)
        if way.similarity:
            alike = (meaning().vectors(forms) * features[whose]).sum(axis=1) >= way.similarity
            forms = [form for form, kept in zip(forms, alike, strict=True) if kept]
            whose = [k for k, kept in zip(whose, alike, strict=True) if kept]
        changed = len(forms)
        weights = np.full(len(forms), 1 / FORMS)
        beside = ExtraRows(meaning().vectors(forms), labels[whose], weights)
        probe = fit_probe(features, labels, classes=count, seed=seed, c=probe.c, extra_rows=beside)
    seconds = time.perf_counter() - start
    right = np.array(classes)[probe.logits(vectors).argmax(axis=1)] == names
    return {"accuracy": float(right.mean()), "seconds": seconds, "forms": changed}


def trained(cell: Cell) -> dict[str, Any]:
    """The accuracy of the default recipe, the rows in other forms."""
    from holdfast.fits.fit import fit

    prepared, train, valid, test = _prepared(cell["data"], cell["seed"])
    start = time.perf_counter()
    fitted = fit(
        prepared, train, valid, {} if cell["arm"] == OFF else {f"enrich.{cell['arm']}": True}
    )
    seconds = time.perf_counter() - start
    losses, logits = fitted.measure(prepared.examples, test)
    right = logits.argmax(axis=1) == np.asarray(prepared.examples.labels)[test]
    told = {"accuracy": float(right.mean()), "loss": float(losses.mean()), "seconds": seconds}
    print(f"  {told}", flush=True)
    return told


def main() -> None:
    asked = options(__doc__ or "").parse_args()
    run_cells(NAME, cells(), run_one, results_path(NAME, 1, False), minutes=asked.minutes)


def cells() -> list[dict[str, Any]]:
    found = [
        cell
        for part in ARMS
        for cell in grid(part=[part], seed=range(SEEDS[part]), data=SETS, arm=ARMS[part])
    ]
    # Of the screen one set after the other: its test rows are encoded once.
    return sorted(found, key=lambda c: (c["part"], c["data"] if c["part"] == "frozen" else ""))


def finding(lines: Lines) -> str:
    gaps = {
        arm: paired(lines, "accuracy", arm, OFF, ("part", "data", "seed"))
        for arm in ("eda", "aeda")
    }
    parts = [f"{arm} {gap.words(100, 1, ' points')}" for arm, gap in gaps.items() if gap]
    return f"Accuracy that augmentation of texts adds: {', '.join(parts)}." if parts else ""


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Data augmentation of texts",
    """\
MiniLM, 200 labelled rows, 1,000 test rows: a linear probe on frozen vectors ("frozen"), and the
default recipe ("trained").""",
    cells,
    finding,
    [
        comparison(
            [(arm, OFF) for arm in ARMS["frozen"] if arm != OFF],
            {"Accuracy, points": Metric("accuracy", 100)},
            "part",
            by=("part", "data", "seed"),
        )
    ],
    "Back-translation, which needs a translation model, was not measured.",
)


if __name__ == "__main__":
    main()
