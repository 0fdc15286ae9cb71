"""Two processes and one run: one goes on undisturbed, the other is told which one does."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.lock import LOCK_FILE

# Runs that stop at their third step until they are told to go on, so that nothing hangs on time.
CODE = """
import fcntl, sys, termios
fcntl.ioctl(2, termios.TIOCSCTTY, 0)
import holdfast.pipeline.main as main
from holdfast.terminal.progress import RunDisplay
from holdfast.core.errors import Interrupted
from holdfast.recipe import Recipe, override

class Wait:
    name = "wait"
    def gradients_ready(self, run):
        if run.step == 2:
            print("here", file=sys.__stdout__, flush=True)
            sys.stdin.readline()

for name in ("first", "second", "third"):
    show = RunDisplay(False)
    try:
        main.train(override(Recipe(), sys.argv[1:]), main.Path(name),
                   listeners=[Wait(), show], checkpoint_every_s=0.0)
    except Interrupted:
        print("saved", file=sys.__stdout__, flush=True)
    finally:
        show.close()
"""


class Begun:
    """A process with a live run in ``first``, whose words go to a terminal of its own."""

    def __init__(self, folder: Path, settings: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, *settings],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            start_new_session=True,
        )
        os.close(theirs)
        self.seen, self._closed = b"", threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while not self._closed.is_set():
            if select.select([self._ours], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self._ours, 65536)
                except OSError:
                    return

    def wait_for(self, line: str) -> None:
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said == f"{line}\n", self.seen.decode("utf-8", "replace")

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def close_terminal(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            self._reader.join()
            os.close(self._ours)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.close_terminal()


@pytest.fixture
def begun(marked_csv: Path, quick: list[str], tmp_path: Path) -> Iterator[Begun]:
    run = Begun(tmp_path, [f"data.path={marked_csv}", *quick])
    yield run
    run.kill()


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_a_live_run_is_left_alone_until_it_ends_or_its_terminal_closes_or_it_is_killed(
    holdfast: Any, begun: Begun, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    """One test, so that one process is enough."""
    begun.wait_for("here")
    before = files(tmp_path / "first")
    held = rf"is being written by process {begun.process.pid} since 20\d\d-"
    for command in (
        ("train", marked_csv, "--out", "first", *sets),
        ("train", marked_csv, "--out", "first/."),
        ("train", marked_csv, "--out", "first", "--resume"),
        ("demo", "--out", "first"),
        ("report", "first"),
        ("evaluate", "first", marked_csv),
        ("predict", "first", marked_csv),
    ):
        done = holdfast(*command)
        assert done.code == 2, (command, done.err)
        assert re.search(held, done.err), (command, done.err)
        assert "--resume" in done.err
    assert files(tmp_path / "first") == before
    begun.go_on()
    begun.wait_for("here")
    whole(tmp_path / "first")
    assert holdfast("train", marked_csv, "--out", "second", "--resume").code == 2
    # The terminal closes: SIGHUP, and what is printed from here on would be an error.
    begun.close_terminal()
    begun.go_on()
    begun.wait_for("saved")
    begun.wait_for("here")
    assert not (tmp_path / "second" / LOCK_FILE).exists()
    begun.kill()
    assert (tmp_path / "third" / LOCK_FILE).exists()
    for name in ("second", "third"):
        assert list((tmp_path / name / "checkpoints").glob("step-*.pt"))
        assert not (tmp_path / name / "result.json").exists()
        again = holdfast("train", marked_csv, "--out", name, "--resume", "--quiet")
        assert again.code == 0, again.err
        whole(tmp_path / name)


def whole(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["event"] == "snapshot"]
    assert steps == sorted(set(steps))
    assert steps[-1] == result["last_step"]
    assert not (run / LOCK_FILE).exists()


@pytest.mark.slow
def test_two_threads_of_one_program_cannot_make_one_run(
    marked_csv: Path, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import holdfast
    import holdfast.pipeline.main as pipeline
    from holdfast.core.errors import RunError

    """Threads train one after another: the second finds the finished run."""
    load, said, threads = pipeline.load_and_divide, [], []

    def meet(*arguments: Any, **named: Any) -> Any:
        threads.append(threading.Thread(target=second, daemon=True))
        threads[0].start()
        return load(*arguments, **named)

    def second() -> None:
        with pytest.raises(RunError) as caught:
            holdfast.train(str(marked_csv), out=tmp_path / "run", settings=quick, quiet=True)
        said.append(caught.value.rule)

    monkeypatch.setattr(pipeline, "load_and_divide", meet)
    made = holdfast.train(str(marked_csv), out=tmp_path / "run", settings=quick, quiet=True)
    threads[0].join(300)
    assert said == ["is not empty, and Holdfast never overwrites a run"]
    assert made.result["test"]["n"] == 24


@pytest.mark.slow
def test_two_runs_that_start_together_without_out_get_two_folders(
    holdfast: Any,
    marked_csv: Path,
    sets: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second chooses its folder before the first has written anything into its own."""
    import holdfast.contract.run_folder as folder

    default, chosen = folder.default_folder, []

    def late(source: str, resume: bool) -> Path:
        found = default(source, resume)
        if not chosen:
            # Between the choice and the making another process makes the same folder.
            found.mkdir(parents=True)
        chosen.append(found.name)
        return found

    monkeypatch.setattr(folder, "default_folder", late)
    assert holdfast("train", marked_csv, "--quiet", *sets).code == 0
    assert chosen == ["reviews-1", "reviews-2"]
    assert list((tmp_path / "runs" / "reviews-1").iterdir()) == []
    assert (tmp_path / "runs" / "reviews-2" / "result.json").is_file()


# --- where a run may go


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("file", "is a file"),
        ("file/run", "not a directory"),
        ("dangling", "is a link to away"),
        ("loop", "loop"),
        ("to-file", "is a file"),
        ("x" * 5000, "too long"),
        ("full", "is not empty"),
        (".", "is not empty"),
        ("/proc/run", "could not be written"),
        ("/dev/null", "is a file"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_run_goes_nowhere_else(
    holdfast: Any, marked_csv: Path, tmp_path: Path, out: str, said: str, resume: bool
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("away")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to-file").symlink_to("file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    before = sorted(map(str, tmp_path.rglob("*")))
    for command in (("train", marked_csv), ("demo",)):
        done = holdfast(*command, "--out", out, *(["--resume"] if resume else []))
        assert done.code == 2, done.err
        assert "Traceback" not in done.err
        if not resume:
            assert said in done.err
    assert sorted(map(str, tmp_path.rglob("*"))) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_a_link_to_an_empty_folder_is_that_folder(
    holdfast: Any, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    assert holdfast("train", marked_csv, "--out", "link", "--quiet", *sets).code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "result.json").is_file()


def test_a_path_with_a_nul_is_refused_at_the_python_door(marked_csv: Path, tmp_path: Path) -> None:
    import holdfast
    from holdfast.core.errors import RunError

    for resume in (False, True):
        with pytest.raises(RunError, match="NUL"):
            holdfast.train(str(marked_csv), out=tmp_path / "a\0b", resume=resume, quiet=True)
    with pytest.raises(RunError, match="not a folder"):
        _ = holdfast.TrainedRun(tmp_path / "a\0b").result
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", ["closed", "closed/run", "shut/run", "shut", "shut/deep/run"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_takes_nothing_is_told_at_once(as_nobody: Any, at: str, resume: bool) -> None:
    from holdfast.core.errors import HoldfastError
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    def prepare(folder: Path) -> None:
        for name, mode in (("closed", 0o555), ("shut", 0o000)):
            (folder / name).mkdir()
            (folder / name).chmod(mode)

    def act(folder: Path) -> list[object]:
        try:
            # There is no such file: the folder is refused before the rows are looked for.
            train(override(Recipe(), ["data.path=/no.csv"]), folder / at, resume=resume)
        except HoldfastError as error:
            return [error.exit_code, str(error)]
        return [0, ""]

    code, said = as_nobody(prepare, act)
    assert code == 2
    assert "could not be written" in said or (resume and "no run to resume" in said)
    assert "no.csv" not in said


def test_a_run_that_somebody_sent_is_not_continued_through_its_links(
    holdfast: Any, tmp_path: Path
) -> None:
    run, theirs = tmp_path / "run", tmp_path / "theirs"
    run.mkdir()
    theirs.mkdir()
    (theirs / "step-00000001.pt").write_text("mine")
    (theirs / "mine.txt").write_text("mine")
    (run / "recipe.yaml").write_text("data:\n  path: rows.csv\n")
    (tmp_path / "rows.csv").touch()
    for name, to in (("checkpoints", theirs), ("events.jsonl", theirs / "mine.txt")):
        (run / name).symlink_to(to)
        done = holdfast("train", "rows.csv", "--out", "run", "--resume")
        assert done.code == 2
        assert f"{name}: is a link" in done.err
        (run / name).unlink()
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "folds").symlink_to(theirs)
    done = holdfast("train", "rows.csv", "--out", "run", "--resume")
    assert done.code == 2
    assert "folds: is a link" in done.err
    (run / "checkpoints" / "folds").unlink()
    (run / LOCK_FILE).symlink_to(theirs / "mine.txt")
    assert holdfast("train", "rows.csv", "--out", "run", "--resume").code == 2
    assert {path.read_text() for path in theirs.iterdir()} == {"mine"}
    assert len(list(theirs.iterdir())) == 2
