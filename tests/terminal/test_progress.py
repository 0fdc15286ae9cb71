"""The lines of a run as it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.core.records import Verdict
from holdfast.terminal.progress import ProgressLine, RunDisplay


def labels(
    show: RunDisplay, capsys: pytest.CaptureFixture[str], verdicts: Sequence[str]
) -> list[str]:
    """What is printed of the verdicts of these evaluations."""
    for label in verdicts:
        run: Any = SimpleNamespace(
            step=10, verdict=Verdict(label, "A reason.", 0.9), history=[1, 2]
        )
        show._report_verdict(run)
    told = capsys.readouterr().err.splitlines()
    return [line.split(":")[0].strip() for line in told]


def test_a_verdict_that_comes_and_goes_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """With 24 validation rows a run was memorizing, inconclusive, memorizing, inconclusive."""
    changing = ["learning", "inconclusive", "memorizing", "inconclusive", "memorizing", "learning"]
    assert labels(RunDisplay(quiet=False), capsys, changing) == []
    held = [label for label in changing[2:] for _ in range(2)]
    every = ["Memorizing", "Inconclusive", "Memorizing", "Still learning"]
    assert labels(RunDisplay(quiet=False), capsys, held) == every
    assert labels(RunDisplay(quiet=False, verbose=True), capsys, changing[2:]) == every


def test_the_last_of_many_fits_shows_no_verdict_that_changes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Memorizing, learning, memorizing, while the score rises, reads as a contradiction: of a
    search a trial is one line, and the verdict stands at the end."""
    changing = ["memorizing", "memorizing", "learning", "learning"]
    every = ["Memorizing", "Still learning"]
    assert labels(RunDisplay(quiet=False), capsys, changing) == every
    assert labels(RunDisplay(quiet=False, verdicts=False), capsys, changing) == []
    assert labels(RunDisplay(quiet=False, verbose=True, verdicts=False), capsys, changing) == every


def test_the_time_left_begins_again_with_each_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("holdfast.terminal.progress.time.monotonic", lambda: clock.now)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    line = ProgressLine(quiet=False)
    for fit in range(2):
        # The second fit is twice as slow.
        for done in range(1, 5):
            line("updates of this fit", done, 10)
            clock.now += 1 + fit
    shown = capsys.readouterr().err.split("\r\x1b[K")[1:]
    first, second = shown[:4], shown[4:]
    assert first[0] == second[0] == "  updates of this fit 1 of 10 …"
    assert first[3] == "  updates of this fit 4 of 10, 6 s left …"
    assert second[3] == "  updates of this fit 4 of 10, 12 s left …"
