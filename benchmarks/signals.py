"""What class names, unlabelled rows and contrast for many classes earn: whole fits, test accuracy.

    python benchmarks/signals.py                 # the cells that have no result yet
    python benchmarks/signals.py --minutes 3     # start no new cell after three minutes

The labelled rows of a cell are divided into 82 % training and 18 % validation rows; ``385`` are
five rows of each of BANKING77's 77 intents, validation included. The test rows are the official
file's where a set has one, else 2,000 others, the same for every seed; unlabelled texts are all
other rows of the training file. Copies are taken out first. Labels that are no words (CR, MR, TREC)
get some, as a user would with ``data.names``. Arms: ``none`` (no names, the recipe for few
classes), ``names``, ``default`` (names and the recipe for many classes), ``unlabelled``
(``default`` with ``data.unlabelled``). The linear probe is that of the untouched model.
"""

from __future__ import annotations

import csv
import functools
import os
import sys
import time
from typing import Any

import numpy as np
from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, average, paired, pick, runs, table
from peers.rows import FILES, Rows, data_folder, without_copies
from peers.script import options

NAME = "signals"
WORDS = {
    "cr": {"0": "negative", "1": "positive"},
    "mr": {"0": "negative", "1": "positive"},
    "trec": {
        "ABBR": "abbreviation",
        "DESC": "description",
        "ENTY": "entity",
        "HUM": "human being",
        "LOC": "location",
        "NUM": "numeric value",
    },
}
VALID_SHARE, TESTED, UNLABELLED = 0.18, 2000, 5000
ARMS = ("none", "names", "default")


def cells() -> list[dict[str, Any]]:
    todo = grid(data=["banking77"], rows=[385], seed=range(3), arm=ARMS)
    todo += grid(data=["banking77"], rows=[1638], seed=range(3), arm=["none", "default"])
    todo += grid(data=["banking77"], rows=[400], seed=range(2), arm=[*ARMS, "unlabelled"])
    todo += grid(data=["trec", "cr", "mr"], rows=[100], seed=range(3), arm=["none", "names"])
    todo += grid(data=["trec", "cr", "mr"], rows=[400], seed=range(2), arm=["none", "names"])
    todo += grid(data=["trec", "cr"], rows=[100], seed=range(2), arm=["unlabelled"])
    return todo


@functools.cache
def files(data: str) -> tuple[Rows, Rows | None]:
    """The rows that may be learned from, and the official test rows."""
    names = FILES.get(data, ("train.csv", "test.csv"))
    read = []
    for name in names:
        with (data_folder() / data / name).open(encoding="utf-8", newline="") as lines:
            rows = [(r["text"], r["label"]) for r in csv.DictReader(lines) if r["text"].strip()]
        read.append(Rows(tuple(t for t, _ in rows), tuple(label for _, label in rows)))
    return without_copies(read[0]), read[1] if len(read) > 1 else None


def parts(cell: Cell) -> dict[str, Rows]:
    """Labelled, test and unlabelled rows of a cell."""
    rows, test = files(cell["data"])
    fixed = np.random.default_rng(7).permutation(len(rows))
    held = fixed[:TESTED] if test is None else fixed[:0]
    order = np.random.default_rng([cell["seed"], 17]).permutation(fixed[len(held) :])
    labels = np.array(rows.labels)
    if cell["data"] == "banking77" and cell["rows"] == 385:
        five = [order[labels[order] == name][:5] for name in np.unique(labels)]
        chosen = np.concatenate(five)
    else:
        chosen = order[: cell["rows"]]
    chosen = np.random.default_rng(cell["seed"]).permutation(chosen)
    others = order[~np.isin(order, chosen)]
    return {
        "labelled": rows.take(chosen),
        "test": rows.take(held) if test is None else test,
        "unlabelled": rows.take(others[:UNLABELLED]),
    }


def run_one(cell: Cell) -> Result:
    """Prepare, fit and score one arm."""
    from holdfast.fits.fit import fit
    from holdfast.prepare.model import prepare
    from holdfast.prepare.pseudo_labels import with_unlabelled
    from holdfast.prepare.signals import with_signals
    from holdfast.recipe import parse

    drawn, arm = parts(cell), cell["arm"]
    names: Any = False if arm == "none" else WORDS.get(cell["data"])
    data = {"names": names, "unlabelled": "others" if arm == "unlabelled" else None}
    plain = {"task": "text-classification", "seed": cell["seed"], "data": data}
    recipe = parse({**plain, "train": {"threads": 1}}, "benchmark")
    classes = tuple(sorted(set(files(cell["data"])[0].labels)))
    rows, count = table_of(drawn["labelled"], classes), len(drawn["labelled"])
    valid = np.arange(round(VALID_SHARE * count))
    train = np.arange(len(valid), count)
    begun = time.process_time()
    prepared = with_signals(prepare(recipe, rows), train)
    texts = drawn["unlabelled"].texts
    prepared = with_unlabelled(prepared, train, valid, texts)
    settings = few_classes(len(train)) if arm in ("none", "names") else {}
    fitted = fit(prepared, train, valid, settings)
    seconds = time.process_time() - begun
    test = fitted.encode(table_of(drawn["test"], classes))
    right = fitted.measure(test)[1].argmax(axis=1) == test.labels
    return {
        "accuracy": float(right.mean()),
        "probe": probe_accuracy(fitted, test),
        "processor_s": seconds,
        "added": str(fitted.training_plan.added),
        "told": " | ".join(d.because for d in prepared.decisions)[:400],
        "steps": f"{fitted.trained.best_step}/{fitted.trained.last_step}",
    }


def few_classes(rows: int) -> dict[str, Any]:
    """What the table of defaults says for few classes."""
    from holdfast.plan.defaults import default_for

    line = default_for(10_000_000, rows)
    drawn = line.contrast_steps * 32
    contrast = {"steps": line.contrast_steps, "batch_size": 32, "classes": 8}
    settings: dict[str, Any] = {"train.epochs": line.epochs or -(-1000 * drawn // rows) / 1000}
    if not line.contrast_steps:
        return {**settings, "methods.contrast": False}
    return settings | {f"methods.contrast.{name}": value for name, value in contrast.items()}


def table_of(rows: Rows, classes: tuple[str, ...]) -> Any:
    import datasets

    from holdfast.data.table import Columns, Table

    place = {name: index for index, name in enumerate(classes)}
    columns = {
        "row": list(range(len(rows))),
        "text": list(rows.texts),
        "label": [place[label] for label in rows.labels],
    }
    made, said = (
        datasets.Dataset.from_dict(columns),
        Columns(("text",), "label", label_kind="class"),
    )
    return Table(made, classes, said, "benchmark", len(rows))


def probe_accuracy(fitted: Any, test: Any) -> float:
    from holdfast.training.observe import Observer

    (refit,) = fitted.listeners
    observer = Observer(fitted.job.accelerator, fitted.job.task, alone=True)
    network = fitted.base_network(head=refit.baseline)
    logits = observer.measure(network, test, np.arange(len(test)))[1]
    return float((logits.argmax(axis=1) == test.labels).mean())


def main() -> None:
    asked = options(__doc__ or "")
    asked.add_argument("--only", help="cells whose words contain this, e.g. 'banking77 385'")
    args = asked.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    todo = cells()
    wanted = (args.only or "").split()
    chosen = [c for c in todo if all(w in map(str, c.values()) for w in wanted)]
    run_cells(NAME, chosen, run_one, minutes=args.minutes)


def finding(lines: Lines) -> str:
    parts = []
    for rows in dict.fromkeys(line["rows"] for line in lines if line["data"] == "banking77"):
        some = pick(lines, data="banking77", rows=rows)
        for arm, other, what in (
            ("names", "none", "class names"),
            ("unlabelled", "default", "unlabelled texts"),
        ):
            gap = paired(some, "accuracy", arm, other)
            if gap:
                parts.append(f"{what} {gap.words(100, 1, ' points')} with {rows} rows")
    return f"On BANKING77, accuracy added by {'; '.join(parts)}." if parts else ""


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Class names, unlabelled rows, many classes",
    """\
MiniLM. `none` has no class names and the recipe for few classes; `names` has them; `default` has
both names and the recipe for many classes; `unlabelled` also gets the other texts of the training
file.""",
    cells,
    finding,
    [
        table(
            {"data": "Set", "rows": "Rows", "arm": "Signals"},
            {
                "Runs": runs,
                "Accuracy, %": average("accuracy", 100),
                "Linear probe, %": average("probe", 100),
                "Processor, s": average("processor_s", 1, 0),
            },
        )
    ],
    "One or two seeds, so there is no interval.",
)


if __name__ == "__main__":
    sys.exit(main())
