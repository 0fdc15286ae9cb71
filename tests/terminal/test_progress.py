"""The lines of a run as it goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.core.records import Verdict
from holdfast.terminal.progress import RunDisplay


def labels(show: RunDisplay, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is printed of the verdicts of three evaluations, of which each has another label."""
    for label in ("memorizing", "learning", "memorizing"):
        run: Any = SimpleNamespace(
            step=10, verdict=Verdict(label, "A reason.", 0.9), history=[1, 2]
        )
        show._report_verdict(run)
    told = capsys.readouterr().err.splitlines()
    return [line.split(":")[0].strip() for line in told]


def test_the_last_of_many_fits_shows_no_verdict_that_changes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Memorizing, learning, memorizing, while the score rises, reads as a contradiction: of a
    search a trial is one line, and the verdict stands at the end."""
    every = ["Memorizing", "Still learning", "Memorizing"]
    assert labels(RunDisplay(quiet=False), capsys) == every
    assert labels(RunDisplay(quiet=False, verdicts=False), capsys) == []
    assert labels(RunDisplay(quiet=False, verbose=True, verdicts=False), capsys) == every
