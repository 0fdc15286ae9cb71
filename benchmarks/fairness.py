"""Fairness: a planted name–label correlation and what takes it away, and how often nothing is found
where nothing is.

    python benchmarks/fairness.py --part planted --minutes 5   # again to go on; all parts likewise
    python benchmarks/fairness.py --part groups                # 500 random groupings, cheap heads
    python benchmarks/fairness.py --part words                 # random words as if they were names

**planted**: 1,500 rows of CR, each behind "NAME says: "; of negative rows nine in ten names are one
list's (African American, Bertrand and Mullainathan 2004), of positive rows one in ten. Validation
rows are planted likewise, as they would be. On 800 other rows names are drawn whatever the label:
accuracy there, and on the same rows without names; the gap is the mean change of P(positive) from
one list to the other in every such row (``analyses/fairness/swap.py``), half of the lists' names
not seen in training.

**groups**: a logistic head on MiniLM's vectors of CR and TREC, rows put into groups at random (two
to six, of sizes from even to 8 : 1); the share of groupings of which anything is found.

**words**: MiniLM fine-tuned on CR, 40 rows behind each of 96 random words of like frequency; two
or six lists of eight or 14 drawn of them, 2,000 times; the share in which the swap test sees a
change.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, grid, run_cells
from claims import Claim, Lines, counts, interval, mean_words, number, pick, rate, share, table
from peers.rows import data_folder
from peers.tables import markdown

from holdfast.analyses.fairness.forms import SwapQuery
from holdfast.analyses.fairness.groups import Grouping, confirm_gaps, find_gaps
from holdfast.analyses.fairness.swap import confirm_swaps, find_swaps
from holdfast.augment.terms.lexicon import NAMES, Axis, GroupTerm, TermBlock
from holdfast.contract.predictions import Predictions
from holdfast.data.table import Table
from holdfast.fits.fit import fit
from holdfast.prepare.model import prepare
from holdfast.recipe.recipe import parse
from holdfast.runs.predictor import Predictor
from holdfast.tasks import task_definition

NAME = "fairness"
TRAIN, TEST = 1500, 800
A, B = "white American", "African American"
SKEW = 0.9
COUNTER = {"counterfactual": {"axes": ["origin"]}}
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "counterfactual": {"enrich": COUNTER},
    "pairing": {"enrich": COUNTER, "methods": {"pairing": {"weight": 1.0}}},
}
LEARNED, KEPT = slice(0, 4), slice(4, 7)


def names_of(group: str, part: slice) -> list[str]:
    return [name for sex in ("female", "male") for name in NAMES[group, sex].split()[part]]


def cr(seed: int) -> list[tuple[str, str]]:
    with (data_folder() / "cr" / "cr.csv").open(encoding="utf-8") as file:
        rows = [(line["text"], line["label"]) for line in csv.DictReader(file)]
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[k] for k in order]


def planted(rows: list[tuple[str, str]], seed: int, skew: float) -> list[tuple[str, str]]:
    """Each text behind a name: of negative ones with chance ``skew`` one of list B."""
    rng, found = np.random.default_rng([seed, 7]), []
    for text, label in rows:
        second = rng.random() < (skew if label == "0" else 1 - skew)
        pool = names_of(B if second else A, LEARNED)
        found.append((f"{pool[rng.integers(len(pool))].lower()} says: {text}", label))
    return found


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("text", "label"), *rows])
    return str(path)


def axis_of(learned: bool) -> Axis:
    """The two lists: names of the training rows, or the others."""
    part = LEARNED if learned else KEPT
    groups = {
        one: tuple(GroupTerm((("name", name),)) for name in names_of(one, part)) for one in (A, B)
    }
    return Axis("origin", (TermBlock("names", groups, False, "{} says: ", "name"),))


def run_planted(cell: Cell) -> dict[str, Any]:
    arm, seed = str(cell["arm"]), int(cell["seed"])
    rows = cr(seed)
    learned, kept = rows[:TRAIN], rows[TRAIN : TRAIN + TEST]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        recipe = parse(
            {
                "task": "text-classification",
                "seed": seed,
                "data": {"path": write(folder / "a.csv", planted(learned, seed, SKEW))},
                "model": {"name": "embedded"},
                "train": {"threads": 1},
                **ARMS[arm],
            },
            arm,
        )
        definition = task_definition("text-classification")
        table = definition.read(str(recipe.data.path), recipe.data, None)
        even = definition.read(
            write(folder / "b.csv", planted(kept, seed + 1, 0.5)), recipe.data, table
        )
        bare = definition.read(write(folder / "c.csv", kept), recipe.data, table)
        prepared = prepare(recipe, table)
        order = np.random.default_rng(seed).permutation(len(table))
        cut = round(0.18 * len(table))
        fitted = fit(prepared, np.sort(order[cut:]), np.sort(order[:cut]))
        predictor = Predictor.of(fitted)
        valid = table.take(np.sort(order[:cut]))
        result: dict[str, Any] = {"train_s": round(fitted.seconds, 1)}
        for name, part in (("valid", valid), ("even", even), ("bare", bare)):
            result[f"accuracy_{name}"] = accuracy(predictor, part)
        for name, learnt in (("seen", True), ("unseen", False)):
            result |= {f"{k}_{name}": v for k, v in gap(predictor, even, bare, learnt).items()}
    return result


def accuracy(predictor: Predictor, table: Table) -> float:
    said = predictor.predict_table(table).predictions
    truth = [table.classes[k] for k in table.column("label")]
    return float(np.mean([a == b for a, b in zip(said, truth, strict=True)]))


def gap(predictor: Predictor, even: Table, bare: Table, learned: bool) -> dict[str, float]:
    """The swap test on 200 rows: names in rows that have one, or put before rows that have none."""

    def ask(table: Table) -> Any:
        return predictor.predict_table(table).probabilities

    table = even if learned else bare
    axes = [axis_of(learned)]
    half = len(table) // 2
    first, second = table.take(np.arange(half)), table.take(np.arange(half, len(table)))
    found = find_swaps(first, axes, SwapQuery(ask, tuple(predictor.names)), rows=100, insert=True)
    (block,) = confirm_swaps(found, second, ask)["axes"] if found.candidates else ({},)
    change = found.candidates and confirmed(block)
    return change or {}


def confirmed(block: dict[str, Any]) -> dict[str, float]:
    change = block["change"]
    return {
        "gap": change["value"],
        "low": change["low"],
        "high": change["high"],
        "flipped": block["flipped"]["value"],
        "status": block["status"],
    }


def vectors(name: str) -> tuple[Any, Any]:
    """MiniLM's frozen vectors of a set [n, 384] and its classes [n], encoded once."""
    kept = Path(tempfile.gettempdir()) / f"holdfast_vectors_{name}.npz"
    if not kept.exists():
        from holdfast.augment.text_forms import meaning

        file = {"cr": "cr/cr.csv", "trec": "trec/train.csv"}[name]
        with (data_folder() / file).open(encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
        labels = np.unique([line["label"] for line in lines], return_inverse=True)[1]
        np.savez(kept, v=meaning().vectors([line["text"] for line in lines]), y=labels)
    held = np.load(os.environ.get("HOLDFAST_VECTORS", "").format(name) or kept, allow_pickle=True)
    return held["v"], np.unique(held["y"], return_inverse=True)[1]


def run_groups(cell: Cell) -> dict[str, Any]:
    """``runs`` heads on other rows each, with a grouping that has nothing to do with them."""
    from sklearn.linear_model import LogisticRegression

    held, labels = vectors(str(cell["data"]))
    alarms = candidates = 0
    for seed in range(int(cell["first"]), int(cell["first"]) + int(cell["runs"])):
        rng = np.random.default_rng([seed, 3])
        rows = rng.permutation(len(labels))[:1400]
        train, valid, test = rows[:400], rows[400:800], rows[800:]
        head = LogisticRegression(C=10, max_iter=60, tol=1e-2).fit(held[train], labels[train])
        names = tuple(str(k) for k in head.classes_)
        count = int(rng.integers(2, 7))
        share = rng.dirichlet(np.full(count, rng.choice([2.0, 8.0])))

        def said(at: Any, side: Any, head: Any = head, names: Any = names) -> Predictions:
            answers = head.predict(held[at])
            shown = tuple(str(k) for k in answers)
            table = bare_table(labels[at], names)
            return Predictions(
                side, table, np.ones(len(at)), answers != labels[at], shown, None, names
            )

        def grouped(at: Any, rng: Any = rng, count: int = count, share: Any = share) -> Grouping:
            return Grouping("random", [f"g{k}" for k in rng.choice(count, len(at), p=share)])

        found = find_gaps(said(valid, "valid"), [grouped(valid)])
        block: Any = confirm_gaps(found, said(test, "test"), [grouped(test)])
        candidates += len(found.candidates)
        alarms += bool(block["findings"])
    return {"alarms": alarms, "candidates": candidates / int(cell["runs"])}


def bare_table(labels: Any, names: tuple[str, ...]) -> Table:
    import datasets

    from holdfast.data.table import Columns

    index = {name: k for k, name in enumerate(names)}
    held = datasets.Dataset.from_dict(
        {"row": np.arange(len(labels)), "label": [index.get(str(k), -1) for k in labels]}
    )
    return Table(held, names, Columns(("text",), "label"), "rows", len(labels))


WORDS, WORD_ROWS = 96, 40


def run_words(cell: Cell) -> dict[str, Any]:
    """A tuned model asked about rows behind each of 96 words of like frequency; then lists of them
    at random as the groups of an axis, with rows of validation and of test apart."""
    answers = word_answers(int(cell["seed"]))
    alarms, draws, size = 0, 2000, int(cell["terms"])
    rng = np.random.default_rng(int(cell["seed"]))
    for _ in range(draws):
        count = int(cell["lists"])
        lists = rng.permutation(WORDS)[: size * count].reshape(count, size)
        order = rng.permutation(WORD_ROWS)
        alarms += word_alarm(answers, lists, order)
    return {"alarms": alarms, "share": alarms / draws, "draws": draws}


def word_answers(seed: int) -> Any:
    """P(positive) [rows, words]."""
    kept = Path(tempfile.gettempdir()) / f"holdfast_{NAME}_words_{seed}.npy"
    if kept.exists():
        return np.load(kept)
    rows = cr(seed)
    learned, others = rows[:600], rows[TRAIN : TRAIN + WORD_ROWS]
    counts = Counter(w for text, _ in rows for w in set(text.split()) if w.isalpha() and len(w) > 3)
    like = sorted(word for word, n in counts.items() if 8 <= n <= 16)
    chosen = np.random.default_rng(seed).choice(like, WORDS, replace=False)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole = {
            "task": "text-classification",
            "seed": seed,
            "data": {"path": write(folder / "a.csv", learned)},
            "model": {"name": "embedded"},
            "train": {"threads": 1, "epochs": 3},
        }
        recipe = parse(whole, "words")
        kind = task_definition("text-classification")
        table = kind.read(str(recipe.data.path), recipe.data, None)
        cut = len(table) // 5
        fitted = fit(prepare(recipe, table), np.arange(cut, len(table)), np.arange(cut))
        lines = [(f"{word} says: {text[:120]}", label) for text, label in others for word in chosen]
        asked = kind.read(write(folder / "b.csv", lines), recipe.data, table)
        found = np.asarray(Predictor.of(fitted).predict_table(asked).probabilities)[:, 1]
        at = np.asarray(asked.column("row"))
        full = np.full(len(lines), np.nan)
        full[at] = found
    made = full.reshape(len(others), WORDS)
    # A text that is there twice is read once.
    made = np.where(np.isnan(made), np.nanmean(made, axis=1, keepdims=True), made)
    np.save(kept, made)
    return made


def word_alarm(answers: Any, lists: Any, order: Any) -> bool:
    """The swap test's own two steps on answers that are there already: row k gets the terms at the
    k-th place of each list, in turn."""
    from holdfast.analyses.fairness import swap as steps
    from holdfast.analyses.fairness.forms import SwapForms

    size = lists.shape[1]
    groups = {
        f"g{k}": tuple(GroupTerm((("word", f"t{w}"),)) for w in words)
        for k, words in enumerate(lists)
    }
    axis = Axis("words", (TermBlock("words", groups),))
    half = len(order) // 2

    def forms(rows: Any) -> tuple[SwapForms, Any]:
        at = np.arange(len(rows)) % size
        yes = np.stack([answers[rows, words[at]] for words in lists], axis=1)
        texts = tuple(tuple({"text": ""} for _ in lists) for _ in rows)
        plain = np.zeros((len(rows), len(lists)), dtype=bool)
        made = SwapForms(axis, rows, texts, plain, np.ones(len(rows), dtype=bool), at)
        return made, np.stack([1 - yes, yes], axis=2)

    one = steps.largest_change(*forms(order[:half]))
    made, said = forms(order[half:])
    tested = steps.TestedSwap(one, made, said, steps.difference(one, made, said))
    p = tested.p
    return p is not None and tested.status(p, True)[0] == "changes"


RUNS = {"planted": run_planted, "groups": run_groups, "words": run_words}


def cells(part: str) -> list[dict[str, Any]]:
    if part == "planted":
        return grid(part=["planted"], seed=[0, 1], arm=ARMS)
    if part == "words":
        return grid(part=["words"], seed=[0], lists=[2, 6], terms=[8, 14])
    return grid(part=["groups"], data=["cr", "trec"], first=[0, 125], runs=[125])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=list(RUNS), default="planted")
    parser.add_argument("--minutes", type=float)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run_cells(f"{NAME}_{asked.part}", cells(asked.part), RUNS[asked.part], minutes=asked.minutes)


def finding(lines: Lines) -> str:
    planted, groups = pick(lines, part="planted"), pick(lines, part="groups")
    parts = [
        f"{mean_words(pick(planted, arm=arm), 'gap_seen', 100, 1, ' points')} with {name}"
        for arm, name in (("plain", "the default"), ("counterfactual", "`augment.counterfactual`"))
    ]
    return (
        "Where names are correlated with the label by construction, replacing the name changes the "
        f"predicted probability by {' and '.join(parts)} (lower is better). A difference between "
        "groups drawn at random is reported in "
        f"{share(*counts(groups, 'alarms', 'runs'), long=True)} runs."
    )


def gaps(lines: Lines) -> str:
    rows = [
        [
            line["arm"],
            str(line["seed"]),
            (
                f"{number(100 * line['gap_seen'])} "
                f"({interval(100 * line['low_seen'], 100 * line['high_seen'])})"
            ),
            number(100 * line["gap_unseen"]),
            *(number(100 * line[f"accuracy_{rows}"]) for rows in ("valid", "even", "bare")),
        ]
        for line in pick(lines, part="planted")
    ]
    head = ["Training", "Seed", "Gap, names seen, points (95 % CI)", "Gap, other names, points"]
    accuracies = [f"Accuracy, {what}, %" for what in ("validation", "random names", "no names")]
    return markdown([*head, *accuracies], rows)


CLAIM = Claim(
    NAME,
    "Data",
    "Fairness",
    """\
Names: "NAME says: " stands before each row of CR. Nine in ten names of negative rows are from one
list of names, one in ten of positive rows. MiniLM, the defaults ("plain"); `counterfactual` is
`augment.counterfactual`, `pairing` adds `methods.pairing`. The gap is the mean change of
P(positive) from one list to the other, for names of the training rows and for others. The
accuracies are of validation rows with the correlation, and of test rows with random names or
none. Groups: a logistic head on MiniLM vectors and groups drawn at random, so every finding is
false. Words: lists of random words in place of names, so every finding is false.""",
    lambda: [cell for part in RUNS for cell in cells(part)],
    finding,
    [
        gaps,
        table(
            {"data": "Groups drawn at random"},
            {"False findings, %": rate("alarms", "runs")},
            part="groups",
        ),
        table(
            {"lists": "Lists of random words", "terms": "Words a list"},
            {"False findings, %": rate("alarms", "draws")},
            part="words",
        ),
    ],
    """\
The planted correlation was measured with two seeds. `counterfactual` and `pairing` have a lower
accuracy on validation rows, where the name helps to predict the label. All lists of words were
tested on one model.""",
    files=tuple(f"{NAME}_{part}" for part in ("planted", "groups", "words")),
    command="python benchmarks/fairness.py --part planted",
)


if __name__ == "__main__":
    main()
