"""What Python's prompt shows of the public objects, and the page that a run opens."""

from __future__ import annotations

import shutil
import webbrowser
from pathlib import Path
from typing import Any

import pytest

import holdfast


@pytest.fixture(scope="module")
def objects(
    finished_run: Path, marked_csv: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    # ``drift`` leaves its reference in the folder.
    folder = tmp_path_factory.mktemp("prompt") / "run"
    shutil.copytree(finished_run, folder)
    run = holdfast.TrainedRun(folder)
    return {
        "TrainedRun": run,
        "Verdict": holdfast.diagnose(folder),
        "Comparison": holdfast.compare(run, run),
        "Audit": holdfast.audit(marked_csv),
        "Explanation": holdfast.explain(run, ["a good one"]),
        "Drifted": holdfast.drift(run, marked_csv),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["TrainedRun", "Verdict", "Comparison", "Audit", "Explanation", "Drifted"]
)
def test_an_object_shows_itself_in_a_few_lines(objects: dict[str, Any], name: str) -> None:
    shown = repr(objects[name])
    assert shown.startswith(f"{name}(")
    assert 1 <= len(shown.splitlines()) <= 5
    assert len(shown) < 500


def test_a_run_says_its_score_and_its_verdict(objects: dict[str, Any]) -> None:
    run = objects["TrainedRun"]
    assert f"verdict {run.verdict['label']}" in repr(run)
    assert "ccuracy " in repr(run)
    assert "is not a folder" in repr(holdfast.TrainedRun("nowhere"))


def test_the_page_of_a_run_is_there_and_opens(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    (copy / "report.html").unlink()
    page = holdfast.TrainedRun(copy).report()
    assert page == copy / "report.html"
    assert page.read_bytes() == (finished_run / "report.html").read_bytes()
    assert not opened
    holdfast.TrainedRun(copy).report(show=True)
    assert opened == [page.as_uri()]
