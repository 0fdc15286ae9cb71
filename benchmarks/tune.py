"""What a search of eight trials costs and finds on 240 short rows.

    python benchmarks/tune.py [--minutes M]      # resumable, also inside a search; then the table

MiniLM, 240 labelled rows (82 % training, 18 % validation), 500 test rows that no trial saw. The
default and the kept model are scored on these; the expected score is what `holdfast tune` said
before they were opened.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

from cells import NOT_RUN, Cell, Result, grid, publish, run_cells
from peers.rows import clean_set, draw, labelled_counts
from peers.tables import markdown

NAME = "tune"
TRIALS, TEST = 8, 500
TEXT = """## A search of eight trials on 240 short rows

What `holdfast tune --trials 8` costs and finds (`benchmarks/tune.py`): MiniLM, 240 labelled rows,
82 % of them training rows; the test rows are 500 others. Expected is what was said of them before
they were opened; the default is `holdfast train` on the same rows and seed.
"""


def cells() -> list[dict[str, Any]]:
    return grid(seed=[0, 1, 2], data=["trec", "cr"], rows=[240])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float)
    results = run_cells(NAME, cells(), run_one, minutes=parser.parse_args().minutes)
    publish(NAME, TEXT + "\n" + table(results))


def run_one(cell: Cell) -> Result:
    """A search, continued where it was killed, and the default beside it."""
    import holdfast

    folder = Path(tempfile.gettempdir()) / f"holdfast-tune-{cell['data']}-{cell['seed']}"
    folder.mkdir(exist_ok=True)
    files = written(cell, folder)
    common = {"test": files[1], "seed": int(cell["seed"]), "settings": {"train.threads": 1}}

    def again(name: str) -> dict[str, Any]:
        return {"out": folder / name, "resume": (folder / name / "checkpoints").exists()}

    if not (folder / "search" / "result.json").exists():
        holdfast.tune(files[0], trials=TRIALS, **again("search"), **common)
    if not (folder / "plain" / "result.json").exists():
        holdfast.train(files[0], **again("plain"), **common)
    result = holdfast.TrainedRun(folder / "search").result
    plain = holdfast.TrainedRun(folder / "plain").result
    study, right = result["study"], "accuracy"
    return {
        "trials": study["trials"],
        "best": study["best"],
        "noise": study["noise"],
        "seen": study["seen"],
        "top_seen": study["top"]["seen"],
        "expected": study["expected_test"]["value"],
        "low": study["expected_test"]["low"],
        "high": study["expected_test"]["high"],
        "optimism": study["optimism"]["value"],
        "accuracy": result["test"]["metrics"][right]["value"],
        "default": plain["test"]["metrics"][right]["value"],
        "seconds": round(study["seconds"] + result["timing"]["train_s"], 1),
        "default_s": plain["timing"]["train_s"],
    }


def written(cell: Cell, folder: Path) -> tuple[str, str]:
    """The labelled rows and the test rows as files."""
    rows, counts = clean_set(cell["data"]), labelled_counts(cell["rows"])
    parts = draw(rows, seed=cell["seed"], **counts)
    labelled = [
        *zip(parts.train.texts, parts.train.labels, strict=True),
        *zip(parts.valid.texts, parts.valid.labels, strict=True),
    ]
    tested = [*zip(parts.test.texts, parts.test.labels, strict=True)][:TEST]
    sides = {"rows.csv": labelled, "test.csv": tested}
    for name, rows in sides.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    return str(folder / "rows.csv"), str(folder / "test.csv")


def table(results: list[Result | None]) -> str:
    head = ["set", "seed", "kept", "seen", "expected", "test", "default", "minutes", "default's"]
    lines = []
    for cell, one in zip(cells(), results, strict=True):
        first = [str(cell["data"]), str(cell["seed"])]
        if one is None:
            lines.append([*first, NOT_RUN, *[""] * (len(head) - 3)])
            continue
        span = f"{points(one['expected'])} ({points(one['low'])}–{points(one['high'])})"
        kept = "default" if one["best"] == 0 else f"trial {one['best']}"
        scores = [points(one["seen"]), span, points(one["accuracy"]), points(one["default"])]
        times = [f"{one['seconds'] / 60:.1f}", f"{one['default_s'] / 60:.1f}"]
        lines.append([*first, kept, *scores, *times])
    return markdown(head, lines)


def points(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
