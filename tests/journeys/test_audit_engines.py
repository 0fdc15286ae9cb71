"""An audit on a local Ray, and one that lists loose copies: the same to the row as here."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.duplicates import hashed_bags


def reworded(text: str, share: float, words: Sequence[str], rng: random.Random) -> str:
    split = text.split()
    for at in rng.sample(range(len(split)), int(share * len(split))):
        split[at] = rng.choice(words)
    return " ".join(split)


@pytest.mark.slow
def test_audit_on_ray_says_what_it_says_here(
    holdfast: Any,
    real_texts: Any,
    write_csv: Any,
    tmp_path: Path,
    alter: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = pytest.importorskip("ray")
    # Several blocks and passes, as a table of millions has them.
    monkeypatch.setattr(hashed_bags, "BLOCK_TEXTS", 100)
    monkeypatch.setattr(hashed_bags, "ENTRIES_PER_PART", 1000)
    texts, labels = real_texts("mr/mr.csv")
    texts = [text for text in texts if len(text.split()) >= 10][:200]
    rng, words = random.Random(1), " ".join(texts).split()
    near = [alter(text, words, rng) for text in texts[:30]]
    loose = [reworded(text, 0.3, words, rng) for text in texts[30:60]]
    rows = list(zip([*texts, *near, *loose], labels, strict=False))
    source = write_csv(tmp_path / "a.csv", rows)
    other = write_csv(tmp_path / "b.csv", [(text.upper(), "x") for text in texts[100:110]])

    def audit(*more: str) -> dict[str, Any]:
        asked = ("--against", other, "--set", "audit.rows=0", "--set", "audit.loose=0.3", "--json")
        done = holdfast("audit", source, *asked, *more)
        assert done.code == 0, done.err
        found: dict[str, Any] = json.loads(done.out)
        return found

    here = audit()
    assert len(here["duplicate_groups"]) >= 30
    assert {leak["row"] for leak in here["leaks"]} >= set(range(100, 110))
    (finding,) = [f for f in here["findings"] if f["check"] == "loose_copies"]
    assert len({*range(30, 60), *range(230, 260)} & set(finding["rows"])) >= 48
    assert "at most 30 % of the words" in finding["because"]
    try:
        there = audit("--engine", "ray")
        # Which checks looked, and the seconds that each took.
        assert set(there.pop("looked_at")) == set(here.pop("looked_at"))
        assert there == here
    finally:
        ray.shutdown()


def test_an_engine_that_does_not_exist_is_refused(holdfast: Any, marked_csv: Path) -> None:
    done = holdfast("audit", marked_csv, "--engine", "spark")
    assert done.code == 2
    assert "local" in done.err
    assert "ray" in done.err
