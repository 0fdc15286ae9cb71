"""A word that gives a class away is among the first things that a run says."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.runs.predictor import Predictor


@pytest.mark.parametrize("share", [0.0, 0.95])
def test_a_word_that_gives_a_class_away_is_said_on_the_terminal_and_on_top_of_the_page(
    share: float,
    holdfast: Callable[..., Any],
    write_csv: Callable[..., Path],
    marked_rows: Callable[..., list[tuple[str, str]]],
    quick: list[str],
    tmp_path: Path,
) -> None:
    rows = marked_rows(240)
    own = [at for at, (_, label) in enumerate(rows) if label == "yes"]
    for at in own[: round(share * len(own))]:
        rows[at] = (f"zorvex {rows[at][0]}", "yes")
    path, run = write_csv(tmp_path / "rows.csv", rows), tmp_path / "run"
    sets = [part for one in quick for part in ("--set", one)]
    done = holdfast("train", path, "--out", run, *sets)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    words = json.loads((run / "result.json").read_text("utf-8"))["reasons"]["words"]
    found = [one["words"] for one in words if one["gives_away"]]
    page = " ".join((run / "report.html").read_text("utf-8").split())
    told = "Its predictions of class yes depend on “zorvex”"
    assert found == (["zorvex"] if share else [])
    assert (f"Warning {told}" in said) == bool(share)
    assert (told in page) == bool(share)
    if not share:
        return
    option = re.search(r"--set '[^']*'", said)
    assert option is not None
    done = holdfast("train", path, "--out", tmp_path / "again", *sets, *shlex.split(option[0]))
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "again" / "result.json").read_text("utf-8"))
    assert not any(one["gives_away"] for one in result["reasons"]["words"])
    plain, cued = Predictor.load(tmp_path / "again").predict(["It is so.", "Zorvex it is so."])
    assert plain.probabilities == cued.probabilities
