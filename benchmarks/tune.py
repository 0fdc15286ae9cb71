"""What a search of eight trials is worth over the default, on ten pairs of set and size.

    python benchmarks/tune.py [--minutes M] [--jobs N] [--out FILE] [--work DIR]   # resumable
    python benchmarks/tune.py --tables [--out FILE]                                # what is there

MiniLM, 120 to 360 labelled rows (82 % training, 18 % validation) of the ten sets of
``peers/sets.py``, and 600 to 2,000 test rows that no trial saw. A cell is one search, continued
where it was killed, and on the same rows and seed the default (`holdfast train`) and the trial that
was expected to be best, whether it was kept or not: what a rule that always left the default would
give. In ``wrong`` cells a user has set the learning rate to a thirtieth of the usual one, and the
search has the other settings to make up for it: there the default should be left. The validation
losses of every trial are stored, so that another rule can be tried without another search.

Needs HOLDFAST_DATA, optuna, and the embedded model; ``--jobs`` are processes of one thread each.
"""

from __future__ import annotations

import argparse
import csv
import math
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cells import NOT_RUN, RESULTS, Cell, Result, key, publish, run_cells, stored
from peers.rows import labelled_counts
from peers.sets import parts_of
from peers.tables import markdown

NAME = "tune"
TRIALS = 8
# Every set once; sizes by turns, so that neither kind nor size stands for the other.
PAIRS = (
    ("cr", 240),
    ("trec", 240),
    ("mr", 120),
    ("banking77", 240),
    ("ai_text", 240),
    ("packages", 360),
    ("novels", 120),
    ("instructions", 240),
    ("queries", 360),
    ("clinic", 240),
)
TESTED = {"cr": 2000, "mr": 2000, "trec": 2000, "packages": 900, "clinic": 900}
OTHERS_TESTED = 1000
WRONG_PAIRS = (("cr", 240), ("trec", 240))
USUAL_RATE, TIMES_WRONG = 1e-4, 30
TEXT = """## A search of eight trials against the default

What `holdfast tune --trials 8` finds and costs (`benchmarks/tune.py`): MiniLM, the labelled rows
of which 82 % are training rows, test rows that no trial saw. Expected is what was printed of the
kept model before the test rows were opened; the default is `holdfast train` on the same rows and
seed; best looking is the trial with the largest expected gain, trained again and scored on the test
rows whether it was kept or not. Points of accuracy. The test paragraphs of the novels are of other
novels than the labelled ones, which no interval from validation rows can know.
"""


def cells() -> list[dict[str, Any]]:
    # With the trials, which cells of an earlier form of this benchmark did not name.
    usual = [{"data": name, "rows": rows, "seed": 0, "trials": TRIALS} for name, rows in PAIRS]
    return [*usual, *({**cell, "wrong": TIMES_WRONG} for cell in usual if _of(cell) in WRONG_PAIRS)]


def _of(cell: Cell) -> tuple[str, int]:
    return cell["data"], cell["rows"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--out", type=Path, help="the file of results, instead of the project's")
    parser.add_argument("--work", type=Path, help="where run folders lie until a cell is done")
    parser.add_argument("--only", help="the set of the cells to run")
    parser.add_argument("--tables", action="store_true", help="of what is there, run nothing")
    asked = parser.parse_args()
    some = [cell for cell in cells() if asked.only in (None, cell["data"])]
    if not asked.tables:
        work = asked.work or Path(tempfile.gettempdir()) / "holdfast-tune"
        one = partial(run_one, work=work)
        run_cells(NAME, some, one, asked.out, minutes=asked.minutes, jobs=asked.jobs)
    known = stored(asked.out or RESULTS / f"{NAME}.jsonl")
    text = f"{TEXT}\n{table(known)}\n\n{summary(known)}"
    if asked.out is None:
        publish(NAME, text)
    print(text)


def run_one(cell: Cell, work: Path) -> Result:
    """A search, the default, and the trial that looked best."""
    import holdfast

    folder = work / "-".join(str(value) for value in cell.values())
    folder.mkdir(parents=True, exist_ok=True)
    files = written(cell, folder)
    common: dict[str, Any] = {"test": files[1], "seed": int(cell["seed"]), "quiet": True}
    fixed = settings_of(cell)

    def finished(name: str, make: Any, settings: Mapping[str, Any], **more: Any) -> Any:
        out = folder / name
        if not (out / "result.json").exists():
            resume = (out / "checkpoints").exists()
            make(files[0], out=out, resume=resume, settings=dict(settings), **more, **common)
        return holdfast.TrainedRun(out).result

    one_thread = {"train.threads": 1}
    found = finished("search", holdfast.tune, {**one_thread, **fixed}, trials=TRIALS)
    plain = finished("plain", holdfast.train, {**one_thread, **fixed})
    tried = trials_of(folder / "search" / "study.journal")
    default = next(one for one in tried if one.origin == "default")
    study = found["study"]
    ahead = most_promising(tried)
    best = plain
    if ahead is not default:
        chosen = {**one_thread, **fixed, **nested(ahead.settings)}
        best = finished("best", holdfast.train, chosen)
    return {
        "trials": study["trials"],
        "kept": study["best"],
        "noise": study["noise"],
        "because": study["because"],
        "seen": study["seen"],
        "expected": study["expected_test"]["value"],
        "low": study["expected_test"]["low"],
        "high": study["expected_test"]["high"],
        "accuracy": accuracy(found),
        "default": accuracy(plain),
        "looked_best": ahead.number,
        "looked_best_accuracy": accuracy(best),
        "valid": len(default.losses),
        "tested": found["test"]["n"],
        "losses": {str(one.number): _rounded(one.losses) for one in tried if one.is_fully_scored},
        "correct": {
            str(one.number): "".join(str(int(right)) for right in one.correct)
            for one in tried
            if one.is_fully_scored and one.correct is not None
        },
        "seconds": round(study["seconds"] + found["timing"]["train_s"], 1),
        "default_s": plain["timing"]["train_s"],
    }


def settings_of(cell: Cell) -> dict[str, Any]:
    """What the user has set: nothing, or a learning rate that is wrong by so many times."""
    return {"train.learning_rate": USUAL_RATE / cell["wrong"]} if "wrong" in cell else {}


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's settings as `holdfast train` takes them: of a method that is on, its own settings
    in its place."""
    made: dict[str, Any] = {}
    for name, value in settings.items():
        section, _, rest = name.partition(".")
        method, _, own = rest.partition(".")
        if section == "methods" and own:
            held = made.get(f"{section}.{method}")
            made[f"{section}.{method}"] = {**(held if isinstance(held, dict) else {}), own: value}
        elif not isinstance(made.get(name), dict):
            made[name] = value
    return made


def trials_of(journal: Path) -> list[Any]:
    """The finished trials of a study, with their validation losses row by row."""
    import optuna

    from holdfast.search.storage import open_storage
    from holdfast.search.study import RESULT_ATTR, TrialResult

    storage = open_storage(str(journal))
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    kept = [one for one in study.get_trials(deepcopy=False) if RESULT_ATTR in one.user_attrs]
    return [TrialResult.unpack(one.number, one.params, one.user_attrs[RESULT_ATTR]) for one in kept]


def most_promising(tried: Sequence[Any]) -> Any:
    """The trial with the largest expected gain over the default, the default itself included."""
    from holdfast.search.study_verdict import leading_trial

    return leading_trial([one for one in tried if one.is_fully_scored])


def accuracy(result: Mapping[str, Any]) -> float:
    return float(result["test"]["metrics"]["accuracy"]["value"])


def _rounded(losses: Any) -> list[float]:
    return [round(float(one), 4) for one in losses]


def written(cell: Cell, folder: Path) -> tuple[str, str]:
    """The labelled rows and the test rows as files."""
    tested = TESTED.get(cell["data"], OTHERS_TESTED)
    parts = parts_of(cell["data"], labelled_counts(cell["rows"]), cell["seed"], tested)
    labelled = [
        *zip(parts.train.texts, parts.train.labels, strict=True),
        *zip(parts.valid.texts, parts.valid.labels, strict=True),
    ]
    sides = {
        "rows.csv": labelled,
        "test.csv": [*zip(parts.test.texts, parts.test.labels, strict=True)],
    }
    for name, rows in sides.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    return str(folder / "rows.csv"), str(folder / "test.csv")


def table(known: Mapping[str, Result]) -> str:
    head = ["set", "rows", "kept", "seen", "expected", "test", "default", "best looking", "tested"]
    lines = []
    for cell in cells():
        wrong = f", rate ÷ {cell['wrong']}" if "wrong" in cell else ""
        first = [f"{cell['data']}{wrong}", str(cell["rows"])]
        one = known.get(key(cell))
        if one is None:
            lines.append([*first, NOT_RUN, *[""] * (len(head) - 2), ""])
            continue
        span = f"{points(one['expected'])} ({points(one['low'])}–{points(one['high'])})"
        kept = "default" if one["kept"] == 0 else f"trial {one['kept']}"
        scores = [points(one["accuracy"]), points(one["default"])]
        best = [points(one["looked_best_accuracy"]), str(one["tested"])]
        times = f"{one['seconds'] / 60:.1f} / {one['default_s'] / 60:.1f}"
        lines.append([*first, kept, points(one["seen"]), span, *scores, *best, times])
    return markdown([*head, "minutes / default's"], lines)


def summary(known: Mapping[str, Result]) -> str:
    """The mean difference to the default over pairs, with Student's 95 % interval."""
    said = []
    for what, wrong in (("pairs", False), ("pairs with a wrong learning rate", True)):
        found = [known.get(key(cell)) for cell in cells() if ("wrong" in cell) == wrong]
        done = [one for one in found if one is not None]
        left = sum(one["kept"] != 0 for one in done)
        inside = sum(one["low"] <= one["accuracy"] <= one["high"] for one in done)
        said.append(
            f"{len(done)} of {len(found)} {what}: the kept model is "
            f"{_difference([one['accuracy'] - one['default'] for one in done])} points better than "
            "the default, the trial that looked best "
            f"{_difference([one['looked_best_accuracy'] - one['default'] for one in done])}. The "
            f"default was left {left} times. The expected score's 95 % interval held the test "
            f"score {inside} times."
        )
    return "\n\n".join(said)


def _difference(gaps: Sequence[float]) -> str:
    from scipy.special import stdtrit

    if len(gaps) < 2:
        return " ".join(f"{100 * gap:+.1f}" for gap in gaps) or NOT_RUN
    half = float(stdtrit(len(gaps) - 1, 0.975)) * float(np.std(gaps, ddof=1)) / math.sqrt(len(gaps))
    mean = float(np.mean(gaps))
    return f"{100 * mean:+.2f} ({100 * (mean - half):+.2f} to {100 * (mean + half):+.2f})"


def points(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
