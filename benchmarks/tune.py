"""What a search of eight trials is worth over the default, on ten pairs of set and size.

    python benchmarks/tune.py [--minutes M] [--jobs N] [--out FILE] [--work DIR]   # resumable

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
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cells import Cell, Result, run_cells
from claims import Claim, Line, Lines, average, mean_words, pick, table
from peers.rows import labelled_counts
from peers.sets import parts_of

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
    asked = parser.parse_args()
    some = [cell for cell in cells() if asked.only in (None, cell["data"])]
    work = asked.work or Path(tempfile.gettempdir()) / "holdfast-tune"
    one = partial(run_one, work=work)
    run_cells(NAME, some, one, asked.out, minutes=asked.minutes, jobs=asked.jobs)


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


def gains(lines: Lines) -> list[Line]:
    return [
        {
            **line,
            "wrong rate": "wrong" in line,
            "gain": line["accuracy"] - line["default"],
            "best gain": line["looked_best_accuracy"] - line["default"],
            "held": line["low"] <= line["accuracy"] <= line["high"],
            "minutes": line["seconds"] / 60,
            "default minutes": line["default_s"] / 60,
        }
        for line in lines
    ]


def finding(lines: Lines) -> str:
    usual = pick(gains(lines), **{"wrong rate": False})
    held = sum(line["held"] for line in usual)
    return (
        "Test accuracy minus the default's: "
        f"{mean_words(usual, 'best gain', 100, 2, ' points', sign=True)} for the trial that looks "
        f"best of {TRIALS}, {mean_words(usual, 'gain', 100, 2, ' points', sign=True)} for the "
        "setting that `tune` keeps. The 95 % interval of the expected score contains the test "
        f"score for {held} of {len(usual)} sets."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "A search of eight trials against the default",
    """\
`holdfast tune --trials 8` on ten sets with 120 to 360 labelled rows (82 % training), and test
rows that no trial saw. "Expected" is the accuracy that `tune` predicts for the model that it
keeps, before the test rows are read; "test" is that model's test accuracy. "Best looking" is the
trial with the largest expected gain, trained again. In the last two rows the default has a
learning rate ÷ 30, as if a user had set it wrongly.""",
    cells,
    finding,
    [
        lambda lines: table(
            {"data": "Set", "rows": "Rows", "wrong": "Learning rate ÷"},
            {
                "Expected, %": average("expected", 100),
                "Test, %": average("accuracy", 100),
                "Default, %": average("default", 100),
                "Best looking, %": average("looked_best_accuracy", 100),
                "Search, minutes": average("minutes"),
                "Default, minutes": average("default minutes"),
            },
        )(gains(lines))
    ],
    """\
On no set did the search leave the default: with so few validation rows no trial is shown to be
better, not even than a default with a wrong learning rate. The test texts of `novels` are from
other novels than the labelled ones, which no interval from validation rows can account for.""",
)


if __name__ == "__main__":
    main()
