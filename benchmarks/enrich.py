"""What other forms of the training rows are worth: each enrichment of texts beside none.

    python benchmarks/enrich.py                # 200 labelled rows, two sets, three seeds
    python benchmarks/enrich.py --minutes 3    # start no new cell after three minutes
    python benchmarks/enrich.py --tables       # the table of what is there

CR and TREC without copies; 164 training and 36 validation rows, stratified; the test rows are 1,000
others, the same for every seed. Everything but the enrichment is the default recipe on MiniLM, and
a seed's arms begin with the same rows and weights, so that differences are paired.
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

NAME = "enrich"
BOOK = HERE / "methods.md"
SETS, SEEDS, ROWS, TEST = ("cr", "trec"), 3, 200, 1000
OFF = "none"
ARMS: dict[str, dict[str, Any]] = {
    OFF: {},
    "aeda": {"enrich": {"aeda": True}},
    "eda": {"enrich": {"eda": True}},
    "synonyms": {"enrich": {"synonyms": True}},
    "cutout": {"enrich": {"cutout": True}},
    "back_translation": {"enrich": {"back_translation": True}},
}
# Student's t at 97.5 % by degrees of freedom.
T = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 19: 2.093}


@functools.lru_cache(maxsize=1)
def _prepared(data: str, seed: int) -> tuple[Any, Any, Any, Any]:
    """Rows and model, and which rows are training, validation and test."""
    from holdfast.pipeline.kinds import kind_of
    from holdfast.pipeline.prepared import prepare
    from holdfast.recipe import Recipe, override

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
        table = kind_of("text-classification").read(str(path), recipe.data, None)
        assert len(table) == ends[-1]
        prepared = prepare(recipe, table)
    return prepared, *(np.arange(ends[k], ends[k + 1]) for k in range(3))


def run_one(cell: Cell) -> dict[str, Any]:
    """Accuracy on the test rows, and how long the training took."""
    from holdfast.pipeline.fit import fit

    prepared, train, valid, test = _prepared(cell["data"], cell["seed"])
    start = time.perf_counter()
    fitted = fit(prepared, train, valid, ARMS[cell["arm"]])
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
    return statistics.fmean(gaps), T[len(gaps) - 1] * spread


def text_table(cells: Sequence[Cell], results: Sequence[Mapping[str, Any] | None]) -> str:
    """A line an enrichment: its difference to none on each set and on both, and its time."""
    found = {(c["data"], c["seed"], c["arm"]): r for c, r in zip(cells, results, strict=True) if r}
    lines = ["| Enrichment | CR | TREC | both | training time |", "|---|---|---|---|---|"]
    for arm in ARMS:
        columns = []
        for sets in (("cr",), ("trec",), SETS):
            pairs = [
                (found[d, s, arm], found[d, s, OFF])
                for d in sets
                for s in range(SEEDS)
                if (d, s, arm) in found and (d, s, OFF) in found
            ]
            columns.append(_cell(arm, pairs))
        times = [a["seconds"] / b["seconds"] for a, b in pairs]
        columns.append(f"× {statistics.median(times):.2f}" if times else "not run")
        lines.append(f"| {arm} | {' | '.join(columns)} |")
    return "\n".join(lines)


def _cell(arm: str, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    if not pairs:
        return "not run"
    if arm == OFF:
        return f"{100 * statistics.fmean(a['accuracy'] for a, _ in pairs):.1f} %"
    mean, half = paired([a["accuracy"] for a, _ in pairs], [b["accuracy"] for _, b in pairs])
    return f"{mean:+.1f} ± {half:.1f} (n = {len(pairs)})"


def main() -> None:
    asked = options(__doc__ or "").parse_args()
    cells = grid(seed=range(SEEDS), data=SETS, arm=ARMS)
    path = results_path(NAME, 1, False)
    minutes = 0.0 if asked.tables else asked.minutes
    results = run_cells(NAME, cells, run_one, path, minutes=minutes)
    publish(NAME, HEAD + text_table(cells, results), BOOK)


HEAD = f"""## Enrichment of texts

Differences in accuracy to the same run without, in points, paired by seed, with 95 % intervals of
Student's t; {ROWS} labelled rows, {TEST:,} test rows, the default recipe on MiniLM
(`benchmarks/enrich.py`).

"""


if __name__ == "__main__":
    main()
