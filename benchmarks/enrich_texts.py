"""What other forms of the training rows are worth: each enrichment of texts beside none.

    python benchmarks/enrich_texts.py                # both parts
    python benchmarks/enrich_texts.py --minutes 3    # start no new cell after three minutes
    python benchmarks/enrich_texts.py --tables       # the table of what is there

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
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import HERE, Cell, grid, publish, run_cells
from peers.rows import clean_set, draw, labelled_counts
from peers.script import options, results_path
from scipy.stats import t as student

NAME = "enrich_texts"
BOOK = HERE / "methods.md"
SETS, ROWS, TEST = ("cr", "trec"), 200, 1000
OFF = "none"
SEEDS = {"frozen": 5, "trained": 3}
FORMS = 4
ARMS = {
    "frozen": (
        *(OFF, "aeda", "cutout", "delete", "eda", "insert", "swap", "synonyms"),
        "back_translation",
    ),
    "trained": (OFF, "aeda", "eda", "back_translation"),
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
    return prepared, *(np.arange(ends[k], ends[k + 1]) for k in range(3))


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
        for turn in range(1 if arm == "back_translation" else FORMS):
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
        turns = len(forms) and (1 if arm == "back_translation" else FORMS)
        weights = np.full(len(forms), 1 / max(1, turns))
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


def paired(ones: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """The mean difference in points and half of its 95 % interval (Student's t over the pairs)."""
    gaps = [100 * (one - other) for one, other in zip(ones, others, strict=True)]
    if len(gaps) < 2:
        return statistics.fmean(gaps), float("nan")
    spread = statistics.stdev(gaps) / math.sqrt(len(gaps))
    return statistics.fmean(gaps), float(student.ppf(0.975, len(gaps) - 1)) * spread


def text_table(
    part: str, cells: Sequence[Cell], results: Sequence[Mapping[str, Any] | None]
) -> str:
    """A line an enrichment: its difference to none on each set and on both, and its time."""
    found = {
        (c["data"], c["seed"], c["arm"]): r
        for c, r in zip(cells, results, strict=True)
        if r and c["part"] == part
    }
    lines = ["| Enrichment | CR | TREC | both | time |", "|---|---|---|---|---|"]
    for arm in ARMS[part]:
        columns = []
        for sets in (("cr",), ("trec",), SETS):
            pairs = [
                (found[d, s, arm], found[d, s, OFF])
                for d in sets
                for s in range(SEEDS[part])
                if (d, s, arm) in found and (d, s, OFF) in found
            ]
            columns.append(_cell(arm, pairs))
        times = [a["seconds"] / b["seconds"] for a, b in pairs]
        shown = f"× {statistics.median(times):.2f}" if times else "not run"
        columns.append(shown if part == "trained" else "")
        lines.append(f"| {arm} | {' | '.join(columns)} |")
    return "\n".join(lines)


def _cell(arm: str, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    if not pairs:
        return "not run"
    if arm == OFF:
        return f"{100 * statistics.fmean(a['accuracy'] for a, _ in pairs):.1f} %"
    mean, half = paired([a["accuracy"] for a, _ in pairs], [b["accuracy"] for _, b in pairs])
    spread = f" ± {half:.1f}" if len(pairs) > 1 else ""
    return f"{mean:+.1f}{spread} (n = {len(pairs)})"


def main() -> None:
    asked = options(__doc__ or "").parse_args()
    cells = [
        cell
        for part in ARMS
        for cell in grid(part=[part], seed=range(SEEDS[part]), data=SETS, arm=ARMS[part])
    ]
    # Of the screen one set after the other: its test rows are encoded once.
    cells.sort(key=lambda cell: (cell["part"], cell["data"] if cell["part"] == "frozen" else ""))
    path = results_path(NAME, 1, False)
    minutes = 0.0 if asked.tables else asked.minutes
    results = run_cells(NAME, cells, run_one, path, minutes=minutes)
    tables = [f"{HEADS[part]}\n\n{text_table(part, cells, results)}" for part in ARMS]
    publish(NAME, "\n\n".join([HEAD, *tables]), BOOK)


HEAD = f"""## Enrichment of texts

Differences in accuracy to the same without, in points, paired by seed, with 95 % intervals of
Student's t; {ROWS} labelled rows, {TEST:,} test rows, MiniLM (`benchmarks/enrich_texts.py`)."""
HEADS = {
    "frozen": f"The screen, a linear probe on frozen vectors, up to {SEEDS['frozen']} seeds:",
    "trained": f"Trained by the default recipe, up to {SEEDS['trained']} seeds:",
}


if __name__ == "__main__":
    main()
