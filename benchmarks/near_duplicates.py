"""Does the search for copies find what was planted, spare what was not, and how fast?

    python benchmarks/near_duplicates.py [--seeds 3]

Real sets: in every text of ten words or more max(1, n // 10) words are replaced by random words of
the set; ``recall`` is the share of these texts that stand in one group with their original.
``grouped`` is the share of the de-duplicated rows that stand in a group with another one, in the
search with the planted texts. Demanded: recall 0.95, grouped 0.01, and 15,000 texts a second.

Synthetic: 200,000 texts of 4 to 24 words drawn from the words of the three sets, and a twentieth
as many planted. Speed is that of the whole search (reading, normalising, grouping) in one
process, after a first small search that loads the libraries: per second of processor time, which
a busy machine changes little, and per second of wall time.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, average, largest, mean_words, table

from holdfast.duplicates.duplicates import Duplicates, find_duplicates

DATA = Path(
    os.environ.get("HOLDFAST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
FILES = {"cr": "cr/cr.csv", "mr": "mr/mr.csv", "trec": "trec/train.csv"}
SYNTHETIC = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    find_duplicates(texts_of("cr")[:100])
    run_cells("near_duplicates", cells(seeds), run_one)


def run_one(cell: Cell) -> Result:
    rng = random.Random(cell["seed"])
    texts = synthetic(rng) if cell["data"] == "synthetic" else texts_of(cell["data"])
    words = [word for text in texts for word in text.split()]
    long = [at for at, text in enumerate(texts) if len(text.split()) >= 10]
    if cell["data"] == "synthetic":
        long = rng.sample(long, SYNTHETIC // 20)
    planted = [alter(texts[at], words, rng) for at in long]
    both = texts + planted
    wall, processor = time.perf_counter(), time.process_time()
    copies = find_duplicates(both)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {
        "texts": len(both),
        "planted": len(planted),
        "recall": float(np.mean(copies.groups[long] == copies.groups[len(texts) :])),
        "grouped": grouped_share(copies, len(texts)),
        "texts per s (processor)": round(len(both) / processor),
        "texts per s (wall)": round(len(both) / wall),
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def grouped_share(copies: Duplicates, rows: int) -> float:
    """The share of the first ``rows`` texts, each different one once, that share a group."""
    first = np.unique(copies.exact[:rows], return_index=True)[1]
    groups = copies.groups[:rows][first]
    return float((np.bincount(groups)[groups] > 1).mean())


def alter(text: str, corpus: list[str], rng: random.Random) -> str:
    words = text.split()
    for at in rng.sample(range(len(words)), max(1, len(words) // 10)):
        words[at] = rng.choice(corpus)
    return " ".join(words)


def synthetic(rng: random.Random) -> list[str]:
    words = [word for name in FILES for text in texts_of(name) for word in text.split()]
    return [" ".join(rng.choices(words, k=rng.randint(4, 24))) for _ in range(SYNTHETIC)]


def texts_of(name: str) -> list[str]:
    with (DATA / FILES[name]).open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def cells(seeds: int = 3) -> list[dict[str, Any]]:
    return grid(data=[*FILES, "synthetic"], seed=range(seeds))


def finding(lines: Lines) -> str:
    real = [line for line in lines if line["data"] != "synthetic"]
    least = min(line["recall"] for line in lines)
    return (
        "Texts with a tenth of their words replaced are found with a mean recall of "
        f"{mean_words(real, 'recall', 100, 2, ' %')} on real sets (lowest {100 * least:.2f} %). "
        f"The search handles {mean_words(lines, 'texts per s (processor)', 1, 0)} texts per "
        "processor second."
    )


CLAIM = Claim(
    "near_duplicates",
    "Data",
    "Near-duplicates",
    """\
In every text of ten words or more of three real sets one word in ten is replaced by random words
of the set. Recall is the share of these texts that are grouped with their original. "Falsely
grouped" is the share of the rows without duplicates that are grouped with another row. The
synthetic set has 200,000 texts of 4 to 24 words. The speed is that of the whole search in one
process.""",
    cells,
    finding,
    [
        table(
            {"data": "Set"},
            {
                "Texts": largest("texts", 1, 0),
                "Recall, %": average("recall", 100, 2),
                "Falsely grouped, %": average("grouped", 100, 2),
                "Texts per processor second": average("texts per s (processor)", 1, 0),
                "Peak memory, MiB": largest("peak MiB", 1, 0),
            },
        )
    ],
    "Only texts of ten words or more were changed: recall of shorter ones was not measured.",
)


if __name__ == "__main__":
    main()
