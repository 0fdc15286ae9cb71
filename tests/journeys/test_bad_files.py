"""Every file that cannot be used is refused with exit 2, a remedy, no traceback and no folder."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOOD = [(f"this is text number {i} of some", ("no", "yes")[i % 2]) for i in range(60)]


def csv(rows: Any = GOOD, header: str = "text,label") -> bytes:
    return "\n".join([header, *(",".join(row) for row in rows)]).encode() + b"\n"


Make = Callable[[Path], Path]


def file(name: str, content: bytes) -> Make:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    return make


def empty_directory(folder: Path) -> Path:
    (folder / "pictures").mkdir()
    return folder / "pictures"


LATIN = csv([(t + " ünd größer", y) for t, y in GOOD]).decode().encode("latin-1")
NUMBERS = csv([(str(i), y) for i, (_, y) in enumerate(GOOD)])
TWICE = csv([(t, y, "x") for t, y in GOOD], "text,label,text")
THIN = csv([*GOOD, ("the only one of its kind", "odd")])
IDS = csv([(t, f"id{i}") for i, (t, _) in enumerate(GOOD)])

BAD: dict[str, tuple[Make, str, list[str]]] = {
    "empty file": (file("a.csv", b""), "empty", []),
    "header only": (file("a.csv", b"text,label\n"), "no rows", []),
    "one class": (file("a.csv", csv([(t, "yes") for t, _ in GOOD])), "class", []),
    "text of numbers": (file("a.csv", NUMBERS), "number", ["--text", "text"]),
    "text all empty": (file("a.csv", csv([("", y) for _, y in GOOD])), "empty", ["--text", "text"]),
    "duplicate columns": (file("a.csv", TWICE), "text", []),
    "unknown column": (file("a.csv", csv()), "labell", ["--label", "labell"]),
    "ragged row": (file("a.csv", csv() + b"one,two,three,four\n"), "62", []),
    "NUL bytes": (file("a.csv", csv().replace(b"number 7", b"num\0er 7")), "NUL", []),
    "a directory": (empty_directory, "pictures", []),
    "no such file": (lambda folder: folder / "missing.csv", "missing.csv", []),
    "as many labels as rows": (file("a.csv", IDS), "--label", ["--label", "label"]),
    "not gzip": (file("a.csv.gz", csv()), "gz", []),
    "cut gzip": (file("a.csv.gz", gzip.compress(csv())[:-20]), "gz", []),
    "not parquet": (file("a.parquet", csv()), "arquet", []),
    "broken json": (file("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": \n'), "line 2", []),
    "another encoding": (file("a.csv", LATIN), "encoding", []),
    "a class too small": (file("a.csv", THIN), "data.rare_classes", []),
    "unknown ending": (file("a.docx", csv()), "docx", []),
}


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused(holdfast: Any, sets: list[str], tmp_path: Path, name: str) -> None:
    make, said, options = BAD[name]
    path = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = holdfast("train", path, "--quiet", *sets, *options)
    assert done.code == 2, done.err
    assert said in done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert done.err.startswith("holdfast: ")
    assert len(done.err.strip().splitlines()) >= 2, f"no remedy: {done.err}"
    assert sorted(tmp_path.iterdir()) == before, "something was left behind"


SETTINGS = {
    "train.epoch=5": "train.epochs",
    "trian.epochs=5": "train.epochs",
    "epochs=5": "train.epochs",
    "train.learning_rat=1e-3": "train.learning_rate",
    "modle.name=x": "model.name",
    "methods.contrat.steps=3": "contrast",
    "methods.contrast.stepps=3": "steps",
    "train.optimizer=adamm": "adam",
    "train.schedule=linaer": "linear",
    "train.metric=acuracy": "accuracy",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_misspelt_setting_names_the_nearest(
    holdfast: Any, sets: list[str], marked_csv: Path, tmp_path: Path, setting: str
) -> None:
    done = holdfast("train", marked_csv, "--quiet", *sets, "--set", setting)
    assert done.code == 2, done.err
    assert f"Did you mean '{SETTINGS[setting]}'" in done.err
    assert list(tmp_path.iterdir()) == []


EARLY = [
    "train.schedule=linaer",
    "train.optimizer=adamm",
    "methods.contrat.steps=3",
    "methods.contrast.stepps=3",
    "control.policy=stopp",
    "alert.webhook=https://hook",
]


@pytest.mark.parametrize("setting", EARLY)
def test_a_setting_is_refused_before_a_row_is_read(
    holdfast: Any, tmp_path: Path, setting: str
) -> None:
    (tmp_path / "unreadable.csv").write_bytes(b"text,label\n\0\xff,a\n")
    done = holdfast("train", "unreadable.csv", "--quiet", "--set", setting)
    assert done.code == 2
    assert setting.split("=")[0].split(".")[0] in done.err
    assert "unreadable" not in done.err


def test_a_metric_is_refused_before_the_audit(holdfast: Any, marked_csv: Path) -> None:
    done = holdfast("train", marked_csv, "--set", "train.metric=acuracy")
    assert done.code == 2
    assert "Did you mean 'accuracy'" in done.err
    assert "70/15/15" not in done.err


WRONG = [
    "train.epochs=0",
    "train.epochs=many",
    "train.batch_size=0",
    "train.learning_rate=-1",
    "seed=-1",
    "control.policy=adaptt",
    "task=regression",
    "data.split.train=0.9",
    "train.warmup=1.5",
    "model.dropout=1",
    "train.accumulate=0",
    "model.freeze=nothing.like.it",
    "methods.contrast.batch_size=2",
    "methods.contrast=7",
    "train.max_steps=0",
]


@pytest.mark.parametrize("setting", WRONG)
def test_a_value_out_of_range_is_refused(
    holdfast: Any, sets: list[str], marked_csv: Path, tmp_path: Path, setting: str
) -> None:
    done = holdfast("train", marked_csv, "--quiet", *sets, "--set", setting)
    assert done.code == 2, f"{done.code} {done.err}"
    assert "Traceback" not in done.err
    assert setting.split("=")[0].split(".")[-1] in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_is_refused(holdfast: Any, marked_csv: Path, tmp_path: Path) -> None:
    done = holdfast("train", marked_csv, "--model", "nobody/has-this-model", "--quiet")
    assert done.code == 2
    assert "nobody/has-this-model" in done.err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_verdict_names_the_nearest(holdfast: Any, marked_csv: Path) -> None:
    done = holdfast("train", marked_csv, "--fail-on", "overfitt")
    assert (done.code, "'overfit'" in done.err) == (2, True)


def test_an_unknown_option_is_refused_by_name(holdfast: Any, marked_csv: Path) -> None:
    done = holdfast("train", marked_csv, "--epochs", "5")
    assert done.code == 2
    assert "--epochs" in done.err


def test_an_existing_run_is_never_overwritten(
    holdfast: Any, finished_run: Path, marked_csv: Path, sets: list[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    done = holdfast("train", marked_csv, "--out", finished_run, "--quiet", *sets)
    assert done.code == 2
    assert "never overwrites" in done.err
    assert "--resume" in done.err
    assert before == {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}


def test_a_folder_that_cannot_be_made_is_refused(
    holdfast: Any, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    for out in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        done = holdfast("train", marked_csv, "--out", out, "--quiet", *sets)
        assert done.code == 2, done.err
        assert "--out" in done.err


def test_a_folder_without_permission_is_refused(
    holdfast: Any, marked_csv: Path, sets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the system's own error, since the superuser may write anywhere."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    done = holdfast("train", marked_csv, "--out", "elsewhere", "--quiet", *sets)
    assert done.code == 2, done.err
    assert "permission denied" in done.err


def test_the_traceback_is_shown_when_asked_for(
    holdfast: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOLDFAST_TRACEBACK", "1")
    done = holdfast("train", tmp_path / "missing.csv", "--quiet")
    assert done.code == 2
    assert "Traceback (most recent call last)" in done.err
    assert done.err.splitlines()[-2].startswith(f"holdfast: {tmp_path / 'missing.csv'}")


def test_other_commands_refuse_what_is_no_run(holdfast: Any, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for command in (
        ("evaluate", "folder", "x.csv"),
        ("predict", "folder", "x.csv"),
        ("report", "folder"),
        ("evaluate", "nothing", "x.csv"),
        ("predict", "folder"),
    ):
        done = holdfast(*command)
        assert done.code == 2, done.err
        assert "Traceback" not in done.err


def test_a_file_that_may_not_be_read_is_refused(
    holdfast: Any, marked_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the system's own error, since the superuser may read anything."""
    opened = Path.open

    def refuse(self: Path, *arguments: Any, **named: Any) -> Any:
        if self.suffix == ".csv":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    done = holdfast("train", marked_csv, "--quiet")
    assert done.code == 2, done.err
    assert "ermission denied" in done.err
