"""The audit on planted faults: does each check find them, and what else does it accuse?

    python benchmarks/audit.py [--only PLANT] [--seeds 2]

Faults are planted into CR, TREC and BANKING77 at known rows. *Recall* is the share of these rows
that the check lists, *precision* the share of what it lists beyond the untouched set that was
planted; ``before`` is what it lists there untouched. ``duplicate_groups`` and ``leaks`` are read
whole; other findings list at most 100 rows, so that fewer are planted. A fault that is no row (a
skew) has the recall 1 where the check speaks and 0 where it does not.

Checks that need a model are measured elsewhere (``benchmarks/labels.py``).
"""

from __future__ import annotations

import argparse
import csv
import functools
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, average, counts, pick, rate, renamed, runs, share, table
from peers.rows import data_folder

from holdfast.analyses.audit.audit import Audit
from holdfast.api.commands import audit
from holdfast.duplicates.duplicates import find_duplicates

NAME = "audit"
FILES = {"cr": "cr/cr.csv", "trec": "trec/train.csv", "banking77": "banking77/train.csv"}
SETS = tuple(FILES)
PLANTED = 50


@dataclass(frozen=True)
class Rows:
    """Texts and labels, rows of another file, and where something was ``planted``; ``named`` are
    the rows that a finding may list by right beside them (the originals of copies)."""

    texts: list[str]
    labels: list[str]
    other: list[str] = field(default_factory=list)
    planted: frozenset[int] = frozenset()
    named: frozenset[int] = frozenset()


Plant = Callable[[Rows, random.Random], Rows]


def copies(rows: Rows, rng: random.Random) -> Rows:
    """Rows put in a second time, with other marks and case."""
    chosen = rng.sample(range(len(rows.texts)), PLANTED)
    again = [f"{rows.texts[at].upper()} !" for at in chosen]
    return _added(rows, again, [rows.labels[at] for at in chosen], chosen)


def near_copies(rows: Rows, rng: random.Random) -> Rows:
    """Rows of ten words or more put in again with one word in ten changed."""
    long = [at for at, text in enumerate(rows.texts) if len(text.split()) >= 10]
    chosen = rng.sample(long, PLANTED)
    again = [near_changed(rows.texts[at], rng) for at in chosen]
    return _added(rows, again, [rows.labels[at] for at in chosen], chosen)


def conflicts(rows: Rows, rng: random.Random) -> Rows:
    """Rows put in a second time with another label."""
    chosen = rng.sample(range(len(rows.texts)), PLANTED // 2)
    names = sorted(set(rows.labels))
    labels = [rng.choice([n for n in names if n != rows.labels[at]]) for at in chosen]
    return _added(rows, [rows.texts[at] for at in chosen], labels, chosen)


def leaks(rows: Rows, rng: random.Random) -> Rows:
    """Rows of the other file that stand in this one, half of them with a word in ten changed."""
    long = [at for at, text in enumerate(rows.texts) if len(text.split()) >= 10]
    chosen = rng.sample(long, PLANTED)
    half = PLANTED // 2
    texts = [rows.texts[at] for at in chosen[:half]]
    texts += [near_changed(rows.texts[at], rng) for at in chosen[half:]]
    return replace(rows, other=texts, planted=frozenset(chosen))


def inside(rows: Rows, rng: random.Random) -> Rows:
    """Rows of the other file that stand inside a longer row of this one."""
    long = [at for at, text in enumerate(rows.texts) if len(text.split()) >= 16]
    chosen = rng.sample(long, min(PLANTED, len(long) // 3))
    texts, other = list(rows.texts), [rows.texts[at] for at in chosen]
    for at in chosen:
        before, after = (rng.choice(rows.texts) for _ in range(2))
        texts[at] = f"{before} {texts[at]} {after}"
    return replace(rows, texts=texts, other=other, planted=frozenset(chosen))


def mojibake(rows: Rows, rng: random.Random) -> Rows:
    """Texts with letters that were read in the wrong encoding."""
    texts = list(rows.texts)
    chosen = rng.sample(range(len(texts)), PLANTED)
    for at in chosen:
        words = texts[at].split()
        words.insert(
            rng.randrange(len(words) + 1), rng.choice(("café", "naïve", "l’été", "Müller"))
        )
        texts[at] = " ".join(words).encode().decode("cp1252", "replace")
    return replace(rows, texts=texts, planted=frozenset(chosen))


def markup(rows: Rows, rng: random.Random) -> Rows:
    """Texts with tags and entities left in."""
    texts = list(rows.texts)
    chosen = rng.sample(range(len(texts)), PLANTED)
    for at in chosen:
        texts[at] = f"<p>{texts[at]}</p><br />&nbsp;"
    return replace(rows, texts=texts, planted=frozenset(chosen))


def personal(rows: Rows, rng: random.Random) -> Rows:
    """Texts with an address or a telephone number."""
    texts = list(rows.texts)
    chosen = rng.sample(range(len(texts)), PLANTED)
    for at in chosen:
        mail = f"{rng.choice(('anna', 'li', 'omar'))}.{rng.randrange(999)}@mail.example.org"
        texts[at] = f"{texts[at]} {mail}"
    return replace(rows, texts=texts, planted=frozenset(chosen))


def skew(rows: Rows, rng: random.Random) -> Rows:
    """A class of which one row in thirty is left."""
    label = sorted(set(rows.labels), key=rows.labels.count)[-1]
    kept = [at for at, name in enumerate(rows.labels) if name != label or rng.random() < 1 / 30]
    return replace(
        rows, texts=[rows.texts[at] for at in kept], labels=[rows.labels[at] for at in kept]
    )


# A plant, and the checks of which one should list its rows.
PLANTS: dict[str, tuple[Plant, tuple[str, ...]]] = {
    "copies": (copies, ("exact_duplicates",)),
    "near copies": (near_copies, ("near_duplicates",)),
    "conflicting copies": (conflicts, ("conflicting_labels",)),
    "leaks": (leaks, ("leaks",)),
    "rows inside others": (inside, ("contained_rows",)),
    "mojibake": (mojibake, ("encoding_damage",)),
    "markup": (markup, ("markup",)),
    "personal data": (personal, ("personal_data",)),
    "skew": (skew, ("class_imbalance", "thin_classes", "rare_classes")),
}
BY_FINDING = ("skew",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PLANTS)
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    plants = [asked.only] if asked.only else list(PLANTS)
    run_cells(NAME, cells(plants, asked.seeds), planted)


def planted(cell: Cell) -> Result:
    plant, checks = PLANTS[cell["plant"]]
    clean = real(cell["data"])
    rows = plant(clean, random.Random(f"{cell['plant']} {cell['data']} {cell['seed']}"))
    start = time.perf_counter()
    found, before = looked(rows), untouched(cell["data"], bool(rows.other))
    seconds = time.perf_counter() - start
    if cell["plant"] in BY_FINDING:
        spoke = _spoke(found, checks) - _spoke(before, checks)
        return {"planted": 1, "before": len(_spoke(before, checks)), "recall": float(bool(spoke))}
    listed, already = _listed(found, checks[0]), _listed(before, checks[0])
    new = listed - already if cell["plant"] != "rows inside others" else listed
    hit = len(rows.planted & listed)
    return {
        "planted": len(rows.planted),
        "before": len(already),
        "recall": hit / len(rows.planted),
        "precision": len(new & (rows.planted | rows.named)) / len(new) if new else None,
        "seconds": round(seconds, 2),
    }


def looked(rows: Rows) -> Audit:
    """The audit of rows in a file, without a model."""
    with tempfile.TemporaryDirectory() as folder:
        path = _written(Path(folder) / "rows.csv", rows.texts, rows.labels)
        other = [_written(Path(folder) / "other.csv", rows.other, [])] if rows.other else []
        return audit(path, against=other, settings={"audit.rows": 0})


@functools.cache
def untouched(name: str, other: bool) -> Audit:
    """The audit of the set as it is."""
    rows = real(name)
    return looked(replace(rows, other=["quite another text stands here"] if other else []))


@functools.cache
def real(name: str) -> Rows:
    """The set with one row of each group of copies: what is then found beside the planted rows is
    an accusation."""
    with (data_folder() / FILES[name]).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["text"].strip()]
    groups = find_duplicates([row["text"] for row in rows]).groups
    kept = sorted(np.unique(groups, return_index=True)[1].tolist())
    return Rows([rows[at]["text"] for at in kept], [rows[at]["label"] for at in kept])


def _added(rows: Rows, texts: list[str], labels: list[str], chosen: Sequence[int]) -> Rows:
    first = len(rows.texts)
    return Rows(
        [*rows.texts, *texts],
        [*rows.labels, *labels],
        planted=frozenset(range(first, first + len(texts))),
        named=frozenset(chosen),
    )


def near_changed(text: str, rng: random.Random) -> str:
    """A text with one word in ten changed."""
    words = text.split()
    for at in rng.sample(range(len(words)), len(words) // 10):
        words[at] = rng.choice(("other", "changed", "random", "different"))
    return " ".join(words)


def _listed(found: Audit, check: str) -> set[int]:
    if check == "leaks":
        return {leak.row for leak in found.leaks}
    if check in ("exact_duplicates", "near_duplicates"):
        return {row for group in found.duplicate_groups for row in group}
    return {row for f in found.findings if f.check == check for row in f.rows}


def _spoke(found: Audit, checks: Sequence[str]) -> set[str]:
    return {f"{f.check} {f.because[:40]}" for f in found.findings if f.check in checks}


def _written(path: Path, texts: Sequence[str], labels: Sequence[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if labels:
            writer.writerow(["text", "label"])
            writer.writerows(zip(texts, labels, strict=True))
        else:
            writer.writerow(["text"])
            writer.writerows([text] for text in texts)
    return path


def cells(plants: Sequence[str] = tuple(PLANTS), seeds: int = 2) -> list[Cell]:
    return list(grid(plant=plants, data=SETS, seed=range(seeds)))


# Kinds of fault as a reader knows them.
CALLED = {
    "copies": "duplicates (other case and punctuation)",
    "near copies": "near-duplicates",
    "conflicting copies": "duplicates with another label",
    "leaks": "rows that are in the test file too",
    "rows inside others": "test rows inside longer training rows",
    "mojibake": "wrong text encoding",
    "markup": "markup",
    "personal data": "personal data",
    "skew": "class imbalance",
}


def finding(lines: Lines) -> str:
    rows = [line for line in lines if line["plant"] not in BY_FINDING]
    full = [p for p in PLANTS if (of := pick(rows, plant=p)) and all(l["recall"] == 1 for l in of)]
    least = min(rows, key=lambda line: line["recall"])
    hits, n = counts(rows, "recall", "planted", shares=True)
    return (
        f"The audit finds {share(hits, n, long=True)} planted faulty rows. It finds every row of "
        f"{len(full)} of {len({line['plant'] for line in rows})} kinds of fault; the lowest recall "
        f"is that of {CALLED.get(least['plant'], least['plant'])} "
        f"({100 * least['recall']:.0f} % on {least['data']})."
    )


CLAIM = Claim(
    NAME,
    "Data",
    "The audit on planted faults",
    """\
Faults are planted into CR, TREC and BANKING77 at known rows. Recall is the share of the planted
rows that the check lists. Precision is the share of planted rows among those that it lists and
did not list before planting. Class imbalance is a fault of the set, not of a row: its recall is 1
where the check reports it. Checks that need a model have [a page of their own](labels.md).""",
    cells,
    finding,
    [
        lambda lines: table(
            {"plant": "Fault"},
            {
                "Runs (sets × seeds)": runs,
                "Planted": lambda lines: str(sum(line["planted"] for line in lines)),
                "Recall, %": rate("recall", "planted", shares=True),
                "Precision, %": average("precision", 100, limits=False),
                "Audit, s": average("seconds", limits=False),
            },
        )(renamed(lines, plant=CALLED))
    ],
    "Planted faults are clearer than real ones, so real recall is lower.",
)


if __name__ == "__main__":
    main()
