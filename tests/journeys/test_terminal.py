"""What a person or a script sees: exit codes, streams, 80 columns, a terminal, a pipe."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

HOLDFAST = Path(sys.executable).parent / "holdfast"


@pytest.mark.slow
def test_json_is_one_document_and_nothing_else(
    holdfast: Any, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    done = holdfast("train", marked_csv, "--out", "run", "--json", *sets)
    assert done.code == 0, done.err
    assert json.loads(done.out) == json.loads((tmp_path / "run" / "result.json").read_text())
    assert "step " in done.err, "progress goes to standard error"
    assert "\x1b" not in done.out + done.err
    assert "\r" not in done.out + done.err


@pytest.mark.slow
def test_quiet_says_the_result_alone(
    holdfast: Any, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    done = holdfast("train", marked_csv, "--out", "run", "--quiet", *sets)
    assert (done.code, done.err) == (0, "")
    assert "  Verdict   " in done.out
    assert str(Path("run") / "report.html") in done.out


@pytest.mark.slow
def test_little_is_said_before_the_first_step_and_nothing_is_lost(
    holdfast: Any, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    """Five to eight lines, in the order of the work; every decision stands in the run."""
    done = holdfast("train", marked_csv, "--out", "run", *sets)
    assert done.code == 0, done.err
    before = done.err.partition("train  validation (calibrated")[0].splitlines()[:-1]
    assert 5 <= len(before) <= 8, done.err
    names = [line.split()[0] for line in before if line.startswith("  ") and line[2] != " "]
    assert names[:4] == ["Rows", "Split", "Model", "Plan"]
    assert names[-1] == "Time"
    assert "training 112, validation 24, test 24" in done.err
    text = (tmp_path / "run" / "events.jsonl").read_text("utf-8")
    events = [json.loads(line) for line in text.splitlines()]
    noted = {event["what"]: event["because"] for event in events if event["event"] == "note"}
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    made = {d["what"]: d["because"] for d in result["decisions"]}
    assert {"text column", "split", "train.threads", "temperature", "baseline"} <= set(made)
    assert {what: noted.get(what) for what in made} == made
    report = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert [what for what in made if what not in report] == []
    again = holdfast("train", marked_csv, "--out", "told", "--verbose", *sets)
    told = " ".join(again.err.split())
    before_scoring = set(made) - {"temperature", "baseline", "best checkpoint"}
    assert [what for what in before_scoring if what not in told] == []
    assert len(again.err.splitlines()) > len(done.err.splitlines()) + 20


@pytest.mark.slow
def test_a_look_shows_raw_and_tempered_loss_and_what_is_right(
    holdfast: Any, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    """The numbers of a line are those of ``events.jsonl``, under their names."""
    done = holdfast("train", marked_csv, "--out", "run", *sets)
    looks = [
        line
        for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()
        if '"event": "snapshot"' in line
    ]
    last = json.loads(looks[-1])
    shown = [line for line in done.err.splitlines() if line.strip().startswith(f"{last['step']}/")]
    numbers = [f"{last[name]:.3f}" for name in ("train_loss", "valid_loss", "refined_loss")]
    assert shown[-1].split()[1:5] == [*numbers, f"{100 * last['valid_metrics']['accuracy']:.1f}"]


def test_quiet_and_verbose_exclude_each_other(holdfast: Any, marked_csv: Path) -> None:
    done = holdfast("train", marked_csv, "--quiet", "--verbose")
    assert done.code == 2
    assert "exclude each other" in done.err


@pytest.mark.slow
def test_no_line_is_longer_than_80_columns(
    holdfast: Any,
    marked_rows: Any,
    write_csv: Any,
    sets: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows with something to find, and long class names; paths alone may be longer."""
    monkeypatch.setenv("COLUMNS", "80")
    names = ("a class with quite a long name", "another class, its name long too", "z")
    rows = marked_rows(150, names)
    write_csv(tmp_path / "rows.csv", [*rows, *rows[:12], ("", "z"), ("some text", "")])
    for command in (
        ["train", "rows.csv", "--out", "r", *sets],
        ["train", "rows.csv", "--dry-run", *sets],
        ["evaluate", "r", "rows.csv"],
        ["train", "missing.csv"],
    ):
        done = holdfast(*command)
        assert done.code == (2 if "missing.csv" in command else 0), done.err
        long = [line for line in (done.out + done.err).splitlines() if len(line) > 80]
        assert [line for line in long if "/" not in line] == []


@pytest.mark.slow
def test_a_verdict_that_was_feared_exits_with_three_and_whole_files(
    holdfast: Any, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    every = [
        part
        for label in ("learning", "healthy", "underfit", "overfit", "inconclusive", "diverging")
        for part in ("--fail-on", label)
    ]
    done = holdfast("train", marked_csv, "--out", "run", "--quiet", *sets, *every)
    assert (done.code, done.err) == (3, "")
    assert (tmp_path / "run" / "report.html").is_file()
    assert not (tmp_path / "run" / "checkpoints").exists()
    calm = holdfast("train", marked_csv, "--out", "b", "--quiet", *sets, "--fail-on", "leaking")
    assert calm.code == 0


def test_a_dry_run_writes_nothing(
    holdfast: Any, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    done = holdfast("train", marked_csv, "--dry-run", "--json", *sets)
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert plan["division"] == {"train": 112, "valid": 24, "test": 24}
    assert plan["evaluate_at"][0] == 0
    assert plan["parameters"]["trainable"] < plan["parameters"]["total"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_default_folder_counts_up_and_resume_takes_the_last(
    holdfast: Any, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    for _ in range(2):
        assert holdfast("train", marked_csv, "--quiet", *sets).code == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["reviews-1", "reviews-2"]
    again = holdfast("train", marked_csv, "--quiet", *sets, "--resume")
    assert again.code == 0
    assert "reviews-2" in again.out
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_help_needs_no_colour_and_names_every_command(shell: Any, tmp_path: Path) -> None:
    done = shell("--help", cwd=tmp_path, COLUMNS="80")
    assert done.code == 0
    for name in ("train", "evaluate", "predict", "report", "demo"):
        assert name in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_every_command_has_examples_that_parse(shell: Any, tmp_path: Path) -> None:
    """The examples of ``--help`` name only options that the command has."""
    from holdfast.cli.main import app

    for command in app.registered_commands:
        done = shell(command.name, "--help", cwd=tmp_path, COLUMNS="80")
        assert max(map(len, done.out.splitlines())) <= 80
        options, _, examples = done.out.partition("Examples:")
        lines = [line.strip() for line in examples.splitlines() if line.strip()]
        assert lines, f"no example for {command.name}"
        for line in lines:
            assert f"holdfast {command.name}" in line
            used = re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", line)
            assert [option for option in used if f"{option} " not in options] == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["train", "a.csv", "--lable", "x"], "--label"),
        (["train", "a.csv", "--epochs", "5"], "--set train.epochs=…"),
        (["train", "a.csv", "--task", "text-clasification"], "'text-classification'"),
        (["trian", "a.csv"], "'train'"),
        (["reviews.csv"], "holdfast train reviews.csv"),
    ],
)
def test_what_was_mistyped_names_what_was_meant(
    holdfast: Any, typed: list[str], meant: str
) -> None:
    done = holdfast(*typed)
    assert (done.code, meant in done.err) == (2, True), done.err


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error(
    finished_run: Path, marked_rows: Any, tmp_path: Path
) -> None:
    """``holdfast predict RUN - | head -n 1`` with more output than a pipe holds."""
    texts = "\n".join(text for text, _ in marked_rows(100)) + "\n"
    (tmp_path / "texts.txt").write_text(texts * 20)
    command = f"set -o pipefail; {HOLDFAST} predict {finished_run} - < texts.txt | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert json.loads(done.stdout)["row"] == 0
    assert done.returncode == 0


# Takes its standard error for the terminal of its session, then becomes the command.
AT_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def in_a_terminal(
    command: list[str], folder: Path, columns: int, interrupt: bytes | None = None
) -> tuple[int, str]:
    """Run a command with a terminal of this width; type Ctrl-C once ``interrupt`` is seen."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", AT_TERMINAL, *command],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    seen, end = b"", time.monotonic() + 100
    while time.monotonic() < end:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                chunk = os.read(ours, 65536)
            except OSError:
                break
            if not chunk:
                break
            seen += chunk
            if interrupt and interrupt in seen:
                os.write(ours, b"\x03")
                interrupt = None
        elif process.poll() is not None:
            break
    os.close(ours)
    return process.wait(timeout=100), seen.decode("utf-8", "replace")


@pytest.mark.slow
def test_on_a_terminal_a_bar_runs_and_ctrl_c_stops_it_cleanly(
    marked_csv: Path, sets: list[str], tmp_path: Path, holdfast: Any
) -> None:
    command = [
        str(HOLDFAST),
        "train",
        str(marked_csv),
        "--out",
        "run",
        *sets,
        "--set",
        "train.epochs=300",
        "--set",
        "control.policy=off",
        "--set",
        "methods.contrast=false",
    ]
    code, seen = in_a_terminal(command, tmp_path, 80, interrupt=b"rows/s")
    assert code == 130, seen
    assert "loss " in seen, "no bar"
    assert seen.count("\x1b[?25h") >= seen.count("\x1b[?25l") > 0, "the cursor must come back"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert "Traceback" not in plain
    assert "was interrupted at step" in plain
    assert "--resume" in plain
    assert max(len(line) for line in re.split(r"[\r\n]+", plain) if "/" not in line) <= 80
    run = tmp_path / "run"
    assert list((run / "checkpoints").glob("step-*.pt"))
    assert not (run / "result.json").exists()
    assert holdfast("report", run).code == 2
    assert holdfast("predict", run, marked_csv).code == 2


@pytest.mark.slow
def test_on_a_terminal_the_outline_the_curves_and_the_answer_stay(
    marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    command = [str(HOLDFAST), "train", str(marked_csv), "--out", "run", *sets]
    code, seen = in_a_terminal(command, tmp_path, 80)
    assert code == 0, seen
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    plain = shown.replace("\r", "")
    right = re.search(r"ccuracy [\d.]+ % \(95 % CI", plain)
    assert right is not None
    before = ("  Rows  ", "  Plan  ", "  Time  ", "validation loss  ", " calibrated loss")
    after = ("validation accuracy", right[0], "  Verdict   ", "Report  ")
    at = [plain.rfind(part) for part in (*before, *after)]
    assert -1 not in at
    assert at == sorted(at)
    assert max(len(line) for line in re.split(r"[\r\n]+", shown) if "/" not in line) <= 80


@pytest.mark.slow
def test_sigterm_outside_the_loop_is_an_interrupt_too(
    holdfast: Any,
    marked_csv: Path,
    sets: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import holdfast.pipeline.main as pipeline

    def terminate(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "score_once", terminate)
        done = holdfast("train", marked_csv, "--out", "run", "--quiet", *sets)
    assert done.code == 130, done.err
    assert "--resume" in done.err
    assert not (tmp_path / "run" / "result.json").exists()
    again = holdfast("train", marked_csv, "--out", "run", "--quiet", "--resume")
    assert again.code == 0, again.err
    assert (tmp_path / "run" / "result.json").is_file()


def test_sigterm_before_anything_is_written_leaves_nothing(
    holdfast: Any,
    marked_csv: Path,
    sets: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import holdfast.pipeline.main as pipeline

    monkeypatch.setattr(
        pipeline, "load_and_divide", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
    )
    done = holdfast("train", marked_csv, "--out", "run", "--quiet", *sets)
    assert done.code == 130
    assert "before anything was written" in done.err
    assert list(tmp_path.iterdir()) == []
