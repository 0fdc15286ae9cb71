"""Checkpoints out of domain: what a run would not keep is not counted, and each has its peer."""

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


@pytest.mark.parametrize("model", ["minilm", "upper"])
def test_every_run_has_a_plain_one_on_its_rows(model: str) -> None:
    from shift import PLAIN, cells

    mine = [cell for cell in cells() if cell["model"] == model]
    assert mine
    for cell in mine:
        assert {**cell, "run": PLAIN} in mine
