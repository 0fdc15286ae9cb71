"""Live comparison: what it errs, how many rows and users it takes, and what others err.

    python benchmarks/live.py [shadow|replayed|labels|ab|ratio]...

Streams are simulated; ``replayed`` takes the answers of real runs to the same rows in other orders.
The runs are trained once (some four minutes); which rows each has right is kept in
`results/live_answers.npz`, or where ``LIVE_ANSWERS`` says.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import RESULTS, Cell, Result, run_cells
from claims import Claim, Lines, average, counts, pick, renamed, share, table, text

from holdfast.plugins.live.arms import MISMATCH_LIMIT, Arms
from holdfast.plugins.live.shadow import Shadow
from holdfast.stats.streams.rates import rate_evidence

STREAMS, ROWS, USERS = 10_000, 20_000, 20_000
ORDERS, BATCH = 50, 100
ANSWERS = Path(os.environ.get("LIVE_ANSWERS", RESULTS / "live_answers.npz"))
HOLDFAST = Path(sys.executable).with_name("holdfast")
# Rows of MR in an order by chance: those of each run, and those that all of them are asked.
CUTS = {"small": (0, 360), "large": (360, 2060), "other": (2060, 3760), "asked": (3760, 9760)}

SHADOW = [
    {"part": "shadow", "gain": gain, "unlike": unlike, "margin": margin, "streams": streams}
    for gain, unlike, margin, streams in (
        (0.0, 0.1, 0.02, STREAMS),
        (0.0, 0.03, 0.02, STREAMS),
        (0.02, 0.1, 0.02, STREAMS),
        (0.03, 0.1, 0.02, 4000),
    )
]
REPLAYED = [
    {"part": "replayed", "shown": shown, "challenger": "large", "margin": margin}
    for shown, margin in (("small", 0.02), ("other", 0.02), ("other", 0.01))
]
LABELS = [
    {"part": "labels", "rule": rule, "unlike": 0.1}
    for rule in ("drawn by chance", "whoever sees an error reports it", "the unsure first")
]
AB = [
    {"part": "ab", "what": what, "gain": gain, "share": share, "streams": streams}
    for what, gain, share, streams in (
        ("5 % convert", 0.0, 0.5, STREAMS),
        ("30 % convert", 0.0, 0.1, 4000),
        ("sales, log-normal", 0.0, 0.5, 4000),
        ("5 % convert", 0.01, 0.5, 1000),
        ("30 % convert", 0.03, 0.5, 1000),
    )
]
RATIO = [
    {"part": "ratio", "asked": asked, "true": true, "streams": streams}
    for asked, true, streams in (
        (0.5, 0.5, STREAMS),
        (0.1, 0.1, STREAMS),
        (0.5, 0.52, 1000),
        (0.5, 0.505, 1000),
    )
]


def shadow(cell: Cell) -> Result:
    """Verdicts of streams that are looked at after every label of a row on which the two differ."""
    rng = np.random.default_rng([1, round(1e4 * cell["gain"]), round(1e4 * cell["unlike"])])
    found = []
    for _ in range(cell["streams"]):
        at = np.flatnonzero(rng.random(ROWS) < cell["unlike"])
        won = rng.random(len(at)) < 0.5 + cell["gain"] / cell["unlike"] / 2
        one = Shadow(cell["margin"]).add_rows(ROWS, len(at)).add_labels(np.where(won, 1, -1))
        row = float("inf") if one.decided_at is None else at[max(one.decided_at, 1) - 1] + 1
        found.append((one.decided, float(row)))
    return verdicts(found) | {
        "80 % better by row": quantile([r if v == "better" else np.inf for v, r in found], 0.8),
        "half better by row": quantile([r if v == "better" else np.inf for v, r in found], 0.5),
    }


def replayed(cell: Cell) -> Result:
    """Two real runs on the same rows, in other orders; labels of all rows on which they differ."""
    if not ANSWERS.exists():
        make_answers(ANSWERS)
    kept = np.load(ANSWERS)
    one, two = (kept[f"right_{cell[name]}"] for name in ("challenger", "shown"))
    found = []
    for seed in range(ORDERS):
        order = np.random.default_rng(seed).permutation(len(one))
        signs = one[order].astype(int) - two[order]
        stream = Shadow(cell["margin"])
        while stream.decided == "undecided" and stream.rows < len(order):
            part = signs[stream.rows : stream.rows + BATCH]
            # Of two classes, answers differ where one alone is right.
            stream = stream.add_rows(len(part), int((part != 0).sum())).add_labels(part[part != 0])
        found.append((stream.decided, stream.labels, stream.rows))
    names = [verdict for verdict, _, _ in found]
    most = max(set(names), key=names.count)
    return {
        "rows": len(one),
        "accuracy challenger": float(one.mean()),
        "accuracy shown": float(two.mean()),
        "unlike %": 100 * float((one != two).mean()),
        "verdict": most,
        "of 50 orders": names.count(most),
        "contrary": sum({name, most} == {"better", "worse"} for name in names),
        "labels, median": float(np.median([labels for _, labels, _ in found])),
        "rows, median": float(np.median([rows for _, _, rows in found])),
    }


def make_answers(path: Path) -> None:
    """Train the three runs on MR, and keep which of the asked rows each has right."""
    import polars as pl

    rows = pl.read_csv(Path(os.environ["HOLDFAST_DATA"]) / "mr" / "mr.csv")
    rows = rows.unique(subset=["text"], maintain_order=True)
    rows = rows.sample(fraction=1.0, shuffle=True, seed=16)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, (first, last) in CUTS.items():
            rows[first:last].write_csv(folder / f"{name}.csv")
        asked = folder / "asked.csv"
        truth = [row["label"] for row in csv.DictReader(asked.open())]
        right = {}
        for name in ("small", "large", "other"):
            run, out = folder / name, folder / f"{name}.jsonl"
            learn = ["train", folder / f"{name}.csv", "--out", run, "--set", "train.epochs=2"]
            for args in (learn, ["predict", run, asked, "--out", out]):
                subprocess.run([HOLDFAST, *map(str, args)], check=True, capture_output=True)
            said = [json.loads(line)["prediction"] for line in out.open()]
            right[f"right_{name}"] = np.array(said) == np.array(truth)
    np.savez(path, **right)


def labels(cell: Cell) -> Result:
    """Equal models; who labels decides which rows have a label. Counted as if it did not matter."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(2000):
        won = rng.random(int(ROWS * cell["unlike"])) < 0.5
        chance = np.full(len(won), 0.3)
        if cell["rule"] == "whoever sees an error reports it":
            # Where the shown model is wrong somebody says so twice as often.
            chance = np.where(won, 0.4, 0.2)
        elif cell["rule"] == "the unsure first":
            # A row of which the shown model is unsure is chosen, and it has fewer of them right.
            unsure = rng.random(len(won)) < np.where(won, 0.6, 0.4)
            chance = np.where(unsure, 0.5, 0.1)
        taken = rng.random(len(won)) < chance
        one = Shadow(0.02).add_rows(ROWS, len(won)).add_labels(np.where(won, 1, -1)[taken])
        found.append((one.decided, 0.0))
    return {
        name: share for name, share in verdicts(found).items() if name in ("better %", "worse %")
    }


def ab(cell: Cell) -> Result:
    """Users one after the other, looked at after each; sales have a scale that is learned."""
    rng = np.random.default_rng([2, round(1e4 * cell["gain"]), round(100 * cell["share"])])
    sales = cell["what"].startswith("sales")
    rate = 0.05 if cell["what"].startswith("5") else 0.3
    users = 3 * USERS if cell["gain"] else USERS
    found = []
    for _ in range(cell["streams"]):
        arm = rng.random(users) < cell["share"]
        if sales:
            value = np.where(rng.random(users) < 0.2, rng.lognormal(2, 1, users), 0.0)
        else:
            value = (rng.random(users) < rate + cell["gain"] * arm).astype(float)
        one = Arms(cell["share"], most=None if sales else 1.0).add_outcomes(arm, value)
        row = float("inf") if one.decided_at is None else float(one.decided_at)
        found.append((one.decided, row))
    made = verdicts(found)
    if not sales and cell["gain"]:
        spread = rate * (1 - rate) / (1 - cell["share"])
        high = rate + cell["gain"]
        spread += high * (1 - high) / cell["share"]
        made["fixed z test, 80 % by user"] = spread * (1.95996 + 0.84162) ** 2 / cell["gain"] ** 2
        made["80 % better by user"] = quantile([r for _, r in found], 0.8)
        made["half better by user"] = quantile([r for _, r in found], 0.5)
    return made


def ratio(cell: Cell) -> Result:
    """Whether the shares of the arms are those that were asked for, looked at after each user."""
    rng = np.random.default_rng([4, round(1000 * cell["true"]), round(1000 * cell["asked"])])
    rows, need = np.arange(1, USERS + 1), np.log(MISMATCH_LIMIT)
    found = []
    prior = (100 * cell["asked"], 100 * (1 - cell["asked"]))
    for _ in range(cell["streams"]):
        hits = np.cumsum(rng.random(USERS) < cell["true"])
        there = rate_evidence(hits, rows, cell["asked"], prior) >= need
        found.append(float(rows[np.argmax(there)]) if there.any() else np.inf)
    return {
        "alarms %": 100 * float(np.mean(np.isfinite(found))),
        "half by user": quantile(found, 0.5),
    }


def verdicts(found: Sequence[tuple[str, float]]) -> Result:
    names = [name for name, _ in found]
    return {
        f"{name} %": 100 * names.count(name) / len(names)
        for name in ("better", "worse", "equivalent")
    }


def quantile(rows: list[float], share: float) -> float | None:
    found = float(np.sort(rows)[int(np.ceil(share * len(rows))) - 1])
    return found if np.isfinite(found) else None


def run_one(cell: Cell) -> Result:
    parts = {"shadow": shadow, "replayed": replayed, "labels": labels, "ab": ab, "ratio": ratio}
    return parts[cell["part"]](cell)


PARTS: dict[str, list[dict[str, Any]]] = {
    "shadow": SHADOW,
    "replayed": REPLAYED,
    "labels": LABELS,
    "ab": AB,
    "ratio": RATIO,
}


def main() -> None:
    for name in sys.argv[1:] or list(PARTS):
        print(f"\n{name}")
        run_cells("live", PARTS[name], run_one)


def false_alarms(lines: Lines, part: str) -> tuple[float, float]:
    equal = [
        {"false": (line["better %"] + line["worse %"]) / 100, "streams": line["streams"]}
        for line in pick(lines, part=part, gain=0.0)
    ]
    return counts(equal, "false", "streams", shares=True)


CHOSEN_BY = {
    "drawn by chance": "drawn at random",
    "whoever sees an error reports it": "errors that users report",
    "the unsure first": "lowest confidence first",
}


def finding(lines: Lines) -> str:
    return (
        "Read after every label, the comparison calls one of two equal models better in "
        f"{share(*false_alarms(lines, 'shadow'), long=True)} streams; read after every user, an "
        "A/B test of two equal arms does in "
        f"{share(*false_alarms(lines, 'ab'), long=True)}; target: at most 5 %."
    )


CLAIM = Claim(
    "live",
    "Service",
    "Comparing two models in service",
    """\
Shadow: both models predict 20,000 rows, rows on which they differ are labelled, and the verdict
(the challenger is better, worse or equivalent) is read after each label. "Gain" is the challenger's
accuracy minus that of the model in service. Real models: MiniLM trained on 360 (`small`) and on
two times 1,700 other sentences of MR (`other`, `large`); 6,000 new sentences in 50 orders. A/B:
one value a user, 20,000 users, 60,000 where there is a gain. Sample ratio: the test of whether
users are split between the arms as planned.""",
    lambda: [cell for part in PARTS.values() for cell in part],
    finding,
    [
        table(
            {"gain": "Gain", "unlike": "Share of rows that differ"},
            {
                "Better, %": average("better %", 1, 2),
                "Worse, %": average("worse %", 1, 2),
                "Equivalent, %": average("equivalent %", 1, 2),
                "Half called better by row": average("half better by row", 1, 0),
            },
            "Shadow, simulated:",
            part="shadow",
        ),
        lambda lines: table(
            {"shown": "In service", "challenger": "Challenger", "margin": "Margin"},
            {
                "Accuracy in service, %": average("accuracy shown", 100),
                "Accuracy of the challenger, %": average("accuracy challenger", 100),
                "Verdict": text("verdict"),
                "In so many of 50 orders": average("of 50 orders", 1, 0),
                "Labels, median": average("labels, median", 1, 0),
            },
            "Shadow, real models:",
        )(
            [
                {**line, "verdict": line["verdict"].replace("undecided", "inconclusive")}
                for line in pick(lines, part="replayed")
            ]
        ),
        lambda lines: table(
            {"rule": "Rows that are labelled"},
            {"Better, %": average("better %", 1, 2), "Worse, %": average("worse %", 1, 2)},
            "Equal models, by how the labelled rows are chosen:",
        )(renamed(pick(lines, part="labels"), rule=CHOSEN_BY)),
        table(
            {"what": "A/B", "gain": "Gain", "share": "Share of users"},
            {
                "Better, %": average("better %", 1, 2),
                "Worse, %": average("worse %", 1, 2),
                "Half called better by user": average("half better by user", 1, 0),
            },
            part="ab",
        ),
        table(
            {"asked": "Sample ratio, planned", "true": "True"},
            {
                "Alarms, %": average("alarms %", 1, 2),
                "Half with an alarm by user": average("half by user", 1, 0),
            },
            part="ratio",
        ),
    ],
    """\
Between two models that differ by half a point the verdict is mostly inconclusive after 6,000 rows.
If labels that users report, or those of the rows with the lowest confidence, counted, one of two
equal models would often be called better: so only rows drawn at random count.""",
)


if __name__ == "__main__":
    main()
