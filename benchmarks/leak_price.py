"""What copies on both sides of a division cost, as the audit foretells it and as it comes.

    python benchmarks/leak_price.py [--seeds 2]

A training file of 400 rows of CR and a test file of 600, of which 200 leak into the training file
with one word in ten changed. ``as given``: fine-tuned on all 600 training rows, as somebody does
who does not look. ``train``: on those that ``holdfast train --test`` leaves, which drops rows that
copy a test row. Both by the default recipe, with a sixth of the rows for validation. ``test`` is
the accuracy on the test file with its interval, ``fresh`` that of the same model on 1,000 other
rows, ``too good`` the difference in points; ``foretold`` is the price that ``holdfast audit``
states before anything is trained, with its interval.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from audit import Rows, near_changed, real
from cells import Cell, Result, grid, run_cells

from holdfast.core.records import Ints
from holdfast.core.seeds import derive_seed, generator
from holdfast.data.memory.texts import table_from_texts
from holdfast.duplicates.duplicates import CombinedRows, combine_tables
from holdfast.fits.fit import fit
from holdfast.prepare.embedding import load_encoder
from holdfast.prepare.model import prepare
from holdfast.quality.inflation import ProbeInflationEstimator
from holdfast.quality.leaks import Leaks, pair_leaks
from holdfast.quality.views import Embedded, TableRows
from holdfast.recipe import Recipe
from holdfast.stats.intervals import wilson

NAME = "leak_price"
ROWS, TEST, LEAKED, FRESH = 400, 600, 200, 1000
TRAININGS = ("as given", "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sets", nargs="*", default=["cr"])
    asked = parser.parse_args()
    cells = grid(data=asked.sets, seed=range(asked.seeds), training=TRAININGS)
    run_cells(NAME, cells, measured)


def measured(cell: Cell) -> Result:
    own, test, fresh = planted(real(cell["data"]), cell["seed"])
    parts = (own, test, fresh)
    whole = table_from_texts(
        [text for part in parts for text in part.texts],
        [label for part in parts for label in part.labels],
    )
    ends = np.cumsum([0, *(len(part.texts) for part in parts)])
    mine, theirs, others = (np.arange(a, b) for a, b in itertools.pairwise(ends))
    known, tested = whole.take(mine), replace(whole.take(theirs), source="test")
    gathered = combine_tables(known, {"test": tested}, derive_seed(cell["seed"], "copies"))
    pairs = pair_leaks(gathered, "test")
    used = mine if cell["training"] == "as given" else np.delete(mine, np.unique(pairs.source))
    order = generator(cell["seed"], "validation").permutation(used)
    cut = len(used) // 6
    recipe = Recipe(seed=cell["seed"], task="text-classification")
    prepared = prepare(recipe, whole)
    fitted = fit(prepared, np.sort(order[cut:]), np.sort(order[:cut]))
    on_test, on_fresh = _right(fitted, theirs), _right(fitted, others)
    low, high = wilson(on_test.sum(), len(on_test))
    return {
        "rows": len(used),
        "test": 100 * on_test.mean(),
        "low": 100 * low,
        "high": 100 * high,
        "fresh": 100 * on_fresh.mean(),
        "too good": 100 * (on_test.mean() - on_fresh.mean()),
        **(foretold(recipe, gathered, pairs) if cell["training"] == "as given" else {}),
    }


def planted(rows: Rows, seed: int) -> tuple[Rows, Rows, Rows]:
    """A training file that holds altered copies of test rows, the test file, and other rows."""
    rng = random.Random(seed)
    order = rng.sample(range(len(rows.texts)), ROWS + TEST + FRESH)
    mine, test, fresh = order[:ROWS], order[ROWS : ROWS + TEST], order[ROWS + TEST :]
    long = [at for at in test if len(rows.texts[at].split()) >= 10]
    leaked = rng.sample(long, LEAKED)
    texts = [rows.texts[at] for at in mine] + [near_changed(rows.texts[at], rng) for at in leaked]
    labels = [rows.labels[at] for at in (*mine, *leaked)]
    return Rows(texts, labels), _taken(rows, test), _taken(rows, fresh)


def _taken(rows: Rows, at: Sequence[int]) -> Rows:
    return Rows([rows.texts[n] for n in at], [rows.labels[n] for n in at])


def foretold(recipe: Recipe, gathered: CombinedRows, pairs: Leaks) -> Result:
    tables = {name: TableRows(table) for name, table in gathered.tables.items()}
    encoder, _ = load_encoder(recipe)
    vectors = {name: encoder(rows.texts) for name, rows in tables.items()}
    embedded = Embedded(
        tables["source"],
        vectors["source"],
        encoder.name,
        encoder,
        {"test": (gathered.tables["test"], vectors["test"])},
        seed=recipe.seed,
    )
    price = ProbeInflationEstimator(embedded).from_leaks(gathered, pairs)
    assert price is not None
    return {"foretold": price.points, "from": price.low, "to": price.high}


def _right(fitted: Any, positions: Ints) -> Any:
    examples: Any = fitted.training_plan.prepared.examples.take(positions)
    _, logits = fitted.measure(examples)
    return logits.argmax(axis=1) == examples.labels


if __name__ == "__main__":
    main()
