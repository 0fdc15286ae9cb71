"""The table of what holds out of domain says what was measured and no more."""

from __future__ import annotations

from typing import Any

import pytest


def result(**changed: float | bool) -> dict[str, Any]:
    names = ("last", "kept", "lowest", "start", "ema", "swa", "soup", "wise", "wise, start")
    found: dict[str, Any] = {f"{name}/{side}": 0.7 for name in names for side in ("in", "out")}
    found |= {f"{share}/{side}": 0.6 for share in ("0.4", "0.7", "1.3") for side in ("in", "out")}
    return {**found, **changed}


def test_an_average_that_the_run_would_not_keep_stands_for_what_it_keeps() -> None:
    from shift import arms

    given = {"ema/out": 0.9, "wise/out": 0.8, "wise/taken": True, "ema/taken": False}
    found = arms(result(**given), "default")
    assert found["default: wise"] == {"in": 0.7, "out": 0.8}
    assert found["default: ema"] == {"in": 0.7, "out": 0.7}
    # Nothing leads back to a head that was drawn at random.
    assert not any("wise" in name or "way" in name for name in arms(result(), "plain"))


def test_differences_are_those_of_the_same_rows_and_what_is_missing_is_not_run() -> None:
    from shift import section

    def cell(shift: str, seed: int, run: str) -> dict[str, Any]:
        return {"shift": shift, "seed": seed, "model": "minilm", "run": run}

    todo = [cell("cr to mr", s, run) for s in (0, 1) for run in ("plain", "default")]
    better = [{"kept/in": 0.75, "kept/out": 0.8}, {"kept/in": 0.73, "kept/out": 0.74}]
    results = [result(), result(**better[0]), result(), result(**better[1])]
    # A run whose plain twin is missing is in no difference.
    text = section([*todo, cell("mr to cr", 0, "default")], [*results, result()])
    (line,) = [one for one in text.splitlines() if one.startswith("| default: kept |")]
    fields = [field.strip() for field in line.split("|")[2:-1]]
    assert fields[0].startswith("+4.0 ± ")
    assert fields[1].startswith("+7.0 ± ")
    assert fields[2:6] == ["not run"] * 4
    assert "cr to mr 2, mr to cr 0, ai_text 0" in text


@pytest.mark.parametrize("model", ["minilm", "upper"])
def test_every_run_has_a_plain_one_on_its_rows(model: str) -> None:
    from shift import PLAIN, cells

    mine = [cell for cell in cells() if cell["model"] == model]
    assert mine
    for cell in mine:
        assert {**cell, "run": PLAIN} in mine
