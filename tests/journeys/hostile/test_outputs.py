"""``predict --out`` and ``diagnose --html``: nothing that is there is lost, whatever is named."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest


def refused(done: Any, said: str) -> None:
    assert done.code == 2, (done.out, done.err)
    assert done.out == ""
    assert "holdfast: " in done.err
    assert "Traceback" not in done.err
    assert said in done.err


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture
def table(tmp_path: Path, write_csv: Any, marked_rows: Any) -> Path:
    path: Path = write_csv(tmp_path / "t.csv", [(t,) for t, _ in marked_rows(6, seed=3)], ["text"])
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    rows = [f"{n},{1 / n},{1 / n + 0.02 * n}\n" for n in range(1, 12)]
    path.write_text("epoch,loss,val_loss\n" + "".join(rows))
    return path


# --- predict --out


@pytest.mark.parametrize("spelled", ["t.csv", "./t.csv", "sub/../t.csv", "link.csv", "hard.csv"])
def test_predict_never_writes_over_its_rows(
    holdfast: Any, finished_run: Path, table: Path, tmp_path: Path, spelled: str
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.csv").symlink_to("t.csv")
    os.link(table, tmp_path / "hard.csv")
    before = digest(tmp_path)
    for force in ((), ("--force",)):
        refused(holdfast("predict", finished_run, "t.csv", "--out", spelled, *force), "is the inp")
    assert digest(tmp_path) == before
    assert (tmp_path / "link.csv").is_symlink()


def test_predict_never_writes_over_a_file_of_its_run(
    holdfast: Any, finished_run: Path, table: Path, tmp_path: Path
) -> None:
    before = digest(finished_run)
    (tmp_path / "run").symlink_to(finished_run)
    (tmp_path / "rows.jsonl").symlink_to(finished_run / "events.jsonl")
    for out in (
        finished_run / "predictions.parquet",
        "run/predictions.parquet",
        "rows.jsonl",
        finished_run / "events.jsonl",
    ):
        refused(holdfast("predict", finished_run, table, "--out", out, "--force"), "is the input")
    assert digest(finished_run) == before


def test_predict_replaces_what_exists_with_force_alone(
    holdfast: Any, finished_run: Path, table: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.csv"
    old.write_text("mine")
    old.chmod(0o640)
    (tmp_path / "link.csv").symlink_to("old.csv")
    for out in ("old.csv", "link.csv"):
        refused(holdfast("predict", finished_run, table, "--out", out), "exists already")
    assert old.read_text() == "mine"
    assert holdfast("predict", finished_run, table, "--out", "link.csv", "--force").code == 0
    assert old.read_text().startswith("text,prediction")
    assert (tmp_path / "link.csv").is_symlink()
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("sub.csv", "is a folder"),
        ("away/p.csv", "does not exist"),
        ("t.csv/p.csv", "does not exist"),
        ("dangling.csv", "is a link to"),
        ("loop.csv", "circular link"),
        ("x" * 5000 + ".csv", "too long"),
        (".", "file type"),
        ("..", "file type"),
        ("p", "file type"),
        ("/dev/null", "file type"),
        ("full.csv", "is full"),
        ("full.jsonl", "is full"),
        ("full.parquet", "is full"),
    ],
)
def test_predict_refuses_what_cannot_be_written(
    holdfast: Any, finished_run: Path, table: Path, tmp_path: Path, out: str, said: str
) -> None:
    (tmp_path / "sub.csv").mkdir()
    (tmp_path / "dangling.csv").symlink_to("away.csv")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    for ending in ("csv", "jsonl", "parquet"):
        (tmp_path / f"full.{ending}").symlink_to("/dev/full")
    before = sorted(path.name for path in tmp_path.iterdir())
    refused(holdfast("predict", finished_run, table, "--out", out, "--force", "--quiet"), said)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_predict_writes_through_a_device(
    holdfast: Any, finished_run: Path, table: Path, tmp_path: Path, ending: str
) -> None:
    (tmp_path / f"p.{ending}").symlink_to("/dev/null")
    done = holdfast("predict", finished_run, table, "--out", f"p.{ending}")
    assert (done.code, done.out) == (0, ""), done.err
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert (tmp_path / f"p.{ending}").is_symlink()


def test_what_goes_through_a_descriptor_is_what_a_file_gets(
    holdfast: Any, finished_run: Path, table: Path, tmp_path: Path
) -> None:
    assert holdfast("predict", finished_run, table, "--out", "plain.csv").code == 0
    with (tmp_path / "all.txt").open("wb") as file:
        (tmp_path / "through.csv").symlink_to(f"/dev/fd/{file.fileno()}")
        assert holdfast("predict", finished_run, table, "--out", "through.csv").code == 0
    assert (tmp_path / "all.txt").read_bytes() == (tmp_path / "plain.csv").read_bytes()


def test_predict_refuses_the_file_that_standard_input_is(
    holdfast: Any, finished_run: Path, table: Path
) -> None:
    before = os.dup(0)
    try:
        with table.open("rb") as rows:
            os.dup2(rows.fileno(), 0)
            done = holdfast("predict", finished_run, "-", "--out", "t.csv", "--force")
    finally:
        os.dup2(before, 0)
        os.close(before)
    refused(done, "is the input")
    assert table.read_text().startswith("text\n")


# --- diagnose --html


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ("log.csv", "is the input"),
        ("link.html", "is the input"),
        ("old.html", "exists already"),
        ("away/p.html", "does not exist"),
        (".", "is a folder"),
        ("", "is a folder"),
        ("log.csv/p.html", "does not exist"),
        ("dangling.html", "is a link to"),
        ("x" * 5000, "too long"),
        ("/dev/full", "is full"),
    ],
)
def test_diagnose_refuses_what_must_not_be_written(
    holdfast: Any, log: Path, tmp_path: Path, html: str, said: str
) -> None:
    (tmp_path / "link.html").symlink_to("log.csv")
    (tmp_path / "dangling.html").symlink_to("away.html")
    (tmp_path / "old.html").write_text("mine")
    before = digest(tmp_path)
    refused(holdfast("diagnose", log, "--html", html), said)
    if said == "is the input":
        refused(holdfast("diagnose", log, "--html", html, "--force"), said)
    assert digest(tmp_path) == before


def test_diagnose_says_where_the_page_cannot_go_before_it_reads_the_log(
    holdfast: Any, tmp_path: Path
) -> None:
    refused(holdfast("diagnose", "no.csv", "--html", "away/p.html"), "away/p.html")


def test_diagnose_replaces_an_older_page_with_force_and_no_file_of_a_run(
    holdfast: Any, finished_run: Path, tmp_path: Path
) -> None:
    before = digest(finished_run)
    for name in ("report.html", "events.jsonl", "result.json"):
        page = finished_run / name
        refused(holdfast("diagnose", finished_run, "--html", page, "--force"), "is the input")
    assert digest(finished_run) == before
    for _ in range(2):
        assert holdfast("diagnose", finished_run, "--html", "p.html", "--force").code == 0
    assert (tmp_path / "p.html").read_text().startswith("<!doctype html>")


def test_diagnose_writes_through_devices_and_descriptors(
    holdfast: Any, log: Path, tmp_path: Path
) -> None:
    assert holdfast("diagnose", log, "--html", "/dev/null").code == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert holdfast("diagnose", log, "--html", "p.html").code == 0
    with (tmp_path / "all.html").open("wb") as file:
        assert holdfast("diagnose", log, "--html", f"/dev/fd/{file.fileno()}").code == 0
    assert (tmp_path / "all.html").read_bytes() == (tmp_path / "p.html").read_bytes()


# --- report


def test_report_follows_no_link_in_a_run(holdfast: Any, finished_run: Path, tmp_path: Path) -> None:
    """A run that somebody sent may point anywhere."""
    import shutil

    run, theirs = tmp_path / "run", tmp_path / "theirs.txt"
    shutil.copytree(finished_run, run)
    theirs.write_text("mine")
    (run / ".report.html.partial").symlink_to(theirs)
    assert holdfast("report", run).code == 0
    (run / "report.html").unlink()
    (run / "report.html").symlink_to(theirs)
    refused(holdfast("report", run), "is a link")
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    refused(holdfast("report", run), "report.html")
    assert theirs.read_text() == "mine"


def test_a_run_does_not_begin_in_another_runs_model(
    holdfast: Any, finished_run: Path, marked_csv: Path, sets: list[str]
) -> None:
    before = sorted(finished_run.rglob("*"))
    done = holdfast("train", marked_csv, "--out", finished_run / "model" / "new", *sets)
    assert done.code == 2
    assert "model folder of the run" in done.err
    assert sorted(finished_run.rglob("*")) == before
