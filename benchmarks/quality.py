"""Held-out accuracy on ten sets of nine kinds: our default against early stopping, SetFit and the
linear probe, from the embedded encoder (MiniLM) and from a strong one (all-mpnet-base-v2).

    python benchmarks/quality.py --part frozen            # probes on both encoders' vectors
    python benchmarks/quality.py --part minilm --jobs 2   # tuned from MiniLM
    python benchmarks/quality.py --part strong --jobs 2   # tuned from the strong encoder
    python benchmarks/quality.py --part setfit --jobs 2

The sets are those of ``peers/sets.py``; the rows of a set, a size and a seed are the same for every
system, and so are a set's test rows. ``rows`` are labelled rows, 18 % of them validation rows; the
probes are fitted on all of them (``all``), which need no validation rows, and on the training rows.
Every process has one thread. Cells that are there are not run again.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from cells import Cell, grid, run_command
from claims import (
    LEAST_SETS,
    Claim,
    Column,
    Line,
    Lines,
    Metric,
    ReadmeRow,
    average,
    comparison,
    curves,
    paired,
    pick,
    table,
)
from filelock import FileLock
from peers.arms import Arm, run_arm
from peers.process import commit
from peers.rows import Parts, labelled_counts
from peers.sets import ROWS_OF_SET, SETS, parts_of
from peers.strong import cache_folder, strong_folder

NAME = "quality"
SIZES = (50, 100, 400, 1600)
SEEDS = 5
MINILM, STRONG = "minilm", "strong"
PROBES: dict[str, tuple[str, ...]] = {
    f"probe, {encoder}": (encoder,) for encoder in (MINILM, STRONG)
}
PROBES["probe, both"] = (MINILM, STRONG)
STOPPING = {"epochs": 20, "batch_size": 16, "patience": 3}
# On few rows twenty epochs at Trainer's own rate are a hundred updates, and most runs end at the
# last: the plan of an expert, who gives them time.
LONGER = {"epochs": 60, "batch_size": 16, "patience": 5, "learning_rate": 1e-4, "warmup": 0.1}
LONGER_STOPPING = "longer early stopping, minilm"
# A budget that fits the strong encoder only with its weights frozen (400 rows, one thread).
QUICK = "auto in 3 minutes, strong"
# Sets on which SetFit is run: it takes as long as all others together.
SETFIT_SETS = ("cr", "trec", "packages")
QUICK_SETS = ("mr", "trec", "banking77", "cr", "packages")
# What Holdfast does by itself: with the embedded encoder alone, and beside the strong one.
OURS = {MINILM: f"default, {MINILM}", STRONG: f"auto, {STRONG}"}
SYSTEMS = (
    *(f"early stopping, {encoder}" for encoder in OURS),
    LONGER_STOPPING,
    f"setfit, {MINILM}",
    *PROBES,
    *OURS.values(),
)
# How a reader knows them.
NAMES = {
    OURS[MINILM]: "Holdfast (MiniLM)",
    OURS[STRONG]: "Holdfast (auto)",
    QUICK: "Holdfast (auto, 3 minutes)",
    f"early stopping, {MINILM}": "Trainer (MiniLM)",
    f"early stopping, {STRONG}": "Trainer (mpnet)",
    LONGER_STOPPING: "Trainer, longer (MiniLM)",
    f"setfit, {MINILM}": "SetFit (MiniLM)",
    f"probe, {MINILM}": "linear probe (MiniLM)",
    f"probe, {STRONG}": "linear probe (mpnet)",
    "probe, both": "linear probe (both)",
}
PARTS = ("frozen", MINILM, STRONG, "setfit")
BATCH = 32


def arms() -> dict[str, Arm]:
    """The tuned systems by name."""
    strong = str(strong_folder())
    auto = {"model.name": "auto", "model.candidates": f"[{strong}]"}
    return {
        "default, minilm": Arm("holdfast", {"model.name": "embedded"}, whole=True),
        "early stopping, minilm": Arm("trainer", STOPPING),
        "early stopping, strong": Arm("trainer", {**STOPPING, "model": strong}),
        LONGER_STOPPING: Arm("trainer", LONGER),
        # It needs no validation rows.
        "setfit, minilm": Arm("setfit", {"num_iterations": 20}, whole=True),
        "auto, strong": Arm("holdfast", auto, whole=True),
        QUICK: Arm("holdfast", {**auto, "model.budget": 3}, whole=True),
    }


def cells(part: str) -> list[dict[str, Any]]:
    """The cells of a part, seed by seed."""
    small, strong = ([own, f"early stopping, {encoder}"] for encoder, own in OURS.items())
    planned = {
        "frozen": grid(seed=range(SEEDS), rows=SIZES, data=SETS, arm=list(PROBES)),
        "setfit": grid(
            seed=range(3), rows=(50, 100), data=SETFIT_SETS, arm=[OURS[MINILM], "setfit, minilm"]
        ),
        MINILM: [
            *grid(seed=range(SEEDS), rows=(100, 400), data=SETS, arm=small),
            *grid(seed=range(2), rows=(50, 1600), data=SETS, arm=small),
            *grid(seed=range(2), rows=(50, 100), data=SETS, arm=[LONGER_STOPPING]),
            *grid(seed=[0], rows=(400,), data=SETS, arm=[LONGER_STOPPING]),
        ],
        # From the strong encoder Trainer's plan takes an hour with 1,600 rows; on_gpu.py has those,
        # and more seeds.
        STRONG: [
            *grid(rows=(100,), seed=range(2), data=SETS, arm=strong),
            *grid(rows=(400,), seed=[0], data=SETS, arm=strong),
            *grid(rows=(400,), seed=[SEEDS], data=QUICK_SETS, arm=[QUICK, OURS[MINILM]]),
        ],
    }
    return possible(planned[part])


def possible(planned: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells of which the sets have the rows."""
    every = (0, math.inf)
    return [
        cell
        for cell in planned
        for least, most in [ROWS_OF_SET.get(cell["data"], every)]
        if least <= cell["rows"] <= most
    ]


@functools.lru_cache(maxsize=4)
def rows_of(data: str, rows: int, seed: int) -> Parts:
    return parts_of(data, labelled_counts(rows), seed)


def run_one(cell: Cell) -> dict[str, Any]:
    parts = rows_of(cell["data"], cell["rows"], cell["seed"])
    if cell["arm"] in PROBES:
        return probe(parts, PROBES[cell["arm"]], cell)
    return run_arm(arms()[cell["arm"]], parts, seed=cell["seed"], threads=1).result


def probe(parts: Parts, encoders: Sequence[str], cell: Cell) -> dict[str, Any]:
    """The closed-form head of the default on frozen vectors, of several encoders side by side: its
    accuracy on the test rows, fitted on the training rows and on all labelled rows, and what
    cross-validation says of the latter."""
    from holdfast.models.probes.head_fit import fit_head

    classes, sizes = parts.classes, (cell["rows"],)
    known_vectors = [vectors_of(one, cell["data"], sizes) for one in encoders]

    def features(texts: Iterable[str]) -> np.ndarray:
        return np.stack([np.concatenate([of[text] for of in known_vectors]) for text in texts])

    place = {name: index for index, name in enumerate(classes)}
    known = parts.whole().train
    test = features(parts.test.texts)
    right = np.array([place.get(label, -1) for label in parts.test.labels])
    result: dict[str, Any] = {}
    for name, rows in (("train", parts.train), ("all", known)):
        x = features(rows.texts)
        y = np.array([place[label] for label in rows.labels])
        start = time.process_time()
        head = fit_head(x, y, classes=len(classes), seed=cell["seed"])
        result[f"{name}_s"] = round(time.process_time() - start, 3)
        result["accuracy" if name == "train" else "accuracy_all"] = float(
            (head.logits(test).argmax(axis=1) == right).mean()
        )
        if name == "all" and head.held_out is not None:
            held = np.isfinite(head.held_out).all(axis=1)
            found = head.held_out[held].argmax(axis=1) == y[held]
            result |= {"cv": float(found.mean()), "cv_rows": int(held.sum())}
    return result | {"commit": commit()}


@functools.lru_cache(maxsize=2)
def vectors_of(encoder: str, data: str, sizes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The features of every text of a set's cells of these sizes, float32, computed once and
    kept."""
    path = cache_folder() / f"{encoder}-{data}.npz"
    with FileLock(f"{path}.lock"):
        known: dict[str, np.ndarray] = {}
        if path.exists():
            stored = np.load(path, allow_pickle=False)
            known = dict(zip(stored["texts"].tolist(), stored["vectors"], strict=True))
        missing = [text for text in dict.fromkeys(_texts(data, sizes)) if text not in known]
        if missing:
            known |= zip(missing, _encode(encoder, missing), strict=True)
            np.savez(path, texts=np.array(list(known)), vectors=np.stack(list(known.values())))
    return known


def _texts(data: str, sizes: Sequence[int]) -> Iterable[str]:
    for rows in sizes:
        for seed in range(SEEDS):
            for side in rows_of(data, rows, seed).named().values():
                yield from side.texts


def _encode(encoder: str, texts: Sequence[str]) -> np.ndarray:
    import torch

    from holdfast.models.encoders.classifier import load_classifier

    torch.set_num_threads(1)
    name = "embedded" if encoder == MINILM else str(strong_folder())
    loaded = load_classifier(name, ("a", "b"))
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: np.ndarray | None = None
    start = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            batch = loaded.tokenizer(
                [texts[i] for i in places], padding=True, truncation=True, return_tensors="pt"
            )
            features = loaded.network.features(**batch).numpy()
            if found is None:
                found = np.empty((len(texts), features.shape[1]), dtype=np.float32)
            found[places] = features
    assert found is not None
    seconds = time.perf_counter() - start
    print(f"{encoder}: {len(texts)} texts in {seconds:.0f} s", flush=True)
    return found


def of_arm(name: str) -> Column:
    return lambda lines: average("accuracy", 100, limits=False)(pick(lines, arm=name))


def by_set(lines: Lines, **wanted: Any) -> str:
    """The table of accuracies by set, of the ``wanted`` lines."""
    columns = {NAMES[name]: of_arm(name) for name in SYSTEMS if pick(lines, arm=name)}
    heading = "Accuracy in % by set, means over seeds:"
    return table({"rows": "Rows", "data": "Set"}, columns, heading, **wanted)(lines)


def systems(lines: Lines) -> list[Line]:
    """The lines; of a probe, which needs no validation rows, the accuracy of its fit on all."""
    return [
        {**line, "accuracy": line["accuracy_all"]} if line["arm"] in PROBES else line
        for line in lines
    ]


def finding(lines: Lines) -> str:
    lines, parts = systems(lines), []
    for size in SIZES:
        for encoder in (MINILM, STRONG):
            gap = paired(
                pick(lines, rows=size), "accuracy", OURS[encoder], f"early stopping, {encoder}"
            )
            if gap and gap.has_interval:
                what = gap.words(100, 1, " points")
                own, other = NAMES[OURS[encoder]], NAMES[f"early stopping, {encoder}"]
                parts.append(f"with {size:,} labelled rows, {own} minus {other} is {what}")
    if parts:
        return f"Differences in test accuracy: {'; '.join(parts)}."
    small, large, *_ = PROBES
    for size in SIZES:
        gap = paired(pick(lines, rows=size), "accuracy", large, small)
        if gap and gap.has_interval:
            parts.append(f"{gap.words(100, 1, ' points')} with {size:,} labelled rows")
    what = "A linear probe on all-mpnet-base-v2 minus one on MiniLM, in test accuracy"
    return f"{what}: {'; '.join(parts)}." if parts else ""


def by_rows(lines: Lines) -> str:
    """Mean accuracy against labelled rows on the sets that every line of the picture has; a system
    without enough of them has no line."""
    found: dict[str, dict[int, dict[str, list[float]]]] = {}
    for line in systems(lines):
        sizes = found.setdefault(line["arm"], {})
        by_set = sizes.setdefault(line["rows"], {})
        by_set.setdefault(line["data"], []).append(100 * line["accuracy"])
    shared, shown = set(SETS), {}
    for name, sizes in sorted(found.items(), key=lambda one: one[0] not in PROBES):
        own = shared.intersection(*sizes.values())
        if len(sizes) > 1 and len(own) >= LEAST_SETS:
            shared, shown[name] = own, sizes
    series = {
        NAMES[name]: [
            (
                n,
                float(np.mean([np.mean(sizes[n][data]) for data in sorted(shared)])),
                math.nan,
                math.nan,
            )
            for n in sorted(sizes)
        ]
        for name, sizes in shown.items()
    }
    return curves(series, f"labelled rows ({len(shared)} sets)", "accuracy, %", log=True)


def rows_of_readme(lines: Lines) -> list[ReadmeRow]:
    """For each size and encoder the peer against which Holdfast gains least."""
    rows: list[ReadmeRow] = []
    for size, (encoder, peers) in itertools.product(SIZES, README_PEERS.items()):
        some = pick(systems(lines), rows=size)
        gaps = {words: paired(some, "accuracy", OURS[encoder], peer) for peer, words in peers}
        known = {words: gap for words, gap in gaps.items() if gap and gap.has_interval}
        if known:
            words = min(known, key=lambda one: known[one].value)
            what = f"Accuracy, {size:,} labelled texts cut to 20–48 words, {words}"
            gap = known[words]
            rows.append((what, f"{gap.short(100)} points, {gap.over}", gap.verdict()))
    return rows


README_PEERS = {
    MINILM: (
        (
            f"early stopping, {MINILM}",
            "MiniLM: Holdfast minus Trainer with early stopping (5e-5, at most 20 epochs)",
        ),
        (
            LONGER_STOPPING,
            "MiniLM: Holdfast minus Trainer with early stopping (1e-4, at most 60 epochs)",
        ),
    ),
    STRONG: (
        (
            f"early stopping, {STRONG}",
            "Holdfast (auto) minus Trainer with early stopping on all-mpnet-base-v2",
        ),
    ),
}


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Accuracy on ten sets",
    """\
Sets: opinions on products (`cr`) and films (`mr`), types of question (`trec`), 10 of the 77 intents
of BANKING77 (`banking77`), human or machine text (`ai_text`), sections of Debian packages
(`packages`), authors (`novels`), sources of instructions (`instructions`), aggregates in questions
about tables (`queries`), sections of medical records (`clinic`). Texts are cut to their first 20
words (`novels` 36, `ai_text` and `clinic` 48), so accuracies differ from those of full texts. All
systems have the same labelled rows and the same test rows. Trainer trains on 82 % of the labelled
rows and uses the other 18 % as the validation set for early stopping. Holdfast cross-fits
(`train.folds`) with up to 400 rows from MiniLM and up to 200 from mpnet: its model is then trained
on all labelled rows. With more rows it also sets 18 % aside.

Encoders: MiniLM (part of Holdfast) and all-mpnet-base-v2 ("mpnet"). "Holdfast (MiniLM)" always uses
that encoder (`model.name=embedded`); "Holdfast (auto)" is the default on a machine that also has
mpnet, and chooses between the two; with a budget of 3 minutes (`model.budget`) mpnet can only be
chosen frozen, as on two of five sets. "Trainer" stops early (learning rate 5e-5, at most 20
epochs, patience 3); many of its runs with 50 or 100 rows end at the last epoch. "Trainer, longer"
stops early too (1e-4, 10 % warmup, at most 60 epochs, patience 5). The linear probe is fitted on
all labelled rows ("both": on the vectors of both encoders). SetFit, which needs no validation rows,
is trained on all labelled rows, on three sets. Holdfast trains in bfloat16, Trainer and SetFit in
float32, as by default; bfloat16 is up to 1.6 times as fast ([measured](vs_trainer.md)). [Another
page](default_plans.md) compares the plans that the default was chosen from. Processor time is that
of the whole command; only pairs that were run less than 3 hours apart are compared. Intervals are
over the means of sets where at least five sets were measured, otherwise over pairs.""",
    lambda: [cell for part in PARTS for cell in cells(part)],
    finding,
    [
        lambda lines: comparison(
            [
                *((OURS[e], f"early stopping, {e}") for e in (MINILM, STRONG)),
                (OURS[MINILM], LONGER_STOPPING),
                (OURS[STRONG], f"early stopping, {MINILM}"),
                (OURS[STRONG], OURS[MINILM]),
                (QUICK, OURS[MINILM]),
                *((OURS[e], f"probe, {e}") for e in (MINILM, STRONG)),
                (OURS[MINILM], f"setfit, {MINILM}"),
                ("probe, both", f"probe, {STRONG}"),
            ],
            {
                "Accuracy, points": Metric("accuracy", 100),
                "Processor time, ratio": Metric("cpu_s", 1, 2, times=True),
            },
            "rows",
            names=NAMES,
        )(sorted(systems(lines), key=lambda line: int(line["rows"]))),
        lambda lines: by_set(
            sorted(
                (line for line in systems(lines) if line["data"] in SETS),
                key=lambda line: (int(line["rows"]), SETS.index(line["data"])),
            ),
            rows=(100, 400),
        ),
    ],
    """\
The defaults were chosen on these sets (for more than 800 rows on four to six of them), as were the
gains that "auto" expects of fine-tuning; its lead may be optimistic ([other sets](fresh_sets.md)).
The runs of "auto" with 100 rows are of several commits with slightly different rules for the
choice; more runs, and "auto" with 1,600 rows, are [on a GPU](on_gpu.md). Each line of the first
table compares only the runs that both systems have, so do not subtract results of different lines;
in the second table systems can have different numbers of seeds. With 400 rows of `novels` the only
run of Trainer from mpnet scores below chance, which raises the mean difference.""",
    picture=by_rows,
    readme=rows_of_readme,
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one, PARTS)
