"""What copies on both sides of a division cost, as the audit foretells it and as it comes.

    python benchmarks/leak_price.py [--seeds 2]

300 rows of CR with 100 copies of some of them put in, one word in ten changed. ``copies
together``: divided as ``train`` does, where copies are on one side. ``random``: the same rows in
the same numbers, at random. Both are fine-tuned by the default recipe. ``test`` is the accuracy on
the division's own test rows with its interval, ``fresh`` that of the same model on 1,000 other
rows, ``too good`` the difference in points; ``foretold`` is the price that ``holdfast audit``
states for a random division before anything is trained, with its interval.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from audit import Rows, near_changed, real
from cells import Cell, Result, grid, publish, run_cells, table

from holdfast.auditing.price import Pricing
from holdfast.auditing.views import Embedded
from holdfast.auditing.views import Rows as TableRows
from holdfast.copies.gather import gather
from holdfast.core.records import Ints
from holdfast.core.seeds import derive_seed, generator
from holdfast.data.memory import table_from_texts
from holdfast.data.table import Table
from holdfast.pipeline.embedding import load_encoder
from holdfast.pipeline.fit import fit
from holdfast.pipeline.prepared import prepare
from holdfast.recipe import Recipe
from holdfast.split.divide import divide
from holdfast.stats.intervals import wilson

NAME = "leak_price"
ROWS, COPIES, FRESH = 300, 100, 1000
DIVISIONS = ("copies together", "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sets", nargs="*", default=["cr"])
    asked = parser.parse_args()
    cells = grid(data=asked.sets, seed=range(asked.seeds), division=DIVISIONS)
    publish(NAME, section(cells, run_cells(NAME, cells, measured)))


def measured(cell: Cell) -> Result:
    rows, fresh = planted(real(cell["data"]), cell["seed"])
    whole = table_from_texts([*rows.texts, *fresh.texts], [*rows.labels, *fresh.labels])
    known = whole.take(np.arange(len(rows.texts)))
    train, valid, test = divided(known, cell["seed"])
    if cell["division"] == "random":
        order = generator(cell["seed"], "random division").permutation(len(known))
        cuts = np.cumsum([len(train), len(valid)])
        train, valid, test = np.split(order, cuts)
    recipe = Recipe(seed=cell["seed"], task="text-classification")
    prepared = prepare(recipe, whole)
    fitted = fit(prepared, np.sort(train), np.sort(valid))
    own = _right(fitted, test)
    new = _right(fitted, np.arange(len(known), len(whole)))
    low, high = wilson(own.sum(), len(own))
    return {
        "test": 100 * own.mean(),
        "low": 100 * low,
        "high": 100 * high,
        "fresh": 100 * new.mean(),
        "too good": 100 * (own.mean() - new.mean()),
        **(foretold(recipe, known) if cell["division"] == "random" else {}),
    }


def planted(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Rows with altered copies of some put in, and others that none of them copies."""
    rng = random.Random(seed)
    order = rng.sample(range(len(rows.texts)), ROWS + FRESH)
    mine, fresh = order[:ROWS], order[ROWS:]
    long = [at for at in mine if len(rows.texts[at].split()) >= 10]
    again = rng.choices(long, k=COPIES)
    texts = [rows.texts[at] for at in mine] + [near_changed(rows.texts[at], rng) for at in again]
    labels = [rows.labels[at] for at in (*mine, *again)]
    return Rows(texts, labels), Rows(
        [rows.texts[at] for at in fresh], [rows.labels[at] for at in fresh]
    )


def divided(known: Table, seed: int) -> tuple[Ints, ...]:
    """The positions of each side as ``train`` divides."""
    splits = divide(known, seed=seed)
    place = {row: at for at, row in enumerate(known.column("row").tolist())}
    sides = (splits.train.table, splits.valid.table, splits.test.open())
    return tuple(np.array([place[r] for r in side.column("row").tolist()]) for side in sides)


def foretold(recipe: Recipe, known: Table) -> Result:
    rows = TableRows(known)
    encoder, _ = load_encoder(recipe)
    embedded = Embedded(rows, encoder(rows.texts), encoder.name, encoder, seed=recipe.seed)
    gathered = gather(known, {}, derive_seed(recipe.seed, "copies"))
    price = Pricing(embedded).of_division(gathered, gathered.copies.groups)
    assert price is not None
    return {"foretold": price.points, "from": price.low, "to": price.high}


def section(cells: Sequence[Cell], results: Sequence[Result | None]) -> str:
    told = __doc__.split("\n", 4)[4].strip()
    return f"## The price of copies on both sides\n\n{told}\n\n{table(cells, results)}\n"


def _right(fitted: Any, positions: Ints) -> Any:
    examples: Any = fitted.ready.prepared.examples.take(positions)
    _, logits = fitted.measure(examples)
    return logits.argmax(axis=1) == examples.labels


if __name__ == "__main__":
    main()
